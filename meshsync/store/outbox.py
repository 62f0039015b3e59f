"""What a peer lacks, read in an order in which parents come first, and cut where seals allow it.

A batch must end each log's part at an entry whose seal this node holds or, being the author, can make.  What
came from elsewhere was stored batch by batch with contiguous arrival numbers, so a cut at the end of a received
batch is always one, and reading on a little always finds it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshsync.store.base import EntryRow

if TYPE_CHECKING:
    from meshsync.store.replica import Branch, Replica


@dataclass(frozen=True, slots=True)
class Parcel:
    """Entries to send next."""

    rows: list[EntryRow]
    seals: dict[int, bytes]
    """By position in `rows`: the last entry of every branch has one."""
    cursor: int
    complete: bool
    """Nothing is left after these."""


class Outbox:
    """Reads for one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def unsent(self, known: Mapping[int, int], branches: Iterable[int]) -> int:
        """How many entries of these branches a peer lacks that holds each up to `known` (not named: nothing of it)."""
        return sum(branch.tip.seq - self._from(branch, known) for branch in self._missing(known, branches))

    def _from(self, branch: Branch, known: Mapping[int, int]) -> int:
        return max(known.get(branch.number, 0), branch.first_seq - 1)

    def _missing(self, known: Mapping[int, int], branches: Iterable[int]) -> list[Branch]:
        all_branches = self._replica.branches
        candidates = [all_branches[number] for number in branches]
        return [branch for branch in candidates if branch.tip.seq > self._from(branch, known)]

    def read(self, known: Mapping[int, int], branches: Iterable[int]) -> Parcel | None:
        """The next entries of these branches for a peer, or None where it lacks nothing of them."""
        missing = self._missing(known, branches)
        if not missing:
            return None
        limits, limit = self._replica.limits, self._replica.limits.batch_entries_soft
        while True:
            rows = self._rows(missing, known, limit)
            parcel = self._cut(rows, missing)
            if parcel is not None:
                return parcel
            if limit >= limits.batch_entries_max:
                raise LookupError("no place to cut a batch: a log is stored without its seals")
            limit *= 2

    def _rows(self, missing: list[Branch], known: Mapping[int, int], limit: int) -> list[EntryRow]:
        tables = self._replica.tables
        if len(missing) == 1:
            return tables.entries_of(missing[0].number, self._from(missing[0], known), limit)
        if len(missing) <= 16:
            # Each branch is read by itself, so what the peer has between is not even looked at.
            each = [tables.entries_of(branch.number, self._from(branch, known), limit) for branch in missing]
            return [row for row, _ in zip(heapq.merge(*each, key=_arrival), range(limit), strict=False)]
        starts = {branch.number: self._from(branch, known) for branch in missing}
        heads = [tables.entry_at(number, seq + 1) for number, seq in starts.items()]
        arrival = min(head.arrival for head in heads if head is not None)
        found: list[EntryRow] = []
        while len(found) < limit and (page := tables.entries_from(arrival, limit)):
            found += [row for row in page if row.seq > starts.get(row.branch, row.seq)]
            arrival = page[-1].arrival + 1
        return found[:limit]

    def _cut(self, rows: list[EntryRow], missing: list[Branch]) -> Parcel | None:
        limits, branches, author = self._replica.limits, self._replica.branches, self._replica.author
        open_branches: set[int] = set()
        size = end = 0
        for position, row in enumerate(rows):
            size += len(row.payload or b"") + 16
            if row.seal is None and branches[row.branch].log.author != author:
                open_branches.add(row.branch)
            else:
                open_branches.discard(row.branch)
            if not open_branches:
                end = position + 1
            if end and (end >= limits.batch_entries_soft or size >= limits.batch_bytes_soft):
                break
        if not end:
            return None
        taken = rows[:end]
        last = {row.branch: position for position, row in enumerate(taken)}
        seals: dict[int, bytes] = {}
        for position in last.values():
            seal = self._replica.seal_of(taken[position])
            assert seal is not None
            seals[position] = seal
        left = {branch.number: branch.tip.seq for branch in missing}
        complete = all(number in last and taken[last[number]].seq == seq for number, seq in left.items())
        cursor = self._replica.tables.next_arrival() if complete else taken[-1].arrival + 1
        return Parcel(taken, seals, cursor, complete)


def _arrival(row: EntryRow) -> int:
    return row.arrival
