"""The signed hello, byte for byte and attack by attack."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.hello import Hello, HelloExchange, Party, Role, clean_text, decode_untrusted_hello
from meshsync.errors import CloseCode, LocalError, PeerError
from meshsync.ids import EndpointId

DIALER_KEY = Ed25519PrivateKey.from_private_bytes(b"d" * 32)
ACCEPTOR_KEY = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
DIALER = Party(EndpointId(DIALER_KEY.public_key().public_bytes_raw()), b"D" * 32)
ACCEPTOR = Party(EndpointId(ACCEPTOR_KEY.public_key().public_bytes_raw()), b"A" * 32)
DIALER_HELLO = Hello(nonce=b"\x01" * 32, instance=b"\x02" * 16, name="dialer", agent="test/1")
ACCEPTOR_HELLO = Hello(nonce=b"\x03" * 32, instance=b"\x04" * 16, name="acceptor", agent="test/2")


def dialer(peer: Party = ACCEPTOR, own: Party = DIALER, mesh_key: bytes | None = None) -> HelloExchange:
    return HelloExchange(Role.DIALER, private_key=DIALER_KEY, hello=DIALER_HELLO, own=own, peer=peer, mesh_key=mesh_key)


def acceptor(peer: Party = DIALER, own: Party = ACCEPTOR, mesh_key: bytes | None = None) -> HelloExchange:
    return HelloExchange(
        Role.ACCEPTOR, private_key=ACCEPTOR_KEY, hello=ACCEPTOR_HELLO, own=own, peer=peer, mesh_key=mesh_key
    )


def exchange(one: HelloExchange, other: HelloExchange) -> None:
    """Carry frames between the two until nothing is left to carry."""
    queue = [(other, frame) for frame in one.start()] + [(one, frame) for frame in other.start()]
    while queue:
        receiver, frame = queue.pop(0)
        sender = one if receiver is other else other
        queue += [(sender, answer) for answer in receiver.handle(frame)]


def test_exchange_as_a_transcript() -> None:
    """Otherwise the bytes on the wire changed, and old and new nodes part."""
    left, right = dialer(mesh_key=b"key"), acceptor(mesh_key=b"key")
    hello_d = bytes.fromhex("85 01 5820") + b"\x01" * 32 + b"\x50" + b"\x02" * 16 + b"\x66dialer" + b"\x66test/1"
    hello_a = bytes.fromhex("85 01 5820") + b"\x03" * 32 + b"\x50" + b"\x04" * 16 + b"\x68acceptor" + b"\x66test/2"

    def proof(role: bytes, key: Ed25519PrivateKey) -> bytes:
        transcript = role + DIALER.id + ACCEPTOR.id + b"D" * 32 + b"A" * 32
        for body in (hello_d, hello_a):
            transcript += len(body).to_bytes(4, "big") + body
        signature = key.sign(b"meshsync/hello/1\0" + transcript)
        mac = hmac.new(b"key", b"meshsync/mesh/1\0" + transcript, hashlib.sha256).digest()
        return b"\x82\x58\x40" + signature + b"\x58\x20" + mac

    assert left.start() == [hello_d]
    assert right.start() == []
    assert right.handle(hello_d) == [hello_a, proof(b"\1", ACCEPTOR_KEY)]
    assert left.handle(hello_a) == []
    assert left.handle(proof(b"\1", ACCEPTOR_KEY)) == [proof(b"\0", DIALER_KEY)]
    assert left.is_done
    assert right.handle(proof(b"\0", DIALER_KEY)) == []
    assert right.is_done
    assert left.nonces == right.nonces == (b"\1" * 32, b"\3" * 32)
    assert left.peer_hello == ACCEPTOR_HELLO
    assert right.peer_hello == DIALER_HELLO
    assert left.mac_ok
    assert right.mac_ok


def test_exchange_without_mesh_key() -> None:
    """Otherwise nodes without a common secret cannot connect at all."""
    left, right = dialer(), acceptor()
    exchange(left, right)
    assert left.is_done
    assert right.is_done
    assert not left.mac_ok
    assert not right.mac_ok


@pytest.mark.parametrize(("one", "other"), [(b"key", b"other"), (b"key", None), (None, b"key")])
def test_mesh_key_counts_only_when_both_have_it(one: bytes | None, other: bytes | None) -> None:
    """Otherwise a peer joins by a key that it does not know, or is refused for one that it has."""
    left, right = dialer(mesh_key=one), acceptor(mesh_key=other)
    exchange(left, right)
    assert left.is_done
    assert right.is_done
    assert not left.mac_ok
    assert not right.mac_ok


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (dialer(peer=replace(ACCEPTOR, certificate_hash=b"X" * 32)), acceptor()),
        (dialer(), acceptor(own=replace(ACCEPTOR, certificate_hash=b"X" * 32))),
        (dialer(own=replace(DIALER, id=ACCEPTOR.id)), acceptor()),
        (dialer(peer=DIALER), acceptor()),
    ],
    ids=["another certificate seen", "another certificate used", "another dialer", "another acceptor"],
)
def test_anything_between_the_two_is_found(left: HelloExchange, right: HelloExchange) -> None:
    """Otherwise someone can stand between two endpoints."""
    with pytest.raises(PeerError) as caught:
        exchange(left, right)
    assert caught.value.code is CloseCode.IDENTITY


def test_reflected_proof_is_refused() -> None:
    """Otherwise an endpoint's own proof, sent back to it, proves a stranger to be that endpoint."""
    left = dialer(peer=DIALER)
    (hello,) = left.start()
    left.handle(hello)
    mirror = dialer(peer=DIALER)
    mirror.handle(hello)
    with pytest.raises(PeerError) as caught:
        left.handle(mirror._proof())
    assert caught.value.code is CloseCode.IDENTITY


