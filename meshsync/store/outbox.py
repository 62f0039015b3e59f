"""What a peer lacks, read in an order in which parents come first, and cut where seals allow it.

A batch must end each log's part at an entry whose seal this node holds or, being the author, can make.  What
came from elsewhere was stored batch by batch with contiguous arrival numbers, so a cut at the end of a received
batch is always one, and reading on a little always finds it.

A damaged entry is never sent, nor what builds upon it: its branch ends before it, and so does each branch that names
one that is not sent.  The others go on.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from meshsync.core.anchor import PARENT
from meshsync.errors import DamagedError
from meshsync.store.rows import EntryRow

if TYPE_CHECKING:
    from meshsync.store.branches import Branch
    from meshsync.store.replica import Replica

_FEW = 16
"""So many branches are read one by one; more are picked out of all entries, in the order of their arrival."""
_PAGE_FIRST = 32
"""Rows carry payloads: reading begins with few, and goes on with more where they turn out small."""
_PAGE_LAST = 128
"""Not more, because what was read and found no place in a batch is read again for the next one."""
_PAGE_BYTES = 1024 * 1024
_WINDOW = 2048
"""So many entries are looked through for what is lacking, behind what a peer is known to have."""
_CHOSEN_FIRST, _CHOSEN_LAST = 32, 256
"""So many rows are chosen from at once: more while few of them go along whole."""
_FEW_WHOLE = 4
"""At most one of so many."""
_HEADER_BYTES, _BARE_BYTES = 16, 40
"""What an entry takes of a batch beside its payload, and what stands there in the place of that, roughly."""
_READ_PER_SENT = 64
"""A byte that is read, and stays away, counts as much of one that is sent."""

Choose = Callable[[Sequence[EntryRow]], Sequence[EntryRow]]
"""Gives rows as they go out: without their payloads where those stay away.  Fewer than it is given where the next one
may not leave yet."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """Entries to send next."""

    rows: list[EntryRow]
    seals: dict[int, bytes]
    """By position in `rows`: the last entry of every branch has one."""
    cursor: int
    """The peer then has, of what it lacked, all that arrived before."""


class Outbox:
    """Reads for one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.durable_next = 1
        """What arrived before survives a power cut."""

    def synced(self, arrival: int) -> None:
        """What arrived before was committed when a sync of the store began, which is done now."""
        self.durable_next = max(arrival, self.durable_next)

    def unsent(self, known: Mapping[int, int], branches: Collection[int]) -> int:
        """How many entries of these branches a peer lacks that holds each up to `known` (not named: nothing of it)."""
        return sum(branch.tip.seq - self._from(branch, known) for branch in self._missing(known, branches))

    def _from(self, branch: Branch, known: Mapping[int, int]) -> int:
        return max(known.get(branch.number, 0), branch.first_seq - 1)

    def _missing(self, known: Mapping[int, int], branches: Collection[int]) -> list[Branch]:
        all_branches = self._replica.branches
        candidates = [all_branches[number] for number in branches]
        return [branch for branch in candidates if branch.tip.seq > self._from(branch, known)]

    def read(
        self,
        known: Mapping[int, int],
        branches: Collection[int],
        floor: int = 0,
        bytes_soft: float = math.inf,
        choose: Choose | None = None,
    ) -> Parcel | None:
        """The next entries of these branches for a peer, or None where it lacks nothing of them.

        `floor`: the peer lacks nothing that arrived earlier, 0 where that is not known.  It ends at the first seal
        after `bytes_soft`, and at the limit for batches in any case.  `choose`: where not all payloads go along.
        """
        bytes_soft = min(bytes_soft, self._replica.limits.batch_bytes_soft)
        if self._replica.damage or self._replica.tails:
            return self._read_around_damage(known, branches, bytes_soft, choose)
        if len(branches) <= _FEW:
            missing = self._missing(known, branches)
            each = [self._chain(branch.number, self._from(branch, known)) for branch in missing]
            # Each branch is read by itself, so what the peer has between is not even looked at.
            return self._cut(
                each[0] if len(each) == 1 else heapq.merge(*each, key=attrgetter("arrival")), bytes_soft, choose
            )
        # Where the floor is far below what is lacking, do not read all that stands between.
        window = islice(self._arrivals(floor), _WINDOW) if floor else iter(())
        parcel = self._cut((row for row in window if self._is_lacking(row, known, branches)), bytes_soft, choose)
        if parcel is None and (missing := self._missing(known, branches)):
            heads = [self._replica.tables.entry_at(one.number, self._from(one, known) + 1) for one in missing]
            start = min(head.arrival for head in heads if head is not None)
            rows = (row for row in self._arrivals(start) if self._is_lacking(row, known, branches))
            parcel = self._cut(rows, bytes_soft, choose)
        return parcel

    def _read_around_damage(
        self, known: Mapping[int, int], branches: Collection[int], bytes_soft: float, choose: Choose | None
    ) -> Parcel | None:
        """As `read`, with a look at all that each entry builds upon."""
        limits, taken, size = self._replica.limits, list[EntryRow](), 0
        heads = [
            next(self._sound_chain(one.number, self._from(one, known)), None) for one in self._missing(known, branches)
        ]
        starts = [head for head in heads if head is not None]
        if len(starts) <= _FEW:
            each = [self._sound_chain(head.branch, head.seq - 1) for head in starts]
            rows: Iterator[EntryRow] = heapq.merge(*each, key=attrgetter("arrival"))
        else:
            rows = self._sound_arrivals(min(head.arrival for head in starts))
        for row in self._sendable(rows, known, branches):
            taken.append(row)
            size += len(row.payload or b"")
            if len(taken) >= limits.batch_entries_max or size >= limits.staging_bytes_max:
                break
        while True:
            sealed = {row.branch: row.seq for row in taken if self._has_seal(row)}
            kept = [row for row in taken if row.seq <= sealed.get(row.branch, 0)]
            if len(kept) == len(taken):
                break
            taken = list(self._sendable(iter(kept), known, branches))
        parcel = self._cut(iter(kept), bytes_soft, choose)
        return None if parcel is None else replace(parcel, cursor=self._replica.damage.below(parcel.cursor))

    def _sound_chain(self, number: int, after_seq: int) -> Iterator[EntryRow]:
        """The entries of a branch as far as the first that is damaged."""
        with suppress(DamagedError):
            yield from self._chain(number, after_seq)

    def _sound_arrivals(self, arrival: int) -> Iterator[EntryRow]:
        """All entries that are not damaged."""
        while True:
            try:
                for row in self._arrivals(arrival):
                    yield row
                    arrival = row.arrival + 1
            except DamagedError as error:
                arrival = (error.arrival or arrival) + 1
            else:
                return

    def _sendable(
        self, rows: Iterator[EntryRow], known: Mapping[int, int], branches: Collection[int]
    ) -> Iterator[EntryRow]:
        """Those of these rows, parents first, of which the peer has all that they build upon, or gets it before."""
        replica = self._replica
        has = dict(known)
        for row in rows:
            is_held = row.seq <= replica.branches[row.branch].tip.seq and row.arrival not in replica.damage
            if not is_held or not self._is_lacking(row, known, branches):
                continue
            first_seq = replica.branches[row.branch].first_seq
            try:
                prev = replica.anchor(row.branch, row.seq - 1)
                needed = [replica.anchor(*place) for place in PARENT.iter_unpack(row.parents or b"")]
            except DamagedError:
                continue
            follows = row.seq == max(has.get(row.branch, 0), first_seq - 1) + 1
            if row.seq == first_seq and prev.seq:
                needed.append(prev)
            if follows and all(anchor.seq <= has.get(anchor.branch, 0) for anchor in needed):
                has[row.branch] = row.seq
                yield row

    def _is_lacking(self, row: EntryRow, known: Mapping[int, int], branches: Collection[int]) -> bool:
        return row.branch in branches and row.seq > known.get(row.branch, 0)

    def _chain(self, number: int, after_seq: int) -> Iterator[EntryRow]:
        page = _PAGE_FIRST
        while rows := self._replica.tables.entries_of(number, after_seq, page):
            yield from rows
            after_seq = rows[-1].seq
            page = _next_page(page, rows)

    def _arrivals(self, arrival: int) -> Iterator[EntryRow]:
        page = _PAGE_FIRST
        while rows := self._replica.tables.entries_from(arrival, page):
            yield from rows
            arrival = rows[-1].arrival + 1
            page = _next_page(page, rows)

    def _cut(self, rows: Iterator[EntryRow], bytes_soft: float, choose: Choose | None) -> Parcel | None:
        limits, branches, author = self._replica.limits, self._replica.branches, self._replica.author
        whole_soft, count_soft, count_max = (
            limits.batch_entries_soft,
            limits.batch_headers_soft,
            limits.batch_entries_max,
        )
        taken: list[EntryRow] = []
        open_branches: set[int] = set()
        own: dict[int, bool] = {}
        size = whole = end = 0
        for count, (row, weight) in enumerate(_weighed(rows, bytes_soft, choose), 1):
            taken.append(row)
            size += weight
            whole += row.payload is not None
            is_closed = row.seal is not None or own.get(row.branch)
            if is_closed is None:
                is_closed = own[row.branch] = branches[row.branch].log.author == author
            if not is_closed:
                open_branches.add(row.branch)
            elif open_branches:
                open_branches.discard(row.branch)
            if not open_branches:
                end = count
            if end and (size >= bytes_soft or whole >= whole_soft or count >= count_soft):
                break
            if count >= count_max:
                raise LookupError("no place to cut a batch: a log is stored without its seals")
        if not end:
            return None
        del taken[end:]
        last = {row.branch: position for position, row in enumerate(taken)}
        seals: dict[int, bytes] = {}
        for position in last.values():
            seal = self._replica.seal_of(taken[position])
            assert seal is not None
            seals[position] = seal
        return Parcel(taken, seals, taken[-1].arrival + 1)

    def _has_seal(self, row: EntryRow) -> bool:
        """Whether a log's part of a batch can end here."""
        return row.seal is not None or self._replica.branches[row.branch].log.author == self._replica.author


