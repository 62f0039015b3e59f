"""What every transport does alike: the layers above are written against this and nothing else."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import trio
import trio.testing

from meshsync.core.hello import Hello
from meshsync.core.limits import LIMITS
from meshsync.errors import CloseCode, PeerError, TransportLost
from meshsync.ids import EndpointId
from meshsync.transports.base import Address, CloseReason, Connection, MessageChannel, Origin, Transport
from meshsync.transports.quic.certificate import endpoint_id
from tests.transports.support import WORLDS, World, key


@pytest.fixture(params=WORLDS, ids=lambda world: world.name)
def world(request: pytest.FixtureRequest) -> World:
    """Run the test in each world."""
    chosen: World = request.param
    return chosen


async def connect(first: Transport, second: Transport) -> tuple[Connection, Connection]:
    """Return both ends of a connection that the first dialled."""
    near = await first.dial(second.address, second.id)
    return near, await second.accept()


async def open_both(near: Connection, far: Connection) -> tuple[MessageChannel, MessageChannel]:
    """Return both ends of a channel that `near` opened."""
    here = await near.open_channel()
    await here.send(b"first")
    there = await far.accept_channel()
    assert await there.receive() == b"first"
    return here, there


def test_both_ends_know_each_other(world: World) -> None:
    """Otherwise messages would be taken from whoever claims to be someone."""

    async def scenario(first: Transport, second: Transport) -> None:
        near, far = await connect(first, second)
        assert (near.peer, far.peer) == (second.id, first.id)
        assert (near.origin, far.origin) == (Origin.DIALED, Origin.ACCEPTED)
        assert near.nonces == far.nonces
        assert len(set(near.nonces)) == 2
        assert near.address == second.address
        assert (near.hello.name, far.hello.name) == ("node 2", "node 1")
        assert (near.hello.instance, far.hello.instance) == (b"\2" * 16, b"\1" * 16)

    world.run(scenario)


def test_nonces_differ_between_connections(world: World) -> None:
    """Otherwise the tags of collections could be compared between connections."""

    async def scenario(first: Transport, second: Transport) -> None:
        one, _ = await connect(first, second)
        other, _ = await connect(second, first)
        assert not set(one.nonces) & set(other.nonces)

    world.run(scenario)


def test_dialling_someone_else_is_refused(world: World) -> None:
    """Otherwise whoever takes over an address is taken for the node that was there."""

    async def scenario(first: Transport, second: Transport) -> None:
        with pytest.raises(PeerError) as caught:
            await first.dial(second.address, endpoint_id(key(9)))
        assert caught.value.code is CloseCode.IDENTITY

    world.run(scenario)


def test_a_dialer_can_ask_who_is_there_and_go_no_further(world: World) -> None:
    """Otherwise finding out who is at an address begins a connection, which may take the place of a good one."""

    async def scenario(first: Transport, second: Transport) -> None:
        seen: list[tuple[EndpointId, str]] = []

        def ask(id: EndpointId, hello: Hello, *_: object) -> CloseCode:
            seen.append((id, hello.name))
            return CloseCode.OK

        with pytest.raises(TransportLost) as caught:
            await first.dial(second.address, None, ask)
        assert caught.value.code is CloseCode.OK
        assert seen == [(second.id, "node 2")]
        near, far = await connect(first, second)
        assert near.nonces == far.nonces, "the first that the other end hears of"

    world.run(scenario)


def test_dialling_nobody_fails_in_time(world: World) -> None:
    """Otherwise the dial loop hangs on a node that is down."""

    async def scenario(first: Transport, second: Transport) -> None:
        address = second.address
        await second.aclose()
        with pytest.raises(TransportLost) as caught:
            await first.dial(address, second.id)
        assert caught.value.code is CloseCode.TIMEOUT

    world.run(scenario, limits=replace(LIMITS, handshake_seconds_max=0.5))


def test_frames_of_any_size_arrive_in_order_both_ways(world: World) -> None:
    """Otherwise batches are cut, joined or swapped."""
    sizes = [0, 1, 3, 4, 1200, 16_384, 65_536, 262_144, 2_097_152, 7]

    async def send(channel: MessageChannel, mark: int) -> None:
        for size in sizes:
            await channel.send(bytes([mark]) * size)
        await channel.send_eof()

    async def check(channel: MessageChannel, mark: int) -> None:
        for size in sizes:
            assert await channel.receive() == bytes([mark]) * size
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()

    async def scenario(first: Transport, second: Transport) -> None:
        here, there = await open_both(*await connect(first, second))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, here, 1)
            nursery.start_soon(send, there, 2)
            nursery.start_soon(check, here, 2)
            nursery.start_soon(check, there, 1)

    world.run(scenario)


def test_control_channel_needs_no_opening(world: World) -> None:
    """Otherwise the two sides have nowhere to begin."""

    async def scenario(first: Transport, second: Transport) -> None:
        near, far = await connect(first, second)
        await far.control.send(b"from the acceptor")
        await near.control.send(b"from the dialer")
        assert await near.control.receive() == b"from the acceptor"
        assert await far.control.receive() == b"from the dialer"

    world.run(scenario)


def test_many_channels_stay_apart(world: World) -> None:
    """Otherwise collections are mixed up."""

    async def scenario(first: Transport, second: Transport) -> None:
        near, far = await connect(first, second)
        opened = [await near.open_channel() for _ in range(20)]
        for number, channel in enumerate(opened):
            await channel.send(b"%d" % number)
        accepted = {await channel.receive(): channel for channel in [await far.accept_channel() for _ in range(20)]}
        for number, channel in enumerate(opened):
            await accepted[b"%d" % number].send(b"answer to %d" % number)
            assert await channel.receive() == b"answer to %d" % number

    world.run(scenario)


def test_sending_ends_and_receiving_goes_on(world: World) -> None:
    """Otherwise a side that has said everything cannot hear the rest."""

    async def scenario(first: Transport, second: Transport) -> None:
        here, there = await open_both(*await connect(first, second))
        await here.send_eof()
        with pytest.raises(trio.EndOfChannel):
            await there.receive()
        await there.send(b"still here")
        assert await here.receive() == b"still here"

    world.run(scenario)


def test_closed_channel_says_why_at_the_other_end(world: World) -> None:
    """Otherwise "not for you" looks like a broken network and is tried for ever."""

    async def scenario(first: Transport, second: Transport) -> None:
        here, there = await open_both(*await connect(first, second))
        there.close(CloseCode.NOT_HERE)
        with pytest.raises(TransportLost) as caught:
            await here.receive()
        assert caught.value.code is CloseCode.NOT_HERE
        with pytest.raises(trio.ClosedResourceError):
            await there.receive()
        with pytest.raises(trio.ClosedResourceError):
            await there.send(b"too late")

    world.run(scenario)


def test_closing_a_channel_leaves_the_others_alone(world: World) -> None:
    """Otherwise one collection's trouble stops all."""

    async def scenario(first: Transport, second: Transport) -> None:
        near, far = await connect(first, second)
        doomed, _ = await open_both(near, far)
        here, there = await open_both(near, far)
        doomed.close(CloseCode.PROTOCOL)
        await here.send(b"unharmed")
        assert await there.receive() == b"unharmed"

    world.run(scenario)


