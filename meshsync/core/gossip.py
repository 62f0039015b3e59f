"""Which summaries are known, and which of them each link still needs.

One machine for all collections and links of a node.  A summary is passed on at most once over each link and never
back to whom it came from; of several by one author only the newest waits.  At rest nothing is sent.

Of each peer is kept what it is known to have: what it sent, and what was sent to it.  That outlives the connection
as long as the peer's process does, so that a link that comes and goes costs the difference.  What was sent shortly
before a connection was lost may not have arrived and counts as not sent.

Over lazy links, which do not belong to the tree over which entries spread, the ends compare now and then what they
know: a digest of it goes each way.  Where both are equal nothing waits any more.  Where they differ, a summary goes now
and then: what such a peer heard by the tree meanwhile it need not be told, and where the tree is broken it hears at
last.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections import Counter
from dataclasses import dataclass, field

from meshsync.core.limits import LIMITS, SUMMARY_DIGEST_BYTES, Limits
from meshsync.core.summary import SignedSummary
from meshsync.ids import CollectionId, EndpointId

_Key = tuple[CollectionId, EndpointId]
_Order = tuple[int, bytes]


class Taken(enum.Enum):
    """What became of a summary that a peer sent."""

    NEWS = "news"
    KNOWN = "known"
    """Known already, or outdated by what is known."""
    OWN = "own"
    """One of this node's own that it does not remember: it has to go above it."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A summary, and when it was signed by this node's monotonic clock, in seconds."""

    signed: SignedSummary
    at: float
    source: EndpointId | None
    """Who sent it; None for this node's own."""
    links_at: float = -math.inf
    """Since when its author has told of just these links, as far as this node heard it."""

    def age(self, now: float) -> float:
        """Seconds since it was signed, as far as those who passed it on can tell."""
        return max(0.0, now - self.at)

    @property
    def expires_at(self) -> float:
        """When it is to be forgotten."""
        return self.at + self.signed.summary.lasts_s

    @property
    def is_first_hand(self) -> bool:
        """Whether its author itself sent it."""
        return self.source == self.signed.summary.author


@dataclass(slots=True)
class _Neighbour:
    """A peer, connected or not."""

    instance: bytes
    level: float
    """Bytes that may be sent."""
    filled_at: float
    connected: bool = True
    known: dict[_Key, tuple[_Order, float]] = field(default_factory=dict)
    """What it has, and when it was sent to it; -inf where the peer itself sent it."""
    queues: dict[CollectionId, dict[EndpointId, None]] = field(default_factory=dict)
    """Of each collection that is shared, the authors of whom it lacks the newest; in the order of sending."""
    lazy: set[CollectionId] = field(default_factory=set)
    lazy_at: float = 0.0
    """When the next one may go over a lazy link."""
    told: dict[CollectionId, bytes] = field(default_factory=dict)
    """The digest that was sent last,"""
    heard: dict[CollectionId, bytes] = field(default_factory=dict)
    """and the one that came last."""
    asked: set[CollectionId] = field(default_factory=set)
    """Where the peer is to be told the digest at once."""
    compared: set[CollectionId] = field(default_factory=set)
    """Where it was told the digest since the last summary that went over the lazy link."""

    def unshare(self, collection: CollectionId) -> None:
        """It no longer subscribes, or is no longer connected."""
        for kept in (self.queues, self.told, self.heard):
            kept.pop(collection, None)
        for marked in (self.lazy, self.asked, self.compared):
            marked.discard(collection)


