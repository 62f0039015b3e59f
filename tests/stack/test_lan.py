"""Whole nodes that nobody told an address, on a simulated network."""

from __future__ import annotations

import pytest

from meshsync.addresses import HostPort
from meshsync.discovery.base import Sighting
from tests.stack.world import IDENTITIES, World, documents, level, simulate, until, write


@pytest.mark.parametrize("seed", range(4))
def test_nodes_find_each_other_although_announcements_are_lost(seed: int) -> None:
    """Multicast is the least reliable thing on a wireless network."""

    async def scenario(world: World) -> None:
        world.lan.loss = 0.3
        world.lan.duplication = 0.3
        nodes = [await world.start(number, discover=True) for number in range(1, 5)]
        await write(nodes[0], "n1")
        for node in nodes:
            await until(node, "connected", 3)
        await level(*nodes)
        assert [documents(node).keys() for node in nodes] == [{"n1"}] * 4

    simulate(scenario, seed=seed)


def test_a_node_that_was_killed_and_moved_is_found_again() -> None:
    """Its old record says where nobody is, until it is old enough; the new one must not wait for that."""

    async def scenario(world: World) -> None:
        a = await world.start(1, discover=True)
        await world.start(2, discover=True)
        await until(a, "connected")
        await world.kill(2)
        await until(a, "disconnected")
        world.move(2, "10.0.0.99")
        b = await world.start(2, discover=True)
        await until(a, "connected", 2)
        await write(b, "n1")
        await level(a, b)

    simulate(scenario)


def test_stale_records_of_others_keep_nobody_from_being_found() -> None:
    """Somebody's cache goes on about machines that were scrapped."""

    async def scenario(world: World) -> None:
        world.lan.stale = [
            Sighting(identity.endpoint_id, (HostPort(f"10.9.9.{number}", 4000),), "mdns", "scrapped")
            for number, identity in enumerate(IDENTITIES[4:20])
        ]
        a = await world.start(1, discover=True)
        b = await world.start(2, discover=True)
        await until(a, "connected")
        await write(a, "n1")
        await level(a, b)

    simulate(scenario)