def _next_page(page: int, rows: Sequence[EntryRow]) -> int:
    """How many rows to read after these, so that a page of them stays small whatever they carry."""
    size = sum([len(row.payload) for row in rows if row.payload is not None])
    return max(1, page // 2) if size > _PAGE_BYTES else min(2 * page, _PAGE_LAST) if 2 * size <= _PAGE_BYTES else page


def _weighed(rows: Iterator[EntryRow], bytes_soft: float, choose: Choose | None) -> Iterator[tuple[EntryRow, int]]:
    """Rows as they go out, and what each counts for, in bytes, of which about `bytes_soft` will be taken."""
    if choose is None:
        for row in rows:
            yield row, _HEADER_BYTES + (_BARE_BYTES if row.payload is None else len(row.payload))
        return
    count, size = _CHOSEN_FIRST, 0
    while some := list(islice(rows, count)):
        chosen = choose(some)
        # What stays away was read and hashed all the same, which a batch may do of so much only.
        weights = [
            _HEADER_BYTES + len(row.payload)
            if row.payload is not None
            else _HEADER_BYTES + _BARE_BYTES + len(before.payload or b"") // _READ_PER_SENT
            for before, row in zip(some, chosen, strict=False)
        ]
        yield from zip(chosen, weights, strict=True)
        if len(chosen) < len(some):
            return
        size += sum(weights)
        whole = sum([row.payload is not None for row in chosen])
        count = min(2 * count, _CHOSEN_LAST) if whole * _FEW_WHOLE <= len(chosen) else _CHOSEN_FIRST
        # What does not find a place any more would be chosen once more for the next batch.
        count = max(_CHOSEN_FIRST, min(count, int((bytes_soft - size) * len(chosen) / sum(weights))))
