"""Who sends next on a link: higher priorities first, and none starved."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Priority(enum.IntEnum):
    """How urgent a collection is; the smaller number goes first."""

    CRITICAL = 0
    HIGH = 1
    MEDIUM = 2
    LOW = 3


class PriorityGate:
    """Lets one sender at a time build and hand over a batch.

    A sender that was passed over `patience` times goes next whatever its priority, the longest waiting of several
    first, so under load each one still gets a turn in every few.
    """

    def __init__(self, patience: int = 8) -> None:
        self._patience = patience
        self._busy = False
        self._waiting: list[_Turn] = []
        self._count = 0

    @asynccontextmanager
    async def turn(self, priority: Priority) -> AsyncIterator[None]:
        """Wait for the turn, and hold it for the block.  Cancelling gives the place up."""
        if self._busy:
            self._count += 1
            turn = _Turn(priority, self._count)
            self._waiting.append(turn)
            try:
                await turn.granted.wait()
            except trio.Cancelled:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                else:
                    self._pass_on()
                raise
        self._busy = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        if not self._waiting:
            self._busy = False
            return
        starved = [turn for turn in self._waiting if turn.passed_over >= self._patience]
        if starved:
            chosen = min(starved, key=lambda turn: turn.number)
        else:
            chosen = min(self._waiting, key=lambda turn: (turn.priority, turn.number))
        self._waiting.remove(chosen)
        for turn in self._waiting:
            turn.passed_over += 1
        chosen.granted.set()


class _Turn:
    __slots__ = ("granted", "number", "passed_over", "priority")

    def __init__(self, priority: Priority, number: int) -> None:
        self.priority = priority
        self.number = number
        self.passed_over = 0
        self.granted = trio.Event()
