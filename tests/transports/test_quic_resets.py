"""Stateless resets: a node that was killed says so to its peers once it is back, and nobody else can say it."""

from __future__ import annotations

import random

import trio

from meshsync.core.limits import LIMITS
from meshsync.errors import CloseCode
from meshsync.lab.simulation.sockets import SimulatedSocket
from meshsync.transports.base import Address
from meshsync.transports.quic import QuicEndpoint
from meshsync.transports.quic.connection import QuicConnection
from meshsync.transports.quic.resets import RESET_BYTES_MAX, RESET_BYTES_MIN, Resets, is_short, token_of
from tests.simnet import SimNet
from tests.transports.support import Pair, connected, key, quic_endpoint, running_net, virtual_time

HERE = ("10.0.0.2", 4000)
THERE = ("10.0.0.1", 4000)


def resets(number: int = 2, address: Address = HERE) -> Resets:
    return Resets(key(number), address, LIMITS)


def stray(size: int, connection_id: bytes = b"c" * 8) -> bytes:
    """A packet of a connection that nobody knows."""
    return (b"\x40" + connection_id).ljust(size, b"x")


def test_tokens_outlive_the_process_and_nothing_else() -> None:
    """Otherwise a new process cannot speak for the old one, or somebody else can."""
    connection_id = b"12345678"
    token = resets().token(connection_id)
    assert len(token) == 16
    assert resets().token(connection_id) == token
    others = [resets(3), resets(2, ("10.0.0.2", 4001)), resets(2, ("10.0.0.20", 4000))]
    assert token not in [other.token(connection_id) for other in others]
    assert resets().token(b"12345679") != token


def test_reset_has_the_form_of_a_short_packet() -> None:
    """Otherwise peers of other makes do not take it for a reset (RFC 9000 section 10.3)."""
    for size in range(1, 1500):
        answer = resets().answer_untrusted(stray(size), THERE, 0.0)
        if size <= RESET_BYTES_MIN:
            assert answer is None, size
            continue
        assert answer is not None, size
        assert len(answer) == min(size - 1, RESET_BYTES_MAX)
        assert answer[0] & 0xC0 == 0x40
        assert token_of(answer) == resets().token(b"c" * 8)
    first, second = (resets().answer_untrusted(stray(100), THERE, 0.0) for _ in range(2))
    assert first != second, "the rest must be noise"


def test_only_short_packets_are_answered() -> None:
    """Otherwise handshakes and datagrams of other protocols are answered with what they cannot understand."""
    for first in (0x00, 0x3F, 0x80, 0xC0, 0xFF):
        datagram = bytes([first]) + bytes(99)
        assert not is_short(datagram)
        assert resets().answer_untrusted(datagram, THERE, 0.0) is None


def test_resets_that_answer_resets_come_to_an_end() -> None:
    """Otherwise one forged packet has two nodes answer each other for ever."""
    datagram: bytes | None = stray(1200)
    ends = [resets(1, THERE), resets(2, HERE)]
    sizes = []
    while datagram is not None:
        sizes.append(len(datagram))
        datagram = ends[len(sizes) % 2].answer_untrusted(datagram, THERE, float(len(sizes)))
    assert sizes == [1200, *range(RESET_BYTES_MAX, RESET_BYTES_MIN - 1, -1)]


