"""What a peer may make this node spend."""

from __future__ import annotations

from dataclasses import replace

import trio

from meshsync.core.limits import LIMITS
from tests.stack.world import World, documents, level, simulate, write


def test_a_flood_of_seals_is_slowed_down_and_not_refused() -> None:
    """Otherwise a peer keeps the processor busy with signatures, or an honest one with many authors is thrown out."""
    limits = replace(LIMITS, seals_per_second_max=2.0)

    async def scenario(world: World) -> None:
        a = await world.start(1, limits=limits)
        b = await world.start(2, peers=[1])
        await level(a, b)
        began = trio.current_time()
        for number in range(20):
            await write(b, f"n{number}")
            await trio.sleep(0.05)
        assert len(documents(a)) < 20, "each write came with a seal of its own, and all were checked at once"
        await level(a, b)
        assert trio.current_time() - began < 60
        assert documents(a) == documents(b)

    simulate(scenario)


def test_strangers_leave_room_for_those_that_the_owner_named() -> None:
    """Otherwise whoever connects often enough cuts a node off from its own fleet."""
    limits = replace(LIMITS, connections_max=4, connections_for_known=2)

    async def scenario(world: World) -> None:
        a = await world.start(1, limits=limits, trusts=[5, 6])
        for number in (2, 3, 4):
            await world.start(number, peers=[1])
        await trio.sleep(60)
        assert len(a.sync.links) == 2
        for number in (5, 6):
            await level(a, await world.start(number, peers=[1]))
        assert len(a.sync.links) == 4

    simulate(scenario)
