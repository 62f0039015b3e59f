"""Entries whose payloads may be let go, in memory."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable
from functools import partial


class MemoryQueue:
    """Implements `ArrivalQueue`."""

    def __init__(self) -> None:
        self._arrivals: list[int] = []
        """Sorted."""
        self.changed: Callable[[Callable[[], object]], None] = lambda undo: None  # noqa: ARG005
        """Receives the steps back; set by the tables that this belongs to."""

    def copy(self) -> MemoryQueue:
        """The same a second time, sharing nothing that changes."""
        twin = MemoryQueue()
        twin._arrivals = self._arrivals.copy()
        return twin

    def add(self, arrivals: Iterable[int]) -> None:
        for arrival in arrivals:
            if self.page(arrival - 1, 1) != [arrival]:
                insort(self._arrivals, arrival)
                self.changed(partial(self._arrivals.remove, arrival))

    def remove(self, arrivals: Iterable[int]) -> None:
        for arrival in arrivals:
            if self.page(arrival - 1, 1) == [arrival]:
                self._arrivals.remove(arrival)
                self.changed(partial(insort, self._arrivals, arrival))

    def clear(self) -> None:
        self.remove(self._arrivals.copy())

    def page(self, after: int, limit: int) -> list[int]:
        start = bisect_right(self._arrivals, after)
        return self._arrivals[start : start + limit]

    def __len__(self) -> int:
        return len(self._arrivals)
