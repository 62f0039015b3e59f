"""The bound on what a node sends, on a virtual clock."""

# ruff: noqa: ARG001 -- the clock is virtual because a test takes it, used or not.

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import trio
import trio.testing

from meshsync.core.limits import LIMITS
from meshsync.sync.rate import BURST_SECONDS, Rate
from tests.stack.world import World, documents, events, level, simulate, write


async def test_rate_holds_over_time(autojump_clock: trio.testing.MockClock) -> None:
    """Otherwise a metered link would cost more than its owner allowed."""
    rate = Rate(1000)
    began = trio.current_time()
    for _ in range(100):
        await rate.take(500)
    # The last one needs no more than that the bucket is not overdrawn before it.
    assert trio.current_time() - began == pytest.approx(99 * 500 / 1000 - BURST_SECONDS)


async def test_idle_time_is_not_saved_up(autojump_clock: trio.testing.MockClock) -> None:
    """A node that rested for an hour would send an hour's worth at once."""
    rate = Rate(1000)
    await rate.take(1)
    await trio.sleep(3600)
    began = trio.current_time()
    for _ in range(11):
        await rate.take(1000)
    assert trio.current_time() - began == pytest.approx(10 - BURST_SECONDS)


async def test_what_is_counted_slows_the_others(autojump_clock: trio.testing.MockClock) -> None:
    """What does not wait would come on top of the bound."""
    rate = Rate(1000)
    began = trio.current_time()
    rate.count(5000)
    await rate.take(10)
    assert trio.current_time() - began == pytest.approx(5 - BURST_SECONDS)


async def test_those_who_wait_go_in_turn(autojump_clock: trio.testing.MockClock) -> None:
    """One peer would be served, and the others not."""
    rate, order = Rate(1000), []

    async def send(name: str, count: int) -> None:
        for _ in range(count):
            await rate.take(1000)
            order.append(name)

    async with trio.open_nursery() as nursery:
        await rate.take(1000)
        nursery.start_soon(send, "a", 3)
        nursery.start_soon(send, "b", 3)
    assert sorted(order[:2]) == sorted(order[2:4]) == sorted(order[4:]) == ["a", "b"]


async def test_cancelled_sender_gives_back_what_it_did_not_send(autojump_clock: trio.testing.MockClock) -> None:
    """A peer that went away would go on to slow the others."""
    rate = Rate(1000)
    await rate.take(1000)
    with trio.move_on_after(0.1) as scope:
        await rate.take(100_000)
    assert scope.cancelled_caught
    began = trio.current_time()
    await rate.take(1)
    assert trio.current_time() - began < 1


async def test_no_bound_costs_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """Most nodes have none."""
    rate = Rate(math.inf)
    rate.count(10**12)
    with trio.move_on_after(1):
        for _ in range(100):
            await rate.take(10**12)
            await trio.lowlevel.checkpoint()
    assert trio.current_time() < 1


def test_nodes_keep_to_the_bound_and_stay_in_sync() -> None:
    """The bound would hold for one stream, or for what somebody thought of, and not for the node."""

    async def scenario(world: World) -> None:
        limits = replace(LIMITS, send_bytes_per_second_max=10_000, batch_bytes_soft=10_000)
        source = await world.start(1, limits=limits)
        sinks = [await world.start(number, peers=[1]) for number in (2, 3)]
        await level(source, *sinks)
        began = trio.current_time()
        await write(source, *(f"d{number}" for number in range(100)), text=random.Random(1).randbytes(500).hex())
        await level(source, *sinks)
        # Two peers get a little more than a hundred kilobytes each.
        assert 20 < trio.current_time() - began < 30
        assert [len(documents(node)) for node in sinks] == [100, 100]
        assert events(source, "disconnected") == []

    simulate(scenario)
