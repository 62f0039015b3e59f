"""Whole nodes on paths that are slow, and that break."""

from __future__ import annotations

import trio

from tests.stack.world import World, level, simulate, write

DOCUMENTS = 400
RATE_BITS_PER_SECOND = 20_000


def test_what_came_before_a_slow_path_broke_is_kept() -> None:
    """A path that never holds as long as a batch takes would otherwise carry the same batch for ever."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        await write(a, *(f"d{number}" for number in range(DOCUMENTS)), text="x" * 150)
        world.net.profile.rate_bits_per_second = RATE_BITS_PER_SECOND
        b = await world.start(2, peers=[1])
        await trio.sleep(15)  # all of it would take more than half a minute
        world.cut(1, 2)
        await trio.sleep(60)
        assert len(b.collection("notes")) > DOCUMENTS // 8
        world.join(1, 2)
        await level(a, b)

    simulate(scenario)
