"""A node: everything composed, and the nursery that runs it."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
import trio

from meshsync.addresses import HostPort, parse_address
from meshsync.collection import Collection
from meshsync.config import Config
from meshsync.core import cbor
from meshsync.core.limits import LIMITS, Limits
from meshsync.core.priority import Priority
from meshsync.core.summary import only_reachable
from meshsync.datadir import DataDir, boot_id
from meshsync.discovery.base import Discovery
from meshsync.discovery.static import StaticDiscovery
from meshsync.errors import ConfigError, DamagedError, LocalError
from meshsync.events import EventLog
from meshsync.graph import mesh_graph
from meshsync.groups import unwrapped
from meshsync.identity import Identity, load_mesh_key, load_or_create
from meshsync.ids import CollectionId, EndpointId
from meshsync.inspection import log_entries
from meshsync.interfaces import Interfaces
from meshsync.network import Network
from meshsync.peering.peering import Peering
from meshsync.peering.trust import Trust
from meshsync.repair import LAST_RESORT
from meshsync.repair import repair as mend
from meshsync.status import node_status, peer_list, pending_list
from meshsync.store.base import Store
from meshsync.store.replica import Replica
from meshsync.store.sqlite.store import SqliteStore
from meshsync.sync.engine import SyncEngine
from meshsync.sync.introductions import Introductions
from meshsync.sync.relay import Carrier
from meshsync.sync.subscription import Subscription
from meshsync.transports.base import Transport
from meshsync.transports.quic.endpoint import open_endpoint
from meshsync.transports.quic.udp import DatagramSocket
from meshsync.transports.routed import RoutedTransport
from meshsync.verification import Fault, Finding, verify

_JOINED = "joined"
"""Under this name the store keeps the collections that were joined at run time: CBOR [[name, priority], …]."""
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
        self._wall_ms = wall_ms
        self._collections: dict[CollectionId, Collection] = {}
        self._replicas: dict[CollectionId, Replica] = {}
        self._joined: dict[str, Subscription] = {}

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
            )
        return found

    def collections(self) -> list[str]:
        """The names of the collections that this node replicates."""
        return sorted(replica.name for replica in self.sync.subscribed() if self.sync.is_own(replica.id))

    async def join(self, name: str, *, priority: Priority = Priority.MEDIUM) -> None:
        """Replicate a collection from now on, also after a restart; or change its priority.

        Done before the first wait: cancelling stops only the waiting for the disk.
        """
        if name in self._joined:
            self.sync.set_priority(name, priority)
            self._remember_joined()
        else:
            self._join(name, priority)
            self._remember_joined()
            self.events.emit("collection_joined", collection=name)
        await self.store.synced()

    async def leave(self, name: str) -> None:
        """Stop replicating a collection; what is held of it stays on the disk.

        Where the configuration names it the next start joins it again.  One that is only carried for others is named
        by its id; that removes its data, and it is not carried again for some weeks.  Done before the first wait:
        cancelling stops only the waiting for the disk.  LocalError: it was not joined.
        """
        subscription = self._joined.pop(name, None)
        if subscription is None and (carried := self.relay.find(name)) is not None:
            await self.relay.leave(carried)
            return
        if subscription is None:
            raise LocalError(f"this node has not joined {name!r}; it has: {', '.join(self.collections()) or 'none'}")
        subscription.close()
        self._remember_joined()
        self.events.emit("collection_left", collection=name)
        await self.store.synced()

    def _join(self, name: str, priority: Priority) -> None:
        subscription = self.sync.subscribe(name, priority=priority)
        subscription.open()
        self._joined[name] = subscription

    def join_remembered(self) -> None:
        """Join what the configuration names and what was joined in earlier runs."""
        for collection in self.config.collections:
            self._join(collection.name, Priority[collection.priority.upper()])
        remembered = self.store.meta(_JOINED)
        for name, priority in cbor.decode_trusted(remembered) if remembered else ():
            if name not in self._joined:
                self._join(name, Priority(priority))
        self.relay.load()

    def _remember_joined(self) -> None:
        # What the configuration names is left to it: it may name other collections the next time.
        configured = {collection.name for collection in self.config.collections}
        rows = [
            [name, int(subscription.priority)] for name, subscription in self._joined.items() if name not in configured
        ]
        with self.store.transaction():
            self.store.set_meta(_JOINED, cbor.encode(rows))

    def _open_named(self, name: str) -> Replica:
        return self._open_replica(CollectionId.of_name(name), name)

    def _open_replica(self, id: CollectionId, name: str = "") -> Replica:
        # What was carried for others under its id alone gets its name when the owner joins it.
        tables = self.store.collection(id, name)
        replica = self._replicas.get(id)
        if replica is None:
            replica = self._replicas[id] = Replica(self.store, tables, self.identity.private_key, self.limits)
            replica.damage.listen(self._note_damage)
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

    async def accept_peer(self, id: EndpointId) -> None:
        """Let an endpoint in, now and after restarts."""
        self.peering.accept(id)
        await self.store.synced()

    async def forget_peer(self, id: EndpointId) -> None:
        """Forget an endpoint and disconnect it.  LocalError: nothing is known of it."""
        self.peering.forget(id)
        await self.store.synced()

    async def ban_peer(self, id: EndpointId) -> None:
        """Keep an endpoint out, now and after restarts."""
        self.peering.ban(id)
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


CLOCK_OFFSET = "MESHSYNC_CLOCK_OFFSET"
"""Seconds by which the wall clock of a node is to be off: labs try with it what wrong clocks do."""


def wall_clock(environ: Mapping[str, str]) -> Callable[[], int]:
    """What tells milliseconds since the Unix epoch.  ConfigError: the variable is no number."""
    text = environ.get(CLOCK_OFFSET, "")
    try:
        offset_ms = int(float(text or 0) * 1000)
    except (ValueError, OverflowError):
        raise ConfigError(f"{CLOCK_OFFSET}: {text!r} is no number; expected seconds, such as -3600") from None
    return lambda: time.time_ns() // 1_000_000 + offset_ms


@asynccontextmanager
async def start_node(
    config: Config,
    identity: Identity,
    store: Store,
    sockets: Sequence[DatagramSocket],
    *,
    mesh_key: bytes | None = None,
    discoveries: Sequence[Discovery] = (),
    reachable_at: Callable[[], tuple[HostPort, ...]] | None = None,
    interfaces: Interfaces | None = None,
    limits: Limits = LIMITS,
    rng: random.Random,
    wall_ms: Callable[[], int],
    instance: bytes,
) -> AsyncIterator[Node]:
    """Run a node for the block, over what was opened for it.  Takes over the sockets; the store stays the caller's.

    `discoveries` find peers besides those of the configuration; `reachable_at` says where others find this node, by
    default where its sockets are.  Dialling keeps to `interfaces`, and begins anew when they change.
    `rng` is for jitter, `wall_ms` tells milliseconds since the Unix epoch, `instance` is 16 bytes, new for every start.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(unwrapped())
        for socket in sockets:
            stack.callback(socket.close)
        node = Node(config, identity, store, limits=limits, rng=rng, wall_ms=wall_ms, instance=instance)
        node.join_remembered()
        transports: list[Transport] = [
            await stack.enter_async_context(
                open_endpoint(
                    socket,
                    identity.private_key,
                    instance=instance,
                    name=config.name,
                    admit=node.peering.admit,
                    mesh_key=mesh_key,
                    limits=limits,
                )
            )
            for socket in sockets
        ]
        listen = [HostPort(*transport.address) for transport in transports]
        node.listen = tuple(map(str, listen))
        if config.discovery.exchange:
            node.sync.summaries.addresses = reachable_at or (lambda: only_reachable(listen))
            discoveries = [*discoveries, Introductions(node.sync, node.trust.would_admit)]
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        nursery.start_soon(node.sync.summaries.run)
        nursery.start_soon(node.relay.run)
        if interfaces is not None:
            transports = [RoutedTransport(transport, interfaces.check_route) for transport in transports]
            nursery.start_soon(interfaces.follow, node.peering.network_changed)
        node.peering.start(nursery, transports, [StaticDiscovery(config.peers), *discoveries])
        try:
            yield node
        finally:
            node.events.emit("stopping")


