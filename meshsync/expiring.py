"""Lets documents expire when it is time, beside everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import trio

from meshsync.core.limits import Limits
from meshsync.errors import StoreError
from meshsync.notifier import Notifier
from meshsync.store.replica import Replica

_RETRY_SECONDS = 5.0
"""After the disk did not take a step."""


class Expiring:
    """The worker of one node.  `changed` is to be notified when something expires earlier than was known."""

    def __init__(
        self,
        replicas: Callable[[], Iterable[Replica]],
        wall_ms: Callable[[], int],
        expired: Callable[[Replica], None],
        store_failed: Callable[[StoreError], None],
        limits: Limits,
    ) -> None:
        """`expired` is told of each collection in which documents expired, or do not after all."""
        self._replicas = replicas
        self._wall_ms = wall_ms
        self._expired = expired
        self._store_failed = store_failed
        self._limits = limits
        self.changed = Notifier()

    def begin(self, replica: Replica) -> None:
        """Let what is due in a collection that was just opened expire, before anybody looks at it.

        StoreError: the disk; `run` tries again.
        """
        replica.expiries.comes_earlier = self.changed.notify
        while replica.expiries.step(self._wall_ms()):
            pass
        self.changed.notify()

    async def run(self) -> None:
        """Work for ever, a few milliseconds at a time.  Cancelling loses nothing."""
        while True:
            try:
                for replica in list(self._replicas()):
                    await self._go_on(replica)
            except StoreError as error:
                self._store_failed(error)
                await trio.sleep(_RETRY_SECONDS)
                continue
            with trio.move_on_after(self._idle_seconds()):
                await self.changed.wait()

    async def _go_on(self, replica: Replica) -> None:
        while replica in self._replicas() and replica.expiries.step(self._wall_ms()):
            self._expired(replica)
            await trio.lowlevel.checkpoint()

    def _idle_seconds(self) -> float:
        """How long there is nothing to do, unless a clock is set meanwhile."""
        expiries = [replica.expiries for replica in self._replicas()]
        if not any(one.is_any for one in expiries):
            return math.inf
        # Where the latest stamp is ahead of the clock it stands still until something comes.
        due = [one.next_ms - self._wall_ms() for one in expiries if one.next_ms is not None]
        return min([self._limits.clock_look_seconds, *(max(0.0, ms / 1000) for ms in due)])
