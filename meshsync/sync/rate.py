"""A bound on what is sent: a token bucket whose users take turns, the urgent ones first."""

from __future__ import annotations

import math
from dataclasses import replace

import trio

from meshsync.core.limits import Limits
from meshsync.core.priority import Priority
from meshsync.ids import EndpointId
from meshsync.sync.gate import PriorityGate

BURST_SECONDS = 0.1
"""So much of the rate may be saved up, and so much is taken in one turn."""

_GRANULE_SECONDS = 1e-6  # by so much the sums of a clock may be off


class Rate:
    """Who sends takes what it sends; what cannot wait is counted, and the others wait for it.

    Something urgent waits for two bursts at most, and not for a whole frame of something else.
    """

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self._level = 0.0
        """Bytes that may be sent; below zero, bytes that were promised already."""
        self._at = -math.inf
        self._gate = PriorityGate()

    def count(self, size: int) -> None:
        """So many bytes are sent without asking."""
        if self.per_second < math.inf:
            self._refill()
            self._level -= size

    async def take(self, size: int, priority: Priority = Priority.MEDIUM) -> None:
        """Return when so many bytes may be sent.  Cancelling gives them back."""
        if self.per_second == math.inf:
            await trio.lowlevel.checkpoint()
            return
        left = size
        try:
            while left > 0:
                async with self._gate.turn(priority) as may_go_on:
                    left -= await self._take_some(left)
                    while left > 0 and may_go_on():
                        left -= await self._take_some(left)
        except trio.Cancelled:
            self._level += size - left
            raise

    async def _take_some(self, size: int) -> int:
        """Wait until the bucket is not overdrawn, then take a burst at most; how much."""
        self._refill()
        while self._level < 0:
            await trio.sleep(max(-self._level / self.per_second, _GRANULE_SECONDS))
            self._refill()
        taken = min(size, math.ceil(BURST_SECONDS * self.per_second))
        self._level -= taken
        return taken

    def _refill(self) -> None:
        now = trio.current_time()
        self._level = min(self._level + (now - self._at) * self.per_second, BURST_SECONDS * self.per_second)
        self._at = now


class Rates:
    """What a node may send: over all peers, and to each of them."""

    def __init__(self, limits: Limits) -> None:
        self._node = Rate(limits.send_bytes_per_second_max)
        self._peer_bytes_per_second = limits.peer_send_bytes_per_second_max
        self.of_peers: dict[EndpointId, float] = {}
        """Bytes a second for peers that have a bound of their own, in the place of the one for each peer."""

    def of_link(self, peer: EndpointId) -> LinkRate:
        """The bounds for a new connection with a peer."""
        return LinkRate(self._node, Rate(self.of_peers.get(peer, self._peer_bytes_per_second)))


class LinkRate:
    """The bounds that hold for one connection: that of the peer, and that of the node, which all share."""

    def __init__(self, node: Rate, peer: Rate) -> None:
        self._node = node
        self._peer = peer

    def count(self, size: int) -> None:
        """So many bytes are sent without asking."""
        self._peer.count(size)
        self._node.count(size)

    async def take(self, size: int, priority: Priority) -> None:
        """Return when so many bytes may be sent.  Cancelling gives back what the node's other peers can use."""
        await self._peer.take(size, priority)
        await self._node.take(size, priority)

    def limits(self, limits: Limits) -> Limits:
        """The limits for sessions: a batch is sent whole, so none is longer than what may be sent in a second."""
        bytes_max = min(self._peer.per_second, self._node.per_second, limits.batch_bytes_soft)
        return replace(limits, batch_bytes_soft=math.ceil(bytes_max))
