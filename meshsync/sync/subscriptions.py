"""Which collections this node replicates, for itself or for others, and how urgently."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from operator import or_

from meshsync.core.history import History
from meshsync.core.naming import check_collection_name
from meshsync.core.policy import Policy
from meshsync.core.priority import Priority
from meshsync.core.query import Query
from meshsync.core.retention import ALL, Retention
from meshsync.errors import LocalError
from meshsync.ids import CollectionId
from meshsync.store.replica import Replica
from meshsync.sync.subscription import Subscription

PREFIX_DIGITS_MIN = 8


def find_id(text: str, replicas: Mapping[CollectionId, Replica]) -> CollectionId | None:
    """What has a name, an id, or the only id that begins so; None where there is none, or several."""
    for id, replica in replicas.items():
        if replica.tables.is_named and replica.name == text:
            return id
    digits = text.lower() if len(text) >= PREFIX_DIGITS_MIN else "no id"
    found = [id for id in replicas if id.hex().startswith(digits)]
    return found[0] if len(found) == 1 else None


class Subscriptions:
    """The open handles, by collection."""

    def __init__(self, open_replica: Callable[[str, Policy | None], Replica]) -> None:
        self._open_replica = open_replica
        self._handles: dict[CollectionId, list[Subscription]] = {}
        self._replicas: dict[CollectionId, Replica] = {}
        self._ids: dict[str, CollectionId] = {}
        """Of those that are subscribed, by name: what a name means hangs on the policy for conflicts."""
        self._priorities: dict[CollectionId, Priority] = {}
        self._carried: dict[CollectionId, Replica] = {}
        """Those that are carried for others; one may be subscribed to as well."""

    def add(self, handle: Subscription) -> Replica | None:
        """Note a handle; the replica where it was not replicated before.

        LocalError: no name of a collection, or it is subscribed with another policy for conflicts.
        """
        name = handle.collection
        check_collection_name(name)
        self.check_policy(name, handle.conflicts)
        replica = self._replicas[self._ids[name]] if name in self._ids else self._open_replica(name, handle.conflicts)
        self._ids[name] = replica.id
        handles = self._handles.setdefault(replica.id, [])
        handles.append(handle)
        self._replicas[replica.id] = replica
        self._prioritise(replica.id)
        return replica if len(handles) == 1 and replica.id not in self._carried else None

    def check_policy(self, name: str, policy: Policy | None) -> None:
        """LocalError: the collection is subscribed with another policy for conflicts."""
        known = self._replicas[self._ids[name]].policy if name in self._ids else policy
        if known is not None and policy not in (None, known):
            raise LocalError(
                f"{name!r} decides conflicts by `{known.value}` here, and by another policy it would be another"
                " collection; dump and leave it first, or join it as it is"
            )

    def remove(self, handle: Subscription) -> Replica | None:
        """Forget a handle; the replica where it is no longer replicated."""
        replica = self.replica(handle.collection)
        handles = self._handles[replica.id]
        handles.remove(handle)
        if handles:
            self._prioritise(replica.id)
            return None
        del self._handles[replica.id], self._replicas[replica.id], self._priorities[replica.id]
        del self._ids[handle.collection]
        return replica if replica.id not in self._carried else None

    def carry(self, replica: Replica) -> bool:
        """Replicate a collection for others; whether it was not replicated before."""
        is_new = replica not in self
        self._carried[replica.id] = replica
        return is_new

    def uncarry(self, replica: Replica) -> bool:
        """Replicate a collection for others no longer; whether it is no longer replicated at all."""
        self._carried.pop(replica.id, None)
        return replica not in self

    def query(self, id: CollectionId) -> Query | None:
        """What is wanted of a collection, for all its handles; None: everything, as others want who have it carried."""
        queries = [handle.query for handle in self._handles.get(id, ())]
        if id in self._carried or not queries or any(query.is_everything for query in queries):
            return None
        return reduce(or_, dict.fromkeys(queries))

    def keep(self, replica: Replica) -> None:
        """Let as much of a collection's past go as none of its handles keeps; without any, as much as before."""
        wishes = [handle.retain for handle in self._handles.get(replica.id, ())]
        if replica.id in self._carried:
            wishes.append(ALL)  # others may want what this node would drop
        if wishes:
            replica.retaining.keep(reduce(Retention.or_else, wishes))

    def history(self, id: CollectionId) -> History:
        """How much of the past is wanted of a collection: of one that is carried all, as others want who have it."""
        wishes = [handle.wanted_history for handle in self._handles.get(id, ())]
        is_all = id in self._carried or not wishes or History.FULL in wishes
        return History.FULL if is_all else History.LATEST

    def _prioritise(self, id: CollectionId) -> None:
        self._priorities[id] = min(handle.priority for handle in self._handles[id])

    def replicas(self) -> list[Replica]:
        """The replicas, most urgent first, those that are only carried last."""
        return [*sorted(self._replicas.values(), key=self.priority), *self._foreign()]

    def _foreign(self) -> list[Replica]:
        return [replica for id, replica in self._carried.items() if id not in self._replicas]

    def replica(self, name: str) -> Replica:
        """The replica of a collection.  LocalError: there is no handle for it."""
        id = self._ids.get(name)
        if id is None:
            raise LocalError(f"this node does not subscribe to {name!r}: `meshsync collections join {name}` does that")
        return self._replicas[id]

    def chosen(self, names: Iterable[str] | None) -> set[CollectionId]:
        """The collections of these names.  LocalError: one is neither subscribed nor carried.

        Where no names are given: those that are subscribed; without any, those that are carried for others.
        """
        if names is None:
            return set(self._replicas or self._carried)
        return {self._find(name) for name in names}

    def _find(self, name: str) -> CollectionId:
        carried = None if name in self._ids else find_id(name, self._carried)
        return carried if carried is not None else self.replica(name).id

    def __contains__(self, replica: Replica) -> bool:
        return replica is self._replicas.get(replica.id) or replica is self._carried.get(replica.id)

    def is_own(self, id: CollectionId) -> bool:
        """Whether there is a handle for a collection, so that it is not only carried for others."""
        return id in self._replicas

    def priority(self, replica: Replica) -> Priority:
        """How urgent a collection is: as its most urgent handle, and without one less than all that have one."""
        return self._priorities.get(replica.id, Priority.LOW)

    def set_priority(self, name: str, priority: Priority) -> None:
        """Change all handles of a collection.  LocalError: there is none."""
        id = self.replica(name).id
        for handle in self._handles[id]:
            handle.priority = priority
        self._prioritise(id)
