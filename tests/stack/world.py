"""Whole nodes on a simulated network, under virtual time: real QUIC, a real store in memory, nothing mocked.

def test_something() -> None:
    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        ...

    simulate(scenario)
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshsync.addresses import HostPort
from meshsync.cli.faults import find_faults
from meshsync.config import Config
from meshsync.core.limits import LIMITS, Limits
from meshsync.discovery.base import Discovery
from meshsync.errors import CloseCode
from meshsync.events import Event
from meshsync.identity import Identity
from meshsync.ids import EndpointId
from meshsync.lab.simulation.sockets import SimulatedSocket
from meshsync.lab.simulation.station import Station
from meshsync.launch import start_node
from meshsync.node import Node
from meshsync.store.memory import MemoryStore
from meshsync.transports.quic.endpoint import QuicEndpoint, open_endpoint
from tests.simlan import SimLan
from tests.simnet import LinkProfile, SimNet

EPOCH_MS = 1_800_000_000_000
PORT = 4000
HOURS_MAX = 24
"""No scenario takes longer, by its own clock."""

IDENTITIES = sorted(
    (Identity.from_private_key(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)) for number in range(1, 33)),
    key=lambda identity: identity.endpoint_id,
)
"""By id, so that of two machines the one with the lower number has the lower id."""


@dataclass
class Machine:
    """What outlives a process: the disk, the key, the address, the clock."""

    number: int
    identity: Identity
    store: MemoryStore
    host: str
    skew_ms: int = 0
    starts: int = 0
    node: Node | None = None
    socket: SimulatedSocket | None = None
    station: Station | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)

    @property
    def id(self) -> EndpointId:
        return self.identity.endpoint_id

    @property
    def address(self) -> str:
        return f"{self.host}:{PORT}"


class World:
    """Machines on one network."""

    def __init__(self, net: SimNet, rng: random.Random, nursery: trio.Nursery) -> None:
        self.net = net
        self.rng = rng
        self.lan = SimLan(rng, net)
        self._nursery = nursery
        self._machines: dict[int, Machine] = {}

    def machine(self, number: int) -> Machine:
        """The machine with this number; made at the first call."""
        if number not in self._machines:
            store = MemoryStore(random_bytes=self.rng.randbytes)
            self._machines[number] = Machine(number, IDENTITIES[number - 1], store, f"10.0.0.{number}")
        return self._machines[number]

    def id(self, number: int) -> EndpointId:
        """The endpoint id of a machine."""
        return self.machine(number).id

    def node(self, number: int) -> Node:
        """The node that runs on a machine."""
        node = self.machine(number).node
        assert node is not None, f"machine {number} runs no node"
        return node

    async def start(
        self,
        number: int,
        *,
        peers: Iterable[int | str] = (),
        trusts: Iterable[int] = (),
        collections: Sequence[object] = ("notes",),
        trust: str = "open",
        mesh_key: bytes | None = None,
        limits: Limits = LIMITS,
        exchange: bool = False,
        relay: bool = False,
        twin_of: int | None = None,
        discoveries: Sequence[Discovery] = (),
        discover: bool = False,
    ) -> Node:
        """Start a node.  `peers` are dialled, `trusts` are named without an address, `twin_of` lends its key.

        With `discover` it announces itself on `lan` and sees who else does.
        Nodes are introduced to each other only with `exchange`: a test says by itself who is linked with whom.
        """
        machine = self.machine(number)
        if twin_of is not None:
            machine.identity = self.machine(twin_of).identity
        named: list[object] = [
            peer if isinstance(peer, str) else f"{self.id(peer)}@{self.machine(peer).address}" for peer in peers
        ]
        named += [{"id": self.id(other).hex()} for other in trusts]
        settings: dict[str, Any] = {
            "data_dir": Path("nowhere"),
            "name": f"node {number}",
            "listen": [machine.address],
            "peers": named,
            "collections": list(collections),
            "trust": trust,
            "discovery": {"exchange": exchange},
            "relay": relay,
        }
        if mesh_key is not None or trust == "mesh-key":
            settings["mesh_key_file"] = Path("nowhere")
        machine.starts += 1
        machine.ended = trio.Event()
        machine.station = None
        if discover:
            machine.station = self.lan.discovery(machine.id, HostPort(machine.host, PORT), f"node {number}")
            discoveries = [*discoveries, machine.station]
        node: Node = await self._nursery.start(self._run, machine, Config(**settings), mesh_key, limits, discoveries)
        return node

    async def _run(
        self,
        machine: Machine,
        config: Config,
        mesh_key: bytes | None,
        limits: Limits,
        discoveries: Sequence[Discovery],
        *,
        task_status: Any,
    ) -> None:
        machine.socket = self.net.socket(machine.host, PORT)
        instance = bytes([machine.number, machine.starts]) * 8
        with trio.CancelScope() as machine.scope:
            async with start_node(
                config,
                machine.identity,
                machine.store,
                [machine.socket],
                mesh_key=mesh_key,
                discoveries=lambda _: discoveries,
                limits=limits,
                rng=random.Random(self.rng.random()),
                wall_ms=lambda: EPOCH_MS + int(trio.current_time() * 1000) + machine.skew_ms,
                instance=instance,
            ) as machine.node:
                task_status.started(machine.node)
                await trio.sleep(math.inf)
        machine.node = machine.socket = None
        machine.ended.set()

    async def stop(self, number: int) -> None:
        """End the node on a machine as its owner would."""
        machine = self.machine(number)
        machine.scope.cancel()
        await machine.ended.wait()
        machine.store.close()
        machine.store = machine.store.reopened()

    async def kill(self, number: int, *, power_cut: bool = False) -> None:
        """End the process: not another word of it leaves the machine.  A power cut also takes what was not synced."""
        machine = self.machine(number)
        assert machine.socket is not None
        machine.socket.kill()
        if machine.station is not None:
            machine.station.is_dead = True
        machine.store = machine.store.crash() if power_cut else machine.store.kill()
        machine.scope.cancel()
        await machine.ended.wait()

    @asynccontextmanager
    async def endpoint(self, number: int, *, limits: Limits = LIMITS) -> AsyncIterator[QuicEndpoint]:
        """A bare endpoint in the place of a node: it does what a test tells it, and nothing else."""
        machine = self.machine(number)
        async with open_endpoint(
            self.net.socket(machine.host, PORT),
            machine.identity.private_key,
            instance=bytes([number]) * 16,
            name=f"endpoint {number}",
            admit=_welcome,
            limits=limits,
        ) as endpoint:
            yield endpoint

    def move(self, number: int, host: str) -> None:
        """Give a machine another address, for its next start."""
        self.machine(number).host = host

    def cut(self, first: int, second: int, *, one_way: bool = False) -> None:
        """Part two machines; one way: only what the first says is lost."""
        a, b = self.machine(first).host, self.machine(second).host
        self.net.cut(a, b)
        if not one_way:
            self.net.cut(b, a)

    def join(self, first: int, second: int) -> None:
        """Let two machines see each other again."""
        a, b = self.machine(first).host, self.machine(second).host
        self.net.join(a, b)
        self.net.join(b, a)


def _welcome(*_: object) -> CloseCode | None:
    return None


Scenario = Callable[[World], Awaitable[None]]


def simulate(scenario: Scenario, *, seed: int = 0, profile: LinkProfile | None = None) -> None:
    """Run a scenario to its end."""
    trio.run(_simulate, scenario, seed, profile, clock=trio.testing.MockClock(autojump_threshold=0))


async def _simulate(scenario: Scenario, seed: int, profile: LinkProfile | None) -> None:
    rng = random.Random(seed)
    net = SimNet(rng, replace(profile) if profile is not None else LinkProfile())
    with trio.fail_after(HOURS_MAX * 3600):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(net.run)
            async with trio.open_nursery() as machines:
                await scenario(World(net, rng, machines))
                machines.cancel_scope.cancel()
            nursery.cancel_scope.cancel()


async def level(*nodes: Node, collection: str = "notes") -> None:
    """Wait until every node says that it is synced with all that it is connected with, and check that it is so."""
    for _ in range(100):
        for node in nodes:
            await node.sync.wait_synced([collection])
        roots = {node.sync.replica(collection).root() for node in nodes}
        if len(roots) == 1:
            return
        await trio.sleep(1)
    raise AssertionError("the nodes say that they are synced, and are not")


def documents(node: Node, collection: str = "notes") -> dict[str, dict[str, Any]]:
    """All documents of a node."""
    return dict(node.collection(collection).bodies())


def faults(node: Node) -> list[str]:
    """What keeps `status --check` from saying that all is well with a node."""
    return find_faults(node.status())


def events(node: Node, *kinds: str) -> list[Event]:
    """The events of these types, in order."""
    return [event for event in node.events.read() if event.type in kinds]


async def until(node: Node, kind: str, times: int = 1) -> Event:
    """Wait until an event has happened so often, and return the last."""
    async with aclosing(node.events.follow(1)) as following:
        async for event in following:
            times -= event.type == kind
            if not times:
                return event
    raise AssertionError("events go on for ever")


async def write(node: Node, *ids: str, collection: str = "notes", **fields: Any) -> None:
    """Write documents, each as an entry of its own."""
    for id in ids:
        await node.collection(collection).put(id, {"by": node.name, **fields})
