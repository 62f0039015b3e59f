"""Builds declared indexes, and removes those that were given up, beside everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from meshsync.errors import StoreError
from meshsync.events import EventLog
from meshsync.notifier import Notifier
from meshsync.store.replica import Replica

_RETRY_SECONDS = 5.0
"""After the disk did not take a step."""


class Indexing:
    """The worker of one node.  `changed` is to be notified of what was declared, and tells of what got ready."""

    def __init__(
        self, replicas: Callable[[], Iterable[Replica]], events: EventLog, store_failed: Callable[[StoreError], None]
    ) -> None:
        self._replicas = replicas
        self._events = events
        self._store_failed = store_failed
        self.changed = Notifier()

    async def run(self) -> None:
        """Work for ever, a few milliseconds at a time.  Cancelling loses at most one step."""
        while True:
            replica = next((one for one in self._replicas() if not one.indexes.is_settled), None)
            if replica is None:
                await self.changed.wait_until(self._is_work)
                continue
            try:
                await self._settle(replica)
            except StoreError as error:
                self._store_failed(error)
                await trio.sleep(_RETRY_SECONDS)

    def _is_work(self) -> bool:
        return any(not one.indexes.is_settled for one in self._replicas())

    async def _settle(self, replica: Replica) -> None:
        is_settled = False
        while not is_settled and replica in self._replicas():
            was_ready = {row.path for row, _ in replica.indexes.ready()}
            is_settled = replica.indexes.step()
            for row, _ in replica.indexes.ready():
                if row.path not in was_ready:
                    self._events.emit("index_ready", collection=replica.name, field=row.path)
                    self.changed.notify()
            await trio.lowlevel.checkpoint()
