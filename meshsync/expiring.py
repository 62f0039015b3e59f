"""Lets documents expire when it is time, beside everything else."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from meshsync.notifier import Notifier
from meshsync.store.replica import Replica
from meshsync.upkeep import Upkeep


class Expiring:
    """The worker of one node.  `changed` is to be notified when something expires earlier than was known."""

    def __init__(self, upkeep: Upkeep, wall_ms: Callable[[], int], expired: Callable[[Replica], None]) -> None:
        """`expired` is told of each collection in which documents expired, or do not after all."""
        self._upkeep = upkeep
        self._wall_ms = wall_ms
        self._expired = expired
        self.changed = Notifier()

    def begin(self, replica: Replica) -> None:
        """See to it that nobody is shown what is due in a collection that was just opened.

        The first slice of it is let go at once, and the rest by `run`, beside everything else.  StoreError: the disk;
        `run` tries again.
        """
        replica.expiries.comes_earlier = self.changed.notify
        try:
            replica.expiries.step(self._wall_ms())
        finally:
            self.changed.notify()

    async def run(self) -> None:
        """Work for ever, a few milliseconds at a time.  Cancelling loses nothing."""
        while True:
            if await self._upkeep.work_through(self._step):
                with trio.move_on_after(self._idle_seconds()):
                    await self.changed.wait()

    def _step(self, replica: Replica) -> bool:
        if not replica.expiries.step(self._wall_ms()):
            return False
        self._expired(replica)
        return True

    def _idle_seconds(self) -> float:
        """How long there is nothing to do, unless a clock is set meanwhile."""
        expiries = [replica.expiries for replica in self._upkeep.replicas()]
        if not any(one.is_any for one in expiries):
            return math.inf
        # Where the latest stamp is ahead of the clock it stands still until something comes.
        due = [one.next_ms - self._wall_ms() for one in expiries if one.next_ms is not None]
        return min([self._upkeep.limits.clock_look_seconds, *(max(0.0, ms / 1000) for ms in due)])
