"""Lets the past of collections go where their owner does not want it, beside everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from meshsync.core.limits import Limits
from meshsync.errors import StoreError
from meshsync.events import EventLog
from meshsync.store.replica import Replica


class Sweeping:
    """The worker of one node.  `meshsync.store.retaining` says what goes."""

    def __init__(
        self,
        replicas: Callable[[], Iterable[Replica]],
        events: EventLog,
        store_failed: Callable[[StoreError], None],
        wall_ms: Callable[[], int],
        limits: Limits,
    ) -> None:
        self._replicas = replicas
        self._events = events
        self._store_failed = store_failed
        self._wall_ms = wall_ms
        self._limits = limits

    async def run(self) -> None:
        """Work for ever, a few milliseconds at a time.  Cancelling loses at most one step.

        Now and then, and not whenever something is written: nobody waits for it, many writes make one commit, and age
        comes by itself.
        """
        while True:
            await trio.sleep(self._limits.sweep_seconds)
            for replica in list(self._replicas()):
                try:
                    await self._sweep(replica)
                except StoreError as error:
                    self._store_failed(error)

    async def _sweep(self, replica: Replica) -> None:
        before = replica.retaining.dropped
        try:
            while replica in self._replicas() and replica.retaining.step(self._wall_ms()):
                await trio.lowlevel.checkpoint()
        finally:
            entries, size = (now - then for now, then in zip(replica.retaining.dropped, before, strict=True))
            if entries:
                self._events.emit("payloads_dropped", collection=replica.name, entries=entries, bytes=size)
