"""SyncEngine: which collections are replicated, with whom, how urgently, and whether they are in sync.

It owns no connection and no task of its own: peering gives it connections and runs `serve` for each.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import trio

from meshsync.addresses import HostPort, parse_address
from meshsync.core.rebuild import Skip
from meshsync.core.limits import Limits
from meshsync.core.query import Query
from meshsync.core.session import SessionState
from meshsync.errors import LocalError, RefusedError, StoreError
from meshsync.events import EventLog
from meshsync.ids import CollectionId, EndpointId, LogId
from meshsync.notifier import Notifier
from meshsync.store.base import EntryRow, Store
from meshsync.store.replica import Applied, Replica
from meshsync.sync.exchange import Exchange
from meshsync.sync.gate import Priority
from meshsync.sync.link import Link
from meshsync.transports.base import Connection

CLOCK_WARNING_MS = 60_000


@dataclass(frozen=True, slots=True)
class SyncCycleResult:
    """What a forced round did."""

    pulled: int
    """Entries received."""
    pushed: int
    """Entries sent."""
    conflicts: int
    """Documents that came into conflict."""
    peers: int
    """Peers that took part."""


@dataclass(frozen=True, slots=True)
class SyncState:
    """Where one collection stands with one peer."""

    state: SessionState
    missing: int
    """Entries that the peer has and this node has not."""
    unsent: int
    """Entries that this node has yet to send."""
    last_synced: float | None
    """Seconds since the epoch (UTC) when both roots were last equal; None: not yet on this connection."""
    stall: str | None
    """Why it does not go on."""


@dataclass(frozen=True, slots=True)
class SyncStats:
    """Sums since the start of the node."""

    pulled: int
    pushed: int
    conflicts: int
    batches_failed: int
    links: int
    sessions: int


class Subscription:
    """The wish to replicate a collection.  It lasts as long as the handle: `async with engine.subscribe(…)`."""

    def __init__(self, engine: SyncEngine, name: str, priority: Priority) -> None:
        self._engine = engine
        self.collection = name
        self.priority = priority
        self._is_open = False

    async def __aenter__(self) -> Self:
        """Begin to replicate."""
        self.open()
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop replicating, unless another handle wishes it."""
        self.close()

    def open(self) -> None:
        """Begin to replicate: idempotent."""
        if not self._is_open:
            self._is_open = True
            self._engine.add(self)

    def close(self) -> None:
        """Stop replicating, unless another handle wishes it: idempotent."""
        if self._is_open:
            self._is_open = False
            self._engine.remove(self)

    async def wait_synced(self) -> None:
        """Wait until the roots are equal with every connected peer, of which there is at least one.  Cancelling stops the waiting only."""
        if not self._is_open:
            raise LocalError("the subscription is not open: use `async with node.sync.subscribe(…)`")
        await self._engine.wait_synced([self.collection])


