"""A bound on what this node sends, over all peers: a token bucket that may be overdrawn by one frame at a time."""

from __future__ import annotations

import math

import trio

BURST_SECONDS = 0.1
"""So much of the rate may be saved up."""


class Rate:
    """Who sends takes what it sends, in turn; what cannot wait is counted, and the others wait for it."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._level = 0.0
        """Bytes that may be sent; below zero, bytes that were promised already."""
        self._at = -math.inf

    def count(self, size: int) -> None:
        """So many bytes are sent without asking."""
        if self._rate < math.inf:
            self._refill()
            self._level -= size

    async def take(self, size: int) -> None:
        """Return when so many bytes may be sent, in the order of the calls.  Cancelling gives them back."""
        if self._rate == math.inf:
            await trio.lowlevel.checkpoint()
            return
        self._refill()
        seconds = max(0.0, -self._level / self._rate)
        self._level -= size
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self._level += size
            raise

    def _refill(self) -> None:
        now = trio.current_time()
        self._level = min(self._level + (now - self._at) * self._rate, BURST_SECONDS * self._rate)
        self._at = now
