"""Connections only through the interfaces that the owner chose: who is dialled, and who is let in."""

from __future__ import annotations

from collections.abc import Callable

from meshsync.core.hello import Hello
from meshsync.errors import CloseCode, LocalError, TransportLost
from meshsync.ids import EndpointId
from meshsync.transports.base import Address, Admit, Connection, Transport


def routed_admit(admit: Admit, check_route: Callable[[str], None]) -> Admit:
    """What `admit` says of whom `check_route` lets pass; the others are told that this node is busy.

    By where the answers go, and not by where the packets came in: the kernel may route both ways differently, and what
    is sent is what the owner pays for.  Nobody else learns that there is an owner who chose.
    """

    def decide(peer: EndpointId, hello: Hello, address: Address, has_mesh_key: bool) -> CloseCode | None:
        try:
            check_route(address[0])
        except LocalError:
            return CloseCode.BUSY
        return admit(peer, hello, address, has_mesh_key)

    return decide


class RoutedTransport:
    """Another transport, which dials what `check_route` lets pass; for those who come in there is `routed_admit`."""

    def __init__(self, transport: Transport, check_route: Callable[[str], None]) -> None:
        """`check_route` takes a numeric address.  LocalError: not there, and why."""
        self._transport = transport
        self._check_route = check_route

    @property
    def id(self) -> EndpointId:
        """Who this endpoint is."""
        return self._transport.id

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._transport.address

    async def dial(self, address: Address, expect: EndpointId | None, admit: Admit | None = None) -> Connection:
        """See Transport.  TransportLost: also where the way does not lead through the chosen interfaces."""
        try:
            self._check_route(address[0])
        except LocalError as error:
            raise TransportLost(str(error)) from None
        return await self._transport.dial(address, expect, admit)

    async def accept(self) -> Connection:
        """See Transport."""
        return await self._transport.accept()

    async def aclose(self) -> None:
        """See Transport."""
        await self._transport.aclose()
