"""The network of a topology, simulated: hosts with several interfaces, links, bridges, and what impairs them.

There is no routing between networks: a datagram reaches those who are on a segment with its sender.
"""

from __future__ import annotations

import heapq
import ipaddress
import math
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import trio

from meshsync.lab.drivers.base import LabError
from meshsync.lab.impairments import DOWN, LinkImpairment
from meshsync.lab.topology import End, LinkSpec, Topology
from meshsync.lab.wire import Wire
from meshsync.transports.base import Address
from meshsync.transports.quic.udp import Datagram

_HEADER_BYTES = 14 + 20 + 8
"""Ethernet, IPv4 and UDP."""
_MTU = 9500
_QUEUE_DATAGRAMS_MAX = 4096
_ROUTERS = ("nft ", "sysctl ", "iptables ")

Hop = tuple[LinkSpec, bool]
"""A link, and whether it is gone along from its first end to its second."""


@dataclass(frozen=True)
class Path:
    """How one host reaches another."""

    target: str
    source_address: str
    hops: tuple[Hop, ...]
    mtu: int


class Network:
    """Carries datagrams between the hosts of a topology."""

    def __init__(self, topology: Topology, links: Mapping[str, LinkImpairment], rng: random.Random) -> None:
        """LabError: the topology has routers, which are not simulated."""
        _refuse_routers(topology)
        self.topology = topology
        self._wires: dict[Hop, Wire] = {}
        for link in topology.links:
            impairment = links.get(link.name, LinkImpairment())
            self._wires[link, True] = Wire(rng, impairment.forward)
            self._wires[link, False] = Wire(rng, impairment.backward)
        self._paths = {node.name: dict(self._paths_from(node.name)) for node in topology.machines}
        self._sockets: dict[tuple[str, int], SimulatedSocket] = {}
        self._agenda: list[tuple[float, int, str, int, Datagram]] = []
        self._count = 0
        self._news = trio.Event()

    # Links

    def impair(self, link: LinkSpec, impairment: LinkImpairment) -> None:
        """From now on a link does this."""
        now = trio.current_time()
        self._wires[link, True].impair(impairment.forward, now)
        self._wires[link, False].impair(impairment.backward, now)

    def part(self, link: LinkSpec) -> None:
        """From now on a link carries nothing."""
        self.impair(link, LinkImpairment.both(DOWN))

    # Hosts

    def socket(self, host: str, port: int) -> SimulatedSocket:
        """Bind a socket on all addresses of a host."""
        socket = self._sockets[host, port] = SimulatedSocket(self, host, port)
        return socket

    def forget(self, socket: SimulatedSocket) -> None:
        """Nobody is bound there any more."""
        if self._sockets.get((socket.host, socket.port)) is socket:
            del self._sockets[socket.host, socket.port]

    def addresses(self, host: str) -> tuple[str, ...]:
        """All addresses of a host."""
        return tuple(str(address.ip) for _, address in self.topology.nodes[host].addresses)

    def reaches(self, host: str, address: str) -> bool:
        """Whether an address is on a segment with a host, whatever the links carry at present."""
        return address in self._paths[host]

    # Carrying

    def carry(self, source: str, address: str, size_bytes: int) -> tuple[Path, list[float]] | None:
        """How and when a datagram of so much payload arrives; None where it is lost or nobody is there."""
        path = self._paths[source].get(address)
        if path is None or size_bytes + _HEADER_BYTES - 14 > path.mtu:
            return None
        times = [trio.current_time()]
        for hop in path.hops:
            times = [due for time in times for due in self._wires[hop].carry(size_bytes + _HEADER_BYTES, time)]
        return (path, times) if times else None

    def transmit(self, payload: bytes, host: str, port: int, target: Address) -> None:
        """Send one datagram on its way."""
        carried = self.carry(host, target[0], len(payload))
        if carried is None:
            return
        path, times = carried
        for due in times:
            self._count += 1
            datagram = (payload, (path.source_address, port))
            heapq.heappush(self._agenda, (due, self._count, path.target, target[1], datagram))
        self._news.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            self._news = trio.Event()
            now = trio.current_time()
            while self._agenda and self._agenda[0][0] <= now:
                _, _, host, port, datagram = heapq.heappop(self._agenda)
                socket = self._sockets.get((host, port))
                if socket is not None:
                    socket.deliver(datagram)
            with trio.move_on_at(self._agenda[0][0] if self._agenda else math.inf):
                await self._news.wait()

    # Paths

    def _paths_from(self, host: str) -> list[tuple[str, Path]]:
        """To each address on a segment with a host."""
        found = []
        own = dict(self.topology.nodes[host].addresses)
        for link in self.topology.links:
            for end in (link.a, link.b):
                if end.node == host and end.interface in own:
                    found += self._paths_through(end, str(own[end.interface].ip))
        return found

    def _paths_through(self, start: End, source_address: str) -> list[tuple[str, Path]]:
        found: list[tuple[str, Path]] = []
        waiting: deque[tuple[End, tuple[Hop, ...]]] = deque([(start, ())])
        seen = {start}
        while waiting:
            here, hops = waiting.popleft()
            for link in self.topology.links:
                if here not in (link.a, link.b):
                    continue
                there = link.b if link.a == here else link.a
                way = (*hops, (link, link.a == here))
                node = self.topology.nodes[there.node]
                if node.is_bridge:
                    for other in (one for link in self.topology.links for one in (link.a, link.b)):
                        if other.node == there.node and other not in seen:
                            seen.add(other)
                            waiting.append((other, way))
                    continue
                mtu = min(link.mtu or _MTU for link, _ in way)
                for interface, address in node.addresses:
                    if interface == there.interface and _is_near(address, source_address):
                        found.append((str(address.ip), Path(there.node, source_address, way, mtu)))
        return found


