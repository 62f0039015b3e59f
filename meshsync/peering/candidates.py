"""Discovered peers: which of them are dialled, and which are put aside because they cannot be reached.

Whoever is on the network can make a node believe in any number of peers, so a record that leads nowhere takes no
place for long: its peer is put aside, each time longer, and the choice falls on others meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog
import trio

from meshsync.core.choice import choose
from meshsync.discovery.base import Sighting
from meshsync.ids import EndpointId
from meshsync.peering.book import PeerBook
from meshsync.peering.peer import MESH, Peer

_log = structlog.get_logger("meshsync.peering")

GIVE_WAY_SECONDS = (1.0, 3.0)
"""How long the endpoint with the higher id leaves it to the other one to dial."""
SOON_SECONDS = 1.0
"""Within this time everybody is tried after the network has changed."""


class Candidates:
    """Decides for one node whom of the discovered peers to dial."""

    def __init__(self, book: PeerBook, dial: Callable[[Peer], None]) -> None:
        """`dial` sees that a task dials a peer for as long as it is wanted."""
        self._book = book
        self._dial = dial

    def sighted(self, id: EndpointId, sighting: Sighting, source: str = "") -> None:
        """A peer that trust lets in was seen, or is gone."""
        addresses = sighting.addresses[: self._book.limits.discovered_addresses_max]
        peer = self._book.peers.get(id)
        if peer is None or not peer.is_discovered:
            if not addresses or not self._make_room():
                return
            peer = self._book.peer(id)
        is_news = peer.learn(addresses, sighting.via, sighting.name, source)
        if is_news or sighting.via == MESH:
            peer.failures = 0
        if is_news and peer.aside_until is not None:
            peer.aside_until = min(peer.aside_until, trio.current_time() + self._book.rng.uniform(0, SOON_SECONDS))
            self._book.changed.notify()
        self.review()

    def _make_room(self) -> bool:
        """Whether one more may be remembered; the one that could be reached least gives way."""
        discovered = [peer for peer in self._book.peers.values() if self._is_candidate(peer)]
        if len(discovered) < self._book.limits.discovered_peers_max:
            return True
        aside = [peer for peer in discovered if peer.aside_until is not None and not peer.is_connected]
        if not aside:
            _log.warning("more peers are seen than are remembered", seen_max=self._book.limits.discovered_peers_max)
            return False
        peer = max(aside, key=lambda one: one.failures)
        peer.unlearn_discovered()
        self._book.peers.pop(peer.id)
        return True

    def failed(self, peer: Peer) -> float:
        """A discovered peer could not be reached: put it aside; returns for how many seconds."""
        delay = peer.aside.next_delay()
        peer.next_dial = peer.aside_until = trio.current_time() + delay
        if peer.places.get(MESH) and peer.failures >= self._book.limits.introduction_tries_max:
            del peer.places[MESH]
        self.review()
        self._book.changed.notify()
        return delay

    def give_way_seconds(self, peer: Peer) -> float:
        """How long to wait before this node dials a peer, so that not both do it at once."""
        if peer.is_named or peer.is_hurried or self._book.own < peer.id:
            return 0.0
        return self._book.rng.uniform(*GIVE_WAY_SECONDS)

    def hurry(self) -> None:
        """The network is another one: whoever was put aside is tried soon."""
        for peer in self._book.peers.values():
            peer.aside.reset()
            if peer.aside_until is not None:
                peer.next_dial = peer.aside_until = trio.current_time() + self._book.rng.uniform(0, SOON_SECONDS)
        self._book.changed.notify()

    def review(self) -> None:
        """Choose anew.  Whoever is connected stays so, chosen or not."""
        now = trio.current_time()
        candidates = [peer for peer in self._book.peers.values() if self._is_candidate(peer)]
        alive = [
            peer for peer in candidates if peer.is_connected or peer.aside_until is None or peer.aside_until <= now
        ]
        failed = {peer.id for peer in alive if peer.failures and not peer.is_connected}
        # Those that failed get their chance beside the others and not in their place.
        chosen = self._choose({peer.id for peer in alive} - failed) | (self._choose(peer.id for peer in alive) & failed)
        chosen |= {peer.id for peer in alive if peer.places.get(MESH)}
        for peer in self._book.peers.values():
            if peer.is_named:
                continue
            if peer.id in chosen and not peer.wanted:
                peer.wanted, peer.aside_until, peer.next_dial = True, None, None
                self._dial(peer)
            elif peer.id not in chosen and peer.wanted:
                peer.wanted = False
                peer.changed.notify()
            if not (peer.wanted or peer.has_dialer or peer.is_discovered):
                peer.aside_until = peer.next_dial = None

    def _choose(self, ids: Iterable[EndpointId]) -> set[EndpointId]:
        return choose(self._book.own, ids, all_up_to=self._book.limits.discovered_wanted_max)

    def _is_candidate(self, peer: Peer) -> bool:
        is_welcome = self._book.trust.judge(peer.id, has_mesh_key=True) is None
        return peer.is_discovered and is_welcome and not peer.is_parted

    async def run(self) -> None:
        """Let those that were put aside come back, for ever."""
        while True:
            self.review()
            now = trio.current_time()
            ends = [peer.aside_until for peer in self._book.peers.values() if peer.aside_until is not None]
            with trio.move_on_at(min((end for end in ends if end > now), default=float("inf"))):
                await self._book.changed.wait()
