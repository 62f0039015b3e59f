"""Floods and greed: what others send costs this node a bounded amount, and nobody else anything."""

from __future__ import annotations

import random
import ssl
from dataclasses import dataclass, replace

import trio
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection as Library
from aioquic.quic.packet import QuicErrorCode

from meshsync.core.hello import Hello
from meshsync.core.limits import LIMITS
from meshsync.errors import CloseCode
from meshsync.ids import EndpointId
from meshsync.transports.base import Address
from meshsync.transports.quic.certificate import endpoint_id
from meshsync.transports.quic.doorman import Doorman, Welcome
from tests.transports.hostile import Stranger, application_code, assert_serves, running, target
from tests.transports.support import key, quic_endpoint, running_net, virtual_time, welcome

INITIAL_BYTES = 1200


@virtual_time
async def test_stranger_who_does_not_prove_anything_is_dropped() -> None:
    """Otherwise handshakes without an end add up until nobody else gets in."""
    async with target() as (net, endpoint), running(Stranger(net.socket("10.0.0.3"), endpoint.address)) as stranger:
        await stranger.wait_for(events.HandshakeCompleted)
        began = trio.current_time()
        with trio.move_on_after(LIMITS.handshake_seconds_max + 1):
            while stranger.library._close_event is None:
                stranger.library.send_ping(1)
                stranger.flush()
                await trio.sleep(1)
        assert application_code(await stranger.wait_refused()) is CloseCode.TIMEOUT
        assert trio.current_time() - began <= LIMITS.handshake_seconds_max + 1
        await trio.sleep(5)
        assert endpoint._doorman.half_open == 0
        assert not endpoint._connections


@virtual_time
async def test_stranger_who_says_nothing_is_dropped_sooner() -> None:
    """Otherwise the time that slow links are given is held by those who left."""
    async with target() as (net, endpoint), running(Stranger(net.socket("10.0.0.3"), endpoint.address)) as stranger:
        await stranger.wait_for(events.HandshakeCompleted)
        await trio.sleep(LIMITS.idle_seconds_max + 1)
        assert endpoint._doorman.half_open == 0
        assert not endpoint._connections


@virtual_time
async def test_unproved_peer_gets_little_memory() -> None:
    """Otherwise whoever has a key, that is anyone, fills this node's memory before it is known."""
    async with target() as (net, endpoint), running(Stranger(net.socket("10.0.0.3"), endpoint.address)) as stranger:
        for stream_id in range(4, 400, 4):
            await stranger.say(bytes(100_000), stream_id)
        await trio.sleep(2)
        (connection,) = endpoint._connections
        assert connection.machine._local_max_data.used <= LIMITS.unproven_window_bytes


@virtual_time
async def test_gaps_cost_the_sender_and_not_the_receiver() -> None:
    """Otherwise nine one-byte frames at growing offsets make this node hold 256 MiB."""
    async with target() as (net, endpoint), running(Stranger(net.socket("10.0.0.3"), endpoint.address)) as stranger:
        await stranger.prove()
        connection = await endpoint.accept()
        await stranger.say(b"!", 4)
        await trio.sleep(1)
        stranger.library._remote_max_data = 2**60
        for step in range(9):
            stream = stranger.library._streams[4]
            stream.max_stream_data_remote = 2**60
            stream.sender._buffer_start = stream.sender._buffer_stop = 1_000_000 * 2**step
            stream.sender._buffer.clear()
            await stranger.say(b"x", 4)
            await trio.sleep(1)
        event = await stranger.wait_refused()
        assert event.error_code == QuicErrorCode.FLOW_CONTROL_ERROR
        held = sum(len(stream.receiver._buffer) for stream in connection.machine._streams.values())
        assert held <= LIMITS.stream_window_bytes
        await assert_serves(net, endpoint)


@virtual_time
async def test_stream_limit_holds() -> None:
    """Otherwise a peer opens streams until memory is full."""
    async with target() as (net, endpoint), running(Stranger(net.socket("10.0.0.3"), endpoint.address)) as stranger:
        await stranger.prove()
        await endpoint.accept()
        stranger.library._remote_max_streams_bidi = 2**20
        await stranger.say(b"!", 4 * LIMITS.streams_per_connection_max)
        assert (await stranger.wait_refused()).error_code == QuicErrorCode.STREAM_LIMIT_ERROR


