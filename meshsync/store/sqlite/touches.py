"""Which entries touch a document, in SQLite: the index beside the documents, and making it anew from the entries."""

# ruff: noqa: S608 -- what is put into a statement is the number of a collection, which a store gave out itself.

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import apsw

from meshsync.core import cbor
from meshsync.core.bare import description, is_marked
from meshsync.core.entry import document_tag
from meshsync.core.limits import INT_MAX
from meshsync.ids import CollectionId
from meshsync.store.rows import EntryRow, Touch
from meshsync.store.sqlite.database import Database, run
from meshsync.store.sqlite.late_touches import LateTouches
from meshsync.store.wholeness import touches_of

WAITING_MAX = 32_768
"""Rows of all collections together, of some 250 bytes each in memory.  Beyond, they are written of the collection first
to which nothing has come for the longest time."""
_PAGE = 256
"""Entries that are read at once to make the index anew: with payloads of the greatest size, 64 MiB."""


_LET_GO = (
    "INSERT INTO gone_{n} VALUES (?, ?, ?) ON CONFLICT (tag) DO UPDATE SET hlc = excluded.hlc, "
    "arrival = excluded.arrival WHERE (excluded.hlc, excluded.arrival) > (hlc, arrival)"
)


class SqliteTouches:
    """Implements `DocumentTouches`."""

    def __init__(
        self,
        database: Database,
        number: int,
        changed: Callable[[], None],
        lacking: Callable[[int], Iterable[EntryRow]],
        all_touches: dict[SqliteTouches, None],
    ) -> None:
        """`changed` is called before `unwritten_from` changes; the store then keeps that, and calls `committed` or
        `rolled_back`.  `lacking` reads the entries that lack their payloads from an arrival on.  `all_touches`: those
        of all collections of the store, the one to which something came last at the end.
        """
        self._all = all_touches
        self._database = database
        self._number = number
        self._changed = changed
        self._lacking = lacking
        self._late: LateTouches | None = None
        """None: what waits has to be read from the entries, from `_unread_from` on."""
        self._unread_from: int | None = None
        """`unwritten_from` after the last transaction."""
        self._insert = f"INSERT OR IGNORE INTO touches_{number} VALUES (?, ?, ?)"
        self._delete = f"DELETE FROM touches_{number} WHERE tag = ? AND hlc = ? AND arrival = ?"
        self._let_go = _LET_GO.format(n=number)
        self._gone = f"SELECT hlc, arrival FROM gone_{number} WHERE tag = ?"
        self._noted = (
            "SELECT wanted.value FROM carray(?) AS wanted "
            f"WHERE EXISTS (SELECT 1 FROM touches_{number} WHERE tag = wanted.value)"
        )
        self._forget_gone = f"DELETE FROM gone_{number}"
        page = f"SELECT hlc, arrival FROM touches_{number} WHERE tag = ? AND (hlc, arrival)"
        self._forwards = f"{page} > (?, ?) ORDER BY hlc, arrival LIMIT ?"
        self._backwards = f"{page} < (?, ?) ORDER BY hlc DESC, arrival DESC LIMIT ?"

    # What waits to be written

    @property
    def unwritten_from(self) -> int | None:
        """From this arrival on, touches of entries that lack their payloads may have to be written; None: nowhere."""
        return self._unread_from if self._late is None else self._late.first

    def load(self, unwritten_from: int | None) -> None:
        """Take over what was kept."""
        self._unread_from = unwritten_from
        self._late = None

    def committed(self) -> None:
        """The transaction is over."""
        self._unread_from = self.unwritten_from

    def rolled_back(self) -> None:
        """The transaction never was."""
        self._late = None

    def _waiting(self) -> LateTouches:
        # Not read before it is needed: a store with a damaged page has to open, or it could not be mended.
        if self._late is None:
            first = self._unread_from
            self._late = LateTouches(() if first is None else touches_of(self._lacking(first)))
        return self._late

    # What is noted

    def add(self, touches: Sequence[tuple[bytes, int, int]]) -> None:
        self._database.write_many(self._insert, touches)

    def add_lacking(self, touches: Sequence[tuple[bytes, int, int]]) -> None:
        self._changed()
        self._all.pop(self, None)
        self._all[self] = None
        if due := self._waiting().add(touches):
            self._database.write_many(self._insert, due)
        while sum([one.waiting for one in self._all]) > WAITING_MAX:
            next(one for one in self._all if one.waiting).write_slice()

    @property
    def waiting(self) -> int:
        """How many rows wait in memory."""
        return 0 if self._late is None else self._late.count

    def write_slice(self) -> None:
        """Write some of what waits."""
        self._changed()
        self._database.write_many(self._insert, self._waiting().next_slice())

    def write_all(self) -> None:
        """Write all that waits in memory."""
        while self.waiting:
            self.write_slice()

    def let_go(self, touches: Sequence[tuple[bytes, int, int]]) -> None:
        self._changed()
        self._waiting().forget(touches)
        self._database.write_many(self._delete, touches)
        self._database.write_many(self._let_go, touches)

    def gone(self, tag: bytes) -> Touch | None:
        row = self._database.row(self._gone, (tag,))
        return None if row is None else Touch(*row)

    def forget_gone(self) -> None:
        self._database.write(self._forget_gone)

    def noted(self, tags: Sequence[bytes]) -> set[bytes]:
        rows = self._database.rows(self._noted, (apsw.carray(tuple(tags)),)) if tags else []
        found, waiting = {tag for (tag,) in rows}, self._waiting()
        return found if waiting.first is None else found | {tag for tag in tags if waiting.of(tag)}

    def page(self, tag: bytes, after: Touch | None, limit: int, *, reverse: bool = False) -> list[Touch]:
        after = after or (Touch(INT_MAX, INT_MAX) if reverse else Touch(-1, -1))
        rows = self._database.rows(self._backwards if reverse else self._forwards, (tag, *after, limit))
        touches = [Touch(*row) for row in rows]
        late = [touch for touch in self._waiting().of(tag) if (touch < after if reverse else touch > after)]
        return sorted({*touches, *late}, reverse=reverse)[:limit] if late else touches

    def make_anew(self, id: CollectionId) -> None:
        """Note everything once more, from the entries.  Reads everything once."""
        self._changed()
        self._late = LateTouches()
        for table in ("touches", "gone"):
            self._database.write(f"DELETE FROM {table}_{self._number}")
        fill_touches(self._database.connection, self._number, id)


