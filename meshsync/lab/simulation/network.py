"""The network of a topology, simulated: hosts with several interfaces, links, bridges, and what impairs them.

There is no routing between networks: a datagram reaches those who are on a segment with its sender.
"""

from __future__ import annotations

import ipaddress
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from meshsync.lab.agenda import Agenda
from meshsync.lab.drivers.base import LabError
from meshsync.lab.impairments import DOWN, LinkImpairment
from meshsync.lab.simulation.sockets import SimulatedSocket
from meshsync.lab.topology import End, LinkSpec, Topology
from meshsync.lab.wire import Wire
from meshsync.transports.base import Address
from meshsync.transports.quic.udp import Datagram

_HEADER_BYTES = 14 + 20 + 8
"""Ethernet, IPv4 and UDP."""
_MTU = 9500
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
        self._agenda: Agenda[tuple[str, int, Datagram]] = Agenda()

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
        socket = self._sockets[host, port] = SimulatedSocket(self, host, ("0.0.0.0", port))
        return socket

    def forget(self, socket: SimulatedSocket) -> None:
        """Nobody is bound there any more."""
        bound = socket.host, socket.address[1]
        if self._sockets.get(bound) is socket:
            del self._sockets[bound]

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

    def transmit(self, payload: bytes, sender: SimulatedSocket, target: Address) -> None:
        """Send one datagram on its way."""
        carried = self.carry(sender.host, target[0], len(payload))
        if carried is None:
            return
        path, times = carried
        for due in times:
            datagram = (payload, (path.source_address, sender.address[1]))
            self._agenda.add(due, (path.target, target[1], datagram))

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            await self._agenda.wait()
            for host, port, datagram in self._agenda.take():
                socket = self._sockets.get((host, port))
                if socket is not None:
                    socket.deliver(datagram)

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
