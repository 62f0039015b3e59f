"""Which entries touch a document, in SQLite: the index beside the documents, and making it anew from the entries."""

# ruff: noqa: S608 -- what is put into a statement is the number of a collection, which a store gave out itself.

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import apsw

from meshsync.core import cbor
from meshsync.core.bare import description, is_marked
from meshsync.core.entry import document_tag
from meshsync.core.limits import INT_MAX
from meshsync.ids import CollectionId
from meshsync.store.rows import Touch
from meshsync.store.sqlite.database import Database, run

_PAGE = 256
"""Entries that are read at once to make the index anew: with payloads of the greatest size, 64 MiB."""


_LET_GO = (
    "INSERT INTO gone_{n} VALUES (?, ?, ?) ON CONFLICT (tag) DO UPDATE SET hlc = excluded.hlc, "
    "arrival = excluded.arrival WHERE (excluded.hlc, excluded.arrival) > (hlc, arrival)"
)


class SqliteTouches:
    """Implements `DocumentTouches`."""

    def __init__(self, database: Database, number: int) -> None:
        self._database = database
        self._insert = f"INSERT OR IGNORE INTO touches_{number} VALUES (?, ?, ?)"
        self._delete = f"DELETE FROM touches_{number} WHERE tag = ? AND hlc = ? AND arrival = ?"
        self._let_go = _LET_GO.format(n=number)
        self._gone = f"SELECT hlc, arrival FROM gone_{number} WHERE tag = ?"
        self._forget_gone = f"DELETE FROM gone_{number}"
        page = f"SELECT hlc, arrival FROM touches_{number} WHERE tag = ? AND (hlc, arrival)"
        self._forwards = f"{page} > (?, ?) ORDER BY hlc, arrival LIMIT ?"
        self._backwards = f"{page} < (?, ?) ORDER BY hlc DESC, arrival DESC LIMIT ?"

    def add(self, touches: Sequence[tuple[bytes, int, int]]) -> None:
        self._database.write_many(self._insert, touches)

    def let_go(self, touches: Sequence[tuple[bytes, int, int]]) -> None:
        self._database.write_many(self._delete, touches)
        self._database.write_many(self._let_go, touches)

    def gone(self, tag: bytes) -> Touch | None:
        row = self._database.row(self._gone, (tag,))
        return None if row is None else Touch(*row)

    def forget_gone(self) -> None:
        self._database.write(self._forget_gone)

    def page(self, tag: bytes, after: Touch | None, limit: int, *, reverse: bool = False) -> list[Touch]:
        if reverse:
            rows = self._database.rows(self._backwards, (tag, *(after or (INT_MAX, INT_MAX)), limit))
        else:
            rows = self._database.rows(self._forwards, (tag, *(after or (-1, -1)), limit))
        return [Touch(*row) for row in rows]


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
