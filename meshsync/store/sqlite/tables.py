"""The tables of one collection in SQLite.  In memory: five numbers, and a few touches (`late_touches`)."""

# ruff: noqa: S608 -- what is put into a statement is the number of the collection, which this store gave out itself.

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from meshsync.core.bare import count_marked, is_lacking, is_marked
from meshsync.core.limits import INT_MAX
from meshsync.errors import DamagedError, LocalError
from meshsync.ids import CollectionId
from meshsync.store.checksums import branch_crc, document_crc, entry_crcs, rows_with_crcs
from meshsync.store.rows import (
    ENTRY_BYTES,
    BranchRow,
    CursorRow,
    DocumentRow,
    EntryHead,
    EntryRow,
    InspectedEntry,
    MergeRow,
)
from meshsync.store.sqlite.changes import SqliteChanges
from meshsync.store.sqlite.database import Database, NotTextError
from meshsync.store.sqlite.keys import SqliteKeys
from meshsync.store.sqlite.queue import SqliteQueue
from meshsync.store.sqlite.reading import SqliteDocumentReads
from meshsync.store.sqlite.soundness import (
    ENTRY_COLUMNS,
    ENTRY_COLUMNS_AS_BLOBS,
    HEAD_COLUMNS,
    INSPECTED_COLUMNS,
    LACKING,
    MARKED,
    inspected,
    is_sound_branch,
    is_sound_head,
    sound_entries,
)
from meshsync.store.sqlite.touches import SqliteTouches


class Counts(NamedTuple):
    """What is known of a collection without looking."""

    next_arrival: int
    live: int
    bare: int
    """Those that lack their payloads."""
    marked: int
    """Those that have a mark in place of them."""
    payload_bytes: int


