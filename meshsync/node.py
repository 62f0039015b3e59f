"""A node: everything composed, and the nursery that runs it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
import trio

from meshsync.addresses import HostPort, parse_address
from meshsync.collection import Collection
from meshsync.config import Config
from meshsync.core.limits import LIMITS, Limits
from meshsync.datadir import DataDir, boot_id
from meshsync.discovery.static import StaticDiscovery
from meshsync.errors import ConfigError, LocalError
from meshsync.events import EventLog
from meshsync.groups import unwrapped
from meshsync.identity import Identity, load_mesh_key, load_or_create
from meshsync.ids import CollectionId, EndpointId
from meshsync.inspection import log_entries, verify_store
from meshsync.peering.peering import Peering
from meshsync.peering.trust import Trust
from meshsync.status import node_status, peer_list, pending_list
from meshsync.store.base import Store
from meshsync.store.replica import Replica
from meshsync.store.sqlite.store import SqliteStore
from meshsync.sync.engine import Subscription, SyncEngine
from meshsync.sync.gate import Priority
from meshsync.transports.base import Transport
from meshsync.transports.quic.endpoint import open_endpoint
from meshsync.transports.quic.udp import open_udp_socket

_log = structlog.get_logger("meshsync.node")

_JOINED = "joined"
"""Under this name the store keeps the collections that were joined at run time, one name and priority a line."""
PREFIX_DIGITS_MIN = 8


class Node:
    """A running node.  Made by `open_node`."""

    def __init__(
        self, config: Config, identity: Identity, store: Store, limits: Limits, rng: random.Random, instance: bytes
    ) -> None:
        self.config = config
        self.identity = identity
        self.id = identity.endpoint_id
        self.name = config.name
        self.store = store
        self.limits = limits
        self.events = EventLog(limits)
        self.started = trio.current_time()
        self.listen: tuple[str, ...] = ()
        self.sync = SyncEngine(store, self._open_replica, self.events, limits, rng, wall_ms)
        named = [peer.id for peer in config.peers]
        self.trust = Trust(self.id, config.trust, named, store, limits, time.time)
        self.peering = Peering(self.id, instance, self.trust, self.sync, self.events, limits, rng, time.time)
        self.sync.connector = self.peering.connect
        self._collections: dict[str, Collection] = {}
        self._replicas: dict[CollectionId, Replica] = {}
        self._joined: dict[str, Subscription] = {}

    def __repr__(self) -> str:
        return f"Node({self.id.short}…, {self.name!r})"

    # Collections

    def collection(self, name: str) -> Collection:
        """A collection that this node replicates.  LocalError: it does not."""
        found = self._collections.get(name)
        if found is None:
            replica = self.sync.replica(name)
            found = self._collections[name] = Collection(
                replica,
                self.sync.stored,
                self.sync.watcher(replica),
                wall_ms,
                wait_durable=self.config.durability == "full",
            )
        return found

    def collections(self) -> list[str]:
        """The names of the collections that this node replicates."""
        return sorted(replica.name for replica in self.sync.subscribed())

    async def join(self, name: str, *, priority: Priority = Priority.MEDIUM) -> None:
        """Replicate a collection from now on, also after a restart."""
        if name not in self._joined:
            self._join(name, priority)
            self._remember_joined()
            self.events.emit("collection_joined", collection=name)
        else:
            self.sync.set_priority(name, priority)
        await self.store.synced()

    async def leave(self, name: str) -> None:
        """Stop replicating a collection; what is held of it stays on the disk.  LocalError: it was not joined."""
        subscription = self._joined.pop(name, None)
        if subscription is None:
            raise LocalError(f"this node has not joined {name!r}; it has: {', '.join(self.collections()) or 'none'}")
        subscription.close()
        self._collections.pop(name, None)
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
        for line in (self.store.meta(_JOINED) or b"").decode().splitlines():
            priority, _, name = line.partition(" ")
            if name not in self._joined:
                self._join(name, Priority[priority])

    def _remember_joined(self) -> None:
        lines = [f"{subscription.priority.name} {name}" for name, subscription in self._joined.items()]
        with self.store.transaction():
            self.store.set_meta(_JOINED, "\n".join(lines).encode())

    def _open_replica(self, name: str) -> Replica:
        id = CollectionId.of_name(name)
        replica = self._replicas.get(id)
        if replica is None:
            tables = self.store.collection(id, name)
            replica = self._replicas[id] = Replica(self.store, tables, self.identity.private_key, self.limits)
        return replica

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

    def log_entries(self, collection: str) -> Iterator[dict[str, Any]]:
        """The entries of a collection in the order of their arrival."""
        return log_entries(self.sync.replica(collection))

    async def verify(self, *, repair: bool = False) -> AsyncIterator[str]:
        """Check everything that is stored against its hashes; a line for each fault."""
        async for line in verify_store(
            self.store, [self._open_replica(name) for _, name in self.store.collections()], repair=repair
        ):
            yield line


def wall_ms() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def open_node(config: Config, *, limits: Limits = LIMITS) -> AsyncIterator[Node]:
    """Run a node for the block.

    ConfigError: the configuration, the key or the port cannot be used.  StoreError: the store cannot.
    """
    directory = DataDir(config.data_dir)
    directory.create()
    async with AsyncExitStack() as stack:
        stack.enter_context(unwrapped())
        stack.enter_context(directory.lock())
        identity = load_or_create(config.data_dir)
        if any(peer.id == identity.endpoint_id for peer in config.peers):
            raise ConfigError(
                f"{identity.endpoint_id} is this node itself; expected the ids of other nodes under peers"
            )
        mesh_key = _mesh_key(config)
        boot = boot_id()
        store = SqliteStore.open(directory.database, boot_id=boot.encode() if boot else None, limits=limits)
        stack.callback(store.close)
        instance = os.urandom(16)
        node = Node(config, identity, store, limits, random.SystemRandom(), instance)
        node.join_remembered()
        sockets = [_bind(address) for address in config.listen]
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
        node.listen = tuple(str(HostPort(*transport.address)) for transport in transports)
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        nursery.start_soon(node.peering.run, transports, [StaticDiscovery(config.peers)])
        yield node
        node.events.emit("stopping")


def _mesh_key(config: Config) -> bytes | None:
    if config.mesh_key_file is not None:
        return load_mesh_key(config.mesh_key_file)
    if config.trust == "mesh-key":
        raise ConfigError("trust mesh-key needs the key: name its file with --mesh-key-file (mesh_key_file in YAML)")
    return None


def _bind(address: HostPort):  # type: ignore[no-untyped-def]
    try:
        return open_udp_socket(address.host, address.port)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {address}: {error.strerror or error}; stop what uses the port, or name another with --listen"
        ) from error
