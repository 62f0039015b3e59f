"""With whom a collection is shared, and whether it is in sync with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from meshsync.core.session_events import SessionState
from meshsync.ids import CollectionId, EndpointId
from meshsync.store.replica import Replica
from meshsync.sync.subscriptions import Subscriptions

if TYPE_CHECKING:
    from meshsync.sync.engine import SyncEngine
    from meshsync.sync.link import Link


class Sharing:
    """Answers for one node, from what its links and the summaries say at this moment."""

    def __init__(self, engine: SyncEngine, subscriptions: Subscriptions) -> None:
        self._engine = engine
        self._subscriptions = subscriptions
        self._mute: dict[EndpointId, None] = {}
        """Whose connections ended without a word of what they subscribe to."""

    def partners(self, collection: CollectionId) -> list[EndpointId]:
        """The connected peers that subscribe to a collection, or may be about to say that they do."""
        return [peer for peer, link in self._engine.links.items() if self._may_share(link, collection)]

    def _may_share(self, link: Link, collection: CollectionId) -> bool:
        shares = link.shares(collection)
        if shares is None:
            # Once it gets the benefit of the doubt: whoever came back for ever would keep others waiting for ever.
            return link.peer not in self._mute and link.is_awaited(collection)
        return shares

    def spoke(self, peer: EndpointId) -> None:
        """A peer said what it subscribes to."""
        self._mute.pop(peer, None)

    def parted(self, link: Link) -> None:
        """A connection is over."""
        if not link.has_spoken:
            self._mute.pop(link.peer, None)
            if len(self._mute) >= self._engine.limits.connections_max:
                del self._mute[next(iter(self._mute))]
            self._mute[link.peer] = None

    def subscribers(self, collection: CollectionId) -> int:
        """How many nodes are known to subscribe to a collection and to be there, this one included.

        Of one that died the last word stays for hours.  So whoever said nothing for a while counts only where somebody
        who counts is linked with it.
        """
        gossip, limits, now = self._engine.summaries.gossip, self._engine.limits, trio.current_time()
        facts = {fact.signed.summary.author: fact for fact in gossip.facts(collection)}
        linked: dict[EndpointId, set[EndpointId]] = {}
        for author, fact in facts.items():
            peers = {link.peer for link in fact.signed.summary.links}
            linked.setdefault(author, set()).update(peers)
            for peer in peers:
                # Who has more links than it can list leaves it to the other ends to tell.
                if peer in facts and not facts[peer].signed.summary.tells_all_links:
                    linked.setdefault(peer, set()).add(author)
        young = {author for author, fact in facts.items() if fact.age(now) < limits.summary_young_seconds}
        found = {self._engine.summaries.own, *self.partners(collection), *young}
        to_visit = list(found)
        while to_visit:
            new = linked.get(to_visit.pop(), set()) - found
            found |= new
            to_visit += new
        return len(found)

    def is_level(self, collection: CollectionId, peer: EndpointId) -> bool:
        """Whether a collection is in sync with a peer: the roots are equal."""
        link = self._engine.links.get(peer)
        exchange = link.exchanges.get(collection) if link is not None else None
        if exchange is None:
            return False
        exchange.absorb()
        return exchange.session.state is SessionState.SYNCED

    def is_certain(self, replica: Replica) -> bool:
        """Whether no document can be wanted that is not here, as far as its entries are known here.

        Whether a document matches is known to whoever has its payloads.  So either all payloads are here, or a peer
        that has all of them has named what matches.  Where no such peer is connected nobody can tell: the payloads of a
        document may be scattered over nodes that do not want it, and only a third node sees what they come to.  To
        deny that such nodes are synced would keep those that meet without a third one waiting for ever.
        """
        return replica.complete or any(
            exchange.session.has_everything and self.is_level(replica.id, exchange.link.peer)
            for exchange in self._engine.sessions(replica)
        )

    def is_synced(self, names: Iterable[str] | None, peers: Iterable[EndpointId | str] | None) -> bool:
        """See `SyncEngine.wait_synced`."""
        chosen = self._subscriptions.chosen(names)
        if peers is not None:
            wanted = set(map(EndpointId.of, peers))
            return bool(wanted) and all(self.is_level(one, peer) for one in chosen for peer in wanted)
        # What is only carried for others may wait for them; what is subscribed to needs a peer to be in sync with.
        partners = {one: found for one in chosen if (found := self.partners(one)) or self._subscriptions.is_own(one)}
        has_some = bool(partners) and all(partners.values())
        return has_some and all(self.is_level(one, peer) for one, found in partners.items() for peer in found)
