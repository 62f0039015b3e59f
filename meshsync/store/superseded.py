"""Payloads that no document needs any more: which they are, marking those that peers name, and where they stand.

What contributes is said in `meshsync.store.contributing`; a mark is part of what stands for a payload that is not here
(`meshsync.core.bare`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING

from meshsync.core.anchor import Anchor
from meshsync.core.bare import SUPERSEDED, described, is_lacking, is_marked, tags_of, with_mark
from meshsync.core.entry import touched_documents
from meshsync.core.history import History
from meshsync.core.holding import StoredEntry
from meshsync.core.limits import INT_MAX
from meshsync.errors import DamagedError
from meshsync.ids import EndpointId, LogId
from meshsync.store.applied import Applied
from meshsync.store.contributing import contributing
from meshsync.store.rows import EntryRow

if TYPE_CHECKING:
    from meshsync.store.replica import Replica


class Superseded:
    """The superseded payloads of one replica.  Implements `meshsync.core.holding.Superseding`."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.starts: dict[EndpointId, int] = {}

    def among(self, entries: Sequence[StoredEntry]) -> set[int]:
        """The arrivals of those of some entries that are superseded here."""
        return {entry.arrival for entry in entries} - contributing(self._replica, entries)

    def not_durable(self, entries: Sequence[StoredEntry]) -> set[int]:
        """The arrivals of those of some entries that may be superseded by what would not survive a power cut."""
        tables, durable_next = self._replica.tables, self._replica.durable_next
        if tables.next_arrival() <= durable_next:
            return set()
        touched = [() if entry.payload is None else touched_documents(entry.payload) for entry in entries]
        documents = tables.documents(list(dict.fromkeys(chain.from_iterable(touched))))
        fresh = {id for id, row in documents.items() if row.arrival >= durable_next}
        return {entry.arrival for entry, ids in zip(entries, touched, strict=True) if not fresh.isdisjoint(ids)}

    def without(self, entries: Sequence[EntryRow], arrivals: Collection[int]) -> list[EntryRow]:
        """Entries as they go out: without the payloads of these, which are superseded."""
        return [
            row
            if row.payload is None or row.arrival not in arrivals
            else EntryRow(*row[:7], None, self._passed(row.payload), row.seal)
            for row in entries
        ]

    def _passed(self, payload: bytes) -> bytes:
        return with_mark(described(self._replica.id, payload, touched_documents(payload)), SUPERSEDED)

    # Marking

    def told(self, log: LogId, seq: int, id: bytes) -> Applied | None:
        """A peer says that the payload of the entry whose id begins so is superseded; None where it is not lacking."""
        arrivals = self.mark(self._replica.find(log, seq, id))
        return Applied(filled=arrivals) if arrivals else None

    def mark(self, anchors: Iterable[Anchor]) -> list[int]:
        """Mark entries of which a peer says that their payloads are superseded; the arrivals of those that lacked them.

        A lie keeps a payload away that the same peer could also have kept back by silence, but for one difference:
        while this node wants the latest only it does not ask others for it.
        """
        replica = self._replica
        heads = [replica.tables.entry_at(one.branch, one.seq) for one in anchors]
        rows = [row for row in self._rows(head.arrival for head in heads if head is not None) if is_lacking(row.bare)]
        if rows:
            with replica.change():
                for row in rows:
                    replica.tables.touches.let_go([(tag, row.hlc, row.arrival) for tag in tags_of(row.bare or b"")])
                    replica.tables.rewrite_entry(row._replace(bare=with_mark(row.bare or b"", SUPERSEDED)))
            if replica.interest is not None:
                replica.interest.superseded([row.arrival for row in rows])
        return [row.arrival for row in rows]

    # The past, for who wants it all the same

    @property
    def count(self) -> int:
        """How many superseded payloads are not here."""
        return self._replica.tables.marked()

    @property
    def is_wanted(self) -> bool:
        """Whether superseded payloads are not here and are wanted: not by a node that lets them go itself."""
        replica = self._replica
        return self.count > 0 and replica.history is History.FULL and replica.retaining.retention.keeps_all

    def places_from(
        self, arrival: int, limit: int, end: int = INT_MAX, tags: Collection[bytes] | None = None
    ) -> tuple[list[tuple[LogId, int]], int]:
        """Where the wanted ones stand among the next `limit` from an arrival number on, and where to go on.

        `tags`: of these documents only.
        """
        rows = [row for row in self._replica.tables.marked_entries(arrival, limit) if row.arrival < end]
        after = rows[-1].arrival + 1 if rows else min(end, self._replica.tables.next_arrival())
        return self._places(
            rows if tags is None else [row for row in rows if any(tag in tags for tag in tags_of(row.bare or b""))]
        ), after

    def places_of(self, arrivals: Iterable[int]) -> list[tuple[LogId, int]]:
        """Where the wanted ones stand among some entries."""
        return self._places(row for row in self._rows(arrivals) if is_marked(row.bare))

    def _places(self, rows: Iterable[EntryRow]) -> list[tuple[LogId, int]]:
        """Of a part, the past of what is in the view."""
        branches, interest = self._replica.branches, self._replica.interest
        return [
            (branches[row.branch].log, row.seq)
            for row in rows
            if interest is None or interest.has_any(tags_of(row.bare or b""))
        ]

    def _rows(self, arrivals: Iterable[int]) -> Iterator[EntryRow]:
        for arrival in arrivals:
            with suppress(DamagedError):
                row = self._replica.tables.entry(arrival)
                if row is not None:
                    yield row
