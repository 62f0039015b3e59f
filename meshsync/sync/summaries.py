"""Summaries at work: this node's own are issued, those of others taken and passed on.

What is known of the mesh is in `gossip`.  Which peers share a collection is read off the links: a summary goes out
once the peer has opened the collection, so that it always knows what the summary is about.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from meshsync.addresses import HostPort
from meshsync.core.gossip import Gossip, Taken
from meshsync.core.limits import SUMMARY_ADDRESSES_MAX, SUMMARY_LASTS_SECONDS_MAX, SUMMARY_LINKS_MAX, SUMMARY_MARKS_MAX
from meshsync.core.messages import AGE_MS_MAX, Known, Summary, encode_message
from meshsync.core.summary import (
    COUNT_MAX,
    RTT_US_MAX,
    Mark,
    NodeSummary,
    PeerLink,
    decode_untrusted_summary,
    next_version,
    sign_summary,
)
from meshsync.errors import PeerError
from meshsync.identity import Identity
from meshsync.ids import CollectionId, EndpointId
from meshsync.notifier import Notifier
from meshsync.store.replica import Replica

if TYPE_CHECKING:
    from meshsync.sync.engine import SyncEngine
    from meshsync.sync.link import Link

GATHER_SECONDS = 0.2
"""What changes within this time is looked at once."""


class _Issued:
    """What this node said last of a collection."""

    def __init__(self, summary: NodeSummary, at: float, refresh_at: float) -> None:
        self.peers = {link.peer for link in summary.links}
        self.summary = summary
        self.at = at
        self.refresh_at = refresh_at


class Summaries:
    """The summaries of one node."""

    def __init__(self, engine: SyncEngine, identity: Identity, name: str) -> None:
        self.own = identity.endpoint_id
        self.gossip = Gossip(identity.endpoint_id, engine.limits)
        self.changed = Notifier()
        """Woken whenever more or something else is known of the mesh."""
        self.addresses: Callable[[], tuple[HostPort, ...]] = tuple
        """Where this node can be reached; set where the node is composed."""
        self._engine = engine
        self._identity = identity
        self._name = name
        self._links: dict[EndpointId, Link] = {}
        self._issued: dict[CollectionId, _Issued] = {}
        self._news = trio.Event()
        """Something may be other than when this node looked last."""

    async def run(self) -> None:
        """Say what is new, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_progress)
            while True:
                next_at = self._look()
                self._news = trio.Event()
                with trio.move_on_at(next_at):
                    await self._news.wait()
                await trio.sleep(GATHER_SECONDS)

    async def _follow_progress(self) -> None:
        while True:
            await self._engine.progressed.wait()
            self._news.set()

    def look_soon(self) -> None:
        """Entries were stored, or a link became lazy or eager; cheap enough for every single write."""
        self._news.set()

    def known_links(self, collection: CollectionId) -> dict[EndpointId, Link]:
        """The connected peers that have opened a collection."""
        found = {}
        for peer, link in self._engine.links.items():
            exchange = link.exchanges.get(collection)
            if exchange is not None and exchange.is_under_way:
                found[peer] = link
        return found

    # Looking at what has changed here

    def _look(self) -> float:
        """Follow the links, issue what is due, forget what is old; returns when to look again."""
        now = trio.current_time()
        self._follow_links(now)
        replicas = self._engine.subscribed()
        for collection in self.gossip.collections() - {replica.id for replica in replicas}:
            self.gossip.forget(collection)
            self._issued.pop(collection, None)
        next_at = self.gossip.expire(now)
        for replica in replicas:
            due = self._due(replica, now)
            if due <= now:
                self._issue(replica, now)
                due = self._due(replica, now)
            next_at = min(next_at, due)
        return min(next_at, self._wake_links(now))

    def _follow_links(self, now: float) -> None:
        for peer, link in list(self._links.items()):
            if self._engine.links.get(peer) is not link:
                self.gossip.disconnect(peer, now)
                del self._links[peer]
        for peer, link in self._engine.links.items():
            if peer not in self._links:
                self._links[peer] = link
                self.gossip.connect(peer, link.connection.hello.instance, now)
            opened = {collection for collection, exchange in link.exchanges.items() if exchange.is_under_way}
            if not link.connection.is_closed:  # or the streams end because the connection does
                for collection in self.gossip.shared(peer) - opened:
                    self.gossip.unshare(peer, collection)
            for collection in opened:
                self.gossip.share(peer, collection)
                self.gossip.set_lazy(peer, collection, now, lazy=link.exchanges[collection].session.is_lazy)

    def _due(self, replica: Replica, now: float) -> float:
        """When this node is to say something new of a collection."""
        limits = self._engine.limits
        last = self._issued.get(replica.id)
        if last is None:
            return now
        links = self.known_links(replica.id)
        if (
            self.gossip.own_version(replica.id) > last.summary.version
            or last.peers != set(self._chosen(links))
            or last.summary.links_total != len(links)
            or last.summary.addresses != self._addresses()
        ):
            return last.at + limits.summary_links_seconds
        if last.summary.root != replica.root():
            authors = len(self.gossip.authors(replica.id))
            return last.at + max(limits.summary_holdings_seconds, authors * limits.summary_holdings_seconds_each)
        return last.refresh_at

    def _issue(self, replica: Replica, now: float) -> None:
        limits, links = self._engine.limits, self.known_links(replica.id)
        authors = len(self.gossip.authors(replica.id))
        refresh = max(limits.summary_refresh_seconds, authors * limits.summary_refresh_seconds_each)
        newest = heapq.nlargest(SUMMARY_MARKS_MAX, replica.branches.values(), key=lambda branch: branch.tip_arrival)
        summary = NodeSummary(
            collection=replica.id,
            author=self.own,
            version=next_version(self._engine.wall_ms(), self.gossip.own_version(replica.id)),
            lasts_s=min(SUMMARY_LASTS_SECONDS_MAX, int(3 * refresh)),
            name=self._name,
            addresses=self._addresses(),
            links=tuple(
                PeerLink(peer, min(RTT_US_MAX, round(links[peer].connection.rtt_seconds * 1_000_000)))
                for peer in self._chosen(links)
            ),
            links_total=len(links),
            root=replica.root(),
            entries=min(replica.entry_count(), COUNT_MAX),
            documents=min(replica.document_count(), COUNT_MAX),
            marks=tuple(Mark(branch.log.incarnation, branch.tip.seq) for branch in newest if branch.tip.seq),
        )
        self.gossip.issue(sign_summary(summary, self._identity.private_key), now)
        # With jitter, or a mesh that was started at once would speak up at once for ever.
        self._issued[replica.id] = _Issued(summary, now, now + refresh * self._engine.rng.uniform(0.75, 1.0))
        self.changed.notify()

    def _chosen(self, links: dict[EndpointId, Link]) -> list[EndpointId]:
        """Which links are listed where not all fit: those to the next ids on the ring, seen from this one.

        So in a full mesh of up to twice as many nodes each link is listed by one of its ends.
        """
        ring = sorted(links, key=lambda peer: (peer < self.own, peer))
        return ring[:SUMMARY_LINKS_MAX]

    def _addresses(self) -> tuple[HostPort, ...]:
        return self.addresses()[:SUMMARY_ADDRESSES_MAX]

    # The control streams

    def _wake_links(self, now: float) -> float:
        """Let the links send what they may; returns when the next one may, inf where nothing waits."""
        next_at = math.inf
        for peer, link in self._links.items():
            ready_at = self.gossip.ready_at(peer, now)
            if ready_at <= now:
                link.control.wake()
            else:
                next_at = min(next_at, ready_at)
        return next_at

    def next_frame(self, link: Link) -> bytes | None:
        """The next message to send over a link; None where there is nothing, or its budget is spent."""
        if self._links.get(link.peer) is not link:
            return None
        now = trio.current_time()
        if (compared := self.gossip.next_digest(link.peer, now)) is not None:
            self._news.set()
            return encode_message(Known(link.tag(compared[0]), compared[1]))
        fact = self.gossip.next_for(link.peer, now)
        if fact is None:
            if self.gossip.ready_at(link.peer, now) < math.inf:
                self._news.set()  # one timer for all links tells when its budget allows more
            return None
        age_ms = min(AGE_MS_MAX, int(fact.age(now) * 1000))
        signed = fact.signed
        return encode_message(Summary(link.tag(signed.summary.collection), age_ms, signed.body, signed.signature))

    def compare(self, link: Link, message: Known) -> None:
        """Compare what is known with what a peer knows.  PeerError: it does not share the collection."""
        replica = _shared(link, message.tag, "digest")
        if replica is None:
            return
        self.gossip.compared(link.peer, replica.id, message.digest)
        link.control.wake()

    async def take(self, link: Link, message: Summary) -> None:
        """Take what a peer sent.  PeerError: it does not belong here, or its author did not sign it."""
        replica = _shared(link, message.tag, "summary")
        if replica is None:
            return
        signed = decode_untrusted_summary(message.body, message.signature)
        if signed.summary.collection != replica.id:
            raise PeerError("a summary of another collection than it says")
        age = message.age_ms / 1000
        if not self.gossip.is_news(link.peer, signed, age):
            return
        await link.summary_checks.take(1)
        signed.verify()
        match self.gossip.take(link.peer, signed, age, now := trio.current_time()):
            case Taken.NEWS:
                self._wake_links(now)
                self._news.set()
                self.changed.notify()
            case Taken.OWN:
                self._news.set()


def _shared(link: Link, tag: bytes, what: str) -> Replica | None:
    """Which collection a peer tells of.  PeerError: it does not share it.

    None: this node has left it, and the peer has yet to hear of that.
    """
    replica = link.replica_of(tag)
    if replica is not None and not link.has_shared(replica.id):
        raise PeerError(f"a {what} of a collection that the peer does not share")
    return replica
