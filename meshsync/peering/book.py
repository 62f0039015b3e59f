"""All peers, what is remembered of each, and who is kept out for a while."""

from __future__ import annotations

import random

import structlog
import trio

from meshsync.core.dialing import Allowance, Aside, Backoff, Paths, Penalties
from meshsync.core.limits import Limits
from meshsync.errors import CloseCode, PeerError, TransportLost
from meshsync.events import EventLog
from meshsync.ids import EndpointId
from meshsync.notifier import Notifier
from meshsync.peering.peer import Peer
from meshsync.peering.trust import Trust
from meshsync.transports.base import Connection

_log = structlog.get_logger("meshsync.peering")


class PeerBook:
    """The peers of one node."""

    def __init__(self, own: EndpointId, trust: Trust, events: EventLog, limits: Limits, rng: random.Random) -> None:
        self.own = own
        self.trust = trust
        self.events = events
        self.limits = limits
        self.rng = rng
        self.peers: dict[EndpointId, Peer] = {}
        """In the order in which they became known."""
        self.discovered_dials = trio.CapacityLimiter(limits.discovered_dials_max)
        """Held while somebody is dialled whom the owner did not name."""
        self.discovered_retries = trio.CapacityLimiter(max(1, limits.discovered_dials_max // 2))
        """Held besides where that failed before, so that others find room."""
        self.changed = Notifier()
        """Woken when a peer was connected or lost, or when one that was put aside comes back sooner."""
        self._penalties = Penalties(rng, limits)

    def peer(self, id: EndpointId) -> Peer:
        """What is known of a peer; made where nothing is.  Not for strangers: only whom trust let in has a page."""
        peer = self.peers.get(id)
        if peer is None:
            self._make_room()
            limits, rng = self.limits, self.rng
            peer = self.peers[id] = Peer(
                id,
                backoff=Backoff(rng, limits),
                aside=Aside(rng, limits),
                paths=Paths(rng, limits),
                redials=Allowance(limits.redials_burst, limits.redial_seconds),
            )
        return peer

    def connection_with(self, id: EndpointId) -> Connection | None:
        """The connection with a peer, where there is one that is not closed."""
        peer = self.peers.get(id)
        return peer.open_connection() if peer is not None else None

    def _make_room(self) -> None:
        """Of peers that nobody named the one known for longest is forgotten where there are too many."""
        if len(self.peers) >= self.limits.peers_max:
            for id, peer in self.peers.items():
                if not (peer.wanted or peer.is_static or peer.connection or self.trust.is_known(id)):
                    del self.peers[id]
                    return

    def punish(self, id: EndpointId, error: PeerError) -> None:
        """A peer broke the protocol: it is not let in again for a while, each time longer."""
        self._penalties.punish(id, trio.current_time())
        self.events.emit("peer_error", peer=id, reason=str(error), code=error.code.name)
        _log.warning("a peer broke the protocol", peer=id.hex(), reason=str(error), code=error.code.name)

    def penalty(self, id: EndpointId) -> float:
        """Seconds for which a peer is still kept out; 0.0 where it is not."""
        return self._penalties.remaining(id, trio.current_time())

    def forgive(self, id: EndpointId) -> None:
        """It behaved well, or the owner wants it."""
        self._penalties.forgive(id)

    def in_words(self, id: EndpointId, error: TransportLost | PeerError) -> str:
        """Why a connection with a peer failed or ended, and where its owner has decided so, what that one can do."""
        remedy = f"`meshsync peers accept {self.own}` there"
        if error.code is CloseCode.BANNED and not self.trust.is_banned(id):
            return f"{id.short} has banned this node; only its owner can let it in again: {remedy}"
        if error.code is CloseCode.PENDING:
            if self.trust.mode == "mesh-key":
                remedy += ", or the same mesh key on both"
            return f"{id.short} has yet to accept this node: {remedy}"
        return str(error)

    def twin(self, id: EndpointId, message: str) -> None:
        """Two processes have one identity: say so where nobody can overlook it."""
        _log.error(message, peer=id.hex())
        self.events.emit("peer_error", peer=id, reason=message, code=CloseCode.INSTANCE.name)
