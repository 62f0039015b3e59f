"""What every way of finding peers keeps to: the configuration, names, the local network, and the simulated one."""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import ClassVar

import pytest
import trio

from meshsync.addresses import DnsName, HostPort
from meshsync.config import Config
from meshsync.core.limits import LIMITS
from meshsync.discovery.base import Discovery, Sighting
from meshsync.discovery.dns import DnsDiscovery
from meshsync.discovery.mdns.discovery import MdnsDiscovery
from meshsync.discovery.static import StaticDiscovery
from meshsync.identity import Identity
from meshsync.ids import EndpointId
from meshsync.interfaces import Interfaces
from tests.discovery.dnsserver import DnsServer, dns_server
from tests.simlan import SimLan
from tests.simnet import SimNet

OWN, A, B = (Identity.generate().endpoint_id for _ in range(3))
"""Of this run alone: others may be on loopback at the same time."""
SECONDS_MAX = 30
KEY = random.SystemRandom().randbytes(32)
"""Of a mesh of this run's own: other runs may be on loopback at the same time."""
QUICK = replace(LIMITS, mdns_settle_seconds=0.01, dns_refresh_seconds_min=0.01, dns_refresh_seconds_max=0.05)


class Surroundings(ABC):
    """Where peers are there to be found."""

    is_static: ClassVar[bool] = False
    """Who is there at the beginning is all."""

    def __init__(self) -> None:
        self.present: dict[EndpointId, HostPort] = {}

    @abstractmethod
    def discovery(self) -> Discovery:
        """What finds those who are present."""

    @abstractmethod
    async def update(self) -> None:
        """Show who is present now."""

    async def appear(self, id: EndpointId, port: int) -> None:
        self.present[id] = HostPort("127.0.0.1", port)
        await self.update()

    async def vanish(self, id: EndpointId) -> None:
        del self.present[id]
        await self.update()


class Static(Surroundings):
    is_static = True

    def discovery(self) -> Discovery:
        return StaticDiscovery(Config(peers=[f"{id}@{address}" for id, address in self.present.items()]).peers)

    async def update(self) -> None:
        await trio.lowlevel.checkpoint()


class Names(Surroundings):
    def __init__(self, server: DnsServer) -> None:
        super().__init__()
        self._server = server

    def discovery(self) -> Discovery:
        name = DnsName("mesh.example", 4433)
        return DnsDiscovery(OWN, [name], rng=random.Random(1), limits=QUICK, resolver=self._server.resolver)

    async def update(self) -> None:
        records = [f'"{id}@{address}"' for id, address in {OWN: HostPort("127.0.0.1", 9), **self.present}.items()]
        self._server.put("_meshsync._udp.mesh.example", "TXT", *records)
        await trio.lowlevel.checkpoint()


