"""Datagram sockets of simulated networks: whole endpoints run on them as on the system's."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import trio

from meshsync.transports.base import Address
from meshsync.transports.quic.udp import Datagram

_QUEUE_DATAGRAMS_MAX = 4096


class Carrier(Protocol):
    """The network that a socket is bound in."""

    def transmit(self, payload: bytes, sender: SimulatedSocket, target: Address) -> None:
        """Send one datagram on its way."""

    def forget(self, socket: SimulatedSocket) -> None:
        """Nobody is bound there any more."""


class SimulatedSocket:
    """A DatagramSocket on a simulated network."""

    def __init__(self, carrier: Carrier, host: str, address: Address) -> None:
        """`host` is whose it is, by the network's names; `address` is what it is bound to."""
        self.host = host
        self.address = address
        self._carrier = carrier
        self._queue: deque[Datagram] = deque(maxlen=_QUEUE_DATAGRAMS_MAX)
        self._ready = trio.Event()
        self._is_closed = False
        self._is_dead = False

    def send(self, datagrams: Sequence[bytes], address: Address) -> int:
        """Send; the simulated system always has room."""
        if not self._is_dead:
            for datagram in datagrams:
                self._carrier.transmit(datagram, self, address)
        return len(datagrams)

    async def wait_sendable(self) -> None:
        """Return: there is always room."""
        await trio.lowlevel.checkpoint()

    async def receive(self) -> list[Datagram]:
        """Return what has arrived."""
        await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._is_closed:
                raise trio.ClosedResourceError("this socket is closed")
            self._ready = trio.Event()
            await self._ready.wait()
        batch = list(self._queue)
        self._queue.clear()
        return batch

    def deliver(self, datagram: Datagram) -> None:
        """Take a datagram from the network."""
        self._queue.append(datagram)
        self._ready.set()

    def kill(self) -> None:
        """From now on nothing leaves and nothing arrives: the process is dead."""
        self._is_dead = True
        self._carrier.forget(self)

    def close(self) -> None:
        """Close; a waiting `receive` fails."""
        self._is_closed = True
        self._carrier.forget(self)
        self._ready.set()