class SqliteTables(SqliteDocumentReads):
    """Implements `CollectionTables`.

    `counts_changed` is called with these tables before their counts change; the store then calls `write_counts`
    before the commit, and `committed` or `rolled_back` after it.
    """

    def __init__(
        self,
        database: Database,
        number: int,
        id: CollectionId,
        name: str,
        counts_changed: Callable[[SqliteTables], None],
        all_touches: dict[SqliteTouches, None],
    ) -> None:
        self.id = id
        self.call(name)
        super().__init__(database, number)
        self.document_changes = 0
        self.found_damage: Callable[[DamagedError], None] = lambda error: None  # noqa: ARG005
        lacking = partial(self._lacking, limit=-1)
        self.touches = SqliteTouches(database, number, partial(counts_changed, self), lacking, all_touches)
        self.keys = SqliteKeys(database, number)
        self.changes = SqliteChanges(database, number)
        self.to_let_go = SqliteQueue(database, number)
        self._counts = self._committed_counts = Counts(1, 0, 0, 0, 0)
        self._counts_changed = counts_changed
        n = number
        row = f"SELECT {ENTRY_COLUMNS} FROM entries_{n}"
        self._insert_entry = (
            f"INSERT INTO entries_{n} (arrival, branch, seq, id, hlc, height, parents, payload, bare, seal, head_crc, "
            "crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        head = f"SELECT {HEAD_COLUMNS} FROM entries_{n}"
        self._entry_at = f"{head} WHERE branch = ? AND seq = ?"
        self._tip = f"{head} WHERE branch = ? AND seq < ? ORDER BY seq DESC LIMIT 1"
        self._entry = f"{row} WHERE arrival = ?"
        self._entries_of = f"{row} WHERE branch = ? AND seq > ? ORDER BY seq LIMIT ?"
        self._entries_from = f"{row} WHERE arrival >= ? ORDER BY arrival LIMIT ?"
        self._entries_named = (
            f"SELECT arrival FROM entries_{n} "
            "WHERE arrival >= ? AND arrival < ? AND id BETWEEN ? AND ? ORDER BY arrival"
        )
        self._inspect_entries = (
            f"SELECT {INSPECTED_COLUMNS} FROM entries_{n} WHERE arrival >= ? ORDER BY arrival LIMIT ?"
        )
        self._merges_before = (
            f"{head} INDEXED BY entries_{n}_merges "
            "WHERE branch = ? AND seq <= ? AND parents IS NOT NULL ORDER BY seq DESC LIMIT ?"
        )
        self._bare_entries = (
            f"{row} INDEXED BY entries_{n}_bare WHERE {LACKING} AND arrival >= ? ORDER BY arrival LIMIT ?"
        )
        self._marked_entries = (
            f"{row} INDEXED BY entries_{n}_marked WHERE {MARKED} AND arrival >= ? ORDER BY arrival LIMIT ?"
        )
        self._put_document = (
            f"INSERT INTO documents_{n} (id, arrival, op, live, conflict, state, expires, crc) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET arrival = excluded.arrival, op = excluded.op, live = excluded.live, "
            "conflict = excluded.conflict, state = excluded.state, expires = excluded.expires, crc = excluded.crc"
        )

    def call(self, name: str) -> None:
        """Take a name; "" where it is not known."""
        self.name = name or self.id.short
        self.is_named = bool(name)

    # Counts

    def load_counts(self, live: int, bare: int, marked: int, payload_bytes: int) -> None:
        """Set the counts from what is stored; the last arrival is found in one step, because there are no gaps."""
        last: int = self._database.row(f"SELECT ifnull(max(arrival), 0) FROM entries_{self.number}")[0]
        self._counts = self._committed_counts = Counts(last + 1, live, bare, marked, payload_bytes)

    def write_counts(self) -> None:
        """Put the counts into the transaction that changed them."""
        self._database.write(
            "UPDATE collections SET live = ?, bare = ?, marked = ?, bytes = ?, unwritten_from = ? WHERE number = ?",
            (*self._counts[1:], self.touches.unwritten_from, self.number),
        )

    def committed(self) -> None:
        """The transaction is over."""
        self._committed_counts = self._counts
        self.touches.committed()

    def rolled_back(self) -> None:
        """The transaction never was."""
        self._counts = self._committed_counts
        self.touches.rolled_back()

    def _count(self, *changes: int) -> None:
        """Add to the counts, in their order."""
        self._counts_changed(self)
        self._counts = Counts(*map(operator.add, self._counts, changes))

    def _require_transaction(self) -> None:
        if not self._database.active:
            raise LocalError("writes to a collection belong inside Store.transaction()")

    # Branches

    def branches(self) -> list[BranchRow]:
        rows = self._database.rows(
            f"SELECT number, author, incarnation, base, first_seq, covered_seq, crc FROM branches_{self.number} "
            "ORDER BY number"
        )
        branches = [BranchRow(*columns) for *columns, _ in rows]
        if not all(is_sound_branch(branch, row[-1]) for branch, row in zip(branches, rows, strict=True)):
            raise self._damaged(DamagedError(self.name))
        return branches

    def add_branch(self, author: bytes, incarnation: bytes, base: int | None, first_seq: int) -> int:
        self._require_transaction()
        rows = self._database.rows(f"SELECT ifnull(max(number), 0) + 1 FROM branches_{self.number}")
        number: int = rows[0][0]
        self._database.write(
            f"INSERT INTO branches_{self.number} VALUES (?, ?, ?, ?, ?, 0, ?)",
            (number, author, incarnation, base, first_seq, branch_crc(author, incarnation, base, number, first_seq)),
        )
        return number

    def set_covered(self, covered: Sequence[tuple[int, int]]) -> None:
        self._require_transaction()
        self._database.write_many(
            f"UPDATE branches_{self.number} SET covered_seq = ? WHERE number = ?",
            [(covered_seq, number) for number, covered_seq in covered],
        )

    def tip(self, branch: int, below: int | None = None) -> tuple[int, EntryHead] | None:
        row = self._database.row(self._tip, (branch, INT_MAX if below is None else below))
        return None if row is None else (row[2], self._head(row))

    def _head(self, row: Sequence[Any]) -> EntryHead:
        if not is_sound_head(row):
            raise self._damaged(DamagedError(self.name, arrival=row[0], seq=row[2]))
        arrival, _, _, id, hlc, height, _, _, _ = row
        return EntryHead(arrival, id, hlc, height)

    def _damaged(self, error: DamagedError) -> DamagedError:
        self.found_damage(error)
        return error

    # Entries

    def insert_entries(self, rows: Sequence[EntryRow]) -> None:
        self._require_transaction()
        start = self._counts.next_arrival
        if [row.arrival for row in rows] != list(range(start, start + len(rows))):
            raise LocalError(f"arrivals must go on from {start} without a gap")
        self._database.write_many(self._insert_entry, rows_with_crcs(rows))
        size = sum([len(row.payload) for row in rows if row.payload is not None])
        bares = [row.bare for row in rows if row.bare is not None]
        marked = count_marked(bares)
        self._count(len(rows), 0, len(bares) - marked, marked, size)

    def entry_at(self, branch: int, seq: int) -> EntryHead | None:
        row = self._database.row(self._entry_at, (branch, seq))
        return None if row is None else self._head(row)

    def entry(self, arrival: int) -> EntryRow | None:
        entries = self._entries(self._entry, (arrival,))
        return entries[0] if entries else None

    def entries_of(self, branch: int, after_seq: int, limit: int) -> list[EntryRow]:
        return self._entries(self._entries_of, (branch, after_seq, limit))

    def entries_named(self, first: bytes, last: bytes, arrival: int, count: int) -> list[int]:
        rows = self._database.rows(self._entries_named, (arrival, arrival + count, first, last))
        return [arrival for (arrival,) in rows]

    def entries_from(self, arrival: int, limit: int) -> list[EntryRow]:
        return self._entries(self._entries_from, (arrival, limit))

    def _entries(self, sql: str, bindings: tuple[int, ...]) -> list[EntryRow]:
        """The rows of a query as far as the first that is damaged.  DamagedError: the very first is."""
        rows = self._entry_rows(sql, bindings)
        entries = sound_entries(rows)
        if len(entries) < len(rows):
            arrival, _, seq = rows[len(entries)][:3]
            has_head = self.inspect_entries(arrival, 1)[0].has_head
            error = self._damaged(DamagedError(self.name, arrival=arrival, seq=seq, has_head=has_head))
            if not entries:
                raise error
        return entries

    def _entry_rows(self, sql: str, bindings: tuple[int, ...]) -> list[Any]:
        try:
            return self._database.rows(sql, bindings)
        except NotTextError:
            # One flipped bit makes text of a blob.  Without it, the others can be read.
            return self._database.rows(sql.replace(ENTRY_COLUMNS, ENTRY_COLUMNS_AS_BLOBS), bindings)

    def merges_before(self, branch: int, seq: int, limit: int) -> list[MergeRow]:
        rows = self._database.rows(self._merges_before, (branch, seq, limit))
        for row in rows:
            self._head(row)
        return [MergeRow(row[2], row[4], row[6]) for row in rows]

    def marked_entries(self, arrival: int, limit: int) -> list[EntryRow]:
        rows = self._entry_rows(self._marked_entries, (arrival, limit))
        return [entry for row in rows for entry in sound_entries([row])]

    def bare_entries(self, limit: int) -> list[EntryRow]:
        return self._lacking(0, limit)

    def _lacking(self, arrival: int, limit: int) -> list[EntryRow]:
        rows = self._entry_rows(self._bare_entries, (arrival, limit))
        return [entry for row in rows for entry in sound_entries([row])]

    def inspect_entries(self, arrival: int, limit: int) -> list[InspectedEntry]:
        return [inspected(row) for row in self._database.rows(self._inspect_entries, (arrival, limit))]

    def rewrite_entry(self, row: EntryRow) -> None:
        self._require_transaction()
        before = self._database.row(
            f"SELECT ifnull({LACKING}, 0), ifnull({MARKED}, 0), ifnull(length(payload), 0) "
            f"FROM entries_{self.number} WHERE arrival = ?",
            (row.arrival,),
        )
        if before is None:
            return
        self._database.write(
            f"UPDATE entries_{self.number} SET arrival = ?, branch = ?, seq = ?, id = ?, hlc = ?, height = ?, "
            "parents = ?, payload = ?, bare = ?, seal = ?, head_crc = ?, crc = ? WHERE arrival = ?",
            (*row, *entry_crcs(row), row.arrival),
        )
        now = is_lacking(row.bare), is_marked(row.bare), len(row.payload or b"")
        changes = list(map(operator.sub, now, before))
        if any(changes):
            self._count(0, 0, *changes)

    def next_arrival(self) -> int:
        return self._counts.next_arrival

    # Documents

    def put_documents(self, rows: Sequence[DocumentRow], live_change: int) -> None:
        self._require_transaction()
        self.document_changes += 1
        self._database.write_many(self._put_document, [(*row, document_crc(*row)) for row in rows])
        if live_change:
            self._count(0, live_change, 0, 0, 0)

    def forget_documents(self, ids: Sequence[bytes]) -> None:
        self._require_transaction()
        self.document_changes += 1
        delete = f"DELETE FROM documents_{self.number} WHERE id = CAST(? AS TEXT)"
        self._database.write_many(delete, [(id,) for id in ids])
        self.keys.forget(ids)

    def recount(self) -> None:
        self._require_transaction()
        n = self.number
        found = self._database.row(
            f"SELECT (SELECT count(*) FROM documents_{n} WHERE live), "
            f"(SELECT count(*) FROM entries_{n} INDEXED BY entries_{n}_bare WHERE {LACKING}), "
            f"(SELECT count(*) FROM entries_{n} WHERE {MARKED}), "
            f"(SELECT ifnull(sum(length(payload)), 0) FROM entries_{n})"
        )
        if found != self._counts[1:]:
            self._count(0, *map(operator.sub, found, self._counts[1:]))

    def counts(self) -> tuple[int, int, int]:
        return self._counts.next_arrival - 1, self._counts.live, self._counts.bare

    def marked(self) -> int:
        return self._counts.marked

    def size_bytes(self) -> int:
        return self._counts.payload_bytes + ENTRY_BYTES * (self._counts.next_arrival - 1)

    # What is let go

    def retained(self) -> bytes | None:
        state: bytes | None = self._database.row("SELECT retained FROM collections WHERE number = ?", (self.number,))[0]
        return state

    def set_retained(self, state: bytes) -> None:
        self._require_transaction()
        self._database.write("UPDATE collections SET retained = ? WHERE number = ?", (state, self.number))

    # Cursors

    def cursor(self, peer: bytes) -> CursorRow | None:
        row = self._database.row(
            f"SELECT CAST(epoch AS BLOB), next_read, next_confirm FROM cursors_{self.number} WHERE peer = ?", (peer,)
        )
        return None if row is None else CursorRow(*row)

    def set_cursor(self, peer: bytes, cursor: CursorRow) -> None:
        self._require_transaction()
        self._database.write(f"INSERT OR REPLACE INTO cursors_{self.number} VALUES (?, ?, ?, ?)", (peer, *cursor))
