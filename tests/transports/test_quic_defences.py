"""What an endpoint survives: strangers, forgers, floods and those who want its memory."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from aioquic.quic import events
from aioquic.quic.packet import QuicErrorCode
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from meshsync.core.framing import encode_frame
from meshsync.core.hello import Hello
from meshsync.core.limits import LIMITS, Limits
from meshsync.errors import CloseCode, PeerError, TransportLost
from meshsync.ids import EndpointId
from meshsync.transports.base import Address
from meshsync.transports.quic import QuicEndpoint
from meshsync.transports.quic.certificate import endpoint_id
from tests.simnet import SimNet
from tests.transports.hostile import HELLO, Stranger, running
from tests.transports.support import key, quic_endpoint, running_net, virtual_time, welcome

INITIAL_BYTES = 1200


@asynccontextmanager
async def target(limits: Limits = LIMITS) -> AsyncIterator[tuple[SimNet, QuicEndpoint]]:
    """Run an endpoint at 10.0.0.2 that welcomes everyone, and say whether it is unharmed in the end."""
    async with running_net() as net, quic_endpoint(net.socket("10.0.0.2"), 2, limits=limits) as endpoint:
        yield net, endpoint


async def assert_serves(net: SimNet, endpoint: QuicEndpoint) -> None:
    """Check that an honest peer can connect and talk."""
    async with quic_endpoint(net.socket("10.0.0.1"), 1) as honest:
        near = await honest.dial(endpoint.address, endpoint.id)
        while True:
            far = await endpoint.accept()
            if far.peer == honest.id:
                break
        await near.control.send(b"hello?")
        assert await far.control.receive() == b"hello?"


def application_code(event: events.ConnectionTerminated) -> CloseCode:
    """Return the code of an application's close."""
    assert event.frame_type is None, event
    return CloseCode(event.error_code)


@virtual_time
async def test_client_without_certificate_is_refused() -> None:
    """Otherwise anyone takes part: TLS itself lets a client send an empty certificate."""
    async with (
        target() as (net, endpoint),
        running(Stranger(net.socket("10.0.0.3"), endpoint.address, has_certificate=False)) as stranger,
    ):
        assert application_code(await stranger.wait_refused()) is CloseCode.IDENTITY
        await assert_serves(net, endpoint)


@virtual_time
async def test_key_of_another_kind_is_refused() -> None:
    """Otherwise there are endpoints whose id is not their key."""
    other = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(other.public_key())
        .serial_number(1)
        .not_valid_before(x509_date(2000))
        .not_valid_after(x509_date(3000))
        .sign(other, hashes.SHA256())
    )
    async with (
        target() as (net, endpoint),
        running(
            Stranger(net.socket("10.0.0.3"), endpoint.address, certificate=certificate, private_key=other)
        ) as stranger,
    ):
        event = await stranger.wait_refused()
        assert event.error_code != QuicErrorCode.NO_ERROR
        await assert_serves(net, endpoint)


@virtual_time
async def test_another_protocol_is_told_apart() -> None:
    """Otherwise a user with mixed versions sees a broken network instead of the reason."""
    async with (
        running_net() as net,
        running(Stranger(net.socket("10.0.0.3"), alpn="meshsync/9")),
        quic_endpoint(net.socket("10.0.0.1"), 1) as dialer,
    ):
        with pytest.raises(PeerError) as caught:
            await dialer.dial(("10.0.0.3", 4000), None)
        assert caught.value.code is CloseCode.VERSION


