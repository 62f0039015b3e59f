"""SyncEngine: which collections are replicated, with whom, how urgently, and whether they are in sync.

It owns no connection and no task of its own: peering gives it connections and runs their links.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import trio

from meshsync.addresses import HostPort, parse_address
from meshsync.core.history import History
from meshsync.core.limits import Limits
from meshsync.core.policy import Policy
from meshsync.core.priority import Priority
from meshsync.core.query import Query
from meshsync.core.rebuild import Skip
from meshsync.core.retention import ALL, Retention
from meshsync.errors import LocalError, StoreError, TransportLost
from meshsync.events import EventLog
from meshsync.identity import Identity
from meshsync.ids import CollectionId, EndpointId, LogId
from meshsync.notifier import Notifier
from meshsync.store.base import Store
from meshsync.store.replica import Applied, Replica
from meshsync.sync.cycle import run_cycle
from meshsync.sync.exchange import Exchange
from meshsync.sync.health import StoreHealth
from meshsync.sync.holds import Holds
from meshsync.sync.link import Link
from meshsync.sync.parts import Parts
from meshsync.sync.rate import Rates
from meshsync.sync.relay import Carrier
from meshsync.sync.replicating import Replicating
from meshsync.sync.results import OriginEntry, SyncCycleResult, SyncState, SyncStats, entries_since, state_of
from meshsync.sync.sharing import Sharing
from meshsync.sync.spread import Spreads
from meshsync.sync.subscription import Subscription
from meshsync.sync.subscriptions import Subscriptions
from meshsync.sync.summaries import Summaries
from meshsync.sync.totals import Exchanged, Totals
from meshsync.transports.base import Connection

__all__ = ["Priority", "Subscription", "SyncCycleResult", "SyncEngine", "SyncState", "SyncStats"]


class SyncEngine:
    """Replicates collections with every peer that peering has connected."""

    def __init__(
        self,
        store: Store,
        open_replica: Callable[[str, Policy | None], Replica],
        events: EventLog,
        limits: Limits,
        rng: random.Random,
        wall_ms: Callable[[], int],
        identity: Identity,
        name: str,
    ) -> None:
        self.store = store
        self.events = events
        self.limits = limits
        self.rates = Rates(limits)
        self.rng = rng
        self.wall_ms = wall_ms
        self.progressed = Notifier()
        """Woken whenever a session changed its state, began or ended."""
        self.links: dict[EndpointId, Link] = {}
        """The present connection with each peer that is connected."""
        self.connector: Callable[[EndpointId, Sequence[HostPort]], Awaitable[bool]] | None = None
        """Peering's way to connect; set where the node is composed."""
        self.summaries = Summaries(self, identity, name)
        """What is known of the mesh; run where the node is composed."""
        self.carrier: Carrier
        """What is carried for others; set where the node is composed."""
        self._subscriptions = Subscriptions(open_replica)
        self.replicating = Replicating(self, self._subscriptions)
        self.sharing = Sharing(self, self._subscriptions)
        self._watchers: dict[CollectionId, Notifier] = {}
        self._exchanges: set[Exchange] = set()
        """All that run, those on a link that was replaced and has yet to end included."""
        self._syncing = True
        self._resumed = Notifier()
        self.holds = Holds(events, limits.held_logs_max)
        self._health = StoreHealth(store, events)
        self._totals = Totals()
        self.spreads = Spreads(self)
        self.parts = Parts(self)

    # What the owner asks for

    async def start_sync(self) -> None:
        """Exchange documents with connected and discovered peers.  This is how a node begins."""
        self._syncing = True
        self._resumed.notify()
        for exchange in self._exchanges:
            exchange.resume()
        await trio.lowlevel.checkpoint()

    async def stop_sync(self) -> None:
        """Stop exchanging; connections stay, and what peers send while it lasts waits with them."""
        self._syncing = False
        await trio.lowlevel.checkpoint()

    def is_syncing(self) -> bool:
        """Whether entries are exchanged."""
        return self._syncing

    async def wait_syncing(self) -> None:
        """Wait until entries are exchanged.  Cancelling stops the waiting only."""
        await self._resumed.wait_until(self.is_syncing)

    def subscribe(
        self,
        collection: str,
        query: Query | str | None = None,
        priority: Priority | str = Priority.MEDIUM,
        conflicts: Policy | str | None = None,
        retain: Retention | str = ALL,
        history: History | str | None = None,
    ) -> Subscription:
        """A handle that replicates a collection while it is open.

        With a query only the payloads of documents that match are fetched, now and whenever one begins to match; and
        only those are shown here.  `conflicts`: the policy that decides between writes that did not know of each other,
        see `meshsync.core.policy`; it is part of what the collection is.  None: as it is held here, or else `latest`.
        `retain`: what is kept here of what was overwritten, see `meshsync.core.retention`.  `history`: `full`, or
        `latest` to fetch only what the documents are made of now; None: full, or latest where nothing is kept.
        LocalError: it is subscribed with another policy, or the query is too large.
        """
        handle = Subscription(self, collection, query, priority, conflicts, retain, history)
        self._subscriptions.check_policy(collection, handle.conflicts)
        return handle

    def set_priority(self, collection: str, priority: Priority | str) -> None:
        """Let a collection go before or after others on every link.  LocalError: it is not subscribed."""
        self._subscriptions.set_priority(collection, Priority.of(priority))
        self.replicating.wishes_changed()

    async def force_sync(self, collection: str | None = None) -> SyncCycleResult:
        """Ask every connected peer now, and return when each is synced or cannot go on; `state` says why not.

        Cancelling stops the waiting only.  LocalError: the collection is not subscribed, or syncing is stopped.
        """
        chosen = self._subscriptions.chosen([collection] if collection is not None else None)
        if not self._syncing:
            raise LocalError("syncing is stopped: start_sync() first")
        return await run_cycle(self, chosen)

    async def wait_synced(
        self, collections: Iterable[str] | None = None, peers: Iterable[EndpointId | str] | None = None
    ) -> None:
        """Wait until the roots are equal.

        `collections`: all that are subscribed by default.  What is only carried for others counts where its id or name
        is given, and on a node that subscribes to nothing.  `peers`: by default, for each collection, all connected
        ones that subscribe to it, of which there must be one.  Cancelling stops the waiting only.  LocalError: a
        collection is neither subscribed nor carried, or a peer is no id.
        """
        names = list(collections) if collections is not None else None
        wanted = set(peers) if peers is not None else None
        self._subscriptions.chosen(names)
        await self.progressed.wait_until(lambda: self.is_synced(names, wanted))

    def is_synced(
        self, collections: Iterable[str] | None = None, peers: Iterable[EndpointId | str] | None = None
    ) -> bool:
        """Whether `wait_synced` would return now."""
        return self.sharing.is_synced(collections, peers)

    def subscribers(self, collection: CollectionId) -> int:
        """How many nodes are known to subscribe to a collection and to be there, this one included."""
        return self.sharing.subscribers(collection)

    def state(self, collection: str, peer: EndpointId) -> SyncState:
        """Where a collection stands with a peer.  LocalError: it is not subscribed."""
        return self.state_of(self.replica(collection), peer)

    def state_of(self, replica: Replica, peer: EndpointId) -> SyncState:
        """Where a replica stands with a peer."""
        return state_of(self.links.get(peer), replica, self.wall_ms())

    async def connect_to_peer(self, endpoint_id: str, addresses: Sequence[str]) -> bool:
        """Connect to a peer now, and keep doing so.

        True: connected.  False: the tie-break leaves it to the peer, which is connecting to us.  TransportLost,
        PeerError: it failed, and is tried again all the same.  LocalError: no id, no address, or a peer that is
        banned.  Cancelling stops the waiting only.
        """
        if self.connector is None:
            raise TransportLost("this node has no network")
        return await self.connector(EndpointId.parse(endpoint_id), [parse_address(one) for one in addresses])

    def stats(self) -> SyncStats:
        """Sums since the start."""
        return self._totals.stats(self._exchanges, self._health.failures, len(self.links))

    def exchanged(self, collection: CollectionId) -> Exchanged:
        """Sums of one collection since the start."""
        return self._totals.sum((exchange.session for exchange in self._exchanges), collection)

    # Cursors: per-origin progress

    def cursors(self, collection: str) -> dict[LogId, int]:
        """The next seq to come of each log that is held."""
        return {tip.log: tip.seq + 1 for tip in self.replica(collection).tips()}

    async def watch_cursors(self, collection: str, seen: Mapping[LogId, int] | None = None) -> dict[LogId, int]:
        """Wait until the cursors differ from `seen`, or from those of now, and return them.

        Cancelling stops the waiting only.
        """
        known = self.cursors(collection) if seen is None else dict(seen)
        await self.watcher(self.replica(collection)).wait_until(lambda: self.cursors(collection) != known)
        return self.cursors(collection)

    def read_since(self, collection: str, cursors: Mapping[LogId, int], limit: int = 512) -> list[OriginEntry]:
        """At most `limit` entries at or past the cursors, parents first; [] where there are none."""
        return entries_since(self.replica(collection), cursors, limit)

    # Subscriptions and replicas

    def subscribed(self) -> list[Replica]:
        """The replicas of all collections that are replicated here, most urgent first, others' last."""
        return self._subscriptions.replicas()

    def is_subscribed(self, replica: Replica) -> bool:
        """Whether the collection is replicated here."""
        return replica in self._subscriptions

    def is_own(self, id: CollectionId) -> bool:
        """Whether there is a handle for the collection: it is not only carried for others."""
        return self._subscriptions.is_own(id)

    def prioritise(self) -> None:
        """Collections may be more or less urgent than they were."""
        for exchange in self._exchanges:
            exchange.prioritise()

    def exchanges(self, replica: Replica) -> list[Exchange]:
        """The sessions of a collection, those that have just begun or are about to end included."""
        return [one for one in self._exchanges if one.replica is replica]

    def replica(self, name: str) -> Replica:
        """The replica of a subscribed collection.  LocalError: it is not subscribed."""
        return self._subscriptions.replica(name)

    def priority(self, replica: Replica) -> Priority:
        """How urgent a collection is."""
        return self._subscriptions.priority(replica)

    def watcher(self, replica: Replica) -> Notifier:
        """Woken whenever entries were stored in a collection."""
        return self._watchers.setdefault(replica.id, Notifier())

    def held(self, replica: Replica) -> dict[LogId, Skip]:
        """The logs whose next entries wait, and why."""
        return self.holds.of(replica)

    # Connections

    def attach(self, connection: Connection) -> Link:
        """Take a connection in the place of an earlier one with the same peer; then `serve` it."""
        link = self.links[connection.peer] = Link(self, connection)
        self.progressed.notify()
        return link

    async def serve(self, link: Link) -> None:
        """Exchange over a connection until it ends.

        PeerError: the peer broke the protocol; the caller closes and backs off.  TransportLost: it is gone.
        """
        try:
            await link.run()
        finally:
            if self.links.get(link.peer) is link:
                del self.links[link.peer]
            self.sharing.parted(link)
            self.carrier.unlinked(link)
            self.progressed.notify()

    # What exchanges report

    def stored(self, replica: Replica, applied: Applied) -> None:
        """Entries were stored, by whomever, or left out: wake the watchers and every session of the collection."""
        tips = applied.tips
        if tips or applied.filled:
            for link in self.links.values():
                if exchange := link.exchanges.get(replica.id):
                    exchange.note_changed(tips, applied.filled)
            if watcher := self._watchers.get(replica.id):
                watcher.notify()
            self._health.worked()
            self.spreads.grew(replica, tips)
            self.carrier.grew(replica)
            self.parts.look(replica)
            self.summaries.look_soon()
            if self.holds:
                self.holds.release(replica, tips)
        if applied.skipped:
            self.holds.note(replica, applied.skipped)
        for log in applied.forked:
            self.events.emit("fork", collection=replica.name, author=log.author, incarnation=log.incarnation)

    def state_changed(self, exchange: Exchange, *, is_news: bool) -> None:
        """A session entered another state; news is that it is synced after it was not for a while."""
        if is_news:
            root = exchange.replica.root()
            self.events.emit("synced", collection=exchange.replica.name, peer=exchange.link.peer, root=root)
        self.progressed.notify()

    def exchange_began(self, exchange: Exchange) -> None:
        """A session is there."""
        self._exchanges.add(exchange)
        self.progressed.notify()

    def exchange_ended(self, exchange: Exchange) -> None:
        """A session is over."""
        exchanges = exchange.link.exchanges
        self._exchanges.discard(exchange)
        self._totals.ended(exchange.session)
        if exchanges.get(exchange.replica.id) is exchange:
            del exchanges[exchange.replica.id]
        self.progressed.notify()

    def store_failed(self, error: StoreError) -> None:
        """The store did not take something."""
        self._health.failed(error)
        self.progressed.notify()

    def mended(self, exchange: Exchange, arrivals: Sequence[int]) -> None:
        """What a peer sent took the place of damaged entries."""
        self.events.emit("repaired", collection=exchange.replica.name, entries=list(arrivals), peer=exchange.link.peer)
        self.progressed.notify()

    def resend(self, replica: Replica) -> None:
        """Entries can be sent again that could not be while they were damaged."""
        self.stored(replica, Applied(tips={number: branch.tip.seq for number, branch in replica.branches.items()}))

    def sessions(self, replica: Replica) -> list[Exchange]:
        """The sessions of a collection that are under way."""
        return [one for one in self._exchanges if one.replica is replica and one.is_under_way]

    @property
    def store_fault(self) -> str | None:
        """Why the store takes nothing at present, or what is damaged in it."""
        return self._health.fault() or self._damage()

    def _damage(self) -> str | None:
        return next((text for replica in self.subscribed() if (text := replica.damage.text())), None)
