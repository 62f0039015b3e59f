"""Every named link, the slowest radio included: two nodes connect over it and end up level."""

from __future__ import annotations

import math

import pytest
import trio

from meshsync.lab.impairments import PROFILES
from tests.simnet import LinkProfile
from tests.stack.world import World, documents, events, level, simulate, until, write

DOCUMENTS = 20

SECONDS_MAX = {"nominal": 2.0, "flap": 2.0, "contested-heavy": 400.0, "jtrs": 30.0, "satcom-low": 40.0, "floor": 1200.0}
"""To level roots; 30 where nothing is said.  Several times what it takes, because losses fall as they fall."""


def link_profile(name: str) -> LinkProfile:
    """The same link for the simulated network, where both directions are alike."""
    one = PROFILES[name].forward
    least = 2 * LinkProfile.mtu_bytes
    queue = math.inf if math.isinf(one.rate_bits_per_second) else one.queue_seconds * one.rate_bits_per_second / 8
    return LinkProfile(
        latency_seconds=one.delay_seconds,
        loss=one.loss,
        rate_bits_per_second=one.rate_bits_per_second,
        queue_bytes=int(min(max(queue, least), LinkProfile.queue_bytes)),
    )


@pytest.mark.parametrize("name", [name for name in PROFILES if name != "one-way"])
def test_nodes_are_level_over_every_link(name: str) -> None:
    """Otherwise a limit of time that suits a cable keeps nodes apart on a radio for good."""

    async def flap(world: World, up: float, down: float) -> None:
        while True:
            await trio.sleep(up)
            world.cut(1, 2)
            await trio.sleep(down)
            world.join(1, 2)

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2])
        b = await world.start(2)
        for node in (a, b):
            await write(node, *(f"{node.name} {number}" for number in range(DOCUMENTS)), text="x" * 200)
        with trio.fail_after(SECONDS_MAX.get(name, 30.0)):
            await until(b, "connected")
            await level(a, b)
        assert len(documents(a)) == 2 * DOCUMENTS
        assert not events(a, "peer_error") + events(b, "peer_error"), "a slow link is nobody's fault"
        if (flapping := PROFILES[name].forward.flap_seconds) is not None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flap, world, *flapping)
                for number in range(50):
                    await write(a, f"later {number}")
                    await trio.sleep(7)
                nursery.cancel_scope.cancel()
            assert not events(a, "disconnected")

    simulate(scenario, profile=link_profile(name))


def test_nothing_is_taken_over_a_link_that_is_dead_one_way() -> None:
    """Otherwise a node that hears nobody believes that it is connected, or never finds out when it could be."""

    async def scenario(world: World) -> None:
        world.cut(2, 1)
        a = await world.start(1, peers=[2])
        await world.start(2)
        await trio.sleep(300)
        assert not events(a, "connected")
        world.join(2, 1)
        with trio.fail_after(60):
            await until(a, "connected")

    simulate(scenario)