@virtual_time
async def test_garbage_hurts_nobody() -> None:
    """Otherwise one datagram from anyone stops the node."""
    rng = random.Random(7)
    seen: list[bytes] = []

    def record(payload: bytes, _source: Address, _target: Address) -> bytes:
        seen.append(payload)
        return payload

    async with target() as (net, endpoint):
        net.tamper = record
        await assert_serves(net, endpoint)
        net.tamper = None
        attacker = net.socket("10.0.0.66")
        for number in range(3000):
            payload = bytearray(rng.choice(seen))
            match number % 3:
                case 0:
                    payload = bytearray(rng.randbytes(rng.choice((0, 1, 7, 20, INITIAL_BYTES, 1472))))
                case 1:
                    for _ in range(rng.randint(1, 20)):
                        payload[rng.randrange(len(payload))] = rng.randrange(256)
                case _:
                    payload = payload[: rng.randrange(len(payload) + 1)]
            attacker.send([bytes(payload)], endpoint.address)
        await trio.sleep(20)
        await assert_serves(net, endpoint)
        assert endpoint._doorman.half_open == 0


@virtual_time
async def test_flood_of_first_packets_is_bounded() -> None:
    """Otherwise forged addresses cost a millisecond and 80 KiB each, without end."""
    first: list[bytes] = []
    replies: list[bytes] = []

    def note(payload: bytes, source: Address, target_address: Address) -> bytes | None:
        if source[0] == "10.0.0.3":
            first.append(payload)
            return None
        if target_address[0].startswith("10.9."):
            replies.append(payload)
        return payload

    async with target() as (net, endpoint):
        net.tamper = note
        for number in range(300):
            stranger = Stranger(net.socket("10.0.0.3", 5000 + number), endpoint.address)
            stranger.library.connect(endpoint.address, trio.current_time())
            stranger.flush()
        for number, payload in enumerate(first):
            net.socket(f"10.9.{number // 250}.{number % 250}").send([payload], endpoint.address)
        await trio.sleep(1)
        assert endpoint._doorman.half_open == LIMITS.half_open_retry_above
        retries = [payload for payload in replies if payload[0] & 0xF0 == 0xF0]
        assert len(retries) == 300 - LIMITS.half_open_retry_above
        assert max(len(payload) for payload in retries) < 200
        await assert_serves(net, endpoint)
        await trio.sleep(LIMITS.idle_seconds_max + 1)
        assert endpoint._doorman.half_open == 0


@virtual_time
async def test_places_that_are_wanted_are_held_for_a_short_time() -> None:
    """Otherwise the time that slow links need is a way to keep everybody out for a minute and a half."""
    limits = replace(LIMITS, half_open_retry_above=0, half_open_max=5)
    async with target(limits) as (net, endpoint), trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(Stranger(net.socket(f"10.0.3.{number}"), endpoint.address).run)
        await trio.sleep(LIMITS.handshake_seconds_min + 1)
        assert endpoint._doorman.half_open == 5
        await assert_serves(net, endpoint)
        assert endpoint._doorman.half_open < 5
        nursery.cancel_scope.cancel()


@virtual_time
async def test_host_that_takes_its_places_can_still_connect() -> None:
    """Otherwise one process keeps its whole machine, or all behind its router, out for a minute and a half."""
    limits = replace(LIMITS, half_open_per_address_max=3)
    async with target(limits) as (net, endpoint), trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(Stranger(net.socket("10.0.0.3", 5000 + number), endpoint.address).run)
        nursery.start_soon(Stranger(net.socket("10.0.0.4"), endpoint.address).run)
        await trio.sleep(LIMITS.handshake_seconds_min + 1)
        async with quic_endpoint(net.socket("10.0.0.3"), 3) as dialer:
            await dialer.dial(endpoint.address, endpoint.id)
            await endpoint.accept()
        left = sorted(caller.address[0] for caller in endpoint._doorman._half_open)
        assert left == ["10.0.0.3", "10.0.0.3", "10.0.0.4"], "another host's place is not taken for it"
        nursery.cancel_scope.cancel()


@dataclass(eq=False)
class SlowCaller:
    """A handshake over a slow link."""

    address: Address
    began: float
    is_address_proved: bool
    has_given_way: bool = False

    def give_way(self) -> None:
        self.has_given_way = True


def knock(doorman: Doorman, first: bytes, now: float) -> None:
    """Someone new comes, and goes in if there is a place."""
    if isinstance(doorman.judge_untrusted(first, ("10.7.7.7", int(now * 10) + 1), now), Welcome):
        doorman.enter(SlowCaller((f"10.8.0.{doorman.half_open}", 1), now, is_address_proved=False))


