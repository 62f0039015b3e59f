"""What is urgent, behind much that is not, over a link that is full."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import trio

from meshsync.core.limits import LIMITS
from meshsync.core.priority import Priority
from meshsync.node import Node
from tests.simnet import LinkProfile
from tests.stack.world import World, events, level, simulate

ONE_WAY_SECONDS = 0.025
ROUND_TRIP_SECONDS = 2 * ONE_WAY_SECONDS
BYTES_PER_SECOND = 125_000
BULK_BYTES = 50_000_000
DOCUMENT_BYTES = 200_000
ALARMS = 40
ALARM_BYTES = 600
"""An entry of a small document, with everything around it, on the wire."""


async def two_nodes(world: World, rate_bytes_per_s: int | None = None) -> tuple[Node, Node]:
    """Two nodes in sync that share one collection of each priority."""
    limits = LIMITS if rate_bytes_per_s is None else replace(LIMITS, send_bytes_per_second_max=rate_bytes_per_s)
    names = [priority.name for priority in Priority]
    nodes = (
        await world.start(1, collections=names, limits=limits),
        await world.start(2, collections=names, peers=[1]),
    )
    for node in nodes:
        for priority in Priority:
            node.sync.set_priority(priority.name, priority)
    for name in names:
        await level(*nodes, collection=name)
    return nodes


async def write_bulk(node: Node, rng: random.Random, count: int, collection: str = "LOW") -> None:
    """Write large documents."""
    for number in range(count):
        text = rng.randbytes(DOCUMENT_BYTES // 2).hex()
        await node.collection(collection).put(f"{node.name} {number}", {"text": text})


async def alarm(near: Node, far: Node, number: int, collection: str = "CRITICAL") -> float:
    """Seconds from the write of a small document at one node until it is there at the other."""
    began = trio.current_time()
    await near.collection(collection).put(f"alarm {number}", {"number": number})
    while far.collection(collection).get(f"alarm {number}") is None:
        await far.sync.watch_cursors(collection)
    return trio.current_time() - began


@pytest.mark.parametrize("queue_bytes", [16 * 1024, 512 * 1024])
def test_critical_entry_behind_fifty_megabytes_takes_two_round_trips(queue_bytes: int) -> None:
    """Otherwise it waits for a batch to be handed over, for a buffer to empty, or for a queue on the way."""
    taken: list[float] = []

    async def scenario(world: World) -> None:
        near, far = await two_nodes(world)
        await write_bulk(near, world.rng, BULK_BYTES // DOCUMENT_BYTES)
        world.net.profile.rate_bits_per_second = 8 * BYTES_PER_SECOND
        world.net.profile.queue_bytes = queue_bytes
        await trio.sleep(5)
        for number in range(ALARMS):
            taken.append(await alarm(near, far, number))
            await trio.sleep(world.rng.uniform(0, 0.5))
        # The bulk went on all the while, and most of it is still to come.
        assert 5 <= len(list(far.collection("LOW").bodies())) < BULK_BYTES // DOCUMENT_BYTES
        assert events(near, "disconnected") == []

    simulate(scenario, profile=LinkProfile(latency_seconds=ONE_WAY_SECONDS))
    assert max(taken) <= 2 * ROUND_TRIP_SECONDS + ALARM_BYTES / BYTES_PER_SECOND


def test_priorities_hold_while_both_sides_are_busy() -> None:
    """Otherwise acknowledgements, or the peer's own bulk, hold up what is urgent."""
    taken: list[float] = []

    async def scenario(world: World) -> None:
        near, far = await two_nodes(world)
        for node in (near, far):
            await write_bulk(node, world.rng, 40)
        world.net.profile.rate_bits_per_second = 8 * BYTES_PER_SECOND
        await trio.sleep(5)
        for number in range(ALARMS):
            taken.append(await alarm(near, far, number))
            taken.append(await alarm(far, near, ALARMS + number))

    simulate(scenario, profile=LinkProfile(latency_seconds=ONE_WAY_SECONDS))
    # Each direction has a queue, and the bound holds for their sum: longer than with one by a datagram that leaves.
    bound = 2 * ROUND_TRIP_SECONDS + (ALARM_BYTES + LinkProfile.mtu_bytes) / BYTES_PER_SECOND
    assert sorted(taken)[len(taken) * 9 // 10] <= bound
    assert max(taken) <= 3 * ROUND_TRIP_SECONDS


def test_priority_that_is_raised_counts_at_once() -> None:
    """Otherwise what was handed over before goes on as it was, or the peer's restart is needed."""

    async def scenario(world: World) -> None:
        near, far = await two_nodes(world)
        await write_bulk(near, world.rng, 20, "MEDIUM")
        await write_bulk(near, world.rng, 20, "LOW")
        world.net.profile.rate_bits_per_second = 8 * BYTES_PER_SECOND
        await trio.sleep(3)
        near.sync.set_priority("LOW", Priority.CRITICAL)
        while len(far.collection("LOW")) < 20:
            await far.sync.watch_cursors("LOW")
        assert len(far.collection("MEDIUM")) <= 5

    simulate(scenario)


def test_critical_goes_first_within_the_rate() -> None:
    """Otherwise a node that keeps to a rate tells of an alarm when all that was queued before has been sent."""
    taken: list[float] = []

    async def scenario(world: World) -> None:
        near, far = await two_nodes(world, rate_bytes_per_s=20_000)
        await write_bulk(near, world.rng, 20)
        await trio.sleep(5)
        taken.extend([await alarm(near, far, number) for number in range(ALARMS)])
        assert len(far.collection("LOW")) < 20

    simulate(scenario)
    # Two bursts of the rate, and once in a while the turn of somebody who waited long.
    assert max(taken) < 0.5