class SimulatedSocket:
    """A DatagramSocket on all addresses of a host."""

    def __init__(self, network: Network, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.address: Address = ("0.0.0.0", port)
        self._network = network
        self._queue: deque[Datagram] = deque(maxlen=_QUEUE_DATAGRAMS_MAX)
        self._ready = trio.Event()
        self._is_closed = False
        self._is_dead = False

    def send(self, datagrams: Sequence[bytes], address: Address) -> int:
        """Send; the simulated system always has room."""
        if not self._is_dead:
            for datagram in datagrams:
                self._network.transmit(datagram, self.host, self.port, address)
        return len(datagrams)

    async def wait_sendable(self) -> None:
        """Return: there is always room."""
        await trio.lowlevel.checkpoint()

    async def receive(self) -> list[Datagram]:
        """Return what has arrived."""
        await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._is_closed:
                raise trio.ClosedResourceError("this socket is closed")
            self._ready = trio.Event()
            await self._ready.wait()
        batch = list(self._queue)
        self._queue.clear()
        return batch

    def deliver(self, datagram: Datagram) -> None:
        """Take a datagram from the network."""
        self._queue.append(datagram)
        self._ready.set()

    def kill(self) -> None:
        """From now on nothing leaves and nothing arrives: the process is dead."""
        self._is_dead = True
        self._network.forget(self)

    def close(self) -> None:
        """Close; a waiting `receive` fails."""
        self._is_closed = True
        self._network.forget(self)
        self._ready.set()


def _is_near(address: ipaddress.IPv4Interface | ipaddress.IPv6Interface, source: str) -> bool:
    """Whether two addresses are of one network."""
    return ipaddress.ip_address(source) in address.network


def _refuse_routers(topology: Topology) -> None:
    for node in topology.machines:
        for line in (*(f"sysctl {name}={value}" for name, value in node.sysctls.items()), *node.exec):
            if line.startswith(_ROUTERS):
                raise LabError(
                    f"{node.name} is a router (`{line}`), and the simulation has none:"
                    f" run this lab in network namespaces, without --sim"
                )