def test_forged_addresses_take_no_place_of_slow_links() -> None:
    """Otherwise six forged packets a second keep everybody out who needs longer than five seconds."""
    stranger = Library(configuration=QuicConfiguration(server_name="x", verify_mode=ssl.CERT_NONE))
    stranger.connect(("10.0.0.2", 1), 0.0)
    [(first, _)] = stranger.datagrams_to_send(0.0)
    doorman = Doorman(LIMITS)
    slow = [SlowCaller((f"10.0.0.{number}", 1), 0.0, is_address_proved=True) for number in range(10)]
    for caller in slow:
        doorman.enter(caller)
    for tenth in range(600):
        knock(doorman, first, tenth / 10)
        assert doorman.half_open <= LIMITS.half_open_retry_above
    assert not any(caller.has_given_way for caller in slow)


@virtual_time
async def test_proved_addresses_are_bounded_as_well() -> None:
    """Otherwise whoever has many addresses gets round the Retry."""
    limits = replace(LIMITS, half_open_retry_above=0, half_open_max=5)
    async with target(limits) as (net, endpoint), trio.open_nursery() as nursery:
        for number in range(20):
            stranger = Stranger(net.socket(f"10.0.3.{number}"), endpoint.address)
            nursery.start_soon(stranger.run)
        await trio.sleep(1)
        assert endpoint._doorman.half_open == 5
        nursery.cancel_scope.cancel()


@virtual_time
async def test_one_address_cannot_take_all_places() -> None:
    """Otherwise one machine locks everyone else out."""
    limits = replace(LIMITS, half_open_per_address_max=3)
    async with target(limits) as (net, endpoint), trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(Stranger(net.socket("10.0.0.3", 5000 + number), endpoint.address).run)
        await trio.sleep(1)
        assert endpoint._doorman.half_open == 3
        await assert_serves(net, endpoint)
        nursery.cancel_scope.cancel()


@virtual_time
async def test_retry_is_no_obstacle() -> None:
    """Otherwise a busy node cannot be reached at all."""
    async with target(replace(LIMITS, half_open_retry_above=0)) as (net, endpoint):
        before = net.datagrams
        await assert_serves(net, endpoint)
        assert net.datagrams > before


@virtual_time
async def test_full_node_says_busy() -> None:
    """Otherwise the peer waits for a timeout, or the node takes more than it can serve."""
    limits = replace(LIMITS, connections_max=2, connections_per_address_max=2)
    async with target(limits) as (net, endpoint), trio.open_nursery() as nursery:
        for number in (3, 4):
            stranger = Stranger(net.socket(f"10.0.0.{number}"), endpoint.address)
            nursery.start_soon(stranger.run)
            await stranger.prove()
            await endpoint.accept()
        late = Stranger(net.socket("10.0.0.5"), endpoint.address)
        nursery.start_soon(late.run)
        await late.prove()
        assert application_code(await late.wait_refused()) is CloseCode.BUSY
        nursery.cancel_scope.cancel()


@virtual_time
async def test_connections_nobody_accepts_are_bounded() -> None:
    """Otherwise they pile up while the accept loop is slow."""
    limits = replace(LIMITS, accept_queue_max=2, connections_per_address_max=100)
    async with target(limits) as (net, endpoint), trio.open_nursery() as nursery:
        codes = []
        for number in range(4):
            stranger = Stranger(net.socket("10.0.0.3", 5000 + number), endpoint.address)
            nursery.start_soon(stranger.run)
            await stranger.prove()
            await trio.sleep(1)
            close = stranger.library._close_event
            codes.append(None if close is None else application_code(close))
        assert codes == [None, None, CloseCode.BUSY, CloseCode.BUSY]
        nursery.cancel_scope.cancel()


@virtual_time
async def test_failure_in_one_connection_spares_the_others() -> None:
    """Otherwise one fault, provoked or not, takes the whole node down."""

    def trip(peer: EndpointId, hello: Hello, address: Address, mac_ok: bool) -> CloseCode | None:
        if peer == endpoint_id(key(3)):
            raise RuntimeError("a fault of our own")
        return welcome(peer, hello, address, mac_ok)

    async with (
        running_net() as net,
        quic_endpoint(net.socket("10.0.0.2"), 2, admit=trip) as endpoint,
        quic_endpoint(net.socket("10.0.0.3"), 3) as unlucky,
    ):
        connection = await unlucky.dial(endpoint.address, endpoint.id)
        assert (await connection.wait_closed()).code is CloseCode.INTERNAL
        await assert_serves(net, endpoint)


@virtual_time
async def test_connecting_costs_less_than_four_kilobytes() -> None:
    """Otherwise nodes on slow links spend their time on handshakes."""
    async with target() as (net, endpoint), quic_endpoint(net.socket("10.0.0.1"), 1) as dialer:
        near = await dialer.dial(endpoint.address, endpoint.id)
        await endpoint.accept()
        await trio.sleep(1)
        assert near.bytes_sent + near.bytes_received < 4000
