"""The handle of a subscription."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

import trio

from meshsync.core.history import History
from meshsync.core.policy import Policy
from meshsync.core.priority import Priority
from meshsync.core.query import Query
from meshsync.core.retention import ALL, LATEST, Retention
from meshsync.core.sieve import encode_query
from meshsync.errors import LocalError, MeshsyncError

if TYPE_CHECKING:
    from meshsync.sync.engine import SyncEngine


class Subscription:
    """The wish to replicate a collection.  It lasts as long as the handle: `async with engine.subscribe(…)`."""

    def __init__(
        self,
        engine: SyncEngine,
        name: str,
        query: Query | str | None,
        priority: Priority | str,
        conflicts: Policy | str | None = None,
        retain: Retention | str = ALL,
        history: History | str | None = None,
    ) -> None:
        query = Query.of(query)
        encode_query(query)
        self._engine = engine
        self.collection = name
        self.query = query
        """Which documents it brings; of several handles of one collection, what any of them wants."""
        self.priority = Priority.of(priority)
        """Of the handles of one collection the most urgent counts.  `SyncEngine.set_priority` changes them all."""
        self.conflicts = None if conflicts is None else Policy.of(conflicts)
        """How it decides conflicts; None: as it is held here, or else by default."""
        self.retain = Retention.of(retain)
        """What is kept of the past; of several handles of one collection, all that any of them keeps."""
        self.history = None if history is None else History.of(history)
        """How much of the past it brings; None: all, or where nothing is kept of it the latest only."""
        self._is_open = False

    @property
    def wanted_history(self) -> History:
        """How much of the past it brings; of several handles of one collection, all that any of them wants."""
        return self.history or (History.LATEST if self.retain == LATEST else History.FULL)

    def in_words(self) -> dict[str, str]:
        """What it wants, by the names of the options of `collections join`; "" for all documents."""
        return {
            "where": "" if self.query.is_everything else str(self.query),
            "history": self.wanted_history.value,
            "priority": self.priority.name.lower(),
            "retain": str(self.retain),
        }

    async def __aenter__(self) -> Self:
        """Begin to replicate."""
        self.open()
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop replicating, unless another handle wishes it."""
        self.close()

    def open(self) -> None:
        """Begin to replicate: idempotent.

        LocalError: no name of a collection, or another policy than it has here.  StoreError: the disk.
        """
        if not self._is_open:
            self._engine.replicating.add(self)
            self._is_open = True

    def close(self) -> None:
        """Stop replicating, unless another handle wishes it: idempotent."""
        if self._is_open:
            self._is_open = False
            self._engine.replicating.remove(self)

    def choose(self, query: Query | str | None = None, *, history: History | str | None = None) -> None:
        """Want other documents, or more or less of their past, from now on, on the connections as they stand.

        None: as before.  What was brought stays.  LocalError: the query is too large, alone or with what other handles
        want, or there is no such history; nothing changed then.
        """
        before = self.query, self.history
        query = self.query if query is None else Query.of(query)
        encode_query(query)
        self.history = self.history if history is None else History.of(history)
        self.query = query
        try:
            if self._is_open:
                self._engine.replicating.chosen(self)
        except MeshsyncError:
            self.query, self.history = before
            raise

    def keep(self, retain: Retention) -> None:
        """Keep so much of the past from now on."""
        self.retain = retain
        if self._is_open:
            self._engine.replicating.chosen(self)

    async def wait_synced(self) -> None:
        """Wait until the roots are equal with every connected peer, of which there is at least one, and nothing lacks
        that the query wants.

        Cancelling stops the waiting only.  LocalError: the handle is not open.
        """
        if not self._is_open:
            raise LocalError("the subscription is not open: use `async with node.sync.subscribe(…)`")
        await self._engine.wait_synced([self.collection])
