"""How long to wait: for the end of a handshake, for the first word of whom was dialled, until the next keep-alive.

The round trip of a radio link may be ten seconds, and nothing is known of a link before the first one.  So a dial
waits for the first word a little longer each time that none came, and once there was one as long as a handshake may
take at all.
"""

from __future__ import annotations

from collections import OrderedDict

from meshsync.core.limits import Limits
from meshsync.transports.base import Address


class Silences:
    """At which addresses nobody answered, and how often in a row."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._seconds: OrderedDict[Address, float] = OrderedDict()

    def seconds(self, address: Address) -> float:
        """How long the next dial to an address waits for the first word."""
        return self._seconds.get(address, self._limits.handshake_seconds_min)

    def unanswered(self, address: Address) -> None:
        """A dial has waited in vain.  One that is answered changes nothing: the link stays as slow as it is."""
        limits = self._limits
        self._seconds[address] = min(2 * self.seconds(address), limits.handshake_silence_seconds_max)
        self._seconds.move_to_end(address)
        if len(self._seconds) > limits.silent_addresses_max:
            self._seconds.popitem(last=False)


class Deadlines:
    """Of one connection: what is due, and when."""

    def __init__(self, now: float, limits: Limits, silence_seconds: float) -> None:
        """Begin a handshake in which the peer has `silence_seconds` for its first word."""
        self._limits = limits
        self.began = now
        self._hear_by = now + silence_seconds
        self._prove_by = now + limits.handshake_seconds_max
        self._active_at = now

    def active(self, now: float) -> None:
        """Something came in, or a keep-alive is sent."""
        self._active_at = now

    def handshake_due(self, *, is_heard: bool) -> float:
        """When the handshake is given up."""
        return self._prove_by if is_heard else min(self._hear_by, self._prove_by)

    def keepalive_due(self) -> float:
        """When a link on which nothing came in for a while is to be tried."""
        return self._active_at + self._limits.keepalive_seconds
