"""Endpoints over a network that loses, repeats, delays and cuts."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from trio.testing import MockClock

from meshsync.core.limits import LIMITS
from meshsync.errors import CloseCode, TransportLost
from meshsync.transports.base import Address, CloseReason, MessageChannel
from meshsync.transports.quic._seam_recovery import PROBE_SECONDS
from tests.simnet import LinkProfile
from tests.transports.support import connected, quic_endpoint, running_net, virtual_time

profiles = st.builds(
    LinkProfile,
    latency_seconds=st.floats(0.0, 0.3),
    jitter_seconds=st.floats(0.0, 0.1),
    loss=st.floats(0.0, 0.15),
    duplication=st.floats(0.0, 0.2),
    mtu_bytes=st.integers(1200, 1472),
)


@given(seed=st.integers(0, 2**32), profile=profiles)
@hypothesis_settings(max_examples=15)
def test_everything_arrives_in_order_over_a_bad_network(seed: int, profile: LinkProfile) -> None:
    """Otherwise loss, reordering or duplication reaches the layers above."""
    frames = [random.Random(seed).randbytes(size) for size in (1, 5000, 40_000, 0, 100)]

    async def send(channel: MessageChannel) -> None:
        for frame in frames:
            await channel.send(frame)
        await channel.send_eof()

    async def check(channel: MessageChannel) -> None:
        for frame in frames:
            assert await channel.receive() == frame
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()

    async def scenario() -> None:
        limits = replace(LIMITS, handshake_seconds_max=120)
        async with connected(seed=seed, profile=profile, limits=limits) as pair, trio.open_nursery() as nursery:
            nursery.start_soon(send, pair.near.control)
            nursery.start_soon(send, pair.far.control)
            nursery.start_soon(check, pair.near.control)
            nursery.start_soon(check, pair.far.control)

    trio.run(scenario, clock=MockClock(autojump_threshold=0))


@virtual_time
async def test_lost_peer_is_noticed() -> None:
    """Otherwise a peer that lost its power is connected for ever."""
    async with connected() as pair:
        pair.net.cut("10.0.0.1", "10.0.0.2")
        pair.net.cut("10.0.0.2", "10.0.0.1")
        began = trio.current_time()
        for connection in (pair.near, pair.far):
            assert (await connection.wait_closed()).code is CloseCode.LOST
            with pytest.raises(TransportLost):
                await connection.control.receive()
        assert trio.current_time() - began <= LIMITS.idle_seconds_max + LIMITS.keepalive_seconds


@virtual_time
async def test_idle_connection_stays() -> None:
    """Otherwise quiet peers lose each other, and reconnect for ever."""
    async with connected() as pair:
        await trio.sleep(50 * LIMITS.idle_seconds_max)
        await pair.near.control.send(b"still there?")
        assert await pair.far.control.receive() == b"still there?"


@virtual_time
async def test_idle_connection_is_nearly_silent() -> None:
    """Otherwise idle nodes keep radios and processors awake."""
    async with connected() as pair:
        await trio.sleep(1)
        before = pair.net.datagrams
        hour = 3600
        await trio.sleep(hour / 2)
        assert pair.net.datagrams - before <= 3 * (hour / 2) / LIMITS.keepalive_seconds


@virtual_time
async def test_transfer_survives_a_cut() -> None:
    """Otherwise every short outage costs a new connection."""
    async with connected() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.near.control.send, bytes(60_000))
        await trio.sleep(0.02)
        pair.net.cut("10.0.0.1", "10.0.0.2")
        await trio.sleep(10)
        pair.net.heal()
        assert await pair.far.control.receive() == bytes(60_000)


@virtual_time
async def test_slow_path_is_probed_as_often_as_it_answers() -> None:
    """Otherwise each probe that is lost on a bad link doubles what a write takes there."""
    async with connected(profile=LinkProfile(latency_seconds=0.5)) as pair:
        for _ in range(30):  # round trips that take as long as each other: the path is known well
            await pair.near.control.send(b"ping")
            await pair.far.control.receive()
            await pair.far.control.send(b"pong")
            await pair.near.control.receive()
        await trio.sleep(1)  # the last of it is acknowledged
        times: list[float] = []

        def note(payload: bytes, source: Address, _target: Address) -> bytes | None:
            if source[0] == "10.0.0.2":
                return payload
            times.append(trio.current_time())
            return None

        pair.net.tamper = note
        await pair.near.control.send(b"nobody hears this")
        await trio.sleep(LIMITS.keepalive_seconds - 3)
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert PROBE_SECONDS / 2 <= min(gaps) <= max(gaps) <= PROBE_SECONDS


@virtual_time
async def test_lost_close_is_repeated() -> None:
    """Otherwise a peer that missed the close waits half a minute to learn of it."""
    async with connected() as pair:
        pair.net.cut("10.0.0.1", "10.0.0.2")
        pair.near.close(CloseCode.DISCONNECTED, "bye")
        await trio.testing.wait_all_tasks_blocked()
        pair.net.heal()
        await pair.far.control.send(b"are you there?")
        assert await pair.far.wait_closed() == CloseReason(CloseCode.DISCONNECTED, "bye", by_peer=True)


@virtual_time
async def test_leaving_takes_bounded_time_when_the_peer_is_gone() -> None:
    """Otherwise a node cannot stop while its peers are unreachable."""
    async with running_net() as net, quic_endpoint(net.socket("10.0.0.2"), 2) as acceptor:
        async with quic_endpoint(net.socket("10.0.0.1"), 1) as dialer:
            await dialer.dial(acceptor.address, acceptor.id)
            net.cut("10.0.0.1", "10.0.0.2")
            net.cut("10.0.0.2", "10.0.0.1")
            began = trio.current_time()
        assert trio.current_time() - began <= LIMITS.close_seconds_max


@virtual_time
async def test_leaving_survives_one_loss() -> None:
    """Otherwise an idle peer learns after half a minute, because one packet was lost."""
    async with running_net() as net, quic_endpoint(net.socket("10.0.0.2"), 2) as acceptor:
        async with quic_endpoint(net.socket("10.0.0.1"), 1) as dialer:
            await dialer.dial(acceptor.address, acceptor.id)
            far = await acceptor.accept()
            await trio.sleep(1)
            lost: list[bytes] = []

            def lose_first(payload: bytes, source: Address, _target: Address) -> bytes | None:
                if source[0] == "10.0.0.1" and not lost:
                    lost.append(payload)
                    return None
                return payload

            net.tamper = lose_first
        assert lost
        with trio.fail_after(1):
            assert (await far.wait_closed()).code is CloseCode.SHUTDOWN


@virtual_time
async def test_abandoned_dial_leaves_nothing_behind() -> None:
    """Otherwise the dial loop of a node that is down collects connections."""
    async with running_net() as net, quic_endpoint(net.socket("10.0.0.1"), 1) as dialer:
        for _ in range(3):
            with trio.move_on_after(0.2):
                await dialer.dial(("10.0.0.9", 4000), None)
        await trio.sleep(10)
        assert not dialer._connections
        assert not dialer._routes


@virtual_time
async def test_peer_that_moves_to_another_port_is_followed() -> None:
    """Otherwise a router that forgets its mapping cuts the connection."""
    async with connected() as pair:
        pair.net.rebind("10.0.0.1", 4000, 4999)
        await pair.near.control.send(b"from a new port")
        assert await pair.far.control.receive() == b"from a new port"
        await pair.far.control.send(b"to the new port")
        assert await pair.near.control.receive() == b"to the new port"
        assert pair.far.address == ("10.0.0.1", 4999)


@pytest.mark.parametrize(("mtu", "expected"), [(1452, 1452), (1400, 1200)])
def test_datagrams_grow_where_the_path_carries_them(mtu: int, expected: int) -> None:
    """Otherwise a fifth of every Ethernet frame stays empty, or nothing arrives on narrower paths."""
    longest = 0

    def measure(payload: bytes, source: Address, target: Address) -> bytes:
        nonlocal longest
        del source, target
        if len(payload) <= mtu:
            longest = max(longest, len(payload))
        return payload

    @virtual_time
    async def scenario() -> None:
        async with connected(profile=LinkProfile(mtu_bytes=mtu)) as pair, trio.open_nursery() as nursery:
            pair.net.tamper = measure
            channel = await pair.near.open_channel()
            nursery.start_soon(channel.send, bytes(500_000))
            received = await pair.far.accept_channel()
            assert await received.receive() == bytes(500_000)
            assert pair.near.machine._loss._cc.ssthresh is None, "a lost probe is no congestion"

    scenario()
    assert longest == expected


@virtual_time
async def test_datagrams_shrink_when_the_path_narrows() -> None:
    """Otherwise a connection that moves into a tunnel is dead until it times out."""
    async with connected() as pair, trio.open_nursery() as nursery:
        channel = await pair.near.open_channel()
        nursery.start_soon(channel.send, bytes(500_000))
        received = await pair.far.accept_channel()
        await received.receive()
        pair.net.profile.mtu_bytes = 1300
        nursery.start_soon(channel.send, bytes(500_000))
        assert await received.receive() == bytes(500_000)


@virtual_time
async def test_reordering_is_not_taken_for_congestion() -> None:
    """Otherwise wireless links, which lose nothing and swap much, carry a twentieth of what they could."""
    profile = LinkProfile(latency_seconds=0.05, jitter_seconds=0.005)
    async with connected(profile=profile) as pair, trio.open_nursery() as nursery:
        channel = await pair.near.open_channel()
        nursery.start_soon(channel.send, bytes(2_000_000))
        received = await pair.far.accept_channel()
        began = trio.current_time()
        await received.receive()
        assert trio.current_time() - began < 3
