"""The peers that the owner named."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from meshsync.addresses import HostPort
from meshsync.discovery.base import Sighting
from meshsync.ids import EndpointId


class NamedPeer(Protocol):
    """What is needed of a configured peer; `meshsync.config.PeerConfig` has it."""

    @property
    def id(self) -> EndpointId:
        """Who."""

    @property
    def addresses(self) -> tuple[HostPort, ...]:
        """Where."""

    @property
    def name(self) -> str:
        """What the owner calls it."""


class StaticDiscovery:
    """Sees each configured peer once, in the order of the configuration."""

    via = "static"
    fault = None

    def __init__(self, peers: Iterable[NamedPeer]) -> None:
        self._sightings = tuple(Sighting(peer.id, tuple(peer.addresses), self.via, peer.name) for peer in peers)

    @asynccontextmanager
    async def sightings(self) -> AsyncIterator[AsyncIterator[Sighting]]:
        """See `Discovery.sightings`; every block sees all of them."""
        yield _Sightings(self._sightings)


class _Sightings(AsyncIterator[Sighting]):
    """An iterator and no generator, so that a cancelled wait loses nothing."""

    def __init__(self, sightings: Iterable[Sighting]) -> None:
        self._rest = iter(sightings)

    async def __anext__(self) -> Sighting:
        await trio.lowlevel.checkpoint()
        for sighting in self._rest:
            return sighting
        raise StopAsyncIteration
