r"""The signed hello: two endpoints prove on the control stream who they are.

TLS has proved the keys already.  The hello signs them once more, together with both nonces, both
certificates and everything that either side said, so that identity rests on no private attribute of a
TLS library, and nothing said in a hello can be changed or replayed.

    dialer                          acceptor
      HELLO  ------------------------>
             <------------------------  HELLO, PROOF
      PROOF  ------------------------>          the dialer's first messages may follow at once

    HELLO = [version, nonce (32 bytes), instance (16 bytes), name, agent]
    PROOF = [signature (64 bytes), mac (32 bytes) or null]

    transcript = role || dialer id || acceptor id || SHA-256 of the dialer's certificate || of the acceptor's
                 || length and bytes of the dialer's HELLO || length and bytes of the acceptor's HELLO
    signature  = Ed25519(own key, "meshsync/hello/1\0" || transcript)
    mac        = HMAC-SHA256(mesh key, "meshsync/mesh/1\0" || transcript)

The role is that of the side that signs: a proof reflected to its author never verifies.
"""

from __future__ import annotations

import enum
import hmac
import unicodedata
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from meshsync.core.cbor import decode_message_untrusted, encode
from meshsync.core.limits import PROTOCOL_VERSION
from meshsync.errors import CloseCode, LocalError, PeerError
from meshsync.ids import EndpointId

NONCE_BYTES = 32
INSTANCE_BYTES = 16
NAME_CHARACTERS_MAX = 64
_SIGNATURE_BYTES = 64
_MAC_BYTES = 32
_HASH_BYTES = 32
_HELLO_DOMAIN = b"meshsync/hello/1\0"
_MESH_DOMAIN = b"meshsync/mesh/1\0"


class Role(enum.Enum):
    """Which end of the connection one is; the value is the byte that stands for it in the transcript."""

    DIALER = b"\x00"
    ACCEPTOR = b"\x01"


def clean_text(text: str) -> str:
    """Return `text` fit for terminals, logs and pages: no control or formatting characters, bounded length."""
    kept = (character for character in text if unicodedata.category(character)[0] != "C")
    return "".join(kept)[:NAME_CHARACTERS_MAX]


@dataclass(frozen=True)
class Hello:
    """What one side says about itself."""

    nonce: bytes
    """32 random bytes, new for every connection."""
    instance: bytes
    """16 random bytes, new for every start of the process."""
    name: str
    """What people call this endpoint; at most 64 characters, none of them a control character."""
    agent: str
    """Software and version, bounded in the same way."""

    def __post_init__(self) -> None:
        """LocalError: a field of the wrong length or with characters that `clean_text` would remove."""
        if len(self.nonce) != NONCE_BYTES or len(self.instance) != INSTANCE_BYTES:
            raise LocalError(f"a hello needs {NONCE_BYTES} bytes of nonce and {INSTANCE_BYTES} of instance")
        for text in (self.name, self.agent):
            if clean_text(text) != text:
                raise LocalError(f"{text!r} has control characters or more than {NAME_CHARACTERS_MAX} characters")

    def encode(self) -> bytes:
        """Return the body of the HELLO frame."""
        return encode([PROTOCOL_VERSION, self.nonce, self.instance, self.name, self.agent])


@dataclass(frozen=True)
class Party:
    """One end of the connection as TLS has shown it."""

    id: EndpointId
    certificate_hash: bytes
    """SHA-256 of the certificate's DER encoding."""


def decode_untrusted_hello(body: bytes) -> Hello:
    """Read a peer's HELLO.  PeerError VERSION: another version; PROTOCOL: anything else that is wrong.

    The texts are cleaned, not refused: an odd name must not keep two endpoints apart.
    """
    items = _decode_untrusted_array(body)
    if not items or type(items[0]) is not int:
        raise PeerError("the hello does not begin with a version")
    if items[0] != PROTOCOL_VERSION:
        raise PeerError(f"the peer speaks version {items[0]}, this node {PROTOCOL_VERSION}", CloseCode.VERSION)
    match items[1:]:
        case [bytes(nonce), bytes(instance), str(name), str(agent)] if (
            len(nonce) == NONCE_BYTES and len(instance) == INSTANCE_BYTES
        ):
            return Hello(nonce=nonce, instance=instance, name=clean_text(name), agent=clean_text(agent))
    raise PeerError("the hello has fields of the wrong number, type or length")


