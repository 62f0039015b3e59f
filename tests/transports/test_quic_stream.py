"""One QUIC stream keeps trio's contract, and credit follows what was read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from meshsync.core.limits import LIMITS
from meshsync.errors import CloseCode, TransportLost
from meshsync.transports.quic.stream import QuicStream
from tests.simnet import LinkProfile
from tests.transports.support import Pair, connected, virtual_time

FAST = LinkProfile(latency_seconds=0.001)
SMALL = replace(LIMITS, stream_window_bytes=32_768, connection_window_bytes=262_144, send_high_water_bytes=32_768)


async def open_streams(pair: Pair) -> tuple[QuicStream, QuicStream]:
    """Return both ends of a new stream on which nothing is under way."""
    near = pair.near.streams.open()
    await near.send_all(b"!")
    far = await pair.far.streams.accept()
    assert await far.receive_some() == b"!"
    return near, far


@virtual_time
async def test_stream_keeps_the_contract_of_trio() -> None:
    """Otherwise code that is right for every trio stream is wrong for this one."""
    async with connected(profile=FAST, limits=SMALL) as pair:

        async def maker() -> tuple[QuicStream, QuicStream]:
            return await open_streams(pair)

        async def clogged() -> tuple[QuicStream, QuicStream]:
            near, far = await open_streams(pair)
            await fill(near)
            await fill(far)
            return near, far

        await trio.testing.check_half_closeable_stream(maker, clogged)


async def read_all(stream: QuicStream) -> None:
    while await stream.receive_some():
        pass


async def fill(stream: QuicStream) -> None:
    """Send until sending would block."""
    with trio.move_on_after(1):
        while True:
            await stream.wait_send_all_might_not_block()
            await stream.send_all(bytes(SMALL.send_high_water_bytes - stream.unacked_bytes))


@virtual_time
async def test_stalled_reader_stops_the_sender_at_the_window() -> None:
    """Otherwise a peer fills this node's memory, with data or with gaps."""
    limits = replace(SMALL, send_high_water_bytes=1_000_000)
    async with connected(profile=FAST, limits=limits) as pair:
        near, far = await open_streams(pair)
        await near.send_all(bytes(900_000))
        await trio.sleep(5)
        assert near.unacked_bytes == len(b"!") + 900_000 - limits.stream_window_bytes
        received = 0
        while received < 900_000:
            received += len(await far.receive_some(10_000))


@pytest.mark.parametrize("is_filled", [True, False], ids=["unread", "on the way"])
def test_abandoned_streams_give_their_credit_back(is_filled: bool) -> None:
    """Otherwise the connection's window fills with what nobody reads, and everything stops."""

    @virtual_time
    async def scenario() -> None:
        async with connected(profile=FAST, limits=SMALL) as pair:
            for _ in range(100):
                near, far = await open_streams(pair)
                if is_filled:
                    await fill(near)
                await far.aclose()
                with pytest.raises(trio.BrokenResourceError):
                    await near.send_all(bytes(100_000))
                await near.aclose()
            near, far = await open_streams(pair)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.send_all, bytes(1_000_000))
                received = 0
                while received < 1_000_000:
                    received += len(await far.receive_some())

    scenario()


@virtual_time
async def test_streams_reset_by_their_sender_give_their_credit_back() -> None:
    """Otherwise the other half of the same trap is open."""
    async with connected(profile=FAST, limits=SMALL) as pair:
        for _ in range(3 * SMALL.connection_window_bytes // SMALL.stream_window_bytes):
            near, far = await open_streams(pair)
            await fill(near)
            near.reset(CloseCode.DISCONNECTED)
            await trio.sleep(1)
            with pytest.raises(trio.BrokenResourceError) as caught:
                await far.receive_some()
            assert isinstance(caught.value.__cause__, TransportLost)
            assert caught.value.__cause__.code is CloseCode.DISCONNECTED
            await far.aclose()
        near, far = await open_streams(pair)
        await near.send_all(b"still alive")
        assert await far.receive_some() == b"still alive"


@virtual_time
async def test_cancelled_send_ends_in_a_reset() -> None:
    """Otherwise half a message looks like a whole one, or like a peer that breaks the protocol."""
    async with connected(profile=FAST, limits=SMALL) as pair:
        near, far = await open_streams(pair)
        with trio.move_on_after(1):
            await near.send_all(bytes(1_000_000))
        await near.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await read_all(far)


@virtual_time
async def test_finished_streams_are_forgotten() -> None:
    """Otherwise a connection that lives for months grows with every stream it ever had."""
    async with connected(profile=FAST, limits=SMALL) as pair:
        for _ in range(2 * SMALL.streams_per_connection_max):
            near, far = await open_streams(pair)
            await near.aclose()
            await far.aclose()
            await trio.sleep(0.1)
        for connection in (pair.near, pair.far):
            assert len(connection.streams) == 1
            assert len(connection.machine._streams) <= 2  # the library lets go when it next sends
