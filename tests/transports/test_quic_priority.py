"""Urgent channels on a link that is full: what goes first, what the others get, how long the queue grows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
import trio

from meshsync.core.limits import LIMITS
from meshsync.core.priority import Priority
from meshsync.transports.base import MessageChannel
from meshsync.transports.quic.schedule import SHARE_EVERY_PACKETS, Schedule
from tests.simnet import LinkProfile
from tests.transports.support import Pair, connected, virtual_time

ONE_WAY_SECONDS = 0.025
ROUND_TRIP_SECONDS = 2 * ONE_WAY_SECONDS
BYTES_PER_SECOND = 125_000
FRAME_BYTES = 10_000
DATAGRAM_SECONDS = 1472 / BYTES_PER_SECOND
SLOW = LinkProfile(latency_seconds=ONE_WAY_SECONDS, rate_bits_per_second=8 * BYTES_PER_SECOND)


@dataclass(frozen=True)
class Stream:
    stream_id: int | None


def order(schedule: Schedule, queue: list[Stream]) -> list[int | None]:
    """The ids in the order in which they may fill the next packet."""
    schedule.arrange(queue)
    return [stream.stream_id for stream in queue]


def test_urgent_streams_come_first_and_equals_keep_their_order() -> None:
    """Otherwise the library's own order decides: whoever was served longest ago."""
    schedule = Schedule()
    for stream_id, priority in ((4, Priority.LOW), (8, Priority.CRITICAL), (12, Priority.LOW), (0, Priority.LOW)):
        schedule.set_priority(stream_id, priority)
    queue = [Stream(12), Stream(4), Stream(16), Stream(8), Stream(0)]
    assert order(schedule, queue) == [0, 8, 16, 12, 4]
    schedule.set_priority(4, Priority.HIGH)
    assert order(schedule, queue) == [0, 8, 4, 16, 12]


def test_one_packet_in_so_many_goes_to_whoever_waited_longest() -> None:
    """Otherwise a stream that is never served times out, and its session with it."""
    schedule = Schedule()
    schedule.set_priority(4, Priority.CRITICAL)
    schedule.set_priority(8, Priority.MEDIUM)
    schedule.set_priority(12, Priority.LOW)
    queue = [Stream(4), Stream(8), Stream(12)]
    firsts = []
    for number in range(4 * SHARE_EVERY_PACKETS):
        schedule.arrange(queue)
        first = queue[0].stream_id
        assert first is not None
        schedule.served(first, number)
        schedule.served(first, number)  # a packet holds several frames of a stream that lost some
        firsts.append(first)
    assert [firsts.count(id) for id in (4, 8, 12)] == [4 * SHARE_EVERY_PACKETS - 4, 2, 2]


def test_streams_are_mixed_while_they_differ() -> None:
    """Otherwise a connection with one kind of stream is held back for nothing, or one with two is not."""
    schedule = Schedule()
    is_mixed = [schedule.is_mixed]
    for stream_id, priority in ((0, Priority.LOW), (4, Priority.MEDIUM), (8, Priority.MEDIUM), (8, Priority.HIGH)):
        schedule.set_priority(stream_id, priority)
        is_mixed.append(schedule.is_mixed)
    schedule.forget([8, 100])
    assert [*is_mixed, schedule.is_mixed] == [False, False, False, False, True, False]


async def pour(channel: MessageChannel) -> None:
    """Send without end."""
    while True:
        await channel.send(bytes(FRAME_BYTES))


async def drain(channel: MessageChannel, seen: list[float]) -> None:
    """Receive without end, and note when each frame came."""
    while True:
        await channel.receive()
        seen.append(trio.current_time())


@dataclass(frozen=True)
class Flow:
    """A channel that is always full, and when its frames came."""

    near: MessageChannel
    arrivals: list[float]


@asynccontextmanager
async def flows(pair: Pair, priorities: list[Priority]) -> AsyncIterator[list[Flow]]:
    """Fill the link from near to far with one channel of each priority."""
    async with trio.open_nursery() as nursery:
        made = []
        for priority in priorities:
            channel = await pair.near.open_channel()
            channel.set_priority(priority)
            flow = Flow(channel, [])
            nursery.start_soon(pour, channel)
            nursery.start_soon(drain, await pair.far.accept_channel(), flow.arrivals)
            made.append(flow)
        yield made
        nursery.cancel_scope.cancel()


async def alarm(here: MessageChannel, there: MessageChannel) -> float:
    """Seconds that a small frame takes."""
    began = trio.current_time()
    await here.send(bytes(100))
    await there.receive()
    return trio.current_time() - began


@pytest.mark.parametrize("queue_bytes", [12_000, 128 * 1024, 1024 * 1024])
def test_urgent_frame_takes_two_round_trips_on_a_full_link(queue_bytes: int) -> None:
    """Otherwise it waits for seconds behind what fills the buffers on the way, here and there."""

    async def scenario() -> None:
        async with connected(profile=replace(SLOW, queue_bytes=queue_bytes)) as pair:
            here = await pair.near.open_channel()
            here.set_priority(Priority.CRITICAL)
            await here.send(b"first")
            there = await pair.far.accept_channel()
            await there.receive()
            async with flows(pair, [Priority.LOW, Priority.LOW]) as bulk:
                await trio.sleep(5)
                began, taken = trio.current_time(), []
                for number in range(100):
                    taken.append(await alarm(here, there))
                    await trio.sleep(0.1 + number * 0.003)
                # Besides, the datagram that has begun to leave comes before it.
                assert max(taken) <= 2 * ROUND_TRIP_SECONDS + DATAGRAM_SECONDS
                # And the link is full all the while.
                frames = sum(at > began for flow in bulk for at in flow.arrivals)
                assert frames * FRAME_BYTES > 0.9 * BYTES_PER_SECOND * (trio.current_time() - began)

    virtual_time(scenario)()


