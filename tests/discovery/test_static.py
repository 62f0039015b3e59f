from __future__ import annotations

import pytest
import trio

from meshsync.addresses import HostPort
from meshsync.config import Config
from meshsync.discovery.base import Discovery, Sighting
from meshsync.discovery.static import StaticDiscovery
from meshsync.ids import EndpointId

A = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
B = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"


def configured() -> Discovery:
    return StaticDiscovery(Config(peers=[f"{A}@10.0.0.1:4433", {"id": B, "name": "child"}]).peers)


async def test_every_configured_peer_is_seen_once_in_order() -> None:
    """A named peer without an address counts too: it is trusted, and will dial."""
    expected = [
        Sighting(EndpointId.parse(A), (HostPort("10.0.0.1", 4433),), "static", ""),
        Sighting(EndpointId.parse(B), (), "static", "child"),
    ]
    discovery = configured()
    for _ in range(2):
        async with discovery.sightings() as sightings:
            assert [one async for one in sightings] == expected


async def test_cancelled_wait_loses_no_peer() -> None:
    """Otherwise a peer that was up for dialling at that moment is never dialled."""
    async with configured().sightings() as sightings:
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(sightings)
        assert scope.cancelled_caught
        assert str((await anext(sightings)).endpoint) == A
        assert str((await anext(sightings)).endpoint) == B
        with pytest.raises(StopAsyncIteration):
            await anext(sightings)
