"""A bound on what is sent: a token bucket whose users take turns, the urgent ones first."""

from __future__ import annotations

import math

import trio

from meshsync.core.priority import Priority
from meshsync.sync.gate import PriorityGate

BURST_SECONDS = 0.1
"""So much of the rate may be saved up, and so much is taken in one turn."""

_GRANULE_SECONDS = 1e-6  # by so much the sums of a clock may be off


class Rate:
    """Who sends takes what it sends; what cannot wait is counted, and the others wait for it.

    Something urgent waits for two bursts at most, and not for a whole frame of something else.
    """

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._level = 0.0
        """Bytes that may be sent; below zero, bytes that were promised already."""
        self._at = -math.inf
        self._gate = PriorityGate()

    def count(self, size: int) -> None:
        """So many bytes are sent without asking."""
        if self._rate < math.inf:
            self._refill()
            self._level -= size

    async def take(self, size: int, priority: Priority = Priority.MEDIUM) -> None:
        """Return when so many bytes may be sent.  Cancelling gives them back."""
        if self._rate == math.inf:
            await trio.lowlevel.checkpoint()
            return
        left = size
        try:
            while left > 0:
                async with self._gate.turn(priority) as may_go_on:
                    left -= await self._take_some(left)
                    while left > 0 and may_go_on():
                        left -= await self._take_some(left)
        except trio.Cancelled:
            self._level += size - left
            raise

    async def _take_some(self, size: int) -> int:
        """Wait until the bucket is not overdrawn, then take a burst at most; how much."""
        self._refill()
        while self._level < 0:
            await trio.sleep(max(-self._level / self._rate, _GRANULE_SECONDS))
            self._refill()
        taken = min(size, math.ceil(BURST_SECONDS * self._rate))
        self._level -= taken
        return taken

    def _refill(self) -> None:
        now = trio.current_time()
        self._level = min(self._level + (now - self._at) * self._rate, BURST_SECONDS * self._rate)
        self._at = now