def test_closed_connection_says_why_at_the_other_end(world: World) -> None:
    """Otherwise a banned or duplicate peer cannot know and dials again."""

    async def scenario(first: Transport, second: Transport) -> None:
        near, far = await connect(first, second)
        here, _ = await open_both(near, far)
        far.close(CloseCode.BANNED, "spam")
        assert await near.wait_closed() == CloseReason(CloseCode.BANNED, "spam", by_peer=True)
        assert await far.wait_closed() == CloseReason(CloseCode.BANNED, "spam", by_peer=False)
        assert near.is_closed
        for use in (here.receive, near.control.receive, near.open_channel, near.accept_channel):
            with pytest.raises(TransportLost) as caught:
                await use()
            assert caught.value.code is CloseCode.BANNED
        with pytest.raises(TransportLost):
            await here.send(b"too late")

    world.run(scenario)


def test_closing_wakes_whoever_waits(world: World) -> None:
    """Otherwise tasks of a lost peer wait for ever."""
    lost: list[CloseCode] = []

    async def wait(connection: Connection, channel: MessageChannel, *, accept: bool) -> None:
        try:
            await (connection.accept_channel() if accept else channel.receive())
        except TransportLost as error:
            lost.append(error.code)

    async def scenario(first: Transport, second: Transport) -> None:
        near, far = await connect(first, second)
        here, there = await open_both(near, far)
        async with trio.open_nursery() as nursery:
            for connection, channel in ((near, here), (far, there)):
                for accept in (True, False):
                    nursery.start_soon(partial(wait, connection, channel, accept=accept))
            await trio.testing.wait_all_tasks_blocked()
            near.close(CloseCode.DUPLICATE)
        assert lost == [CloseCode.DUPLICATE] * 4

    world.run(scenario)


