"""Discovery on a simulated network that a seed determines: multicast with delays, losses, duplicates and stale records.

Every machine announces itself, hears the others, and forgets whom it has not heard of for too long.  What parts two
machines parts their announcements too.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from meshsync.addresses import HostPort
from meshsync.discovery.base import Sighting
from meshsync.discovery.board import Board
from meshsync.groups import unwrapped
from meshsync.ids import EndpointId
from tests.simnet import SimNet

ANNOUNCE_SECONDS = 45.0
FIRST_ANNOUNCEMENTS = (0.0, 1.0, 3.0)


@dataclass
class SimLan:
    """What all announcements go through; probabilities from 0 to 1, change them at any time."""

    rng: random.Random
    net: SimNet
    delay_seconds: float = 0.5
    """At most; each announcement and listener draws anew, so they overtake each other."""
    loss: float = 0.0
    duplication: float = 0.0
    ttl_seconds: float = 120.0
    stale: list[Sighting] = field(default_factory=list)
    """What somebody keeps on announcing although nobody is there any more."""
    stations: list[SimDiscovery] = field(default_factory=list)

    def discovery(self, id: EndpointId, address: HostPort, name: str = "") -> SimDiscovery:
        """A machine's way of finding the others, for one start of its node."""
        return SimDiscovery(self, id, address, name)

    def send(self, source: str, sighting: Sighting) -> None:
        """Let all who hear `source` hear of a sighting."""
        for station in self.stations:
            if station.host == source or self.rng.random() < self.loss:
                continue
            if self.net.is_cut(source, station.host):
                continue
            for _ in range(2 if self.rng.random() < self.duplication else 1):
                station.hear(sighting, self.rng.uniform(0, self.delay_seconds))


class SimDiscovery:
    """One machine on the simulated network."""

    via = "mdns"
    fault: str | None = None

    def __init__(self, lan: SimLan, id: EndpointId, address: HostPort, name: str) -> None:
        self.host = address.host
        self.is_silenced = False
        """The process was killed: not even a goodbye leaves it."""
        self._lan = lan
        self._sighting = Sighting(id, (address,), self.via, name)
        self._coming: list[tuple[float, float, Sighting]] = []
        self._wake = trio.Event()

    def hear(self, sighting: Sighting, delay: float) -> None:
        """An announcement arrives in so many seconds."""
        if sighting.endpoint != self._sighting.endpoint:
            heapq.heappush(self._coming, (trio.current_time() + delay, self._lan.rng.random(), sighting))
            self._wake.set()

    @asynccontextmanager
    async def sightings(self) -> AsyncIterator[AsyncIterator[Sighting]]:
        """See Discovery."""
        board = Board()
        self._lan.stations.append(self)
        with unwrapped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._announce)
                nursery.start_soon(self._listen, board)
                try:
                    yield board
                finally:
                    nursery.cancel_scope.cancel()
                    self._lan.stations.remove(self)
                    if not self.is_silenced:
                        gone = Sighting(self._sighting.endpoint, (), self.via, self._sighting.name)
                        self._lan.send(self.host, gone)

    async def _announce(self) -> None:
        rng = self._lan.rng
        began = trio.current_time()
        for seconds in FIRST_ANNOUNCEMENTS:
            await trio.sleep_until(began + seconds + rng.uniform(0, 0.1))
            self._say()
        while True:
            await trio.sleep(ANNOUNCE_SECONDS * rng.uniform(0.75, 1.25))
            self._say()

    def _say(self) -> None:
        self._lan.send(self.host, self._sighting)
        for sighting in self._lan.stale:
            self._lan.send("", sighting)

    async def _listen(self, board: Board) -> None:
        known: dict[EndpointId | None, tuple[Sighting, float]] = {}
        while True:
            self._wake = trio.Event()
            now = trio.current_time()
            while self._coming and self._coming[0][0] <= now:
                _, _, sighting = heapq.heappop(self._coming)
                if known.get(sighting.endpoint, (None, 0.0))[0] != sighting:
                    board.post(sighting)
                known[sighting.endpoint] = sighting, now + self._lan.ttl_seconds if sighting.addresses else math.inf
            for id, (sighting, until) in list(known.items()):
                if until <= now:
                    board.post(Sighting(id, (), self.via, sighting.name))
                    del known[id]
            times = [until for _, until in known.values()] + [self._coming[0][0] if self._coming else math.inf]
            with trio.move_on_at(min(times)):
                await self._wake.wait()
