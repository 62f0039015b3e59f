"""Addresses of unknown identity, such as the address records of a name."""

from __future__ import annotations

import trio

from tests.stack.sightings import Sightings
from tests.stack.world import World, documents, events, level, simulate, until, write


def test_whoever_is_at_an_address_is_asked_and_then_dialled_as_itself() -> None:
    """Otherwise the address records of a name find nobody."""

    async def scenario(world: World) -> None:
        names = Sightings(world, "dns")
        a = await world.start(1, discoveries=[names])
        b = await world.start(2)
        names.records("10.0.0.1", "10.0.0.2", "10.9.9.9")
        await write(b, "n1")
        await level(a, b)
        assert documents(a) == documents(b)
        [peer] = a.peers()
        assert (peer["id"], peer["via"], peer["address"]) == (b.id.hex(), "dns", "10.0.0.2:4000")
        await trio.sleep(3600)
        for node in (a, b):
            assert len(events(node, "connected")) == 1
            assert not events(node, "disconnected", "peer_error", "failed", "pending")
            assert len(node.peers()) == 1, "its own address is left alone"

    simulate(scenario)


def test_an_address_that_another_endpoint_took_over_is_noticed() -> None:
    """Otherwise a pod that got the address of one that is gone is never found."""

    async def scenario(world: World) -> None:
        names = Sightings(world, "dns")
        a = await world.start(1, discoveries=[names])
        await world.start(2)
        names.records("10.0.0.2")
        await until(a, "connected")
        await world.stop(2)
        world.move(3, "10.0.0.2")
        c = await world.start(3)
        await until(a, "connected", 2)
        await level(a, c)
        assert {peer["id"]: peer["state"] for peer in a.peers()}[c.id.hex()] == "connected"

    simulate(scenario)


def test_a_new_network_is_noticed_everywhere_at_once() -> None:
    """Otherwise a laptop that wakes up elsewhere waits a minute for each of its peers."""

    async def scenario(world: World) -> None:
        names = Sightings(world, "dns")
        a = await world.start(1, peers=[2, 3], discoveries=[names])
        b = await world.start(2)
        names.records("10.0.0.4")
        await level(a, b)
        await trio.sleep(3600)
        world.cut(1, 2)
        c, d = await world.start(3), await world.start(4)
        for node in (c, d):
            world.net.cut(node.listen[0].partition(":")[0], "10.0.0.1")
        await trio.sleep(10)
        assert {peer["state"] for peer in a.peers()} <= {"connected", "waiting", "dialing"}
        world.net.heal()
        world.cut(1, 2)
        a.peering.network_changed()
        began = trio.current_time()
        gone = await until(a, "disconnected")
        assert "after the network changed" in gone.facts["reason"]
        world.net.heal()
        await level(a, c)
        await until(a, "connected", 4)
        assert trio.current_time() - began < 12
        await level(a, b, c, d)

    simulate(scenario)
