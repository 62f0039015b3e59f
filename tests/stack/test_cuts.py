"""How soon two nodes are level again after nothing came through between them for a while."""

from __future__ import annotations

import pytest
import trio

from meshsync.core.limits import LIMITS
from meshsync.transports.quic._seam_recovery import PROBE_SECONDS
from tests.simnet import LinkProfile
from tests.stack.world import World, events, level, simulate, until, write

ROUND_TRIPS_SECONDS = 0.5
"""What is lost is sent again, which may take a few of them."""


@pytest.mark.parametrize("cut_seconds", [1, 5, 10, 25, 29])
@pytest.mark.parametrize("one_way", [False, True])
def test_link_is_level_soon_after_a_cut(cut_seconds: float, one_way: bool) -> None:
    """Otherwise probes are further apart the longer a cut lasts, and its end goes unnoticed for as long again."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2])
        b = await world.start(2)
        await level(a, b)
        await trio.sleep(3)
        for number in range(3):
            world.cut(1, 2, one_way=one_way)
            await write(a, f"a{number}")
            await write(b, f"b{number}")
            await trio.sleep(cut_seconds)
            world.join(1, 2)
            with trio.fail_after(PROBE_SECONDS + ROUND_TRIPS_SECONDS):
                await level(a, b)
            await trio.sleep(7 * number)
        assert not events(a, "disconnected")
        assert not events(b, "disconnected")

    simulate(scenario)


@pytest.mark.parametrize("is_quiet", [False, True])
def test_cut_link_costs_little(is_quiet: bool) -> None:
    """Otherwise probing sooner floods a link that is not cut but congested."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2])
        b = await world.start(2)
        await level(a, b)
        await trio.sleep(20)
        [connection] = [link.connection for link in a.sync.links.values()]
        world.cut(1, 2)
        if not is_quiet:
            await write(a, *(f"n{number}" for number in range(200)), text="x" * 1000)
        await trio.sleep(1)
        before = connection.bytes_sent
        await until(a, "disconnected")
        probes = LIMITS.idle_seconds_max / (PROBE_SECONDS / 2) + 8
        size = 64 if is_quiet else 1500
        assert connection.bytes_sent - before <= probes * size

    simulate(scenario, profile=LinkProfile(latency_seconds=0.05))