class SyncEngine:
    """Replicates collections with every peer that peering has connected."""

    def __init__(
        self,
        store: Store,
        open_replica: Callable[[str], Replica],
        events: EventLog,
        limits: Limits,
        rng: random.Random,
        wall_ms: Callable[[], int],
    ) -> None:
        self.store = store
        self.events = events
        self.limits = limits
        self.rng = rng
        self.wall_ms = wall_ms
        self.progressed = Notifier()
        """Woken whenever a session changed its state, began or ended."""
        self.links: dict[EndpointId, Link] = {}
        self.connector: Callable[[EndpointId, Sequence[HostPort]], Awaitable[bool]] | None = None
        """Peering's way to connect; set where the node is composed."""
        self._open_replica = open_replica
        self._watchers: dict[CollectionId, Notifier] = {}
        self._subscriptions: dict[CollectionId, list[Subscription]] = {}
        self._replicas: dict[CollectionId, Replica] = {}
        self._priorities: dict[CollectionId, Priority] = {}
        self._syncing = True
        self._held: dict[tuple[CollectionId, LogId], Skip] = {}
        self._store_fault: str | None = None
        self._clock_warned: set[EndpointId] = set()
        self._pulled = self._pushed = self._conflicts = self._failed = 0

    # What the owner asks for

    async def start_sync(self) -> None:
        """Exchange documents with connected and discovered peers.  This is how a node begins."""
        self._syncing = True
        for exchange in self._exchanges():
            exchange.note_changed(())
        await trio.lowlevel.checkpoint()

    async def stop_sync(self) -> None:
        """Stop exchanging; connections stay, and what peers send while it lasts waits with them."""
        self._syncing = False
        await trio.lowlevel.checkpoint()

    def is_syncing(self) -> bool:
        """Whether entries are exchanged."""
        return self._syncing

    def subscribe(
        self, collection: str, query: Query | None = None, priority: Priority = Priority.MEDIUM
    ) -> Subscription:
        """A handle that replicates a collection while it is open.

        RefusedError: a query was given that chooses; this version replicates whole collections.
        """
        if query is not None and not query.is_everything:
            raise RefusedError(
                f"subscriptions by query are not available in this version: subscribe to all of {collection!r},"
                " and choose when reading"
            )
        return Subscription(self, collection, priority)

    def set_priority(self, collection: str, priority: Priority) -> None:
        """Let a collection go before or after others on every link.  LocalError: it is not subscribed."""
        self._priorities[self.replica(collection).id] = Priority(priority)

    async def force_sync(self, collection: str | None = None) -> SyncCycleResult:
        """Compare roots with every connected peer now, and return when all are synced or say why they are not.

        Cancelling stops the waiting only.  LocalError: the collection is not subscribed.
        """
        chosen = self._chosen([collection] if collection is not None else None)
        before = self.stats()
        exchanges = [one for one in self._exchanges() if one.replica.id in chosen]
        for exchange in exchanges:
            exchange.check()
        await self.progressed.wait_until(
            lambda: all(
                one.done.is_set() or one.session.stall or one.session.state is SessionState.SYNCED for one in exchanges
            )
        )
        after = self.stats()
        return SyncCycleResult(
            after.pulled - before.pulled,
            after.pushed - before.pushed,
            after.conflicts - before.conflicts,
            len({one.link.peer for one in exchanges}),
        )

    async def wait_synced(
        self, collections: Iterable[str] | None = None, peers: Iterable[EndpointId] | None = None
    ) -> None:
        """Wait until the roots are equal.

        `collections`: all that are subscribed by default.  `peers`: all that are connected by default, and at
        least one.  Cancelling stops the waiting only.  LocalError: a collection is not subscribed.
        """
        names = list(collections) if collections is not None else None
        wanted = set(peers) if peers is not None else None
        self._chosen(names)
        await self.progressed.wait_until(lambda: self.is_synced(names, wanted))

    def is_synced(self, collections: Iterable[str] | None = None, peers: Iterable[EndpointId] | None = None) -> bool:
        """Whether `wait_synced` would return now."""
        chosen = self._chosen(collections)
        wanted = set(peers) if peers is not None else set(self.links)
        return bool(wanted) and all(self._is_level(collection, peer) for collection in chosen for peer in wanted)

    def _is_level(self, collection: CollectionId, peer: EndpointId) -> bool:
        link = self.links.get(peer)
        exchange = link.exchanges.get(collection) if link is not None else None
        return exchange is not None and exchange.session.state is SessionState.SYNCED

    def state(self, collection: str, peer: EndpointId) -> SyncState:
        """Where a collection stands with a peer.  LocalError: it is not subscribed."""
        link = self.links.get(peer)
        exchange = link.exchanges.get(self.replica(collection).id) if link is not None else None
        if exchange is None:
            reason = "not connected" if link is None else "the peer does not subscribe to it"
            return SyncState(SessionState.IDLE, 0, 0, None, reason)
        session = exchange.session
        last = session.last_synced
        if last is not None:
            last = self.wall_ms() / 1000 - (trio.current_time() - last)
        return SyncState(session.state, session.missing, session.unsent, last, session.stall)

    async def connect_to_peer(self, endpoint_id: str, addresses: Sequence[str]) -> bool:
        """Connect to a peer now, and keep doing so.

        True: connected.  False: the tie-break leaves it to the peer, which is connecting to us.  TransportLost,
        PeerError: it failed.  LocalError: no id, or no address.  Cancelling abandons this try.
        """
        assert self.connector is not None
        return await self.connector(EndpointId.parse(endpoint_id), [parse_address(one) for one in addresses])

    def stats(self) -> SyncStats:
        """Sums since the start."""
        sessions = [exchange.session for exchange in self._exchanges()]
        return SyncStats(
            self._pulled + sum(session.pulled for session in sessions),
            self._pushed + sum(session.pushed for session in sessions),
            self._conflicts + sum(session.conflicts for session in sessions),
            self._failed,
            len(self.links),
            len(sessions),
        )

    # Cursors: per-origin progress

    def cursors(self, collection: str) -> dict[LogId, int]:
        """The next seq to come of each log that is held."""
        return {tip.log: tip.seq + 1 for tip in self.replica(collection).tips()}

    async def watch_cursors(self, collection: str, seen: Mapping[LogId, int]) -> dict[LogId, int]:
        """Wait until the cursors differ from `seen`, and return them.  Cancelling stops the waiting only."""
        await self.watcher(self.replica(collection)).wait_until(lambda: self.cursors(collection) != dict(seen))
        return self.cursors(collection)

    def read_since(self, collection: str, cursors: Mapping[LogId, int], limit: int = 512) -> list[EntryRow]:
        """At most `limit` entries at or past the cursors, parents first."""
        replica = self.replica(collection)
        known = {branch.number: cursors[log] - 1 for log in cursors for branch in replica.branches_of(log)}
        parcel = replica.parcel(known, list(replica.branches))
        return parcel.rows[:limit] if parcel is not None else []

    # Subscriptions and replicas

    def add(self, subscription: Subscription) -> None:
        """Begin to replicate for a handle."""
        replica = self._open_replica(subscription.collection)
        self._replicas[replica.id] = replica
        handles = self._subscriptions.setdefault(replica.id, [])
        handles.append(subscription)
        self._priorities.setdefault(replica.id, subscription.priority)
        if len(handles) == 1:
            for link in self.links.values():
                link.subscribed(replica)

    def remove(self, subscription: Subscription) -> None:
        """Stop replicating for a handle."""
        replica = self.replica(subscription.collection)
        handles = self._subscriptions[replica.id]
        handles.remove(subscription)
        if not handles:
            del self._subscriptions[replica.id]
            for link in self.links.values():
                link.unsubscribed(replica)

    def subscribed(self) -> list[Replica]:
        """The replicas of the subscribed collections, most urgent first."""
        chosen = [self._replicas[id] for id in self._subscriptions]
        return sorted(chosen, key=self.priority)

    def replica(self, name: str) -> Replica:
        """The replica of a subscribed collection.  LocalError: it is not subscribed."""
        replica = self._replicas.get(CollectionId.of_name(name))
        if replica is None or replica.id not in self._subscriptions:
            raise LocalError(f"this node does not subscribe to {name!r}: `meshsync collections join {name}` does that")
        return replica

    def priority(self, replica: Replica) -> Priority:
        """How urgent a collection is."""
        return self._priorities.get(replica.id, Priority.MEDIUM)

    def watcher(self, replica: Replica) -> Notifier:
        """Woken whenever entries were stored in a collection."""
        return self._watchers.setdefault(replica.id, Notifier())

    def held(self, replica: Replica) -> dict[LogId, Skip]:
        """The logs whose next entries wait, and why."""
        return {log: why for (collection, log), why in self._held.items() if collection == replica.id}

    def _chosen(self, names: Iterable[str] | None) -> set[CollectionId]:
        return set(self._subscriptions) if names is None else {self.replica(name).id for name in names}

    def _exchanges(self) -> list[Exchange]:
        return [exchange for link in self.links.values() for exchange in link.exchanges.values()]

    # Connections

    async def serve(self, connection: Connection) -> None:
        """Exchange over a connection until it ends.

        PeerError: the peer broke the protocol; the caller closes and backs off.  TransportLost: it is gone.
        """
        link = Link(self, connection)
        self.links[connection.peer] = link
        self.progressed.notify()
        try:
            await link.run()
        finally:
            if self.links.get(connection.peer) is link:
                del self.links[connection.peer]
            self.progressed.notify()

    # What exchanges report

    def stored(self, replica: Replica, applied: Applied) -> None:
        """Entries were stored, by whomever: wake the watchers and every session of the collection."""
        for link in self.links.values():
            if exchange := link.exchanges.get(replica.id):
                exchange.note_changed(applied.tips)
        if watcher := self._watchers.get(replica.id):
            watcher.notify()
        if applied.skipped:
            self._note_held(replica, applied.skipped)
        for log in applied.forked:
            self.events.emit("fork", collection=replica.name, author=log.author, incarnation=log.incarnation)
        if self._held and applied.tips:
            self._release(replica, applied)

    def _note_held(self, replica: Replica, skipped: Mapping[LogId, Skip]) -> None:
        """Some entries were left out for now."""
        for log, why in skipped.items():
            if why in (Skip.CLOCK, Skip.QUOTA) and self._held.get((replica.id, log)) is not why:
                self._held[replica.id, log] = why
                self.events.emit("held", collection=replica.name, author=log.author, reason=why.value)

    def _release(self, replica: Replica, applied: Applied) -> None:
        for number in applied.tips:
            log = replica.branches[number].log
            if self._held.pop((replica.id, log), None) is not None:
                self.events.emit("released", collection=replica.name, author=log.author)

    def state_changed(self, exchange: Exchange, state: SessionState) -> None:
        """A session entered another state."""
        if state is SessionState.SYNCED:
            root = exchange.replica.root()
            self.events.emit("synced", collection=exchange.replica.name, peer=exchange.link.peer, root=root)
        self.progressed.notify()

    def exchange_ended(self, exchange: Exchange) -> None:
        """A session is over."""
        session, exchanges = exchange.session, exchange.link.exchanges
        self._pulled += session.pulled
        self._pushed += session.pushed
        self._conflicts += session.conflicts
        if exchanges.get(exchange.replica.id) is exchange:
            del exchanges[exchange.replica.id]
        self.progressed.notify()

    def store_failed(self, error: StoreError) -> None:
        """A batch of a peer could not be stored."""
        self._failed += 1
        if self._store_fault is None:
            self.events.emit("store_failed", reason=str(error))
        self._store_fault = str(error)
        self.progressed.notify()

    def store_recovered(self) -> None:
        """The store takes entries again."""
        if self._store_fault is not None:
            self._store_fault = None
            self.events.emit("store_recovered")

    @property
    def store_fault(self) -> str | None:
        """Why the store takes nothing at present."""
        return self._store_fault

    def clock_compared(self, link: Link) -> None:
        """A peer told its wall clock."""
        ahead = link.clock_ahead_ms or 0
        if abs(ahead) < CLOCK_WARNING_MS:
            self._clock_warned.discard(link.peer)
        elif link.peer not in self._clock_warned:
            self._clock_warned.add(link.peer)
            self.events.emit("clock_differs", peer=link.peer, seconds_ahead=round(ahead / 1000))
