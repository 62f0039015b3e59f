"""A transport that dials only where it may: through the interfaces that the owner chose."""

from __future__ import annotations

from collections.abc import Callable

from meshsync.errors import LocalError, TransportLost
from meshsync.ids import EndpointId
from meshsync.transports.base import Address, Admit, Connection, Transport


class RoutedTransport:
    """Another transport, which dials what `check_route` lets pass.  Whoever comes in is no business of its."""

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