def test_refused_peer_learns_the_code(world: World) -> None:
    """Otherwise a pending peer cannot tell its user to ask for acceptance."""

    def refuse(peer: EndpointId, hello: Hello, address: Address, mac_ok: bool) -> CloseCode | None:
        del address
        assert (peer, hello.name, mac_ok) == (endpoint_id(key(1)), "node 1", False)
        return CloseCode.PENDING

    async def dial_and_read(first: Transport, second: Transport) -> None:
        connection = await first.dial(second.address, second.id)
        await connection.control.receive()

    async def scenario(first: Transport, second: Transport) -> None:
        with pytest.raises(TransportLost) as caught:
            await dial_and_read(first, second)
        assert caught.value.code is CloseCode.PENDING
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_none, second)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    async def accept_none(second: Transport) -> None:
        await second.accept()
        raise AssertionError("a refused connection must not be handed out")

    world.run(scenario, admit=refuse)


def test_mesh_key_is_proved_to_those_who_share_it(world: World) -> None:
    """Otherwise nobody joins by the key, or everybody does."""
    seen: list[bool] = []

    def note(peer: EndpointId, hello: Hello, address: Address, mac_ok: bool) -> CloseCode | None:
        del peer, hello, address
        seen.append(mac_ok)
        return None

    async def scenario(first: Transport, second: Transport) -> None:
        await connect(first, second)
        assert seen == [True]

    world.run(scenario, admit=note, mesh_key=b"a secret of the mesh")


def test_too_long_a_frame_is_the_peers_fault(world: World) -> None:
    """Otherwise a peer decides how much memory this node spends."""
    limits = replace(LIMITS, frame_bytes_max=1000)

    async def scenario(first: Transport, second: Transport) -> None:
        here, there = await open_both(*await connect(first, second))
        await here.send(bytes(1001))
        with pytest.raises(PeerError) as caught:
            await there.receive()
        assert caught.value.code is CloseCode.LIMIT

    world.run(scenario, limits=limits)


def test_one_task_each_way(world: World) -> None:
    """Otherwise two readers share out the frames between them."""

    async def scenario(first: Transport, second: Transport) -> None:
        here, _ = await open_both(*await connect(first, second))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.receive)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await here.receive()
            nursery.cancel_scope.cancel()

    world.run(scenario)


def test_sender_waits_for_a_reader_that_does_not_read(world: World) -> None:
    """Otherwise a slow peer makes this node buffer without end."""
    limits = replace(LIMITS, stream_window_bytes=100_000, send_high_water_bytes=100_000)
    sent: list[int] = []

    async def send(channel: MessageChannel) -> None:
        for number in range(40):
            await channel.send(bytes(50_000))
            sent.append(number)

    async def scenario(first: Transport, second: Transport) -> None:
        here, there = await open_both(*await connect(first, second))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, here)
            for received in range(40):
                # What lies between the two: a window unread, another one unsent, and the frame under way.
                assert len(sent) <= received + 5
                assert await there.receive() == bytes(50_000)

    world.run(scenario, limits=limits)


def test_leaving_tells_the_peers(world: World) -> None:
    """Otherwise peers of a node that stops find out after half a minute."""

    async def scenario(first: Transport, second: Transport) -> None:
        near, _ = await connect(first, second)
        await second.aclose()
        assert (await near.wait_closed()).code is CloseCode.SHUTDOWN
        with pytest.raises(trio.ClosedResourceError):
            await second.accept()
        with pytest.raises(trio.ClosedResourceError):
            await second.dial(first.address, first.id)

    world.run(scenario)


def test_traffic_is_counted(world: World) -> None:
    """Otherwise nobody can say what synchronising costs."""

    async def scenario(first: Transport, second: Transport) -> None:
        near, far = await connect(first, second)
        here, there = await open_both(near, far)
        sent, received = near.bytes_sent, far.bytes_received
        await here.send(bytes(50_000))
        await there.receive()
        assert near.bytes_sent - sent >= 50_000
        assert far.bytes_received - received >= 50_000

    world.run(scenario)


def test_abandoned_accept_loses_nothing(world: World) -> None:
    """Otherwise a cancelled wait swallows a connection or a channel."""

    async def scenario(first: Transport, second: Transport) -> None:
        with trio.move_on_after(0.01):
            await second.accept()
        near, far = await connect(first, second)
        with trio.move_on_after(0.01):
            await far.accept_channel()
        await open_both(near, far)

    world.run(scenario)
