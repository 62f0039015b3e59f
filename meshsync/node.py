"""A node: its parts, and what its owner can ask of it.  `meshsync.launch` runs it."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from typing import Any

import trio

from meshsync.addresses import parse_address
from meshsync.collection import Collection
from meshsync.config import Config
from meshsync.core.history import History
from meshsync.core.limits import Limits
from meshsync.core.policy import Policy, collection_id
from meshsync.core.priority import Priority
from meshsync.core.query import Query
from meshsync.core.retention import ALL, Retention
from meshsync.errors import DamagedError, LocalError, StoreError
from meshsync.events import EventLog
from meshsync.expiring import Expiring
from meshsync.graph import mesh_graph
from meshsync.identity import Identity
from meshsync.ids import CollectionId, EndpointId
from meshsync.indexing import Indexing
from meshsync.inspection import log_entries
from meshsync.interfaces import Interfaces
from meshsync.joining import Remembered, Terms
from meshsync.peering.peering import Peering
from meshsync.peering.trust import Trust
from meshsync.repair import LAST_RESORT
from meshsync.repair import repair as mend
from meshsync.status import node_status, peer_list, pending_list
from meshsync.store.base import Store
from meshsync.store.healing import follow_policy
from meshsync.store.replica import Replica
from meshsync.sweeping import Sweeping
from meshsync.sync.engine import SyncEngine
from meshsync.sync.relay import Carrier
from meshsync.sync.subscription import Subscription
from meshsync.upkeep import Upkeep
from meshsync.verification import Fault, Finding, verify

PREFIX_DIGITS_MIN = 8


class Node:
    """A running node.  Made by `open_node`."""

    def __init__(
        self,
        config: Config,
        identity: Identity,
        store: Store,
        *,
        limits: Limits,
        rng: random.Random,
        wall_ms: Callable[[], int],
        instance: bytes,
    ) -> None:
        def wall() -> float:
            return wall_ms() / 1000

        self.config = config
        self.identity = identity
        self.id = identity.endpoint_id
        self.name = config.name
        self.store = store
        self.limits = limits = config.limits.over(limits)
        self.events = EventLog(limits, wall)
        self.started = trio.current_time()
        self.listen: tuple[str, ...] = ()
        self.sync = SyncEngine(store, self._open_named, self.events, limits, rng, wall_ms, identity, config.name)
        self.sync.rates.of_peers.update({one.id: one.rate_bytes_per_s for one in config.peers if one.rate_bytes_per_s})
        named = [peer.id for peer in config.peers]
        self.trust = Trust(self.id, config.trust, named, store, limits, wall)
        self.relay = self.sync.carrier = Carrier(
            self.sync, self._open_replica, self._drop_replica, self.trust.confides, relays=config.relay
        )
        self.peering = Peering(self.id, instance, self.trust, self.sync, self.events, limits, rng, wall)
        self.sync.connector = self.peering.connect
        self.interfaces: Interfaces | None = None
        """Through which it finds others; None where it is not bound to any."""
        self._wall_ms = wall_ms
        upkeep = Upkeep(lambda: list(self._replicas.values()), self.sync.store_failed, limits)
        self.indexing = Indexing(upkeep, self.events)
        self.sweeping = Sweeping(upkeep, self.events, wall_ms)
        self.expiring = Expiring(upkeep, wall_ms, self.sync.parts.turned)
        self._collections: dict[CollectionId, Collection] = {}
        self._replicas: dict[CollectionId, Replica] = {}
        self._joined: dict[str, Subscription] = {}
        self._remembered = Remembered(store, config.collections)

    def __repr__(self) -> str:
        return f"Node({self.id.short}…, {self.name!r})"

    # Collections

    def collection(self, name: str) -> Collection:
        """A collection that this node replicates.  LocalError: it does not."""
        replica = self.sync.replica(name)
        found = self._collections.get(replica.id)
        if found is None:
            found = self._collections[replica.id] = Collection(
                replica,
                self.sync.stored,
                self.sync.store_failed,
                self.sync.watcher(replica),
                self._wall_ms,
                wait_durable=self.config.durability == "full",
                indexes_changed=self.indexing.changed,
            )
        return found

    def collections(self) -> list[str]:
        """The names of the collections that this node replicates."""
        return sorted(replica.name for replica in self.sync.subscribed() if self.sync.is_own(replica.id))

    async def join(
        self,
        name: str,
        query: Query | str | None = None,
        *,
        priority: Priority | str | None = None,
        conflicts: Policy | str | None = None,
        retain: Retention | str | None = None,
        history: History | str | None = None,
    ) -> dict[str, tuple[str, str]]:
        """Replicate a collection from now on, also after a restart; or change on what terms.  At the next start what
        the configuration says of it wins, key by key.

        `query`: which documents; None: all.  `conflicts`: its policy, see `SyncEngine.subscribe`.  `retain`: what is
        kept here of what was overwritten, such as "30d", see `meshsync.core.retention`; None: all.  `history`: how much
        of the past is fetched, see `SyncEngine.subscribe`.

        Where it was joined before, what is None stays as it is; if all are, all documents are wanted from now on.
        Returns what changed, by the names of the command's options, as it was and as it is; of `where` "" means all
        documents.  LocalError: it was joined with another policy, or the query is too large, or nobody knows what is to
        be kept, or fetched; nothing changed.  Done before the first wait: cancelling stops only the waiting for the
        disk.
        """
        terms = Terms.read(query, priority, conflicts, retain, history)
        changed: dict[str, tuple[str, str]] = {}
        if name in self._joined:
            terms = Terms(query=Query()) if terms.say_nothing else terms
            changed = self._change(name, terms)
            self._remembered.note(name, terms)
        else:
            self._join(name, terms)
            self._remembered.note(name, terms._replace(conflicts=self.sync.replica(name).policy))
            self.events.emit("collection_joined", collection=name)
        await self.store.synced()
        return changed

    def _change(self, name: str, terms: Terms) -> dict[str, tuple[str, str]]:
        handle = self._joined[name]
        self.sync.subscribe(name, terms.query, conflicts=terms.conflicts)  # refuses another policy
        before = handle.in_words()
        handle.choose(terms.query, history=terms.history)
        if terms.retain is not None:
            handle.keep(terms.retain)
        if terms.priority is not None:
            self.sync.set_priority(name, terms.priority)
        after = handle.in_words()
        return {what: (before[what], after[what]) for what in after if before[what] != after[what]}

    async def leave(self, name: str) -> None:
        """Stop replicating a collection; what is held of it stays on the disk.

        Where the configuration names it the next start joins it again, as it says or by default.  One that is only
        carried for others is named by its id; that removes its data, and it is not carried again for some weeks.  Done
        before the first wait: cancelling stops only the waiting for the disk.  LocalError: it was not joined.
        """
        subscription = self._joined.pop(name, None)
        if subscription is None and (carried := self.relay.find(name)) is not None:
            await self.relay.leave(carried)
            return
        if subscription is None:
            raise LocalError(f"this node has not joined {name!r}; it has: {', '.join(self.collections()) or 'none'}")
        subscription.close()
        self._remembered.forget(name)
        self.events.emit("collection_left", collection=name)
        await self.store.synced()

    def _join(self, name: str, terms: Terms) -> None:
        priority = Priority.MEDIUM if terms.priority is None else terms.priority
        subscription = self.sync.subscribe(
            name, terms.query, priority, terms.conflicts, terms.retain or ALL, terms.history
        )
        subscription.open()
        self._joined[name] = subscription

    def join_remembered(self) -> None:
        """Join what the configuration names, with its indexes, and what was joined in earlier runs.

        LocalError: with those that were declared in earlier runs there are too many indexes.
        """
        for name, terms in self._remembered.joined().items():
            self._join(name, terms)
        for one in self.config.collections:
            for field in one.indexes:
                self.sync.replica(one.name).indexes.add(field)
        self.relay.load()

    def _open_named(self, name: str, policy: Policy | None) -> Replica:
        if policy is None:
            stored = {id for id, _ in self.store.collections()}
            held = [one for one in Policy if collection_id(name, one) in stored]
            if len(held) > 1:
                found = " and ".join(one.value for one in held)
                raise LocalError(f"{name!r} is held here with the policies {found}; say which: `conflicts`")
            policy = held[0] if held else Policy.LATEST
        return self._open_replica(collection_id(name, policy), name)

    def _open_replica(self, id: CollectionId, name: str = "") -> Replica:
        # What was carried for others under its id alone gets its name when the owner joins it.
        tables = self.store.collection(id, name)
        replica = self._replicas.get(id)
        if replica is None:
            replica = self._replicas[id] = Replica(self.store, tables, self.identity.private_key, self.limits)
            replica.damage.listen(self._note_damage)
            with suppress(StoreError):
                self.expiring.begin(replica)
        follow_policy(replica)
        return replica

    def _drop_replica(self, id: CollectionId) -> None:
        self.store.drop_collection(id)
        self._replicas.pop(id, None)

    def _note_damage(self, error: DamagedError) -> None:
        facts = {"entry": error.arrival} if error.arrival is not None else {"document": error.document}
        self.events.emit("damaged", collection=error.collection, reason=str(error), **facts)

    # Peers

    def peers(self) -> list[dict[str, Any]]:
        """The peers, with the keys of `status`."""
        return peer_list(self)

    def pending(self) -> list[dict[str, Any]]:
        """The endpoints that knocked and are not trusted yet."""
        return pending_list(self)

    async def connect(self, id: EndpointId, addresses: list[str]) -> bool:
        """Connect to a peer now and keep doing so.  See `Peering.connect` for the answers and errors."""
        return await self.peering.connect(id, [parse_address(address) for address in addresses])

    async def accept_peer(self, id: EndpointId | str) -> None:
        """Let an endpoint in, now and after restarts.  LocalError: it is none, or this node."""
        self.peering.accept(EndpointId.of(id))
        await self.store.synced()

    async def forget_peer(self, id: EndpointId | str) -> None:
        """Forget an endpoint and disconnect it.  LocalError: nothing is known of it."""
        self.peering.forget(EndpointId.of(id))
        await self.store.synced()

    async def ban_peer(self, id: EndpointId | str) -> None:
        """Keep an endpoint out, now and after restarts.  LocalError: it is none, or this node."""
        self.peering.ban(EndpointId.of(id))
        await self.store.synced()

    def resolve_peer(self, prefix: str) -> EndpointId:
        """The endpoint with this id, or the only known one whose id begins so.  LocalError: none, or several."""
        text = prefix.lower()
        if len(text) == 64:
            return EndpointId.parse(text)
        if len(text) < PREFIX_DIGITS_MIN or not all(digit in "0123456789abcdef" for digit in text):
            raise LocalError(
                f"{prefix!r} is no id: give all 64 hexadecimal digits, or at least {PREFIX_DIGITS_MIN} of them"
            )
        known = self.trust.known() | set(self.peering.peers)
        found = [id for id in known if id.hex().startswith(text)]
        if len(found) != 1:
            raise LocalError(f"{len(found) or 'no'} known peers have an id that begins with {prefix!r}")
        return found[0]

    # Looking in

    def status(self) -> dict[str, Any]:
        """The state of the node as `status --json` tells it."""
        return node_status(self)

    def graph(self) -> dict[str, Any]:
        """The mesh as this node knows it, as `graph --json` tells it."""
        return mesh_graph(self)

    def log_entries(self, collection: str) -> Iterator[dict[str, Any]]:
        """The entries of a collection in the order of their arrival."""
        return log_entries(self.sync.replica(collection))

    async def verify(self, *, repair: bool = False) -> AsyncGenerator[Finding, None]:
        """Check everything that is stored against its hashes; yields what is wrong.

        With `repair` also what was done about it, with the help of the peers that are connected, and what remains.
        """
        replicas = [self._open_replica(id, name) for id, name in self.store.collections()]
        faults: list[Fault] = []
        async for fault in verify(self.store, replicas):
            faults.append(fault)
            yield Finding("fault", fault.text)
        if not repair or not faults:
            return
        async for line in mend(self.store, self.sync, faults, self.limits):
            yield Finding("repair", line)
        remains = False
        async for fault in verify(self.store, replicas):
            remains = True
            yield Finding("remains", fault.text)
        if remains:
            yield Finding("repair", LAST_RESORT)