@asynccontextmanager
async def open_node(config: Config, *, limits: Limits = LIMITS) -> AsyncIterator[Node]:
    """Run a node for the block.

    ConfigError: the configuration, the key or the port cannot be used.  StoreError: the store cannot.
    """
    if not structlog.is_configured():
        # Its own default is standard output, which belongs to the program.
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    directory = DataDir(config.data_dir)
    directory.create()
    async with AsyncExitStack() as stack:
        stack.enter_context(unwrapped())
        stack.enter_context(directory.lock())
        identity = load_or_create(config.data_dir)
        config.refuse_self(identity.endpoint_id)
        mesh_key = _mesh_key(config)
        rng = random.SystemRandom()
        boot = boot_id()
        store = SqliteStore.open(directory.database, boot_id=boot.encode() if boot else None, limits=limits)
        stack.callback(store.close)
        network = Network(config, limits)
        stack.callback(network.close)
        node = await stack.enter_async_context(
            start_node(
                config,
                identity,
                store,
                network.sockets,
                mesh_key=mesh_key,
                discoveries=network.discoveries(identity.endpoint_id, mesh_key, rng),
                reachable_at=network.reachable_at,
                interfaces=network.interfaces,
                limits=limits,
                rng=rng,
                wall_ms=wall_clock(os.environ),
                instance=os.urandom(16),
            )
        )
        yield node


def _mesh_key(config: Config) -> bytes | None:
    if config.mesh_key_file is not None:
        return load_mesh_key(config.mesh_key_file)
    if config.trust == "mesh-key":
        raise ConfigError("trust mesh-key needs the key: name its file with --mesh-key-file (mesh_key_file in YAML)")
    return None
