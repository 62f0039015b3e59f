"""What is done on the replicas beside everything else, in steps of some milliseconds, as far as the disk takes them."""

from __future__ import annotations

from collections.abc import Callable, Collection

import trio

from meshsync.core.limits import Limits
from meshsync.errors import StoreError
from meshsync.store.replica import Replica


class Upkeep:
    """Takes the steps of the workers of one node, each of which knows what there is to do, and when."""

    def __init__(
        self, replicas: Callable[[], Collection[Replica]], store_failed: Callable[[StoreError], None], limits: Limits
    ) -> None:
        self.replicas = replicas
        """Those that are there now: a collection may go at any time."""
        self.limits = limits
        self._store_failed = store_failed

    async def work_through(self, step: Callable[[Replica], bool]) -> bool:
        """Take one step after another on each replica, until `step` says that there is nothing left for now.

        False, after a while: the disk did not take a step, which is to be tried again; the other replicas were not
        kept from theirs.  Cancelling loses nothing: no step waits.
        """
        is_done = True
        for replica in self.replicas():
            try:
                while replica in self.replicas() and step(replica):
                    await trio.lowlevel.checkpoint()
            except StoreError as error:
                self._store_failed(error)
                is_done = False
        if not is_done:
            await trio.sleep(self.limits.upkeep_retry_seconds)
        return is_done
