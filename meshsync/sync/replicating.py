"""Beginning and ending replication, as the handles want it and those for whom this node carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshsync.errors import MeshsyncError
from meshsync.store.replica import Replica
from meshsync.sync.subscription import Subscription
from meshsync.sync.subscriptions import Subscriptions

if TYPE_CHECKING:
    from meshsync.sync.engine import SyncEngine


class Replicating:
    """Lets the links of one node, and what it wants of its peers, follow its subscriptions."""

    def __init__(self, engine: SyncEngine, subscriptions: Subscriptions) -> None:
        self._engine = engine
        self._subscriptions = subscriptions

    def add(self, handle: Subscription) -> None:
        """Begin to replicate for a handle.

        LocalError: no name of a collection, or with what other handles want the query is too large.  StoreError: the
        disk.  Nothing changed then.
        """
        replica = self._subscriptions.add(handle)
        try:
            self.chosen(handle)
        except MeshsyncError:
            self._subscriptions.remove(handle)
            raise
        if replica is not None:
            self._begin(replica)
        self.wishes_changed()

    def remove(self, handle: Subscription) -> None:
        """Stop replicating for a handle."""
        held = self._subscriptions.replica(handle.collection)
        replica = self._subscriptions.remove(handle)
        if replica is not None:
            self._end(replica)
        else:
            self._choose(held)
        self.wishes_changed()

    def chosen(self, handle: Subscription) -> None:
        """A handle wants what it did not want before.  LocalError, StoreError: as `add`."""
        self._choose(self._subscriptions.replica(handle.collection))

    def carry(self, replica: Replica) -> None:
        """Begin to replicate a collection for others.  StoreError: the disk, and nothing changed."""
        is_new = self._subscriptions.carry(replica)
        try:
            self._choose(replica)
        except MeshsyncError:
            self._subscriptions.uncarry(replica)
            raise
        if is_new:
            self._begin(replica)

    def uncarry(self, replica: Replica) -> None:
        """Stop replicating a collection for others; its `exchanges` end then, unless there is a handle."""
        if self._subscriptions.uncarry(replica):
            self._end(replica)
        else:
            self._choose(replica)

    def wishes_changed(self) -> None:
        """What is replicated here, or how urgently, is another thing than it was."""
        self._engine.prioritise()
        self._engine.carrier.tell_all()

    def _begin(self, replica: Replica) -> None:
        for link in self._engine.links.values():
            link.subscribed(replica)

    def _end(self, replica: Replica) -> None:
        self._engine.holds.forget(replica)
        for link in self._engine.links.values():
            link.unsubscribed(replica)
        self._engine.progressed.notify()

    def _choose(self, replica: Replica) -> None:
        query, history = self._subscriptions.query(replica.id), self._subscriptions.history(replica.id)
        self._engine.parts.choose(replica, query, history)
        self._subscriptions.keep(replica)
