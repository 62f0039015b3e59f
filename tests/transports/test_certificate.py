"""Who a certificate speaks for."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

from meshsync.errors import CloseCode, PeerError
from meshsync.transports.quic.certificate import endpoint_id, make_certificate, party_of_untrusted
from tests.transports.support import key

_P = 2**255 - 19
# The points of small order and the encodings that are not canonical, as y coordinates with and without the sign bit:
# https://cr.yp.to/ecdh.html#validate lists the same for X25519; these are for Ed25519.
_Y = [
    0,
    1,
    _P - 1,
    _P,
    _P + 1,
    int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
    int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
]
SMALL_ORDER_KEYS = [(y | sign << 255).to_bytes(32, "little") for y in _Y for sign in (0, 1)]


def certificate_of(public_key: CertificatePublicKeyTypes) -> x509.Certificate:
    """Make a certificate for a key that is not the signer's."""
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(public_key)
        .serial_number(1)
        .not_valid_before(dt.datetime(2000, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(3000, 1, 1, tzinfo=dt.UTC))
        .sign(key(1), None)
    )


def test_certificate_names_the_endpoint() -> None:
    """Otherwise an endpoint is not its key."""
    certificate = make_certificate(key(1))
    party = party_of_untrusted(certificate)
    assert party.id == endpoint_id(key(1))
    assert party.certificate_hash == certificate.fingerprint(hashes.SHA256())


def test_certificate_is_a_function_of_the_key() -> None:
    """Otherwise it depends on a clock, which a device may not have."""
    assert make_certificate(key(1)).public_bytes(Encoding.DER) == make_certificate(key(1)).public_bytes(Encoding.DER)
    assert len(make_certificate(key(1)).public_bytes(Encoding.DER)) < 200


@pytest.mark.parametrize("raw", SMALL_ORDER_KEYS, ids=bytes.hex)
def test_keys_of_small_order_are_refused(raw: bytes) -> None:
    """Otherwise forged signatures verify: OpenSSL takes them under such keys."""
    with pytest.raises(PeerError) as caught:
        party_of_untrusted(certificate_of(Ed25519PublicKey.from_public_bytes(raw)))
    assert caught.value.code is CloseCode.IDENTITY


def test_there_are_fourteen_such_keys() -> None:
    """Otherwise the list above lost one."""
    assert len(set(SMALL_ORDER_KEYS)) == 14


@pytest.mark.parametrize(
    "public_key",
    [ec.generate_private_key(ec.SECP256R1()).public_key(), ed448.Ed448PrivateKey.generate().public_key()],
    ids=["P-256", "Ed448"],
)
def test_keys_of_other_kinds_are_refused(public_key: CertificatePublicKeyTypes) -> None:
    """Otherwise ids of 32 bytes cannot name every endpoint."""
    with pytest.raises(PeerError) as caught:
        party_of_untrusted(certificate_of(public_key))
    assert caught.value.code is CloseCode.IDENTITY


def test_no_certificate_is_nobody() -> None:
    """Otherwise a client may stay anonymous."""
    with pytest.raises(PeerError) as caught:
        party_of_untrusted(None)
    assert caught.value.code is CloseCode.IDENTITY
