"""Finds what of the documents here is wanted, where a subscription chooses, and drops what is not, beside all else."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

import trio

from meshsync.core.history import History
from meshsync.core.query import Query
from meshsync.notifier import Notifier
from meshsync.store.replica import Replica
from meshsync.upkeep import Upkeep

if TYPE_CHECKING:
    from meshsync.sync.engine import SyncEngine


class Parts:
    """The worker of one node."""

    def __init__(self, engine: SyncEngine) -> None:
        self._engine = engine
        self._upkeep = Upkeep(engine.subscribed, engine.store_failed, engine.limits)
        self._chosen = Notifier()

    def choose(self, replica: Replica, query: Query | None, history: History) -> None:
        """Want the documents that match, or all, and so much of their past: peers are told.

        LocalError: the query is more than a peer takes.
        """
        if replica.choose(query, history):
            self._engine.watcher(replica).notify()
            for exchange in self._engine.exchanges(replica):
                exchange.choose()
        if _has_work(replica):
            self._chosen.notify()

    def look(self, replica: Replica) -> None:
        """Something may be to be dropped: entries came, or a peer has confirmed that it has them."""
        if replica.interest is not None:
            self._chosen.notify()

    def turned(self, replica: Replica) -> None:
        """Nothing was stored, and other documents may be shown, or payloads lacking, or to be dropped."""
        self._engine.watcher(replica).notify()
        self._resume(replica)
        if replica.interest is not None:
            self._chosen.notify()

    def _resume(self, replica: Replica) -> None:
        """Have every session look anew at what there is to send or to ask for."""
        for exchange in self._engine.exchanges(replica):
            exchange.resume()

    async def run(self) -> None:
        """Work for ever, a few milliseconds at a time.  Cancelling loses nothing."""
        while True:
            with trio.CancelScope(deadline=self._due()):
                await self._chosen.wait()
            await self._upkeep.work_through(self._step)

    def _due(self) -> float:
        """When there is something to do, as far as is known."""
        now = trio.current_time()
        return min((self._due_of(replica, now) for replica in self._engine.subscribed()), default=math.inf)

    def _due_of(self, replica: Replica, now: float) -> float:
        if _has_work(replica):
            return now
        due = replica.unwanted.due(now)
        return math.inf if due is None else due

    def _step(self, replica: Replica) -> bool:
        now = trio.current_time()
        if self._due_of(replica, now) > now:
            return False
        if _has_work(replica):
            self._settle(replica)
        else:
            self._drop(replica)
        return True

    def _settle(self, replica: Replica) -> None:
        assert replica.interest is not None
        if not replica.interest.step():
            return
        self._resume(replica)  # one may be synced now, or have something to ask for
        self._engine.watcher(replica).notify()
        self._engine.progressed.notify()

    def _drop(self, replica: Replica) -> None:
        was_waiting = replica.unwanted.is_waiting
        dropped = replica.unwanted.step(trio.current_time())
        if dropped.entries:
            self._engine.events.emit("payloads_dropped", collection=replica.name, **asdict(dropped))
        if replica.unwanted.is_waiting and not was_waiting:
            self._resume(replica)  # a peer may confirm that it has them


def _has_work(replica: Replica) -> bool:
    """Whether documents are to be looked at."""
    return replica.interest is not None and replica.interest.has_work
