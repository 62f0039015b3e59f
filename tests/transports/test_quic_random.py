"""Two endpoints used at random over a network that misbehaves at random."""

from __future__ import annotations

import random

import structlog.testing
import trio
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from trio.testing import MockClock

from meshsync.core.limits import LIMITS
from meshsync.errors import CloseCode, TransportLost
from meshsync.transports.base import Connection, MessageChannel
from tests.simnet import LinkProfile
from tests.transports.support import Pair, connected


class Walk:
    """Opens, sends, reads, resets and closes as `rng` says, and checks that what arrives was sent."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.frames_received = 0

    def frame(self, number: int) -> bytes:
        """Return a frame that tells its number and is not like its neighbours."""
        return number.to_bytes(4, "big") * self.rng.choice((1, 10, 1000, 20_000))

    async def write(self, channel: MessageChannel, mark: int) -> None:
        """Send frames that begin with `mark`, and end somehow."""
        try:
            for number in range(self.rng.randrange(1, 12)):
                with trio.move_on_after(self.rng.choice((0.01, 60, 60, 60))) as patience:
                    await channel.send(self.frame(mark + number))
                if patience.cancelled_caught:
                    channel.close(CloseCode.DISCONNECTED)  # half a frame may have left
                    return
            match self.rng.randrange(3):
                case 0:
                    await channel.send_eof()
                case 1:
                    await channel.aclose()
                case _:
                    channel.close(CloseCode.DISCONNECTED)
        except (TransportLost, trio.ClosedResourceError):
            return

    async def read(self, channel: MessageChannel, mark: int | None) -> None:
        """Check that the frames are those of one writer, in order and whole, until the end or until bored."""
        try:
            for number in range(self.rng.randrange(0, 20)):
                frame = await channel.receive()
                head = int.from_bytes(frame[:4], "big")
                mark = head if mark is None else mark
                assert head == mark + number
                assert frame == frame[:4] * (len(frame) // 4)
                self.frames_received += 1
            channel.close(CloseCode.NOT_HERE)
        except (TransportLost, trio.EndOfChannel, trio.ClosedResourceError):
            return

    async def open(self, connection: Connection, nursery: trio.Nursery, marks: int) -> None:
        """Open channels and use them."""
        try:
            for turn in range(8):
                channel = await connection.open_channel()
                nursery.start_soon(self.write, channel, marks + 1000 * turn)
                nursery.start_soon(self.read, channel, None)
                await trio.sleep(self.rng.random())
        except TransportLost:
            return

    async def accept(self, connection: Connection, nursery: trio.Nursery) -> None:
        """Use the channels that the other side opened."""
        try:
            while True:
                channel = await connection.accept_channel()
                nursery.start_soon(self.write, channel, self.rng.randrange(1, 1000) * 1000)
                nursery.start_soon(self.read, channel, None)
        except TransportLost:
            return

    async def run(self, pair: Pair) -> None:
        """Do it all, then see whether the connection still works."""
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as users:
                for number, connection in enumerate((pair.near, pair.far)):
                    nursery.start_soon(self.accept, connection, users)
                    users.start_soon(self.open, connection, users, 10_000_000 * (number + 1))
                users.start_soon(trio.sleep, 30)
            await pair.near.control.send(b"still there?")
            assert await pair.far.control.receive() == b"still there?"
            pair.far.close(CloseCode.OK)


@given(seed=st.integers(0, 2**32), loss=st.floats(0, 0.1), jitter=st.floats(0, 0.1))
@hypothesis_settings(max_examples=4)
def test_random_use_leaves_nothing_behind(seed: int, loss: float, jitter: float) -> None:
    """Otherwise some order of opening, resetting, cancelling and closing loses data, credit or memory."""
    walk = Walk(random.Random(seed))

    async def scenario() -> None:
        profile = LinkProfile(latency_seconds=0.02, jitter_seconds=jitter, loss=loss, duplication=loss)
        async with connected(seed=seed, profile=profile) as pair:
            await walk.run(pair)
            await pair.near.wait_closed()
            await trio.sleep(LIMITS.idle_seconds_max)
            for endpoint in (pair.dialer, pair.acceptor):
                assert not endpoint._connections
                assert not endpoint._routes

    with structlog.testing.capture_logs() as logs:
        trio.run(scenario, clock=MockClock(autojump_threshold=0))
    assert logs == []
    assert walk.frames_received > 0
