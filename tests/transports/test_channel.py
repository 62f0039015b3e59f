"""Frames over streams in memory: what a channel makes of bad input and of bad timing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from meshsync.core.framing import encode_frame
from meshsync.core.limits import LIMITS
from meshsync.errors import CloseCode, PeerError, TransportLost
from meshsync.transports.channel import MessageChannel
from tests.transports.support import virtual_time

LIMIT_SECONDS = LIMITS.message_seconds_max


@virtual_time
async def test_frames_cross_any_stream() -> None:
    """Otherwise the layers above cannot be tested without a network."""
    one, other = trio.testing.memory_stream_pair()
    near, far = MessageChannel(one), MessageChannel(other)
    await near.send(b"hello")
    await near.send(b"")
    assert await far.receive() == b"hello"
    assert await far.receive() == b""
    await far.aclose()
    with pytest.raises(TransportLost):
        await near.send(b"anyone?")


@virtual_time
async def test_slow_frame_is_given_up() -> None:
    """Otherwise one byte every ten seconds holds a stream, and a task, for ever."""
    stream, other = trio.testing.memory_stream_pair()
    channel = MessageChannel(other)

    async def trickle() -> None:
        for byte in encode_frame(bytes(1000)):
            await stream.send_all(bytes([byte]))
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        with pytest.raises(PeerError) as caught:
            await channel.receive()
        assert caught.value.code is CloseCode.TIMEOUT
        assert trio.current_time() == pytest.approx(LIMIT_SECONDS, abs=1.1)
        nursery.cancel_scope.cancel()


@virtual_time
async def test_slow_link_may_take_longer_than_a_slow_peer() -> None:
    """Otherwise a batch never gets through a link that takes longer for it, however often it is sent again."""
    stream, other = trio.testing.memory_stream_pair()
    channel = MessageChannel(other)
    frame = bytes(LIMITS.batch_bytes_soft)
    rest = encode_frame(frame)

    async def trickle() -> None:
        for first in range(0, len(rest), 100):
            await stream.send_all(rest[first : first + 100])
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        assert await channel.receive() == frame
        assert trio.current_time() > 10 * LIMIT_SECONDS


@virtual_time
async def test_waiting_for_a_frame_to_begin_may_take_for_ever() -> None:
    """Otherwise quiet streams are taken for slow ones."""
    one, other = trio.testing.memory_stream_pair()
    near, far = MessageChannel(one), MessageChannel(other)

    async def send_late() -> None:
        await trio.sleep(100 * LIMIT_SECONDS)
        await near.send(b"at last")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_late)
        assert await far.receive() == b"at last"


@virtual_time
async def test_slow_reader_is_no_fault_of_the_peer() -> None:
    """Otherwise a node that pauses between two frames blames, and leaves, an honest peer."""
    stream, other = trio.testing.memory_stream_pair()
    channel = MessageChannel(other)
    second = encode_frame(b"second")
    await stream.send_all(encode_frame(b"first") + second[:5])
    assert await channel.receive() == b"first"
    await trio.sleep(10 * LIMIT_SECONDS)
    with trio.move_on_after(1):
        await channel.receive()
    await trio.sleep(10 * LIMIT_SECONDS)
    await stream.send_all(second[5:])
    assert await channel.receive() == b"second"


@virtual_time
async def test_frame_that_is_cut_off_is_the_peers_fault() -> None:
    """Otherwise half a message is taken for a clean end."""
    stream, other = trio.testing.memory_stream_pair()
    await stream.send_all(encode_frame(b"whole") + encode_frame(b"cut off")[:-1])
    await stream.send_eof()
    channel = MessageChannel(other)
    assert await channel.receive() == b"whole"
    with pytest.raises(PeerError):
        await channel.receive()


@virtual_time
async def test_too_long_a_frame_is_refused() -> None:
    """Otherwise a peer decides how much memory this node spends."""
    stream, other = trio.testing.memory_stream_pair()
    channel = MessageChannel(other, limits=replace(LIMITS, frame_bytes_max=100))
    await stream.send_all((101).to_bytes(4, "big"))
    with pytest.raises(PeerError) as caught:
        await channel.receive()
    assert caught.value.code is CloseCode.LIMIT


@virtual_time
async def test_second_task_is_told_off() -> None:
    """Otherwise frames are interleaved, or shared out."""
    one, _ = trio.testing.memory_stream_pair()
    channel = MessageChannel(one)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await channel.receive()
        nursery.cancel_scope.cancel()
