"""Whether one entry happened before another: a walk over the few entries that have parents.

Within a log the question is a comparison of numbers, so only the edges between logs are walked, and only those
later than the older entry, because stamps respect causality.  Nothing is remembered per entry.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from meshsync.core.anchor import PARENT, Place

if TYPE_CHECKING:
    from meshsync.store.base import CollectionTables
    from meshsync.store.replica import Replica

STEPS_MAX = 20_000
"""After so many edges two entries count as concurrent: a document may then show a conflict that was resolved."""
_PAGE = 16


class Ancestry:
    """Answers for one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def is_before(self, old: Place, new: Place) -> bool:
        """Whether `old` is an ancestor of `new`."""
        return not self.unseen(new, [old])

    def unseen(self, new: Place, olds: Iterable[Place], steps_max: float = STEPS_MAX) -> list[Place]:
        """Those of some entries that are not ancestors of `new`: one walk, however many they are."""
        result: list[Place] = []
        wanted: dict[int, list[Place]] = {}
        for old in olds:
            if old.hlc >= new.hlc:
                result.append(old)
            else:
                wanted.setdefault(old.branch, []).append(old)
        if wanted:
            self._walk(new, wanted, steps_max)
        return result + [old for places in wanted.values() for old in places]

    def exactly_unseen(self, new: Place, olds: Iterable[Place]) -> list[Place]:
        """The same however long it takes: where what a document shows hangs on it, all nodes must agree."""
        return self.unseen(new, olds, math.inf)

    def explore(self, new: Place) -> Iterator[dict[int, int]]:
        """How far an entry has seen each branch, by its number, itself included: complete when the iterator ends.

        It yields the same dict again and again, so that whoever has others to serve can stop in between.
        """
        explored: dict[int, int] = {}
        todo = {new.branch: new.seq}
        while todo:
            number, seq = todo.popitem()
            branch, low = self._replica.branches[number], explored.get(number, 0)
            if branch.base is not None:
                below = min(seq, branch.first_seq - 1)
                if below > max(explored.get(branch.base, 0), todo.get(branch.base, 0)):
                    todo[branch.base] = below
            if seq > low:
                explored[number] = seq
                for parent, at in self._parents(self._replica.tables, number, seq, low, 0):
                    if at > max(explored.get(parent, 0), todo.get(parent, 0)):
                        todo[parent] = at
                    yield explored
            yield explored

    def _walk(self, new: Place, wanted: dict[int, list[Place]], steps_max: float) -> None:
        """Take out of `wanted` what is met on the way down from `new`."""
        branches, tables = self._replica.branches, self._replica.tables
        after_hlc = min(old.hlc for places in wanted.values() for old in places)
        explored: dict[int, int] = {}
        todo = [(new.branch, new.seq)]
        steps = 0
        while todo:
            number, seq = todo.pop()
            while True:  # along the chain: a branch, then the one that it forked from
                branch = branches[number]
                low = explored.get(number, 0)
                if seq > low:
                    explored[number] = seq
                    _meet(wanted, number, seq)
                    if not wanted:
                        return
                    for parent in self._parents(tables, number, seq, low, after_hlc):
                        steps += 1
                        # At once: the latest edges come first and mostly lead to what is wanted; others stay unread.
                        _meet(wanted, *parent)
                        if not wanted:
                            return
                        if parent[1] > explored.get(parent[0], 0):
                            todo.append(parent)
                if steps > steps_max:
                    return
                if branch.base is None:
                    break
                number, seq = branch.base, min(seq, branch.first_seq - 1)

    def _parents(
        self, tables: CollectionTables, branch: int, seq: int, low: int, after_hlc: int
    ) -> Iterator[tuple[int, int]]:
        """The parents named on a branch by entries above `low` up to `seq` that are later than `after_hlc`."""
        while seq > low:
            rows = tables.merges_before(branch, seq, _PAGE)
            for row in rows:
                if row.seq <= low or row.hlc <= after_hlc:
                    return
                yield from PARENT.iter_unpack(row.parents)
            if len(rows) < _PAGE:
                return
            seq = rows[-1].seq - 1


def _meet(wanted: dict[int, list[Place]], branch: int, seq: int) -> None:
    """Take out what lies on a branch up to `seq`."""
    if branch in wanted:
        left = [old for old in wanted[branch] if old.seq > seq]
        if left:
            wanted[branch] = left
        else:
            del wanted[branch]
