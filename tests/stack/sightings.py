"""A way of finding peers whose sightings a test says."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from meshsync.addresses import HostPort
from meshsync.discovery.base import Sighting
from meshsync.node import Node
from tests.stack.world import PORT, World, level


class Sightings:
    """A Discovery; what was said before it is asked is kept for then."""

    def __init__(self, world: World, via: str = "mdns") -> None:
        self.via = via
        self.fault: str | None = None
        self._world = world
        self._send, self._receive = trio.open_memory_channel[Sighting](math.inf)

    def see(self, number: int, *hosts: str, name: str = "") -> None:
        """A machine is said to be at these hosts; by default where it is."""
        machine = self._world.machine(number)
        addresses = tuple(HostPort(host, PORT) for host in hosts or (machine.host,))
        self._send.send_nowait(Sighting(machine.id, addresses, self.via, name))

    def say(self, sighting: Sighting) -> None:
        """Say anything."""
        self._send.send_nowait(sighting)

    def gone(self, number: int) -> None:
        """A machine is seen no more."""
        self._send.send_nowait(Sighting(self._world.id(number), (), self.via, ""))

    def records(self, *hosts: str, name: str = "mesh.example") -> None:
        """Somebody is said to be at each of these hosts, and nobody at those of the last time."""
        self._send.send_nowait(Sighting(None, tuple(HostPort(host, PORT) for host in hosts), self.via, name))

    @asynccontextmanager
    async def sightings(self) -> AsyncIterator[AsyncIterator[Sighting]]:
        """See `Discovery.sightings`."""
        yield self._receive


async def acquainted(world: World) -> tuple[Node, Node, Sightings]:
    """Start two nodes of which the first has seen where the second is, and has dialled it; both are level."""
    seen = Sightings(world)
    a = await world.start(1, discoveries=[seen])
    b = await world.start(2)
    seen.see(2)
    await level(a, b)
    return a, b, seen
