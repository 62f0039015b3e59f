"""The tables of one collection in SQLite.  In memory: three numbers, and nothing per entry."""

# ruff: noqa: S608 -- what is put into a statement is the number of the collection, which this store gave out itself.

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import apsw

from meshsync.errors import LocalError
from meshsync.ids import CollectionId
from meshsync.store.base import BranchRow, CursorRow, DocumentPayload, DocumentRow, EntryHead, EntryRow, MergeRow
from meshsync.store.sqlite.database import Database

_SCAN_ROWS = 64
"""Documents in one page of a scan: with payloads of the greatest size, 16 MiB."""


class Counts(NamedTuple):
    """What is known of a collection without looking."""

    next_arrival: int
    live: int
    bare: int


class SqliteTables:
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
    ) -> None:
        self.id = id
        self.name = name
        self.number = number
        self._database = database
        self._counts = self._committed_counts = Counts(1, 0, 0)
        self._counts_changed = counts_changed
        n = number
        row = "arrival, branch, seq, id, hlc, height, parents, payload, bare, seal FROM"
        self._insert_entry = (
            f"INSERT INTO entries_{n} (arrival, branch, seq, id, hlc, height, parents, payload, bare, seal) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        self._entry_at = f"SELECT arrival, id, hlc, height FROM entries_{n} WHERE branch = ? AND seq = ?"
        self._tip = f"SELECT seq, arrival, id, hlc, height FROM entries_{n} WHERE branch = ? ORDER BY seq DESC LIMIT 1"
        self._entry = f"SELECT {row} entries_{n} WHERE arrival = ?"
        self._entries_of = f"SELECT {row} entries_{n} WHERE branch = ? AND seq > ? ORDER BY seq LIMIT ?"
        self._entries_from = f"SELECT {row} entries_{n} WHERE arrival >= ? ORDER BY arrival LIMIT ?"
        self._merges_before = (
            f"SELECT seq, hlc, parents FROM entries_{n} INDEXED BY entries_{n}_merges "
            "WHERE branch = ? AND seq <= ? AND parents IS NOT NULL ORDER BY seq DESC LIMIT ?"
        )
        self._bare_entries = (
            f"SELECT {row} entries_{n} INDEXED BY entries_{n}_bare WHERE bare IS NOT NULL ORDER BY arrival LIMIT ?"
        )
        # The array drives the join: one look-up for each id.
        self._documents = (
            "SELECT id, arrival, op, live, conflict, state "
            f"FROM carray(?) AS wanted CROSS JOIN documents_{n} ON id = wanted.value"
        )
        self._put_document = (
            f"INSERT INTO documents_{n} (id, arrival, op, live, conflict, state) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET arrival = excluded.arrival, op = excluded.op, live = excluded.live, "
            "conflict = excluded.conflict, state = excluded.state"
        )
        # A document with a state has no need of its entry, so its entry is not looked up.
        scan = (
            "SELECT d.id, d.arrival, d.op, d.conflict, d.state, e.payload "
            f"FROM documents_{n} AS d LEFT JOIN entries_{n} AS e ON e.arrival = iif(d.state IS NULL, d.arrival, NULL) "
            "WHERE d.live"
        )
        self._scan = {
            (False, False): f"{scan} ORDER BY d.id LIMIT ?",
            (False, True): f"{scan} AND d.id > ? ORDER BY d.id LIMIT ?",
            (True, False): f"{scan} ORDER BY d.id DESC LIMIT ?",
            (True, True): f"{scan} AND d.id < ? ORDER BY d.id DESC LIMIT ?",
        }

    # Counts

    def load_counts(self, live: int, bare: int) -> None:
        """Set the counts from what is stored; the last arrival is found in one step, because there are no gaps."""
        last: int = self._database.row(f"SELECT ifnull(max(arrival), 0) FROM entries_{self.number}")[0]
        self._counts = self._committed_counts = Counts(last + 1, live, bare)

    def write_counts(self) -> None:
        """Put the counts into the transaction that changed them."""
        if self._counts[1:] != self._committed_counts[1:]:
            self._database.write(
                "UPDATE collections SET live = ?, bare = ? WHERE number = ?",
                (self._counts.live, self._counts.bare, self.number),
            )

    def committed(self) -> None:
        """The transaction is over."""
        self._committed_counts = self._counts

    def rolled_back(self) -> None:
        """The transaction never was."""
        self._counts = self._committed_counts

    def _count(self, entries: int, live: int, bare: int) -> None:
        self._counts_changed(self)
        counts = self._counts
        self._counts = Counts(counts.next_arrival + entries, counts.live + live, counts.bare + bare)

    def _require_transaction(self) -> None:
        if not self._database.active:
            raise LocalError("writes to a collection belong inside Store.transaction()")

    # Branches

    def branches(self) -> list[BranchRow]:
        rows = self._database.rows(
            f"SELECT number, author, incarnation, base, first_seq, covered_seq FROM branches_{self.number} "
            "ORDER BY number"
        )
        return [BranchRow(*row) for row in rows]

    def add_branch(self, author: bytes, incarnation: bytes, base: int | None, first_seq: int) -> int:
        self._require_transaction()
        rows = self._database.rows(f"SELECT ifnull(max(number), 0) + 1 FROM branches_{self.number}")
        number: int = rows[0][0]
        self._database.write(
            f"INSERT INTO branches_{self.number} VALUES (?, ?, ?, ?, ?, 0)",
            (number, author, incarnation, base, first_seq),
        )
        return number

    def set_covered(self, covered: Sequence[tuple[int, int]]) -> None:
        self._require_transaction()
        self._database.write_many(
            f"UPDATE branches_{self.number} SET covered_seq = ? WHERE number = ?",
            [(covered_seq, number) for number, covered_seq in covered],
        )

    def tip(self, branch: int) -> tuple[int, EntryHead] | None:
        row = self._database.row(self._tip, (branch,))
        return None if row is None else (row[0], EntryHead(*row[1:]))

    # Entries

    def insert_entries(self, rows: Sequence[EntryRow]) -> None:
        self._require_transaction()
        start = self._counts.next_arrival
        if [row.arrival for row in rows] != list(range(start, start + len(rows))):
            raise LocalError(f"arrivals must go on from {start} without a gap")
        self._database.write_many(self._insert_entry, rows)
        self._count(len(rows), 0, sum(row.bare is not None for row in rows))

    def entry_at(self, branch: int, seq: int) -> EntryHead | None:
        row = self._database.row(self._entry_at, (branch, seq))
        return None if row is None else EntryHead(*row)

    def entry(self, arrival: int) -> EntryRow | None:
        row = self._database.row(self._entry, (arrival,))
        return None if row is None else EntryRow(*row)

    def entries_of(self, branch: int, after_seq: int, limit: int) -> list[EntryRow]:
        return [EntryRow(*row) for row in self._database.rows(self._entries_of, (branch, after_seq, limit))]

    def entries_from(self, arrival: int, limit: int) -> list[EntryRow]:
        return [EntryRow(*row) for row in self._database.rows(self._entries_from, (arrival, limit))]

    def merges_before(self, branch: int, seq: int, limit: int) -> list[MergeRow]:
        return [MergeRow(*row) for row in self._database.rows(self._merges_before, (branch, seq, limit))]

    def set_seal(self, arrival: int, seal: bytes) -> None:
        self._require_transaction()
        self._database.write(f"UPDATE entries_{self.number} SET seal = ? WHERE arrival = ?", (seal, arrival))

    def fill_payload(self, arrival: int, payload: bytes) -> None:
        self._require_transaction()
        was_bare = self._database.row(
            f"SELECT bare IS NOT NULL FROM entries_{self.number} WHERE arrival = ?", (arrival,)
        )
        self._database.write(
            f"UPDATE entries_{self.number} SET payload = ?, bare = NULL WHERE arrival = ?", (payload, arrival)
        )
        if was_bare == (1,):
            self._count(0, 0, -1)

    def bare_entries(self, limit: int) -> list[EntryRow]:
        return [EntryRow(*row) for row in self._database.rows(self._bare_entries, (limit,))]

    def next_arrival(self) -> int:
        return self._counts.next_arrival

    # Documents

    def documents(self, ids: Sequence[str]) -> dict[str, DocumentRow]:
        if not ids:
            return {}
        rows = self._database.rows(self._documents, (apsw.carray(tuple(ids)),))
        return {
            id: DocumentRow(id, arrival, op, bool(live), bool(conflict), state)
            for id, arrival, op, live, conflict, state in rows
        }

    def put_documents(self, rows: Sequence[DocumentRow], live_change: int) -> None:
        self._require_transaction()
        self._database.write_many(self._put_document, rows)
        if live_change:
            self._count(0, live_change, 0)

    def scan_documents(self, after: str | None = None, *, reverse: bool = False) -> Iterator[DocumentPayload]:
        while True:
            bindings = (_SCAN_ROWS,) if after is None else (after, _SCAN_ROWS)
            rows = self._database.rows(self._scan[reverse, after is not None], bindings)
            for id, arrival, op, conflict, state, payload in rows:
                yield DocumentPayload(DocumentRow(id, arrival, op, True, bool(conflict), state), payload)
            if len(rows) < _SCAN_ROWS:
                return
            after = rows[-1][0]

    def counts(self) -> tuple[int, int, int]:
        return self._counts.next_arrival - 1, self._counts.live, self._counts.bare

    # Cursors

    def cursor(self, peer: bytes) -> CursorRow | None:
        row = self._database.row(
            f"SELECT epoch, next_read, next_confirm FROM cursors_{self.number} WHERE peer = ?", (peer,)
        )
        return None if row is None else CursorRow(*row)

    def set_cursor(self, peer: bytes, cursor: CursorRow) -> None:
        self._require_transaction()
        self._database.write(f"INSERT OR REPLACE INTO cursors_{self.number} VALUES (?, ?, ?, ?)", (peer, *cursor))
