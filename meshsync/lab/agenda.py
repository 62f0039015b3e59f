"""What is to happen, and when: frames, datagrams and announcements on their way."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Agenda(Generic[T]):
    """Anybody may add to it; one task takes what is due."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._count = 0
        self._is_sooner = trio.Event()

    def add(self, due: float, item: T) -> None:
        """Have something at this time, in seconds of trio's clock; what was added first comes first at one time."""
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, item))
        if self._heap[0][1] == self._count:
            self._is_sooner.set()

    def take(self) -> Iterator[T]:
        """All that is due, the earliest first, until nothing is."""
        while self._heap and self._heap[0][0] <= trio.current_time():
            yield heapq.heappop(self._heap)[2]

    async def wait(self, until: float = math.inf) -> None:
        """Wait until something is due, and no longer than until this time.  For one task only."""
        if self._next(until) <= trio.current_time():
            await trio.lowlevel.checkpoint()
        while self._next(until) > trio.current_time():
            self._is_sooner = trio.Event()
            with trio.move_on_at(self._next(until)):
                await self._is_sooner.wait()

    def _next(self, until: float) -> float:
        return min(until, self._heap[0][0]) if self._heap else until
