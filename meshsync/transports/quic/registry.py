"""What a connection needs of its endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshsync.errors import CloseCode

if TYPE_CHECKING:
    from meshsync.transports.quic.connection import QuicConnection


class Registry(Protocol):
    """What a connection tells the endpoint that it belongs to."""

    def route(self, connection_id: bytes, connection: QuicConnection) -> None:
        """Datagrams for this id are for this connection from now on."""

    def unroute(self, connection_id: bytes) -> None:
        """This id is used no more."""

    def admit(self, connection: QuicConnection) -> CloseCode | None:
        """Decide on a connection whose identity was just proved; None: welcome."""
