"""Who this endpoint is, and the proof of who the peer is, for one connection."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import metadata

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshsync.core.framing import FrameDecoder, encode_frame
from meshsync.core.hello import NONCE_BYTES, Hello, HelloExchange, Party, Role
from meshsync.errors import CloseCode, LocalError, PeerError
from meshsync.ids import EndpointId
from meshsync.transports.quic.certificate import make_certificate, party_of_untrusted


def _agent() -> str:
    try:
        return f"meshsync/{metadata.version('meshsync')}"
    except metadata.PackageNotFoundError:
        return "meshsync"


@dataclass(frozen=True)
class LocalIdentity:
    """What an endpoint shows of itself on every connection."""

    private_key: Ed25519PrivateKey
    certificate: x509.Certificate
    party: Party
    instance: bytes
    name: str
    mesh_key: bytes | None
    agent: str

    @classmethod
    def create(
        cls, private_key: Ed25519PrivateKey, *, instance: bytes, name: str, mesh_key: bytes | None
    ) -> LocalIdentity:
        """Make the certificate and check what will be said.  LocalError: a name or an instance that is not allowed."""
        certificate = make_certificate(private_key)
        identity = cls(
            private_key=private_key,
            certificate=certificate,
            party=party_of_untrusted(certificate),
            instance=instance,
            name=name,
            mesh_key=mesh_key,
            agent=_agent(),
        )
        identity.new_hello()
        return identity

    def new_hello(self) -> Hello:
        """Return the hello for one connection, with a new nonce."""
        return Hello(nonce=os.urandom(NONCE_BYTES), instance=self.instance, name=self.name, agent=self.agent)


class Authentication:
    """The hello on the control stream: bytes in, bytes out, until `is_done`."""

    def __init__(self, identity: LocalIdentity, role: Role, expect: EndpointId | None, frame_bytes_max: int) -> None:
        """Begin before TLS is done; nothing is said yet."""
        self._identity = identity
        self._role = role
        self._expect = expect
        self._decoder = FrameDecoder(frame_bytes_max)
        self._exchange: HelloExchange | None = None
        self._peer: EndpointId | None = None

    @property
    def is_done(self) -> bool:
        """True when the peer's identity is proved."""
        return self._exchange is not None and self._exchange.is_done

    @property
    def peer(self) -> EndpointId | None:
        """Whom TLS has shown, None before that."""
        return self._peer

    @property
    def exchange(self) -> HelloExchange:
        """The exchange and what came out of it.  LocalError: before TLS is done."""
        if self._exchange is None:
            raise LocalError("the handshake is not over yet")
        return self._exchange

    def secured(self, certificate: x509.Certificate | None) -> bytes:
        """TLS is done; return the bytes to send.  PeerError IDENTITY: a bad certificate, or not whom we dialled."""
        peer = party_of_untrusted(certificate)
        self._peer = peer.id
        if self._expect is not None and peer.id != self._expect:
            raise PeerError(f"{self._expect} was dialled and {peer.id} answered", CloseCode.IDENTITY)
        self._exchange = HelloExchange(
            self._role,
            private_key=self._identity.private_key,
            hello=self._identity.new_hello(),
            own=self._identity.party,
            peer=peer,
            mesh_key=self._identity.mesh_key,
        )
        return b"".join(encode_frame(body) for body in self._exchange.start())

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the control stream; return the bytes to send.  PeerError: see HelloExchange.handle."""
        self._decoder.feed(data)
        answer = b""
        while not self.is_done and (frame := self._decoder.next_frame()) is not None:
            answer += b"".join(encode_frame(body) for body in self.exchange.handle(frame))
        return answer

    def take_rest(self) -> bytes:
        """Give up what came behind the hello: it belongs to the control channel."""
        return self._decoder.take_rest()
