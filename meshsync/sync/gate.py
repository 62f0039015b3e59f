"""Who sends next: higher priorities first, and none starved."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from meshsync.core.priority import Priority


class PriorityGate:
    """Lets one sender at a time build and hand over batches.

    A sender goes on for as long as nobody waits who comes first: someone more urgent or as urgent, or someone who was
    passed over `patience` times, whatever its priority.  So under load each one still gets a turn in every few.
    """

    def __init__(self, patience: int = 8) -> None:
        self._patience = patience
        self._busy = False
        self._waiting: list[_Turn] = []
        self._count = 0

    @asynccontextmanager
    async def turn(self, priority: Priority) -> AsyncIterator[Callable[[], bool]]:
        """Wait for the turn, and hold it for the block.  Cancelling gives the place up.

        Yields a function that says after a batch whether the block may send another one.
        """
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
            yield lambda: self._may_go_on(priority)
        finally:
            self._pass_on()

    def _may_go_on(self, priority: Priority) -> bool:
        if any(turn.priority <= priority or turn.passed_over >= self._patience for turn in self._waiting):
            return False
        self._pass_over()
        return True

    def _pass_over(self) -> None:
        for turn in self._waiting:
            turn.passed_over += 1

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
        self._pass_over()
        chosen.granted.set()


class _Turn:
    __slots__ = ("granted", "number", "passed_over", "priority")

    def __init__(self, priority: Priority, number: int) -> None:
        self.priority = priority
        self.number = number
        self.passed_over = 0
        self.granted = trio.Event()