@virtual_time
async def test_another_version_in_the_hello_is_told_apart() -> None:
    """Otherwise the same, one layer up."""
    async with target() as (net, endpoint), running(Stranger(net.socket("10.0.0.3"), endpoint.address)) as stranger:
        body = bytearray(HELLO.encode())
        body[1] = 9  # the version is the array's first item
        await stranger.say(encode_frame(bytes(body)))
        assert application_code(await stranger.wait_refused()) is CloseCode.VERSION


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (encode_frame(b"\xff nonsense"), CloseCode.PROTOCOL),
        ((LIMITS.hello_bytes_max + 1).to_bytes(4, "big"), CloseCode.LIMIT),
        (encode_frame(HELLO.encode()) + encode_frame(b"\x82\x58\x40" + bytes(64) + b"\xf6"), CloseCode.IDENTITY),
        (encode_frame(HELLO.encode()) * 2, CloseCode.PROTOCOL),
    ],
    ids=["nonsense", "too long", "forged signature", "hello twice"],
)
def test_bad_hello_closes_the_connection(data: bytes, code: CloseCode) -> None:
    """Otherwise the proof of identity can be left out or forged."""

    @virtual_time
    async def scenario() -> None:
        async with (
            target() as (net, endpoint),
            running(Stranger(net.socket("10.0.0.3"), endpoint.address)) as stranger,
        ):
            await stranger.say(data)
            assert application_code(await stranger.wait_refused()) is code
            await assert_serves(net, endpoint)

    scenario()


@virtual_time
async def test_hello_that_ends_early_closes_the_connection() -> None:
    """Otherwise a connection lingers that can never be proved."""
    async with target() as (net, endpoint), running(Stranger(net.socket("10.0.0.3"), endpoint.address)) as stranger:
        await stranger.say(encode_frame(HELLO.encode())[:-1], end=True)
        assert application_code(await stranger.wait_refused()) is CloseCode.PROTOCOL


@virtual_time
async def test_stranger_who_says_nothing_is_dropped() -> None:
    """Otherwise idle handshakes add up until nobody else gets in."""
    async with target() as (net, endpoint), running(Stranger(net.socket("10.0.0.3"), endpoint.address)) as stranger:
        await stranger.wait_for(events.HandshakeCompleted)
        began = trio.current_time()
        assert application_code(await stranger.wait_refused()) is CloseCode.TIMEOUT
        assert trio.current_time() - began <= LIMITS.handshake_seconds_max + 1
        await trio.sleep(5)
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
        await trio.sleep(10)
        assert endpoint._doorman.half_open == 0


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
async def test_own_identity_elsewhere_is_for_the_node_to_judge() -> None:
    """Otherwise a cloned card, or a node that dials itself, goes unnoticed."""
    judged: list[tuple[EndpointId, bytes]] = []

    def judge(peer: EndpointId, hello: Hello, address: Address, mac_ok: bool) -> CloseCode | None:
        del address, mac_ok
        judged.append((peer, hello.instance))
        return CloseCode.INSTANCE

    async with running_net() as net, quic_endpoint(net.socket("10.0.0.1"), 1, admit=judge) as endpoint:
        with pytest.raises(TransportLost) as caught:
            await endpoint.dial(endpoint.address, endpoint.id)
        assert caught.value.code is CloseCode.INSTANCE
        assert judged[0] == (endpoint.id, b"\1" * 16)


@virtual_time
async def test_connecting_costs_less_than_five_kilobytes() -> None:
    """Otherwise nodes on slow links spend their time on handshakes."""
    async with target() as (net, endpoint), quic_endpoint(net.socket("10.0.0.1"), 1) as dialer:
        near = await dialer.dial(endpoint.address, endpoint.id)
        await endpoint.accept()
        await trio.sleep(1)
        assert near.bytes_sent + near.bytes_received < 5000


@virtual_time
async def test_proof_cannot_be_replayed_on_another_connection() -> None:
    """Otherwise whoever recorded a hello, or stands between two nodes, is taken for its author."""
    async with target() as (net, endpoint):
        said: list[bytes] = []
        async with running(Stranger(net.socket("10.0.0.3"), endpoint.address)) as author:
            original = author.say

            async def record(data: bytes, stream_id: int = 0, *, end: bool = False) -> None:
                said.append(data)
                await original(data, stream_id, end=end)

            author.say = record  # type: ignore[method-assign]
            await author.prove()
            await endpoint.accept()
        async with running(Stranger(net.socket("10.0.0.4"), endpoint.address)) as thief:
            await thief.say(b"".join(said))
            assert application_code(await thief.wait_refused()) is CloseCode.IDENTITY


def x509_date(year: int) -> dt.datetime:
    return dt.datetime(year, 1, 1, tzinfo=dt.UTC)