def test_flood_of_strays_is_answered_rarely() -> None:
    """Otherwise a node can be made to send as much as somebody sends to it, to wherever that one says."""
    one = resets()
    answered = sum(one.answer_untrusted(stray(50), THERE, now / 1000) is not None for now in range(10_000))
    assert answered <= LIMITS.resets_per_host_burst + 10 / LIMITS.reset_per_host_seconds
    assert one.answer_untrusted(stray(50), ("10.0.0.9", 1), 10.0) is not None, "one host leaves some for the others"
    hosts = [(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}", 1) for number in range(10_000)]
    answered = sum(one.answer_untrusted(stray(50), host, 10.0) is not None for host in hosts)
    assert answered <= LIMITS.resets_burst
    assert len(one._by_host) <= LIMITS.reset_hosts_max


def restart(net: SimNet, host: str) -> SimulatedSocket:
    """Return a new socket in the place of one whose process was killed."""
    net._sockets[host, 4000].kill()
    return net.socket(host)


@virtual_time
async def test_either_end_learns_of_a_restart_with_its_next_packet() -> None:
    """Otherwise it takes the idle time, half a minute, in which everything that is sent goes nowhere."""
    for victim in (1, 2):
        async with connected() as pair:
            await trio.sleep(1)
            survivor = pair.far if victim == 1 else pair.near
            async with quic_endpoint(restart(pair.net, f"10.0.0.{victim}"), victim):
                await survivor.control.send(b"still there?")
                began = trio.current_time()
                reason = await survivor.wait_closed()
                assert reason.code is CloseCode.LOST
                assert not reason.by_peer
                assert trio.current_time() - began < 0.1
                before = pair.net.datagrams
                await trio.sleep(10)
                assert pair.net.datagrams == before, "nobody has anything to say about it"


@virtual_time
async def test_both_sides_know_a_token_after_the_handshake() -> None:
    """Otherwise the side that was dialled never learns that the dialer was started anew."""
    async with connected() as pair:
        await trio.sleep(1)
        for connection, other in ((pair.near, pair.acceptor), (pair.far, pair.dialer)):
            current = connection.machine._peer_cid
            assert current.stateless_reset_token == other._resets.token(current.cid)


async def unharmed(pair: Pair) -> None:
    """Check that the connection still carries messages."""
    assert not pair.near.is_closed
    assert not pair.far.is_closed
    await pair.near.control.send(b"ping")
    assert await pair.far.control.receive() == b"ping"


def reset_for(connection: QuicConnection, by: QuicEndpoint) -> bytes:
    """The reset that would end a connection of the other endpoint."""
    return b"\x41" + b"r" * 20 + by._resets.token(connection.machine._peer_cid.cid)


@virtual_time
async def test_forged_resets_do_nothing() -> None:
    """Otherwise anyone who knows an address ends connections."""
    rng = random.Random(5)
    async with connected() as pair:
        await trio.sleep(1)
        near, spoofed = pair.near, pair.net._sockets[HERE]
        for _ in range(500):
            spoofed.send([b"\x40" + rng.randbytes(41)], THERE)
        genuine = reset_for(near, pair.acceptor)
        spoofed.send([genuine[:-1], genuine[:-1] + bytes([genuine[-1] ^ 1]), b"\x00" + genuine[1:]], THERE)
        # The right token from somewhere else, which is not where this connection's packets go.
        pair.net.socket("10.0.0.66").send([genuine], THERE)
        # The token of an id that the peer has issued, but that no packet carries.
        unused = [one for one in pair.far.machine._host_cids if one.cid != near.machine._peer_cid.cid]
        spoofed.send([b"\x41" + b"r" * 20 + one.stateless_reset_token for one in unused], THERE)
        await trio.sleep(2)
        await unharmed(pair)
        spoofed.send([genuine], THERE)
        assert (await near.wait_closed()).code is CloseCode.LOST


@virtual_time
async def test_nobody_is_told_the_token_of_a_living_connection() -> None:
    """Otherwise who saw a packet asks for its token, at another address of the node, and ends the connection."""
    told: list[bytes] = []

    def note(payload: bytes, _source: Address, target: Address) -> bytes:
        if target[0] == "10.0.0.66":
            told.append(payload)
        return payload

    async with connected() as pair, quic_endpoint(pair.net.socket("10.0.0.3"), 2) as twin:
        await trio.sleep(1)
        pair.net.tamper = note
        connection_id = pair.near.machine._peer_cid.cid
        for target in (pair.acceptor.address, twin.address):
            pair.net.socket("10.0.0.66").send([stray(100, connection_id)], target)
        await trio.sleep(1)
        assert len(told) == 1, "the twin answers, because it knows no such connection"
        assert token_of(told[0]) != pair.acceptor._resets.token(connection_id)
        await unharmed(pair)


@virtual_time
async def test_two_endpoints_do_not_answer_each_other_for_long() -> None:
    """Otherwise one forged packet costs two nodes their bandwidth."""
    async with (
        running_net() as net,
        quic_endpoint(net.socket(HERE[0]), 2),
        quic_endpoint(net.socket(THERE[0]), 1),
    ):
        net._sockets[HERE].send([stray(1200)], THERE)
        await trio.sleep(60)
        assert net.datagrams <= 2 + RESET_BYTES_MAX - RESET_BYTES_MIN