def fill_touches(connection: apsw.Connection, number: int, id: CollectionId) -> None:
    """Note all entries of a collection.  Reads everything once."""
    # What a document's row points at is found by the row.
    note = (
        f"INSERT OR IGNORE INTO touches_{number} SELECT ?, ?, ? WHERE NOT EXISTS "
        f"(SELECT 1 FROM documents_{number} WHERE id = ? AND arrival = ? AND state IS NULL)"
    )
    note_bare = f"INSERT OR IGNORE INTO touches_{number} VALUES (?, ?, ?)"
    note_marked = _LET_GO.format(n=number)
    after = 0
    while rows := run(
        connection,
        f"SELECT arrival, hlc, CAST(payload AS BLOB), CAST(bare AS BLOB) FROM entries_{number} "
        "WHERE arrival > ? ORDER BY arrival LIMIT ?",
        (after, _PAGE),
    ):
        for arrival, hlc, payload, bare in rows:
            # What makes no sense is damaged; it is stored again, and noted then, by a repair.
            with suppress(*cbor.GARBAGE, AttributeError):
                if payload is None:
                    note_one = note_marked if is_marked(bare) else note_bare
                    connection.executemany(note_one, [(tag, hlc, arrival) for tag in description(bare)[2]])
                    continue
                ids = [operation[1] for operation in cbor.decode_trusted(payload)]
                touches = [(document_tag(id, one), hlc, arrival, one, arrival) for one in ids]
                connection.executemany(note, touches)
        after = rows[-1][0]