def test_changed_hello_is_refused() -> None:
    """Otherwise a name or an instance can be changed on the way."""
    left, right = dialer(), acceptor()
    (hello,) = left.start()
    answer, proof = right.handle(hello)
    assert left.handle(answer.replace(b"acceptor", b"bcceptor")) == []
    with pytest.raises(PeerError):
        left.handle(proof)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (cbor2.dumps([2, 1]), CloseCode.VERSION),
        (cbor2.dumps([1]), CloseCode.PROTOCOL),
        (cbor2.dumps([]), CloseCode.PROTOCOL),
        (cbor2.dumps({}), CloseCode.PROTOCOL),
        (cbor2.dumps([True, bytes(32), bytes(16), "", ""]), CloseCode.PROTOCOL),
        (cbor2.dumps([1, bytes(31), bytes(16), "", ""]), CloseCode.PROTOCOL),
        (cbor2.dumps([1, bytes(32), bytes(17), "", ""]), CloseCode.PROTOCOL),
        (cbor2.dumps([1, bytes(32), bytes(16), b"", ""]), CloseCode.PROTOCOL),
        (cbor2.dumps([1, bytes(32), bytes(16), "", "", 0]), CloseCode.PROTOCOL),
        (DIALER_HELLO.encode() + b"\0", CloseCode.PROTOCOL),
        (DIALER_HELLO.encode()[:-1], CloseCode.PROTOCOL),
        (b"\x9f" + DIALER_HELLO.encode()[1:] + b"\xff", CloseCode.PROTOCOL),
        (b"\x85\x18\x01" + DIALER_HELLO.encode()[2:], CloseCode.PROTOCOL),
        (b"\xd9\xd9\xf7" + DIALER_HELLO.encode(), CloseCode.PROTOCOL),
        (b"", CloseCode.PROTOCOL),
    ],
)
def test_malformed_hello_is_refused(body: bytes, code: CloseCode) -> None:
    """Otherwise there are many encodings of one hello, or one crashes the node."""
    with pytest.raises(PeerError) as caught:
        decode_untrusted_hello(body)
    assert caught.value.code is code


@given(st.binary(max_size=200))
def test_noise_raises_nothing_but_peer_error(noise: bytes) -> None:
    """Otherwise a peer's bytes take the node down."""
    for machine in (dialer(), acceptor()):
        with pytest.raises(PeerError):
            machine.handle(noise)


@pytest.mark.parametrize("body", [b"", cbor2.dumps([bytes(64)]), cbor2.dumps([bytes(63), None]), cbor2.dumps([1, 2])])
def test_malformed_proof_is_refused(body: bytes) -> None:
    """Otherwise the proof could be left out."""
    machine = acceptor()
    machine.handle(DIALER_HELLO.encode())
    with pytest.raises(PeerError):
        machine.handle(body)
    assert not machine.is_done


def test_names_are_made_harmless() -> None:
    """Otherwise a peer's name writes to the terminals of others."""
    assert clean_text("a\x1b[31mb\u202ec\nd") == "a[31mbcd"
    assert clean_text("x" * 100) == "x" * 64
    body = cbor2.dumps([1, bytes(32), bytes(16), "evil\x07" + "n" * 100, "agent\n"])
    hello = decode_untrusted_hello(body)
    assert hello.name == "evil" + "n" * 60
    assert hello.agent == "agent"


@pytest.mark.parametrize(
    "fields", [{"nonce": b"short"}, {"instance": b""}, {"name": "a\nb"}, {"name": "n" * 65}, {"agent": "\0"}]
)
def test_own_hello_must_be_in_order(fields: dict[str, Any]) -> None:
    """Otherwise a wrong setting shows only at the peers."""
    with pytest.raises(LocalError):
        replace(DIALER_HELLO, **fields)


def test_frames_after_the_hello_belong_to_others() -> None:
    """Otherwise the hello swallows the first message."""
    left, right = dialer(), acceptor()
    exchange(left, right)
    with pytest.raises(LocalError):
        left.handle(b"")
