"""Labs in virtual time: the nodes of a lab in one process, on a simulated network.

What is real: the whole node, QUIC included.  What is simulated: the network, the clock, and the disk, which forgets
nothing when a process is killed.  A seed repeats a run.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshsync.addresses import DEFAULT_PORT, HostPort
from meshsync.config import Config
from meshsync.errors import MeshsyncError
from meshsync.identity import Identity
from meshsync.lab.drivers.base import Lab, LabError, OpenDriver, Seen
from meshsync.lab.impairments import LinkImpairment
from meshsync.lab.prepare import configuration
from meshsync.lab.simulation.multicast import Segments
from meshsync.lab.simulation.network import Network
from meshsync.lab.simulation.sockets import SimulatedSocket
from meshsync.lab.simulation.station import Station
from meshsync.lab.topology import LinkSpec
from meshsync.launch import start_node
from meshsync.node import Node
from meshsync.store.memory import MemoryStore

_EPOCH_MS = 1_800_000_000_000
"""What a right clock shows when a simulation begins."""


class SimulatedNode:
    """A machine and, while it runs, its node.  See `meshsync.lab.drivers.base.LabNode`."""

    def __init__(self, name: str, identity: Identity, store: MemoryStore) -> None:
        self.name = name
        self.identity = identity
        self.store = store
        self.offset_seconds = 0.0
        self.node: Node | None = None
        self.socket: SimulatedSocket | None = None
        self.station: Station | None = None
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.calls: set[trio.CancelScope] = set()
        """What is asked of it at present."""

    @property
    def is_running(self) -> bool:
        """Whether its process runs."""
        return self.node is not None

    def last_words(self) -> str:
        """See `LabNode.last_words`; what fails in a simulated node fails the whole simulation instead."""
        return "none"

    def _running(self) -> Node:
        if self.node is None:
            raise LabError(f"{self.name} does not run")
        return self.node

    async def put(self, collection: str, id: str, body: Mapping[str, Any]) -> None:
        """See `LabNode.put`."""
        node = self._running()
        # A process that is killed acknowledges nothing any more.
        with trio.CancelScope() as scope:
            self.calls.add(scope)
            try:
                await node.collection(collection).put(id, dict(body))
            except MeshsyncError as error:
                raise LabError(f"{self.name}: {error}") from None
            finally:
                self.calls.discard(scope)
        if scope.cancelled_caught or self.node is not node:
            raise LabError(f"{self.name} was killed")

    async def status(self) -> Mapping[str, Any]:
        """See `LabNode.status`."""
        await trio.lowlevel.checkpoint()
        return self._running().status()

    async def ids(self, collection: str) -> set[str]:
        """See `LabNode.ids`."""
        await trio.lowlevel.checkpoint()
        return {id for id, _ in self._running().collection(collection).bodies()}

    @asynccontextmanager
    async def changes(self, collection: str) -> AsyncIterator[AsyncIterator[Seen]]:
        """See `LabNode.changes`."""
        node = self._running()
        following = node.collection(collection)
        async with aclosing(_seen(following.changes(since=following.cursor()), self.ended)) as seen:
            yield seen


async def _seen(changes: Any, ended: trio.Event) -> AsyncGenerator[Seen, None]:
    async with aclosing(changes):
        async for change in changes:
            if ended.is_set():
                return
            if change.document is not None:
                yield Seen(change.id, trio.current_time())


class SimulationDriver:
    """A lab that is up.  See `meshsync.lab.drivers.base.Driver`."""

    cables = None

    def __init__(self, lab: Lab, rng: random.Random, nursery: trio.Nursery) -> None:
        self._lab = lab
        self._rng = rng
        self._nursery = nursery
        self._mesh_key = rng.randbytes(32)
        self._impairments = dict(lab.scenario.links)
        self._parted: set[str] = set()
        self.network = Network(lab.topology, lab.scenario.links, rng)
        self._segments = Segments(self.network, rng)
        self.nodes: dict[str, SimulatedNode] = {
            name: SimulatedNode(
                name,
                Identity.from_private_key(Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))),
                MemoryStore(random_bytes=rng.randbytes),
            )
            for name in lab.scenario.nodes
        }

    def now(self) -> float:
        """See `Driver.now`."""
        return trio.current_time()

    async def start(self, name: str) -> None:
        """Start a node."""
        machine = self.nodes[name]
        machine.scope, machine.ended = trio.CancelScope(), trio.Event()
        await self._nursery.start(self._run, machine)

    async def _run(self, machine: SimulatedNode, *, task_status: trio.TaskStatus[None]) -> None:
        identities = {name: node.identity for name, node in self.nodes.items()}
        keys = configuration(self._lab, machine.name, identities)
        keys |= {"data_dir": Path("nowhere"), "listen": [f"0.0.0.0:{DEFAULT_PORT}"]}
        if "mesh_key_file" in keys:
            keys["mesh_key_file"] = Path("nowhere")
        config = Config.model_validate(keys)
        machine.socket = self.network.socket(machine.name, DEFAULT_PORT)
        machine.station = None
        if config.discovery.mdns:
            machine.station = self._segments.station(machine.name, machine.identity.endpoint_id)
        addresses = tuple(HostPort(one, DEFAULT_PORT) for one in self.network.addresses(machine.name))
        with machine.scope:
            async with start_node(
                config,
                machine.identity,
                machine.store,
                [machine.socket],
                mesh_key=self._mesh_key if config.trust == "mesh-key" else None,
                discoveries=lambda _: [machine.station] if machine.station is not None else [],
                reachable_at=lambda: addresses,
                rng=random.Random(self._rng.random()),
                wall_ms=lambda: _EPOCH_MS + int((trio.current_time() + machine.offset_seconds) * 1000),
                instance=self._rng.randbytes(16),
            ) as machine.node:
                task_status.started()
                await trio.sleep(math.inf)
        machine.node = None
        machine.ended.set()

    async def impair(self, link: str, impairment: LinkImpairment) -> None:
        """See `Driver.impair`."""
        await trio.lowlevel.checkpoint()
        self._impairments[link] = impairment
        if link not in self._parted:
            for one in self._links(link):
                self.network.impair(one, impairment)

    async def cut(self, link: str) -> None:
        """See `Driver.cut`."""
        await trio.lowlevel.checkpoint()
        self._parted.add(link)
        for one in self._links(link):
            self.network.part(one)

    async def unplug(self, link: str) -> None:
        """See `Driver.unplug`."""
        await self.cut(link)

    async def heal(self, link: str) -> None:
        """See `Driver.heal`."""
        await trio.lowlevel.checkpoint()
        self._parted.discard(link)
        for one in self._links(link):
            self.network.impair(one, self._impairments.get(link, LinkImpairment()))

    def _links(self, name: str) -> Iterator[LinkSpec]:
        return (link for link in self._lab.topology.links if link.name == name)

    async def kill(self, node: str) -> None:
        """See `Driver.kill`."""
        machine = self.nodes[node]
        if machine.node is None:
            await trio.lowlevel.checkpoint()
            return
        assert machine.socket is not None
        machine.socket.kill()
        if machine.station is not None:
            machine.station.is_dead = True
        machine.node = None
        for call in machine.calls:
            call.cancel()
        machine.store = machine.store.kill()
        machine.scope.cancel()
        await machine.ended.wait()

    async def restart(self, node: str, clock_offset_seconds: float | None = None) -> None:
        """See `Driver.restart`."""
        await self.kill(node)
        if clock_offset_seconds is not None:
            self.nodes[node].offset_seconds = clock_offset_seconds
        await self.start(node)


def simulation(rng: random.Random) -> OpenDriver:
    """Opens simulations; run them under `trio.testing.MockClock(autojump_threshold=0)`."""

    @asynccontextmanager
    async def open_simulation(lab: Lab) -> AsyncIterator[SimulationDriver]:
        async with trio.open_nursery() as nursery:
            driver = SimulationDriver(lab, rng, nursery)
            nursery.start_soon(driver.network.run)
            for name in driver.nodes:
                await driver.start(name)
            yield driver
            nursery.cancel_scope.cancel()

    return open_simulation
