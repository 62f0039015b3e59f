"""Strangers and forgers: whoever does not prove who it is stays outside."""

from __future__ import annotations

import datetime as dt

import pytest
import trio
from aioquic.quic.packet import QuicErrorCode
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from meshsync.core.framing import encode_frame
from meshsync.core.hello import Hello
from meshsync.core.limits import LIMITS
from meshsync.errors import CloseCode, PeerError, TransportLost
from meshsync.ids import EndpointId
from meshsync.transports.base import Address
from tests.transports.hostile import HELLO, Stranger, application_code, assert_serves, running, target
from tests.transports.support import quic_endpoint, running_net, virtual_time


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
async def test_another_version_of_quic_is_told_apart() -> None:
    """Otherwise the same, one layer down; and the dialer's connection must not linger."""
    async with running_net() as net, quic_endpoint(net.socket("10.0.0.1"), 1) as dialer, trio.open_nursery() as nursery:

        async def answer() -> None:
            socket = net.socket("10.0.0.3")
            ((datagram, source),) = await socket.receive()
            target_cid, source_cid = datagram[6:14], datagram[15:23]
            versions = b"\x80" + bytes(4) + b"\x08" + source_cid + b"\x08" + target_cid + b"\x1a\x2a\x3a\x4a"
            socket.send([versions], source)

        nursery.start_soon(answer)
        with pytest.raises(PeerError) as caught:
            await dialer.dial(("10.0.0.3", 4000), None)
        assert caught.value.code is CloseCode.VERSION
        await trio.sleep(1)
        assert not dialer._connections


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
