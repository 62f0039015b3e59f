"""Finds what of the documents here is wanted, beside everything else, where a subscription chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from meshsync.core.history import History
from meshsync.core.query import Query
from meshsync.notifier import Notifier
from meshsync.store.replica import Replica

if TYPE_CHECKING:
    from meshsync.sync.engine import SyncEngine


class Parts:
    """The worker of one node."""

    def __init__(self, engine: SyncEngine) -> None:
        self._engine = engine
        self._chosen = Notifier()

    def choose(self, replica: Replica, query: Query | None, history: History) -> None:
        """Want the documents that match, or all, and so much of their past: peers are told.

        LocalError: the query is more than a peer takes.
        """
        if replica.choose(query, history):
            self._engine.watcher(replica).notify()
            for exchange in self._engine.exchanges(replica):
                exchange.choose()
        if not replica.is_settled:
            self._chosen.notify()

    async def run(self) -> None:
        """Work for ever, a few milliseconds at a time.  Cancelling loses nothing."""
        while True:
            await self._chosen.wait_until(lambda: self._next() is not None)
            replica = self._next()
            while replica is not None and not self._step(replica):
                await trio.lowlevel.checkpoint()
                replica = self._next()

    def _next(self) -> Replica | None:
        return next((one for one in self._engine.subscribed() if not one.is_settled), None)

    def _step(self, replica: Replica) -> bool:
        if replica.interest is None or not replica.interest.step():
            return False
        for exchange in self._engine.exchanges(replica):
            exchange.resume()  # it may be synced now, or have something to ask for
        self._engine.watcher(replica).notify()
        self._engine.progressed.notify()
        return True
