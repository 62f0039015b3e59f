"""Discovery on the simulated network: nodes announce themselves to those on a segment with them, as by mDNS."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from meshsync.addresses import DEFAULT_PORT, HostPort
from meshsync.discovery.base import Sighting
from meshsync.discovery.board import Board
from meshsync.groups import unwrapped
from meshsync.ids import EndpointId
from meshsync.lab.simulation.network import Network

_FIRST_SECONDS = (0.0, 1.0, 3.0)
_AGAIN_SECONDS = 20.0
_KEEP_SECONDS = 75.0
"""How long a node that is no longer heard counts as there; mDNS keeps addresses for 120 s."""
_ANNOUNCEMENT_BYTES = 300


class Segments:
    """What all announcements go through."""

    def __init__(self, network: Network, rng: random.Random) -> None:
        self.network = network
        self.rng = rng
        self.stations: dict[str, Station] = {}

    def station(self, host: str, id: EndpointId) -> Station:
        """A host's way of finding the others, for one start of its node."""
        return Station(self, host, id)


class Station:
    """One node; a `meshsync.discovery.base.Discovery`."""

    via = "mdns"
    fault = None

    def __init__(self, segments: Segments, host: str, id: EndpointId) -> None:
        self.host = host
        self.id = id
        self.is_dead = False
        self._segments = segments
        self._coming: list[tuple[float, int, Station]] = []
        self._count = 0
        self._news = trio.Event()

    @asynccontextmanager
    async def sightings(self) -> AsyncIterator[AsyncIterator[Sighting]]:
        """See Discovery."""
        board = Board()
        self._segments.stations[self.host] = self
        with unwrapped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._announce)
                nursery.start_soon(self._listen, board)
                try:
                    yield board
                finally:
                    nursery.cancel_scope.cancel()

    async def _announce(self) -> None:
        rng = self._segments.rng
        began = trio.current_time()
        for seconds in _FIRST_SECONDS:
            await trio.sleep_until(began + seconds + rng.uniform(0, 0.1))
            self._say()
        while True:
            await trio.sleep(_AGAIN_SECONDS * rng.uniform(0.75, 1.25))
            self._say()

    def _say(self) -> None:
        network = self._segments.network
        for other in self._segments.stations.values():
            if other is self or self.is_dead:
                continue
            for address in network.addresses(other.host):
                carried = network.carry(self.host, address, _ANNOUNCEMENT_BYTES)
                for due in carried[1] if carried is not None else ():
                    other.hear(self, due)

    def hear(self, speaker: Station, due: float) -> None:
        """An announcement arrives at this time."""
        self._count += 1
        heapq.heappush(self._coming, (due, self._count, speaker))
        self._news.set()

    async def _listen(self, board: Board) -> None:
        known: dict[EndpointId, tuple[str, float]] = {}
        network = self._segments.network
        while True:
            self._news = trio.Event()
            now = trio.current_time()
            while self._coming and self._coming[0][0] <= now:
                speaker = heapq.heappop(self._coming)[2]
                if speaker.id not in known:
                    near = [one for one in network.addresses(speaker.host) if network.reaches(self.host, one)]
                    addresses = tuple(HostPort(address, DEFAULT_PORT) for address in near)
                    board.post(Sighting(speaker.id, addresses, self.via, speaker.host))
                known[speaker.id] = speaker.host, now + _KEEP_SECONDS
            for id, (name, until) in list(known.items()):
                if until <= now:
                    board.post(Sighting(id, (), self.via, name))
                    del known[id]
            next_ends = min((until for _, until in known.values()), default=math.inf)
            with trio.move_on_at(min(next_ends, self._coming[0][0] if self._coming else math.inf)):
                await self._news.wait()
