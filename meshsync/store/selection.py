"""Which documents of a replica match a peer's query, as they stand here."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from meshsync.core import cbor
from meshsync.core.entry import document_tag
from meshsync.core.holding import StoredEntry
from meshsync.core.query import Query
from meshsync.errors import DamagedError
from meshsync.ids import LogId
from meshsync.store.rows import DocumentRow, EntryRow

if TYPE_CHECKING:
    from meshsync.store.replica import Replica


class Selection:
    """Answers for one replica.  Implements `meshsync.core.holding.Selecting`."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def end(self) -> int:
        """The arrival number of the next entry."""
        return self._replica.tables.next_arrival()

    def touches_any(self, query: Query, row: StoredEntry) -> bool:
        """Whether a document that an entry touches matches now."""
        return next(iter(self._matching(query, row)), None) is not None

    def next_matching(self, query: Query, after: str | None, limit: int) -> tuple[list[tuple[bytes, int]], str | None]:
        """Of the next `limit` documents behind the id `after` those that match: (tag, arrival of the last operation).

        And the id to go on after; None at the end.
        """
        found, merger = list[tuple[bytes, int]](), self._replica.merger
        last, count = None, 0
        for row, payload in islice(self._replica.tables.scan_documents(after), limit):
            last, count = row.id, count + 1
            try:
                body = merger.body(row, payload)
            except DamagedError:
                continue
            if body is not None and query.matches(body, row.id):
                found.append((document_tag(self._replica.id, row.id), row.arrival))
        return found, last if count == limit else None

    def changed_matching(self, query: Query, arrival: int, limit: int, but: Collection[int]) -> tuple[list[bytes], int]:
        """The tags of documents that match now and that the next `limit` entries from `arrival` on touch, without
        those in `but`; and the arrival number to go on from.
        """
        try:
            rows = self._replica.tables.entries_from(arrival, limit)
        except DamagedError as error:
            return [], (error.arrival or arrival) + 1
        found = self._tags(query, [row for row in rows if row.arrival not in but])
        return found, rows[-1].arrival + 1 if rows else arrival

    def arrival_at(self, branch: int, seq: int) -> int | None:
        """The arrival number of the first entry of a branch from `seq` on; None where that is not known."""
        seq = max(seq, self._replica.branches[branch].first_seq)
        with suppress(DamagedError):
            head = self._replica.tables.entry_at(branch, seq)
            return None if head is None else head.arrival
        return None

    def place(self, arrival: int) -> tuple[LogId, int] | None:
        """Where an entry stands; None where that is not known."""
        row = self._entry(arrival)
        return None if row is None else (self._replica.branches[row.branch].log, row.seq)

    def touched_matching(self, query: Query | None, arrival: int) -> list[bytes]:
        """The tags of the documents that an entry touches, of those that match now, or of all."""
        row = self._entry(arrival)
        return [] if row is None else self._tags(query, [row])

    def _entry(self, arrival: int) -> EntryRow | None:
        with suppress(DamagedError):
            return self._replica.tables.entry(arrival)
        return None

    def _tags(self, query: Query | None, rows: Iterable[EntryRow]) -> list[bytes]:
        ids = dict.fromkeys(id for row in rows for id in self._matching(query, row))
        return [document_tag(self._replica.id, id) for id in ids]

    def _matching(self, query: Query | None, row: StoredEntry) -> Iterable[str]:
        """The documents that an entry touches and that match as they stand now."""
        if row.payload is None:
            return
        operations: Any = cbor.decode_trusted(row.payload)
        documents = self._replica.tables.documents([operation[1] for operation in operations])
        for id, document in documents.items():
            if query is None or self._matches(query, document):
                yield id

    def _matches(self, query: Query, row: DocumentRow) -> bool:
        if not row.live:
            return False
        try:
            body = self._replica.merger.body(row, None)
        except DamagedError:
            return True  # nobody knows: a payload too many does less harm than one too few
        return body is not None and query.matches(body, row.id)
