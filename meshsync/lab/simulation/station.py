"""Discovery by announcements on a simulated network: every station says where it is, and hears the others."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

import trio

from meshsync.discovery.base import Sighting
from meshsync.discovery.board import Board
from meshsync.groups import beside
from meshsync.ids import EndpointId
from meshsync.lab.agenda import Agenda

_FIRST_SECONDS = (0.0, 1.0, 3.0)


class Medium(Protocol):
    """What all announcements go through: it says who hears them, and when."""

    rng: random.Random
    again_seconds: float
    """How often a station speaks after its first announcements; a quarter more or less each time."""
    keep_seconds: float
    """How long a station that is no longer heard counts as there."""

    def join(self, station: Station) -> None:
        """A station listens from now on."""

    def leave(self, station: Station) -> None:
        """It listens no longer."""

    def announce(self, station: Station) -> None:
        """Let the others `hear` what a station says."""


class Station:
    """One node, for one start of it; a `meshsync.discovery.base.Discovery`."""

    via = "mdns"
    fault: str | None = None

    def __init__(self, medium: Medium, host: str, sighting: Sighting) -> None:
        """`host` is where it is, by the network's names; `sighting` is what it says of itself."""
        self.host = host
        self.sighting = sighting
        self.is_dead = False
        """The process was killed: not another word leaves it."""
        self._medium = medium
        self._coming: Agenda[Sighting] = Agenda()

    def hear(self, sighting: Sighting, due: float) -> None:
        """An announcement arrives at this time; one without addresses is a goodbye."""
        if sighting.endpoint != self.sighting.endpoint:
            self._coming.add(due, sighting)

    @asynccontextmanager
    async def sightings(self) -> AsyncIterator[AsyncIterator[Sighting]]:
        """See Discovery."""
        board = Board()
        self._medium.join(self)
        async with beside(self._announce, partial(self._listen, board)):
            try:
                yield board
            finally:
                self._medium.leave(self)

    async def _announce(self) -> None:
        rng = self._medium.rng
        began = trio.current_time()
        for seconds in _FIRST_SECONDS:
            await trio.sleep_until(began + seconds + rng.uniform(0, 0.1))
            self._say()
        while True:
            await trio.sleep(self._medium.again_seconds * rng.uniform(0.75, 1.25))
            self._say()

    def _say(self) -> None:
        if not self.is_dead:
            self._medium.announce(self)

    async def _listen(self, board: Board) -> None:
        known: dict[EndpointId | None, tuple[Sighting, float]] = {}
        while True:
            await self._coming.wait(min((until for _, until in known.values()), default=math.inf))
            now = trio.current_time()
            for sighting in self._coming.take():
                if known.get(sighting.endpoint, (None, 0.0))[0] != sighting:
                    board.post(sighting)
                until = now + self._medium.keep_seconds if sighting.addresses else math.inf
                known[sighting.endpoint] = sighting, until
            for id, (sighting, until) in list(known.items()):
                if until <= now:
                    board.post(Sighting(id, (), self.via, sighting.name))
                    del known[id]
