"""A packet network that a seed determines: latency, jitter, loss, duplication, reordering, cuts, MTU.

Its sockets carry real endpoints.  Run it under a trio.testing.MockClock with autojump_threshold=0, where hours
pass in no time and a failing seed fails again.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from meshsync.lab.agenda import Agenda
from meshsync.lab.simulation.sockets import SimulatedSocket
from meshsync.transports.base import Address
from meshsync.transports.quic.udp import Datagram


@dataclass
class LinkProfile:
    """How datagrams fare on the way; probabilities from 0 to 1, change them at any time."""

    latency_seconds: float = 0.010
    jitter_seconds: float = 0.0
    """Added at random to each datagram, so more than the gap between two of them reorders."""
    loss: float = 0.0
    duplication: float = 0.0
    mtu_bytes: int = 1472
    """Longer datagrams are dropped: the UDP payload of an Ethernet frame."""
    rate_bits_per_second: float = math.inf
    """What one pair of hosts can send one way, in UDP payload: datagrams leave one after the other."""
    queue_bytes: int = 128 * 1024
    """What may wait to leave in front of such a link; beyond, the newest is dropped.  A second at 1 Mbit/s."""


@dataclass
class SimNet:
    """The network; every pair of addresses is connected unless cut."""

    rng: random.Random
    profile: LinkProfile = field(default_factory=LinkProfile)
    datagrams: int = 0
    dropped: int = 0
    tamper: Callable[[bytes, Address, Address], bytes | None] | None = None
    """Sees each datagram (payload, from, to) and returns what to deliver instead, None for nothing."""
    _sockets: dict[Address, SimulatedSocket] = field(default_factory=dict)
    _cuts: set[tuple[str, str]] = field(default_factory=set)
    _agenda: Agenda[tuple[Address, Datagram]] = field(default_factory=Agenda)
    _busy_until: dict[tuple[str, str], float] = field(default_factory=dict)
    """When the last datagram of a pair and direction will have left."""

    def socket(self, host: str, port: int = 4000) -> SimulatedSocket:
        """Bind a socket."""
        socket = self._sockets[host, port] = SimulatedSocket(self, host, (host, port))
        return socket

    def cut(self, source: str, target: str) -> None:
        """From now on nothing that `source` sends reaches `target`; the other way is another cut."""
        self._cuts.add((source, target))

    def join(self, source: str, target: str) -> None:
        """Undo one cut."""
        self._cuts.discard((source, target))

    def is_cut(self, source: str, target: str) -> bool:
        """Whether nothing that `source` sends reaches `target`."""
        return (source, target) in self._cuts

    def heal(self) -> None:
        """Undo every cut."""
        self._cuts.clear()

    def rebind(self, host: str, port: int, new_port: int) -> None:
        """Let a socket appear at another port from now on, as when a router forgets its mapping."""
        socket = self._sockets.pop((host, port))
        socket.address = (host, new_port)
        self._sockets[socket.address] = socket

    def forget(self, socket: SimulatedSocket) -> None:
        """Nobody is bound there any more."""
        if self._sockets.get(socket.address) is socket:
            del self._sockets[socket.address]

    def transmit(self, payload: bytes, sender: SimulatedSocket, target: Address) -> None:
        """Send one datagram on its way."""
        self.datagrams += 1
        source, profile = sender.address, self.profile
        changed = payload if self.tamper is None else self.tamper(payload, source, target)
        lost = self.rng.random() < profile.loss or (source[0], target[0]) in self._cuts
        if changed is None or lost or len(changed) > profile.mtu_bytes:
            self.dropped += 1
            return
        left_at = self._leave(len(changed), source[0], target[0])
        if left_at is None:
            self.dropped += 1
            return
        copies = 2 if self.rng.random() < profile.duplication else 1
        for _ in range(copies):
            delay = profile.latency_seconds + self.rng.random() * profile.jitter_seconds
            self._agenda.add(left_at + delay, (target, (changed, source)))

    def queued_seconds(self, source: str, target: str) -> float:
        """How long the datagram that is sent next would wait before it begins to leave."""
        return max(0.0, self._busy_until.get((source, target), -math.inf) - trio.current_time())

    def _leave(self, size: int, source: str, target: str) -> float | None:
        """When a datagram of this size has left, after all that wait before it; None: there is no room to wait."""
        now, profile = trio.current_time(), self.profile
        if profile.rate_bits_per_second == math.inf:
            return now
        bytes_per_second = profile.rate_bits_per_second / 8
        waiting = self.queued_seconds(source, target)
        if waiting * bytes_per_second + size > profile.queue_bytes:
            return None
        left_at = self._busy_until[source, target] = now + waiting + size / bytes_per_second
        return left_at

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            await self._agenda.wait()
            for target, datagram in self._agenda.take():
                socket = self._sockets.get(target)
                if socket is not None:
                    socket.deliver(datagram)
