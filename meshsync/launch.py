"""Starting a node: what it needs is opened, its parts are composed, and the nursery that runs it is owned here."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TextIO

import structlog
import trio

from meshsync.addresses import HostPort
from meshsync.config import Config
from meshsync.core.limits import LIMITS, Limits
from meshsync.core.summary import only_reachable
from meshsync.datadir import DataDir, boot_id
from meshsync.discovery.base import Discovery
from meshsync.discovery.static import StaticDiscovery
from meshsync.errors import ConfigError
from meshsync.groups import unwrapped
from meshsync.identity import Identity, load_mesh_key, load_or_create
from meshsync.interfaces import Interfaces
from meshsync.network import Network
from meshsync.node import Node
from meshsync.peering.trust import Trust
from meshsync.store.base import Store
from meshsync.store.sqlite.store import SqliteStore
from meshsync.sync.introductions import Introductions
from meshsync.transports.base import Transport
from meshsync.transports.quic.endpoint import open_endpoint
from meshsync.transports.quic.udp import DatagramSocket
from meshsync.transports.routed import RoutedTransport, routed_admit

CLOCK_OFFSET = "MESHSYNC_CLOCK_OFFSET"
"""Seconds by which the wall clock of a node is to be off: labs try with it what wrong clocks do."""

KEY_LOG = "SSLKEYLOGFILE"
"""A file to which the secrets of all connections are appended, so that a capture can be read, by Wireshark for one: the
variable that browsers and curl know, and their format."""
_log = structlog.get_logger("meshsync")


def wall_clock(environ: Mapping[str, str]) -> Callable[[], int]:
    """What tells milliseconds since the Unix epoch.  ConfigError: the variable is no number."""
    text = environ.get(CLOCK_OFFSET, "")
    try:
        offset_ms = int(float(text or 0) * 1000)
    except (ValueError, OverflowError):
        raise ConfigError(f"{CLOCK_OFFSET}: {text!r} is no number; expected seconds, such as -3600") from None
    return lambda: time.time_ns() // 1_000_000 + offset_ms


def open_key_log(environ: Mapping[str, str]) -> TextIO | None:
    """The file for the secrets of connections, where one is asked for.  ConfigError: it cannot be written."""
    path = environ.get(KEY_LOG)
    if not path:
        return None
    try:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="ascii")
    except OSError as error:
        raise ConfigError(f"{KEY_LOG}: {path} cannot be written: {error.strerror}") from None
    _log.warning(f"{KEY_LOG} is set: whoever reads {path} can read what this node sends and receives")
    return file


@asynccontextmanager
async def start_node(
    config: Config,
    identity: Identity,
    store: Store,
    sockets: Sequence[DatagramSocket],
    *,
    mesh_key: bytes | None = None,
    discoveries: Callable[[Trust], Sequence[Discovery]] = lambda _: (),
    reachable_at: Callable[[], tuple[HostPort, ...]] | None = None,
    interfaces: Interfaces | None = None,
    limits: Limits = LIMITS,
    rng: random.Random,
    wall_ms: Callable[[], int],
    instance: bytes,
    key_log: TextIO | None = None,
) -> AsyncIterator[Node]:
    """Run a node for the block, over what was opened for it.  Takes over the sockets; the store stays the caller's.

    `discoveries` makes what finds peers besides those of the configuration; `reachable_at` says where others find this
    node, by default where its sockets are.  Connections keep to `interfaces`; dialling begins anew when
    they change.
    `rng` is for jitter, `wall_ms` tells milliseconds since the Unix epoch, `instance` is 16 bytes, new for every start;
    `key_log` takes the secrets of all connections.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(unwrapped())
        for socket in sockets:
            stack.callback(socket.close)
        node = Node(config, identity, store, limits=limits, rng=rng, wall_ms=wall_ms, instance=instance)
        node.join_remembered()
        admit = node.peering.admit if interfaces is None else routed_admit(node.peering.admit, interfaces.check_route)
        transports: list[Transport] = [
            await stack.enter_async_context(
                open_endpoint(
                    socket,
                    identity.private_key,
                    instance=instance,
                    name=config.name,
                    admit=admit,
                    mesh_key=mesh_key,
                    limits=limits,
                    key_log=key_log,
                )
            )
            for socket in sockets
        ]
        listen = [HostPort(*transport.address) for transport in transports]
        node.listen = tuple(map(str, listen))
        ways = [StaticDiscovery(config.peers), *discoveries(node.trust)]
        if config.discovery.exchange:
            node.sync.summaries.addresses = reachable_at or (lambda: only_reachable(listen))
            ways.append(Introductions(node.sync, node.trust.would_admit))
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        nursery.start_soon(node.sync.summaries.run)
        nursery.start_soon(node.sync.parts.run)
        nursery.start_soon(node.relay.run)
        nursery.start_soon(node.indexing.run)
        nursery.start_soon(node.expiring.run)
        nursery.start_soon(node.sweeping.run)
        if interfaces is not None:
            node.interfaces = interfaces
            transports = [RoutedTransport(transport, interfaces.check_route) for transport in transports]
            nursery.start_soon(interfaces.follow, node.peering.network_changed)
        node.peering.start(nursery, transports, ways)
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
        key_log = open_key_log(os.environ)
        if key_log is not None:
            stack.callback(key_log.close)
        node = await stack.enter_async_context(
            start_node(
                config,
                identity,
                store,
                network.sockets,
                mesh_key=mesh_key,
                discoveries=lambda trust: network.discoveries(identity.endpoint_id, mesh_key, rng, trust.is_known),
                reachable_at=network.reachable_at,
                interfaces=network.interfaces,
                limits=limits,
                rng=rng,
                wall_ms=wall_clock(os.environ),
                instance=os.urandom(16),
                key_log=key_log,
            )
        )
        yield node


def _mesh_key(config: Config) -> bytes | None:
    if config.mesh_key_file is not None:
        return load_mesh_key(config.mesh_key_file)
    if config.trust == "mesh-key":
        raise ConfigError("trust mesh-key needs the key: name its file with --mesh-key-file (mesh_key_file in YAML)")
    return None
