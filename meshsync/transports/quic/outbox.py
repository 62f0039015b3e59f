"""What a connection sends: from the state machine to the socket, and the last words once more."""

from __future__ import annotations

from meshsync.transports.base import Address
from meshsync.transports.quic._seam import Machine
from meshsync.transports.quic.udp import DatagramSocket

_FAREWELLS_MAX = 4  # how often the close is repeated to a peer that has not heard it


class Outbox:
    """The way out of one connection.  Only its pump takes it, except for repeating the farewell."""

    def __init__(self, machine: Machine, socket: DatagramSocket) -> None:
        """Send what `machine` wants to send through `socket`."""
        self._machine = machine
        self._socket = socket
        self._farewell: list[bytes] = []
        self._farewell_to: Address | None = None
        self._farewells_left = _FAREWELLS_MAX
        self.bytes_sent = 0

    @property
    def is_farewell_said(self) -> bool:
        """Whether this side has closed the connection and told the peer."""
        return bool(self._farewell)

    def collect(self, now: float) -> list[tuple[bytes, Address]]:
        """Take what the machine wants to send now."""
        is_farewell = self._machine.is_ending and not self._farewell
        outgoing: list[tuple[bytes, Address]] = self._machine.datagrams_to_send(now)
        if is_farewell and outgoing:
            self._farewell = [datagram for datagram, _ in outgoing]
            self._farewell_to = outgoing[0][1]
        return outgoing

    async def send(self, outgoing: list[tuple[bytes, Address]]) -> None:
        """Send, together what goes to the same address; waits only while the system's buffer is full."""
        start = 0
        for index, (datagram, address) in enumerate(outgoing):
            self.bytes_sent += len(datagram)
            if index + 1 == len(outgoing) or outgoing[index + 1][1] != address:
                await self._send_to(address, [datagram for datagram, _ in outgoing[start : index + 1]])
                start = index + 1

    def repeat_farewell(self) -> None:
        """Tell the peer once more that the connection is closed, if this side closed it."""
        if self._farewell_to is not None and self._farewells_left:
            self._farewells_left -= 1
            self._socket.send(self._farewell, self._farewell_to)

    async def _send_to(self, address: Address, datagrams: list[bytes]) -> None:
        sent = self._socket.send(datagrams, address)
        while sent < len(datagrams):
            await self._socket.wait_sendable()
            sent += self._socket.send(datagrams[sent:], address)
