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
from meshsync.core.priority import Priority
from meshsync.sync.rate import BURST_SECONDS, Rate
from tests.stack.world import World, documents, events, level, simulate, write


async def test_rate_holds_over_time(autojump_clock: trio.testing.MockClock) -> None:
    """Otherwise a metered link would cost more than its owner allowed."""
    rate = Rate(1000)
    began = trio.current_time()
    for _ in range(100):
        await rate.take(500, Priority.MEDIUM)
    # The last burst needs no more than that the bucket is not overdrawn before it.
    assert trio.current_time() - began == pytest.approx(100 * 500 / 1000 - 2 * BURST_SECONDS, abs=1e-3)


async def test_idle_time_is_not_saved_up(autojump_clock: trio.testing.MockClock) -> None:
    """A node that rested for an hour would send an hour's worth at once."""
    rate = Rate(1000)
    await rate.take(1, Priority.MEDIUM)
    await trio.sleep(3600)
    began = trio.current_time()
    for _ in range(11):
        await rate.take(1000, Priority.MEDIUM)
    assert trio.current_time() - began == pytest.approx(11 - 2 * BURST_SECONDS, abs=1e-3)


async def test_what_is_counted_slows_the_others(autojump_clock: trio.testing.MockClock) -> None:
    """What does not wait would come on top of the bound."""
    rate = Rate(1000)
    began = trio.current_time()
    rate.count(5000)
    await rate.take(10, Priority.MEDIUM)
    assert trio.current_time() - began == pytest.approx(5 - BURST_SECONDS)


async def test_those_who_wait_go_in_turn(autojump_clock: trio.testing.MockClock) -> None:
    """One peer would be served, and the others not."""
    rate, order = Rate(1000), []

    async def send(name: str, count: int) -> None:
        for _ in range(count):
            await rate.take(1000, Priority.MEDIUM)
            order.append(name)

    async with trio.open_nursery() as nursery:
        await rate.take(1000, Priority.MEDIUM)
        nursery.start_soon(send, "a", 3)
        nursery.start_soon(send, "b", 3)
    assert sorted(order[:2]) == sorted(order[2:4]) == sorted(order[4:]) == ["a", "b"]


async def test_urgent_goes_first_and_does_not_wait_for_a_whole_frame(autojump_clock: trio.testing.MockClock) -> None:
    """An alarm would wait for all that is queued before it at a metered link."""
    rate, waited = Rate(1000), []

    async def bulk() -> None:
        while True:
            await rate.take(10_000, Priority.LOW)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(bulk)
        for seconds in (2.0, 3.03, 1.05, 0.77):
            await trio.sleep(seconds)
            began = trio.current_time()
            await rate.take(50, Priority.CRITICAL)
            waited.append(trio.current_time() - began)
        nursery.cancel_scope.cancel()
    assert max(waited) <= 2 * BURST_SECONDS + 0.001


async def test_bulk_is_not_starved_by_the_urgent(autojump_clock: trio.testing.MockClock) -> None:
    """A collection that never rests would keep all others from the link."""
    rate, sent = Rate(1000), {Priority.CRITICAL: 0, Priority.LOW: 0}

    async def send(priority: Priority) -> None:
        while True:
            await rate.take(1000, priority)
            sent[priority] += 1

    with trio.move_on_after(400):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, Priority.CRITICAL)
            nursery.start_soon(send, Priority.LOW)
    assert sent[Priority.LOW] >= 400 // 16
    assert sent[Priority.CRITICAL] >= 300


async def test_cancelled_sender_gives_back_what_it_did_not_send(autojump_clock: trio.testing.MockClock) -> None:
    """A peer that went away would go on to slow the others."""
    rate = Rate(1000)
    await rate.take(1000, Priority.MEDIUM)
    with trio.move_on_after(0.1) as scope:
        await rate.take(100_000, Priority.MEDIUM)
    assert scope.cancelled_caught
    began = trio.current_time()
    await rate.take(1, Priority.MEDIUM)
    assert trio.current_time() - began < 1


async def test_no_bound_costs_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """Most nodes have none."""
    rate = Rate(math.inf)
    rate.count(10**12)
    with trio.move_on_after(1):
        for _ in range(100):
            await rate.take(10**12, Priority.MEDIUM)
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


def test_each_peer_has_its_own_bound() -> None:
    """A peer behind a metered link would cost more than its owner allowed, or would slow down all others."""
    took: dict[int, float] = {}

    async def scenario(world: World) -> None:
        limits = replace(LIMITS, peer_send_bytes_per_second_max=20_000)
        source = await world.start(1, limits=limits)
        source.sync.rates.of_peers[world.id(3)] = 5_000
        sinks = {number: await world.start(number, peers=[1]) for number in (2, 3)}
        await level(source, *sinks.values())
        began = trio.current_time()

        async def wait_for(number: int) -> None:
            while len(documents(sinks[number])) < 100:
                await sinks[number].sync.watch_cursors("notes")
            took[number] = trio.current_time() - began

        async with trio.open_nursery() as nursery:
            for number in sinks:
                nursery.start_soon(wait_for, number)
            text = random.Random(1).randbytes(500).hex()
            await write(source, *(f"d{number}" for number in range(100)), text=text)

    simulate(scenario)
    # A little more than a hundred kilobytes for each.
    assert 5 < took[2] < 8
    assert 20 < took[3] < 28
