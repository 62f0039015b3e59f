"""How frames travel: what the layers above see of a transport.

Nothing here knows QUIC, and nothing here knows what a frame means.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from meshsync.core.hello import Hello
from meshsync.errors import CloseCode, TransportLost
from meshsync.ids import EndpointId
from meshsync.transports.channel import MessageChannel

__all__ = ["Address", "Admit", "CloseReason", "Connection", "Hello", "MessageChannel", "Origin", "Transport"]

Address = tuple[str, int]
"""A numeric IP address and a port.  Names are resolved above the transport."""

Admit = Callable[[EndpointId, Hello, Address, bool], CloseCode | None]
"""Decides who may stay: called once for every connection, on both sides, with the peer, its verified hello, its
address and whether it proved that it holds the mesh key.  None: welcome.  Else the connection is closed with that
code.  It must not block, and may be called with this node's own id (dialled itself, or a clone: Hello.instance)."""


class Origin(enum.Enum):
    """Which side began the connection."""

    DIALED = "dialed"
    ACCEPTED = "accepted"


@dataclass(frozen=True)
class CloseReason:
    """How a connection ended."""

    code: CloseCode
    reason: str
    """For people.  A peer's text arrives here without control characters and of bounded length."""
    by_peer: bool

    def as_error(self) -> TransportLost:
        """Return the exception for whatever is used after this."""
        detail = f" ({self.reason})" if self.reason else ""
        if self.code is CloseCode.LOST:
            return TransportLost(f"the connection is lost{detail}", self.code)
        who = "the peer" if self.by_peer else "this node"
        return TransportLost(f"{who} closed the connection: {self.code.name}{detail}", self.code)


class Connection(Protocol):
    """An authenticated connection with one peer: it exists only once the peer's identity is proved."""

    @property
    def peer(self) -> EndpointId:
        """Who is at the other end."""

    @property
    def origin(self) -> Origin:
        """Who began."""

    @property
    def address(self) -> Address:
        """Where the peer is."""

    @property
    def nonces(self) -> tuple[bytes, bytes]:
        """The dialer's nonce and the acceptor's, 32 bytes each: unique for this connection."""

    @property
    def hello(self) -> Hello:
        """What the peer says about itself, verified to come from it."""

    @property
    def control(self) -> MessageChannel:
        """The stream that both sides have from the start."""

    @property
    def is_closed(self) -> bool:
        """True from the moment either side closed or the path was given up."""

    @property
    def rtt_seconds(self) -> float:
        """The smoothed round-trip time; before one was measured a guess, 0.0 where there is nothing to go by."""

    @property
    def bytes_sent(self) -> int:
        """UDP payload sent, handshake and retransmissions included."""

    @property
    def bytes_received(self) -> int:
        """UDP payload received."""

    async def open_channel(self) -> MessageChannel:
        """Open a stream.  The peer learns of it with the first frame, so the opener must speak first.

        TransportLost: the connection is closed.
        """

    async def accept_channel(self) -> MessageChannel:
        """Wait for the next stream that the peer opened.  TransportLost: the connection is closed."""

    async def wait_closed(self) -> CloseReason:
        """Wait until the connection is closed, by whomever."""

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close at once: everything on it fails with TransportLost here and, soon after, at the peer.  Idempotent."""


class Transport(Protocol):
    """One local endpoint of a transport."""

    @property
    def id(self) -> EndpointId:
        """Who this endpoint is."""

    @property
    def address(self) -> Address:
        """Where it listens."""

    async def dial(self, address: Address, expect: EndpointId | None, admit: Admit | None = None) -> Connection:
        """Connect to `address`; with `expect`, to that endpoint and no other.

        `admit` decides on this connection in the place of the endpoint's own.  It is called when the peer is proved
        and this node is not yet: where it refuses, the peer never had a connection.
        TransportLost: unreachable, refused (`code` says why), or no answer in time.  PeerError IDENTITY: someone
        else is there.  PeerError VERSION: it speaks another version.  Cancelling abandons the connection.
        """

    async def accept(self) -> Connection:
        """Wait for the next connection that a peer dialled.  trio.ClosedResourceError: the endpoint is closed."""

    async def aclose(self) -> None:
        """Close every connection with SHUTDOWN and wait, for a bounded time, until the peers were told."""