@virtual_time
async def test_channels_that_do_not_differ_take_what_the_link_holds() -> None:
    """Otherwise a connection of one kind yields to all others on a shared link, with nothing urgent to gain by it."""
    async with connected(profile=replace(SLOW)) as pair, flows(pair, [Priority.LOW, Priority.LOW]):
        await trio.sleep(10)
        assert pair.net.queued_seconds("10.0.0.1", "10.0.0.2") > 4 * ROUND_TRIP_SECONDS


@virtual_time
async def test_queue_is_drained_soon_after_something_urgent_may_come() -> None:
    """Otherwise the first alarm after a bulk transfer waits for all that the transfer left on the way."""
    async with connected(profile=replace(SLOW)) as pair, flows(pair, [Priority.LOW, Priority.LOW]) as bulk:
        await trio.sleep(10)
        waits = pair.net.queued_seconds("10.0.0.1", "10.0.0.2")
        bulk[0].near.set_priority(Priority.HIGH)
        await trio.sleep(2 * waits + 4 * ROUND_TRIP_SECONDS)
        for _ in range(200):
            await trio.sleep(0.017)
            assert pair.net.queued_seconds("10.0.0.1", "10.0.0.2") <= 1.25 * ROUND_TRIP_SECONDS


@virtual_time
async def test_channel_of_which_nothing_was_said_is_of_medium_priority() -> None:
    """Otherwise what is urgent waits in a long queue, because the others never said that they are not."""
    async with connected(profile=replace(SLOW)) as pair:
        plain = await pair.near.open_channel()
        urgent = await pair.near.open_channel()
        urgent.set_priority(Priority.HIGH)
        await urgent.send(b"first")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour, plain)
            await trio.sleep(5)
            for _ in range(100):
                await trio.sleep(0.017)
                assert pair.net.queued_seconds("10.0.0.1", "10.0.0.2") <= 1.25 * ROUND_TRIP_SECONDS
            # Nor is much more handed over than the path holds, though as much again might be on its way.
            assert plain.unacked_bytes <= LIMITS.send_slow_path_bytes
            nursery.cancel_scope.cancel()


@virtual_time
async def test_each_priority_goes_before_the_next_and_none_starves() -> None:
    """Otherwise HIGH is no better than LOW, or LOW gets nothing while something else has something to send."""
    async with connected(profile=replace(SLOW)) as pair, flows(pair, list(Priority)) as all_flows:
        await trio.sleep(40)
        sent = [len(flow.arrivals) * FRAME_BYTES for flow in all_flows]
        whole = 40 * BYTES_PER_SECOND
        # The others share the packets that are set aside for whoever waited longest.
        assert sent[0] > 0.85 * whole
        assert all(share > whole / SHARE_EVERY_PACKETS / 5 for share in sent[1:])
        all_flows[2].near.set_priority(Priority.CRITICAL)
        before = [len(flow.arrivals) for flow in all_flows]
        await trio.sleep(20)
        first, _, risen, _ = (len(flow.arrivals) - count for flow, count in zip(all_flows, before, strict=True))
        assert abs(first - risen) <= 0.2 * first


@virtual_time
async def test_path_that_becomes_longer_is_not_taken_for_a_queue() -> None:
    """Otherwise, after a change of route, bulk crawls for ever with the smallest window."""
    async with connected(profile=replace(SLOW)) as pair, flows(pair, [Priority.HIGH, Priority.LOW]) as both:
        await trio.sleep(10)
        pair.net.profile.latency_seconds = 0.2
        await trio.sleep(40)
        before = sum(len(flow.arrivals) for flow in both)
        await trio.sleep(20)
        after = sum(len(flow.arrivals) for flow in both)
        assert (after - before) * FRAME_BYTES > 0.8 * BYTES_PER_SECOND * 20


@virtual_time
async def test_others_in_the_same_queue_do_not_starve_a_mixed_connection() -> None:
    """Otherwise a bulk transfer beside it, which does not yield, takes the whole link for as long as it lasts."""
    async with connected(profile=replace(SLOW, queue_bytes=30_000)) as pair:
        rival = await pair.dialer.dial(pair.acceptor.address, pair.acceptor.id)
        other = Pair(pair.net, pair.dialer, pair.acceptor, rival, await pair.acceptor.accept())
        async with flows(pair, [Priority.HIGH, Priority.LOW]) as both, flows(other, [Priority.MEDIUM]):
            await trio.sleep(40)
            before = sum(len(flow.arrivals) for flow in both)
            await trio.sleep(40)
            after = sum(len(flow.arrivals) for flow in both)
            assert (after - before) * FRAME_BYTES > 0.1 * BYTES_PER_SECOND * 40