class Announcing(Surroundings):
    """Everybody present announces themselves."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__()
        self._nursery = nursery
        self._running: dict[EndpointId, tuple[HostPort, trio.CancelScope, trio.Event]] = {}

    @abstractmethod
    def announcer(self, id: EndpointId, address: HostPort) -> Discovery:
        """What announces that an endpoint is at an address."""

    def discovery(self) -> Discovery:
        return self.announcer(OWN, HostPort("127.0.0.1", 9))

    async def update(self) -> None:
        for id, (address, scope, ended) in list(self._running.items()):
            if self.present.get(id) != address:
                scope.cancel()
                await ended.wait()
                del self._running[id]
        for id, address in self.present.items():
            if id not in self._running:
                self._running[id] = address, trio.CancelScope(), trio.Event()
                self._nursery.start_soon(self._run, id, *self._running[id])

    async def _run(self, id: EndpointId, address: HostPort, scope: trio.CancelScope, ended: trio.Event) -> None:
        with scope:
            async with self.announcer(id, address).sightings() as sightings:
                async for _ in sightings:
                    pass
        ended.set()


class LocalNetwork(Announcing):
    def announcer(self, id: EndpointId, address: HostPort) -> Discovery:
        loopback = Interfaces(["lo"])
        rng = random.Random(int(address.port))
        return MdnsDiscovery(id, "", [address], loopback, mesh_key=KEY, rng=rng, limits=QUICK)


class Simulated(Announcing):
    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__(nursery)
        rng = random.Random(1)
        self._lan = SimLan(rng, SimNet(rng), delay_seconds=0.01)

    def announcer(self, id: EndpointId, address: HostPort) -> Discovery:
        # One host for each, because a machine does not hear itself.
        found = self._lan.discovery(id, address)
        found.host = id.hex()
        return found


@pytest.fixture(params=["static", "dns", "mdns", "simulated"])
async def surroundings(request: pytest.FixtureRequest, nursery: trio.Nursery) -> AsyncIterator[Surroundings]:
    if request.param == "dns":
        async with dns_server() as server:
            yield Names(server)
    elif request.param == "static":
        yield Static()
    else:
        yield LocalNetwork(nursery) if request.param == "mdns" else Simulated(nursery)


@asynccontextmanager
async def looking(surroundings: Surroundings) -> AsyncIterator[AsyncIterator[Sighting]]:
    with trio.fail_after(SECONDS_MAX):
        async with surroundings.discovery().sightings() as sightings:
            yield sightings


async def test_whoever_is_there_is_seen_with_all_that_is_known(surroundings: Surroundings) -> None:
    """A sighting replaces the earlier ones, so it has to be complete."""
    await surroundings.appear(A, 1001)
    await surroundings.appear(B, 1002)
    async with looking(surroundings) as sightings:
        found = {sighting.endpoint: sighting.addresses for sighting in [await anext(sightings) for _ in range(2)]}
    assert found == {A: (HostPort("127.0.0.1", 1001),), B: (HostPort("127.0.0.1", 1002),)}


async def test_whoever_leaves_or_moves_is_told_of(surroundings: Surroundings) -> None:
    """Otherwise the dead are dialled for ever, and the living where they were."""
    if surroundings.is_static:
        pytest.skip("a configuration does not change while the node runs")
    await surroundings.appear(A, 1001)
    async with looking(surroundings) as sightings:
        assert (await anext(sightings)).addresses == (HostPort("127.0.0.1", 1001),)
        await surroundings.vanish(A)
        gone = await anext(sightings)
        assert (gone.endpoint, gone.addresses) == (A, ())
        await surroundings.appear(A, 1002)
        assert (await anext(sightings)).addresses == (HostPort("127.0.0.1", 1002),)


async def test_a_cancelled_wait_loses_nothing(surroundings: Surroundings) -> None:
    """Otherwise a peer that came up in that moment is never dialled."""
    await surroundings.appear(A, 1001)
    async with looking(surroundings) as sightings:
        for _ in range(3):
            with trio.CancelScope() as scope:
                scope.cancel()
                await anext(sightings)
            assert scope.cancelled_caught
        assert (await anext(sightings)).endpoint == A


async def test_what_the_body_raises_comes_out_as_it_is(surroundings: Surroundings) -> None:
    """Otherwise every caller takes groups of exceptions apart."""
    with pytest.raises(ZeroDivisionError):
        async with looking(surroundings):
            raise ZeroDivisionError


async def test_a_block_that_ends_leaves_nothing_running(surroundings: Surroundings) -> None:
    """Also where it is cancelled half-way, at whatever moment that is."""
    for seconds in (0.0, 0.001, 0.01, 0.05):
        with trio.move_on_after(seconds):
            async with looking(surroundings) as sightings:
                async for _ in sightings:
                    pass
                await trio.sleep_forever()
    assert [thread.name for thread in threading.enumerate() if "mdns" in thread.name or "zeroconf" in thread.name] == []
    await surroundings.appear(A, 1001)
    async with looking(surroundings) as sightings:
        assert (await anext(sightings)).endpoint == A