class Gossip:
    """The summaries of one node."""

    def __init__(self, own: EndpointId, limits: Limits = LIMITS) -> None:
        self._own = own
        self._limits = limits
        self._facts: dict[CollectionId, dict[EndpointId, Fact]] = {}
        self._neighbours: dict[EndpointId, _Neighbour] = {}
        self._digests: dict[CollectionId, bytes] = {}
        """What was worked out of what is known now."""
        self._met: dict[CollectionId, int] = {}
        """The greatest version of this node's own that was ever seen."""

    # What is known

    def facts(self, collection: CollectionId) -> list[Fact]:
        """The newest summary of every author of a collection that is known, this node included."""
        return list(self._facts.get(collection, {}).values())

    def fact(self, collection: CollectionId, author: EndpointId) -> Fact | None:
        """The newest summary of an author."""
        return self._facts.get(collection, {}).get(author)

    def authors(self, collection: CollectionId) -> set[EndpointId]:
        """Whose summaries of a collection are known."""
        return set(self._facts.get(collection, ()))

    def own_version(self, collection: CollectionId) -> int:
        """The greatest version of this node's own that was seen; the next one has to be above it."""
        return self._met.get(collection, 0)

    def collections(self) -> set[CollectionId]:
        """The collections of which anything is known."""
        return set(self._facts) | {one for peer in self._neighbours.values() for one in peer.queues}

    def digest(self, collection: CollectionId) -> bytes:
        """Of all that is known of a collection; equal at two nodes that know the same."""
        if collection not in self._digests:
            facts = self._facts.get(collection, {})
            whole = b"".join([author + facts[author].signed.signature for author in sorted(facts)])
            self._digests[collection] = hashlib.sha256(whole).digest()[:SUMMARY_DIGEST_BYTES]
        return self._digests[collection]

    # Summaries come

    def issue(self, signed: SignedSummary, now: float) -> None:
        """This node says something new of itself."""
        collection = signed.summary.collection
        self._met[collection] = max(self.own_version(collection), signed.summary.version)
        self._keep(signed, now, None, now)

    def is_news(self, peer: EndpointId, signed: SignedSummary, age: float) -> bool:
        """Whether a summary is worth checking its signature and taking it; notes what the peer has otherwise."""
        summary = signed.summary
        fact = self.fact(summary.collection, summary.author)
        if summary.author == self._own:
            return fact is None or signed.order > fact.signed.order
        if fact is None:
            return age < summary.lasts_s
        if signed.order > fact.signed.order:
            return True
        self._note_known(peer, signed, fact)
        return False

    def take(self, peer: EndpointId, signed: SignedSummary, age: float, now: float) -> Taken:
        """Take a summary whose signature verified, `age` seconds old, from a peer."""
        summary = signed.summary
        if not self.is_news(peer, signed, age):
            return Taken.KNOWN
        if summary.author == self._own:
            self._met[summary.collection] = max(self.own_version(summary.collection), summary.version)
            return Taken.OWN
        self._make_room(summary.collection, summary.author)
        self._keep(signed, now - age, peer, now)
        return Taken.NEWS

    def _note_known(self, peer: EndpointId, signed: SignedSummary, fact: Fact) -> None:
        """A peer said what is known here already, or what is outdated."""
        neighbour = self._neighbours.get(peer)
        key = (signed.summary.collection, signed.summary.author)
        if neighbour is None:
            return
        if key[0] in neighbour.lazy:
            neighbour.asked.add(key[0])  # it does not know that this is known here
        queue = neighbour.queues.get(key[0], {})
        if signed.order == fact.signed.order:
            neighbour.known[key] = (signed.order, -math.inf)
            queue.pop(key[1], None)
        elif neighbour.known.get(key, ((-1, b""), 0.0))[0] < fact.signed.order and key[0] in neighbour.queues:
            queue[key[1]] = None

    def _keep(self, signed: SignedSummary, at: float, source: EndpointId | None, now: float) -> None:
        summary, order = signed.summary, signed.order
        key = (summary.collection, summary.author)
        before = self.fact(*key)
        is_same = before is not None and before.signed.summary.has_links_of(summary)
        fact = Fact(signed, at, source, before.links_at if before is not None and is_same else at)
        self._facts.setdefault(summary.collection, {})[summary.author] = fact
        self._digests.pop(summary.collection, None)
        for peer, neighbour in self._neighbours.items():
            if peer == fact.source:
                neighbour.known[key] = (order, -math.inf)
                neighbour.queues.get(summary.collection, {}).pop(summary.author, None)
            elif summary.collection in neighbour.queues and peer != summary.author:
                queue = neighbour.queues[summary.collection]
                if not queue and summary.collection in neighbour.lazy:  # the tree is given time to bring it
                    neighbour.lazy_at = max(neighbour.lazy_at, now + self._limits.summary_lazy_seconds)
                queue[summary.author] = None

    def _make_room(self, collection: CollectionId, author: EndpointId) -> None:
        """Whoever told of the most authors pays for one more: a flood of invented ones displaces only its like."""
        facts = self._facts.get(collection, {})
        if author in facts or len(facts) < self._limits.summary_authors_max:
            return
        told = Counter(fact.source for fact in facts.values() if fact.source is not None and not fact.is_first_hand)
        if told:
            source = max(told, key=lambda one: told[one])
            candidates = [fact for fact in facts.values() if fact.source == source and not fact.is_first_hand]
        else:
            candidates = [fact for fact in facts.values() if fact.source is not None]
        if candidates:
            self._drop(collection, min(candidates, key=lambda fact: fact.at).signed.summary.author)

    def _drop(self, collection: CollectionId, author: EndpointId) -> None:
        facts = self._facts[collection]
        del facts[author]
        self._digests.pop(collection, None)
        if not facts:
            del self._facts[collection]
        for neighbour in self._neighbours.values():
            neighbour.known.pop((collection, author), None)
            neighbour.queues.get(collection, {}).pop(author, None)

    def expire(self, now: float) -> float:
        """Forget what is too old; returns when to look again, inf where nothing can expire."""
        next_at = math.inf
        for collection, facts in list(self._facts.items()):
            for author, fact in list(facts.items()):
                if author == self._own:
                    continue
                if fact.expires_at <= now:
                    self._drop(collection, author)
                else:
                    next_at = min(next_at, fact.expires_at)
        return next_at

    def forget(self, collection: CollectionId) -> None:
        """This node no longer subscribes to a collection."""
        for author in self.authors(collection):
            self._drop(collection, author)
        for neighbour in self._neighbours.values():
            neighbour.unshare(collection)

    # Links come and go

    def connect(self, peer: EndpointId, instance: bytes, now: float) -> None:
        """There is a connection, in the place of an earlier one; `instance` is new for every start of the peer."""
        self.disconnect(peer, now)
        neighbour = self._neighbours.pop(peer, None)
        if neighbour is None or neighbour.instance != instance:
            neighbour = _Neighbour(instance, self._limits.summary_burst_bytes, now)
        neighbour.connected = True
        self._neighbours[peer] = neighbour

    def disconnect(self, peer: EndpointId, now: float) -> None:
        """The connection is gone; what the peer knew is remembered, for a few peers."""
        neighbour = self._neighbours.get(peer)
        if neighbour is None or not neighbour.connected:
            return
        certain = now - self._limits.summary_certain_seconds
        neighbour.known = {key: one for key, one in neighbour.known.items() if one[1] < certain}
        for collection in list(neighbour.queues):
            neighbour.unshare(collection)
        neighbour.connected = False
        absent = [one for one, other in self._neighbours.items() if not other.connected]
        for one in absent[: max(0, len(absent) - self._limits.summary_absent_peers_max)]:
            del self._neighbours[one]

    def share(self, peer: EndpointId, collection: CollectionId) -> None:
        """A connected peer subscribes to a collection, too: it is to have everything that is known of it."""
        neighbour = self._neighbours[peer]
        if collection in neighbour.queues:
            return
        queue = neighbour.queues[collection] = {}
        for author, fact in self._facts.get(collection, {}).items():
            known, _ = neighbour.known.get((collection, author), ((-1, b""), 0.0))
            if author != peer and known < fact.signed.order:
                queue[author] = None

    def unshare(self, peer: EndpointId, collection: CollectionId) -> None:
        """A connected peer no longer subscribes to a collection, and forgets what it knew of it."""
        neighbour = self._neighbours[peer]
        neighbour.unshare(collection)
        neighbour.known = {key: one for key, one in neighbour.known.items() if key[0] != collection}

    def shared(self, peer: EndpointId) -> set[CollectionId]:
        """What a connected peer subscribes to, too."""
        neighbour = self._neighbours.get(peer)
        return set(neighbour.queues) if neighbour is not None else set()

    def set_lazy(self, peer: EndpointId, collection: CollectionId, now: float, *, lazy: bool) -> None:
        """Over a lazy link a summary goes now and then; what waits goes at once when the link becomes eager."""
        neighbour = self._neighbours[peer]
        if lazy and collection not in neighbour.lazy:
            neighbour.lazy.add(collection)
            neighbour.lazy_at = max(neighbour.lazy_at, now + self._limits.summary_lazy_seconds)
        elif not lazy:
            neighbour.lazy.discard(collection)

    # Lazy links compare what is known

    def compared(self, peer: EndpointId, collection: CollectionId, digest: bytes) -> None:
        """A peer told the digest of what it knows."""
        neighbour = self._neighbours.get(peer)
        if neighbour is None or collection not in neighbour.queues:
            return
        neighbour.heard[collection] = digest
        neighbour.asked.add(collection)

    def next_digest(self, peer: EndpointId, now: float) -> tuple[CollectionId, bytes] | None:
        """What to compare with a peer now, and this node's digest; it counts as sent."""
        neighbour = self._neighbours.get(peer)
        if neighbour is None:
            return None
        lazy = {one for one in neighbour.lazy - neighbour.compared if neighbour.queues[one]}
        if lazy and now >= neighbour.lazy_at:
            neighbour.asked |= lazy
            neighbour.compared |= lazy
            neighbour.lazy_at = now + self._limits.summary_answer_seconds
        while neighbour.asked:
            collection = min(neighbour.asked)
            neighbour.asked.remove(collection)
            digest = self.digest(collection)
            if neighbour.heard.get(collection) == digest:
                self._level(neighbour, collection)
            if neighbour.told.get(collection) != digest:
                neighbour.told[collection] = digest
                return collection, digest
        return None

    def _level(self, neighbour: _Neighbour, collection: CollectionId) -> None:
        """A peer knows what this node knows."""
        for author, fact in self._facts.get(collection, {}).items():
            neighbour.known[collection, author] = (fact.signed.order, -math.inf)
        neighbour.queues[collection].clear()

    # Summaries go

    def ready_at(self, peer: EndpointId, now: float) -> float:
        """When there will be something to send to a peer: now, or when its budget allows; inf: there is nothing."""
        neighbour = self._neighbours.get(peer)
        if neighbour is not None and neighbour.asked:
            return now
        return self._fact_at(neighbour, now) if neighbour is not None else math.inf

    def _fact_at(self, neighbour: _Neighbour, now: float) -> float:
        key = self._next_key(neighbour)
        if key is None:
            return math.inf
        self._refill(neighbour, now)
        wait = 0.0 if neighbour.level > 0 else -neighbour.level / self._limits.summary_bytes_per_second + 0.001
        return max(now + wait, neighbour.lazy_at if key[0] in neighbour.lazy else now)

    def next_for(self, peer: EndpointId, now: float) -> Fact | None:
        """What to send to a peer now; it counts as sent."""
        neighbour = self._neighbours.get(peer)
        if neighbour is None or self._fact_at(neighbour, now) > now:
            return None
        key = self._next_key(neighbour)
        assert key is not None
        collection, author = key
        queue = neighbour.queues.pop(collection)
        neighbour.queues[collection] = queue  # the next time it is another collection's turn
        del queue[author]
        fact = self._facts[collection][author]
        neighbour.known[key] = (fact.signed.order, now)
        neighbour.level -= fact.signed.size
        if collection in neighbour.lazy:
            neighbour.compared.discard(collection)
            neighbour.lazy_at = now + self._limits.summary_lazy_seconds
        return fact

    def _next_key(self, neighbour: _Neighbour) -> _Key | None:
        waiting = [collection for collection, queue in neighbour.queues.items() if queue]
        # Eager ones first; otherwise the order of the queues, which take turns.
        collection = min(waiting, key=neighbour.lazy.__contains__, default=None)
        return None if collection is None else (collection, next(iter(neighbour.queues[collection])))

    def _refill(self, neighbour: _Neighbour, now: float) -> None:
        rate = self._limits.summary_bytes_per_second
        level = neighbour.level + (now - neighbour.filled_at) * rate
        neighbour.level = min(level, self._limits.summary_burst_bytes)
        neighbour.filled_at = now
