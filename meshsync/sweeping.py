"""Lets the past of collections go where their owner does not want it, beside everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import trio

from meshsync.events import EventLog
from meshsync.store.applied import Dropped
from meshsync.store.replica import Replica
from meshsync.upkeep import Upkeep


class Sweeping:
    """The worker of one node.  `meshsync.store.retaining` says what goes."""

    def __init__(self, upkeep: Upkeep, events: EventLog, wall_ms: Callable[[], int]) -> None:
        self._upkeep = upkeep
        self._events = events
        self._wall_ms = wall_ms

    async def run(self) -> None:
        """Work for ever, a few milliseconds at a time.  Cancelling loses at most one step.

        Now and then, and not whenever something is written: nobody waits for it, many writes make one commit, and age
        comes by itself.
        """
        while True:
            await trio.sleep(self._upkeep.limits.sweep_seconds)
            await self._sweep()

    async def _sweep(self) -> None:
        before: dict[Replica, Dropped] = {}

        def step(replica: Replica) -> bool:
            before.setdefault(replica, replica.retaining.dropped)
            return replica.retaining.step(self._wall_ms())

        try:
            await self._upkeep.work_through(step)
        finally:
            for replica, then in before.items():
                dropped = replica.retaining.dropped - then
                if dropped.entries:
                    self._events.emit("payloads_dropped", collection=replica.name, **asdict(dropped))
