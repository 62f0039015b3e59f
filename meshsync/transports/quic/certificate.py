"""Certificates that carry nothing but an endpoint's key."""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from meshsync.core.hello import Party
from meshsync.errors import CloseCode, LocalError, PeerError
from meshsync.ids import EndpointId

# Trust is decided by the key alone and nobody looks at the rest, so the rest is as short as it can be, and the same
# always: the certificate is a function of the key and needs no clock.
_NAME = x509.Name([])
_NOT_BEFORE = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NOT_AFTER = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)


def make_certificate(private_key: Ed25519PrivateKey) -> x509.Certificate:
    """Return the self-signed certificate of this key."""
    return (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(private_key.public_key())
        .serial_number(1)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .sign(private_key, None)
    )


def endpoint_id(private_key: Ed25519PrivateKey) -> EndpointId:
    """Return the id of the endpoint that holds this key."""
    return EndpointId(private_key.public_key().public_bytes_raw())


def party_of_untrusted(certificate: x509.Certificate | None) -> Party:
    """Read who a certificate speaks for; that its sender holds the key is TLS's to prove.

    PeerError IDENTITY: no certificate, a key that is not Ed25519, or one of small order.
    """
    if certificate is None:
        raise PeerError("the peer presented no certificate", CloseCode.IDENTITY)
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PeerError("the peer's certificate holds no usable key", CloseCode.IDENTITY) from error
    if not isinstance(key, Ed25519PublicKey):
        raise PeerError("the peer's certificate holds no Ed25519 key", CloseCode.IDENTITY)
    try:
        peer = EndpointId(key.public_bytes_raw())
    except LocalError as error:
        raise PeerError(f"the peer's key is refused: {error}", CloseCode.IDENTITY) from error
    return Party(id=peer, certificate_hash=certificate.fingerprint(hashes.SHA256()))
