"""Builds declared indexes, and removes those that were given up, beside everything else."""

from __future__ import annotations

from meshsync.events import EventLog
from meshsync.notifier import Notifier
from meshsync.store.replica import Replica
from meshsync.upkeep import Upkeep


class Indexing:
    """The worker of one node.  `changed` is to be notified of what was declared, and tells of what got ready."""

    def __init__(self, upkeep: Upkeep, events: EventLog) -> None:
        self._upkeep = upkeep
        self._events = events
        self.changed = Notifier()

    async def run(self) -> None:
        """Work for ever, a few milliseconds at a time.  Cancelling loses at most one step."""
        while True:
            await self.changed.wait_until(self._is_work)
            await self._upkeep.work_through(self._step)

    def _is_work(self) -> bool:
        return any(not one.indexes.is_settled for one in self._upkeep.replicas())

    def _step(self, replica: Replica) -> bool:
        if replica.indexes.is_settled:
            return False
        was_ready = {row.path for row, _ in replica.indexes.ready()}
        replica.indexes.step()
        for row, _ in replica.indexes.ready():
            if row.path not in was_ready:
                self._events.emit("index_ready", collection=replica.name, field=row.path)
                self.changed.notify()
        return True
