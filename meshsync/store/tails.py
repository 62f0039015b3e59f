"""Tails: entries that stand on the disk behind a damaged one, and are not held until they came again.

A branch whose tip is damaged ends, in memory, before it.  So this node says truthfully what it has, the peers send
the rest like any other entry, and each takes the place of what is left of it.  Nothing is removed meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from meshsync.core.anchor import ORIGIN, Anchor
from meshsync.core.rebuild import NewEntry
from meshsync.errors import DamagedError
from meshsync.store.base import CollectionTables
from meshsync.store.rows import EntryRow

if TYPE_CHECKING:
    from meshsync.store.branches import Branch


class Tails:
    """The tails of one replica."""

    def __init__(self, tables: CollectionTables) -> None:
        self._tables = tables
        self._ends: dict[int, int] = {}
        """By branch, the seq of the last entry on the disk, where that is not held."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._ends)

    def __contains__(self, branch: int) -> bool:
        return branch in self._ends

    def left(self, branches: Mapping[int, Branch]) -> int:
        """How many entries are on the disk and not held."""
        return sum(max(0, end - branches[number].tip.seq) for number, end in self._ends.items())

    def load_tip(self, branch: Branch) -> None:
        """Give a branch its tip: the last entry that is sound, of those that no damaged one comes after."""
        self._ends.pop(branch.number, None)
        below = None
        while True:
            try:
                tip = self._tables.tip(branch.number, below)
            except DamagedError as error:
                self._ends.setdefault(branch.number, error.seq)
                below = error.seq
                continue
            branch.tip, branch.tip_arrival = ORIGIN, 0
            if tip is not None:
                seq, head = tip
                branch.tip = Anchor(branch.number, seq, head.id, head.hlc, head.height)
                branch.tip_arrival = head.arrival
            return

    def cut(self, branch: Branch, seq: int) -> None:
        """Hold nothing of a branch from `seq` on.  DamagedError: the entry before is damaged as well."""
        end = branch.tip.seq
        head = self._tables.entry_at(branch.number, seq - 1) if seq > branch.first_seq else None
        branch.tip, branch.tip_arrival = ORIGIN, 0
        if head is not None:
            branch.tip = Anchor(branch.number, seq - 1, head.id, head.hlc, head.height)
            branch.tip_arrival = head.arrival
        self._ends[branch.number] = max(end, self._ends.get(branch.number, 0))

    def grew(self, branch: Branch) -> None:
        """Entries came to a branch: its tail may be over."""
        if branch.tip.seq >= self._ends.get(branch.number, 0):
            self._ends.pop(branch.number, None)

    def write(self, entries: Sequence[NewEntry]) -> tuple[list[EntryRow], set[int]]:
        """Store entries, some of them in the place of what is left of them: all rows, and those arrivals."""
        arrival = self._tables.next_arrival()
        rows: list[EntryRow] = []
        fresh: list[EntryRow] = []
        places: set[int] = set()
        for entry in entries:
            place = self._place(entry.branch, entry.seq)
            row = EntryRow(place or arrival, *entry[:9])
            rows.append(row)
            if place is None:
                arrival += 1
                fresh.append(row)
            else:
                places.add(place)
                self._tables.rewrite_entry(self._with_old_seal(row))
        self._tables.insert_entries(fresh)
        return rows, places

    def _place(self, branch: int, seq: int) -> int | None:
        """The arrival number of an entry that is on the disk already, in whatever state."""
        if seq > self._ends.get(branch, 0):
            return None
        try:
            head = self._tables.entry_at(branch, seq)
        except DamagedError as error:
            return error.arrival
        return None if head is None else head.arrival

    def _with_old_seal(self, row: EntryRow) -> EntryRow:
        """The row with the seal that it has on the disk, where it came without one: batches are cut at seals."""
        before = self._tables.inspect_entries(row.arrival, 1)[0]
        if row.seal is None and before.has_head and before.row.id == row.id:
            return row._replace(seal=before.row.seal)
        return row