def _decode_untrusted_proof(body: bytes) -> tuple[bytes, bytes | None]:
    match _decode_untrusted_array(body):
        case [bytes(signature), None] if len(signature) == _SIGNATURE_BYTES:
            return signature, None
        case [bytes(signature), bytes(mac)] if len(signature) == _SIGNATURE_BYTES and len(mac) == _MAC_BYTES:
            return signature, mac
    raise PeerError("the proof has fields of the wrong number, type or length")


def _decode_untrusted_array(body: bytes) -> list[object]:
    value: object = decode_message_untrusted(body, depth_max=1)
    if type(value) is not list:
        raise PeerError("a frame of the hello is no array")
    return value


class HelloExchange:
    """One side of the exchange, as a machine without I/O.

    Send what `start` and each `handle` return, give `handle` each frame of the peer, until `is_done`.
    """

    def __init__(
        self,
        role: Role,
        *,
        private_key: Ed25519PrivateKey,
        hello: Hello,
        own: Party,
        peer: Party,
        mesh_key: bytes | None = None,
    ) -> None:
        """Begin.  `private_key` must belong to `own.id`.  LocalError: a certificate hash that is none."""
        for party in (own, peer):
            if len(party.certificate_hash) != _HASH_BYTES:
                raise LocalError(f"a certificate's hash has {_HASH_BYTES} bytes, not {len(party.certificate_hash)}")
        self._role = role
        self._private_key = private_key
        self._own_body = hello.encode()
        self._hello = hello
        self._own = own
        self._peer = peer
        self._mesh_key = mesh_key
        self._peer_body: bytes | None = None
        self._peer_hello: Hello | None = None
        self.is_done = False
        self.mac_ok = False
        """The peer proved that it holds the mesh key of this node; False when this node has none."""

    @property
    def peer_hello(self) -> Hello:
        """What the peer says about itself.  Proved only once `is_done`.  LocalError: nothing was said yet."""
        if self._peer_hello is None:
            raise LocalError("the peer has said no hello yet")
        return self._peer_hello

    @property
    def nonces(self) -> tuple[bytes, bytes]:
        """The dialer's nonce and the acceptor's.  LocalError: the peer has said no hello yet."""
        own, peer = self._hello.nonce, self.peer_hello.nonce
        return (own, peer) if self._role is Role.DIALER else (peer, own)

    def start(self) -> list[bytes]:
        """Return the frames to send before anything was heard."""
        return [self._own_body] if self._role is Role.DIALER else []

    def handle(self, body: bytes) -> list[bytes]:
        """Take one frame of the peer and return the frames to answer with.

        PeerError VERSION: another version; IDENTITY: the proof does not verify; PROTOCOL: anything else.
        """
        if self.is_done:
            raise LocalError("the hello is over; this frame belongs to someone else")
        if self._peer_body is None:
            self._peer_hello = decode_untrusted_hello(body)
            self._peer_body = body
            return [self._own_body, self._proof()] if self._role is Role.ACCEPTOR else []
        self._verify(body)
        self.is_done = True
        return [self._proof()] if self._role is Role.DIALER else []

    def _proof(self) -> bytes:
        transcript = self._transcript(self._role)
        signature = self._private_key.sign(_HELLO_DOMAIN + transcript)
        mac = None if self._mesh_key is None else hmac.digest(self._mesh_key, _MESH_DOMAIN + transcript, "sha256")
        return encode([signature, mac])

    def _verify(self, body: bytes) -> None:
        signature, mac = _decode_untrusted_proof(body)
        transcript = self._transcript(Role.ACCEPTOR if self._role is Role.DIALER else Role.DIALER)
        try:
            Ed25519PublicKey.from_public_bytes(self._peer.id).verify(signature, _HELLO_DOMAIN + transcript)
        except InvalidSignature as error:
            raise PeerError("the hello's signature does not verify", CloseCode.IDENTITY) from error
        if self._mesh_key is not None and mac is not None:
            expected = hmac.digest(self._mesh_key, _MESH_DOMAIN + transcript, "sha256")
            self.mac_ok = hmac.compare_digest(expected, mac)

    def _transcript(self, signer: Role) -> bytes:
        assert self._peer_body is not None, "nothing is signed before both hellos are known"
        own, peer = (self._own, self._own_body), (self._peer, self._peer_body)
        (dialer, dialer_body), (acceptor, acceptor_body) = (own, peer) if self._role is Role.DIALER else (peer, own)
        return b"".join(
            (
                signer.value,
                dialer.id,
                acceptor.id,
                dialer.certificate_hash,
                acceptor.certificate_hash,
                len(dialer_body).to_bytes(4, "big"),
                dialer_body,
                len(acceptor_body).to_bytes(4, "big"),
                acceptor_body,
            )
        )
