"""The exchanges with one peer over one connection: which streams there are.

One stream a collection, opened by the dialer once both sides subscribe.  Both sides may come and go, and what one
says on the control stream may overtake what it does on another, so:

    - the dialer opens a stream for each collection that it subscribes to, at once;
    - an acceptor that does not subscribe answers with CLOSE, and sends SUBSCRIBED when it begins to;
    - SUBSCRIBED while the stream is there means that its end is under way: the dialer opens another one after it;
    - a new stream for a collection takes the place of the one before.

The first SUBSCRIBED, which each side sends at once, is the list of all that it subscribes to.  From it follows with
whom a collection can be in sync at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVarTuple

import trio

from meshsync.core.messages import Close, Open, decode_untrusted, encode_message
from meshsync.core.policy import Policy, collection_id
from meshsync.errors import CloseCode, PeerError, TransportLost
from meshsync.ids import CollectionId, EndpointId
from meshsync.store.replica import Replica
from meshsync.sync.control import Control
from meshsync.sync.exchange import Exchange
from meshsync.sync.rate import Rate
from meshsync.transports.base import Connection, MessageChannel, Origin

if TYPE_CHECKING:
    from meshsync.sync.engine import SyncEngine

Ts = TypeVarTuple("Ts")

_TAG_DOMAIN = b"meshsync/tag/1\0"


def tag_of(nonces: tuple[bytes, bytes], collection: CollectionId) -> bytes:
    """How a collection is named on one connection: 16 bytes that tell nothing to who does not know it."""
    return hashlib.sha256(_TAG_DOMAIN + nonces[0] + nonces[1] + collection).digest()[:16]


class Link:
    """One connection, seen by the sync engine."""

    def __init__(self, engine: SyncEngine, connection: Connection) -> None:
        self.engine = engine
        self.connection = connection
        self.peer: EndpointId = connection.peer
        self.rate = engine.rates.of_link(self.peer)
        self.limits = self.rate.limits(engine.limits)
        self.exchanges: dict[CollectionId, Exchange] = {}
        self.control = Control(self)
        self._nursery: trio.Nursery | None = None
        self._failure: PeerError | TransportLost | None = None
        self._peer_tags: set[bytes] | None = None
        """What the peer subscribes to; None until it has said so."""
        self._refused_tags: set[bytes] = set()
        """What the peer opened streams for, and is unknown here."""
        self._shared: set[CollectionId] = set()
        """Collections that were ever exchanged on this connection."""
        self._compared: set[tuple[CollectionId, Policy]] = set()
        """Of which the owner was told that the peer decides conflicts otherwise."""
        self._opening: set[CollectionId] = set()
        self._again: set[CollectionId] = set()
        """Collections whose stream ends, to be opened once more after that."""
        self._began = trio.current_time()
        self.summary_checks = Rate(engine.limits.summary_checks_per_second)
        """The signatures of summaries that the peer may have checked: beyond, it is slowed down."""
        self._seals = engine.limits.seals_per_second_max
        self._seals_at = trio.current_time()

    async def run(self) -> None:
        """Run until the connection ends.

        PeerError: the peer broke the protocol.  TransportLost: the connection is gone.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self.control.tell_all_subscribed(tuple(self._by_tag()))
                self.engine.carrier.linked(self)
                self._start(self.control.read)
                self._start(self.control.write)
                self._start(self.control.keep_asking)
                self._start(self._accept_channels)
                self._start(self._stop_awaiting)
                if self.connection.origin is Origin.DIALED:
                    for replica in self.engine.subscribed():
                        self.subscribed(replica)
        finally:
            self._nursery = None
        if self._failure is not None:
            raise self._failure

    def subscribed(self, replica: Replica) -> None:
        """This node replicates a collection, or has begun to."""
        self._compare_policies()
        if self.connection.origin is Origin.DIALED:
            # Of what is carried for others most peers want little: no streams that are refused.
            if self.engine.is_own(replica.id) or self.shares(replica.id):
                self._open(replica)
        elif self._nursery is not None:
            self.control.tell_subscribed(replica.id, self.tag(replica.id))

    def unsubscribed(self, replica: Replica) -> None:
        """This node no longer subscribes to a collection."""
        if exchange := self.exchanges.get(replica.id):
            exchange.close()

    def shares(self, collection: CollectionId) -> bool | None:
        """Whether the peer subscribes to a collection, too; None while it has not said so."""
        exchange = self.exchanges.get(collection)
        if exchange is not None and exchange.session.is_opened:
            return True
        if self._peer_tags is not None and self.tag(collection) in self._peer_tags:
            return True
        return None if self._peer_tags is None or exchange is not None else False

    def policy_of_peer(self, replica: Replica) -> Policy | None:
        """Under which other policy the peer has the collection of this name; None: under none, as far as is known.

        Those are two collections, and nothing is replicated between them.
        """
        if self._peer_tags is None or not replica.tables.is_named or self.shares(replica.id):
            return None
        others = (policy for policy in Policy if policy is not replica.policy)
        tags = self._peer_tags | self._refused_tags
        return next((policy for policy in others if self.tag(collection_id(replica.name, policy)) in tags), None)

    def _compare_policies(self) -> None:
        """Tell the owner, once, of each collection that the peer has under another policy."""
        for replica in self.engine.subscribed():
            policy = self.policy_of_peer(replica)
            if policy is not None and (replica.id, policy) not in self._compared:
                self._compared.add((replica.id, policy))
                self.engine.events.emit(
                    "policies_differ",
                    collection=replica.name,
                    peer=self.peer,
                    conflicts=replica.policy.value,
                    conflicts_there=policy.value,
                )

    @property
    def has_spoken(self) -> bool:
        """Whether the peer has said what it subscribes to."""
        return self._peer_tags is not None

    def is_awaited(self, collection: CollectionId) -> bool:
        """Whether the peer may still be about to say whether it subscribes to a collection.

        `SyncEngine.progressed` is woken when it no longer may.
        """
        exchange = self.exchanges.get(collection)
        began = self._began if exchange is None else exchange.began
        return trio.current_time() < began + self.limits.unsaid_seconds_max

    async def _stop_awaiting(self) -> None:
        await trio.sleep(self.limits.unsaid_seconds_max)
        self.engine.progressed.notify()

    def peer_subscribed(self, tags: Iterable[bytes]) -> None:
        """The peer says to what it subscribes, then to what it has begun to; unknown ones are none of our business."""
        if self._peer_tags is None:
            self._peer_tags = set(tags)
            self.engine.sharing.spoke(self.peer)
            self._compare_policies()
            self.engine.progressed.notify()
            if self.connection.origin is Origin.DIALED:
                for replica in self.engine.subscribed():
                    if self.shares(replica.id):
                        self._open(replica)
            return
        if self.connection.origin is not Origin.DIALED:
            raise PeerError("a second SUBSCRIBED is for the side that opens the streams")
        limits = self.engine.limits
        if len(self._peer_tags) > limits.streams_per_connection_max + limits.relayed_collections_max:
            self._peer_tags.clear()
        self._peer_tags.update(tags)
        self._compare_policies()
        known = self._by_tag()
        for replica in [known[tag] for tag in tags if tag in known]:
            if replica.id in self.exchanges or replica.id in self._opening:
                self._again.add(replica.id)
            else:
                self._open(replica)

    async def afford(self, seals: int) -> None:
        """Wait until the peer's budget of signature checks allows some more: it is slowed down, not refused."""
        limit = self.engine.limits.seals_per_second_max
        now = trio.current_time()
        self._seals = min(limit, self._seals + (now - self._seals_at) * limit) - seals
        self._seals_at = now
        if self._seals < 0:
            await trio.sleep(-self._seals / limit)

    def tag(self, collection: CollectionId) -> bytes:
        """How a collection is named on this connection."""
        return tag_of(self.connection.nonces, collection)

    def replica_of(self, tag: bytes) -> Replica | None:
        """The subscribed collection that a tag names; None where there is none."""
        return self._by_tag().get(tag)

    def has_shared(self, collection: CollectionId) -> bool:
        """Whether the peer has subscribed to a collection, be it that it has left since."""
        return collection in self._shared or bool(self.shares(collection))

    def _by_tag(self) -> dict[bytes, Replica]:
        return {self.tag(replica.id): replica for replica in self.engine.subscribed()}

    # Tasks

    def _start(self, function: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        if self._nursery is not None and not self._nursery.cancel_scope.cancel_called:
            self._nursery.start_soon(self._guarded, function, *args)

    async def _guarded(self, function: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        """Run one task of the link; what the peer or the network did ends the link, and nothing else."""
        try:
            await function(*args)
        except (PeerError, TransportLost) as error:
            # Whoever is to blame outranks what follows from it.
            if self._failure is None or (isinstance(error, PeerError) and not isinstance(self._failure, PeerError)):
                self._failure = error
            assert self._nursery is not None
            self._nursery.cancel_scope.cancel()

    # Streams that this side opens

    def _open(self, replica: Replica) -> None:
        if replica.id not in self._opening:
            self._opening.add(replica.id)
            self._start(self._dial_exchange, replica)

    async def _dial_exchange(self, replica: Replica) -> None:
        try:
            before = self.exchanges.get(replica.id)
            if before is not None:
                if not before.is_ending:
                    return
                await before.done.wait()
            channel = await self.connection.open_channel()
            if not self.engine.is_subscribed(replica):
                await channel.aclose()
                return
            exchange = self._begin(replica, channel)
        finally:
            self._opening.discard(replica.id)
        self._start(self._stop_awaiting)
        await exchange.run(None)
        self._ended(replica)
        if replica.id in self._again:
            self._again.discard(replica.id)
            self._open(replica)

    def _begin(self, replica: Replica, channel: MessageChannel) -> Exchange:
        self._shared.add(replica.id)
        exchange = self.exchanges[replica.id] = Exchange(self, replica, channel, self.tag(replica.id))
        self.engine.exchange_began(exchange)
        return exchange

    def _ended(self, replica: Replica) -> None:
        """A stream ended and the connection did not: where this side still subscribes, the peer no longer does."""
        if self._peer_tags is not None and self.engine.is_subscribed(replica):
            self._peer_tags.discard(self.tag(replica.id))
        self.engine.progressed.notify()

    # Streams that the peer opens

    async def _accept_channels(self) -> None:
        while True:
            channel = await self.connection.accept_channel()
            if self.connection.origin is Origin.DIALED:
                raise PeerError("a stream was opened by the side that must not")
            self._start(self._answer, channel)

    async def _answer(self, channel: MessageChannel) -> None:
        try:
            frame = await channel.receive()
            message = decode_untrusted(frame, self.engine.limits)
            if not isinstance(message, Open):
                raise PeerError("a stream must begin with OPEN")
            replica = self.replica_of(message.tag)
            while replica is not None and (before := self.exchanges.get(replica.id)) is not None:
                before.close()
                await before.done.wait()
            if replica is not None and self.engine.is_subscribed(replica):
                await self._begin(replica, channel).run(message)
                self._ended(replica)
                return
            self._note_refused(message.tag)
            # Unknown and forbidden are the same answer, so that nobody can probe for collections.
            await channel.send(encode_message(Close(CloseCode.NOT_HERE, "")))
            await channel.aclose()
        except trio.EndOfChannel:
            await channel.aclose()
        except TransportLost as error:
            if not self.is_end_of_stream(error):
                raise
            await channel.aclose()

    def _note_refused(self, tag: bytes) -> None:
        """The peer subscribes to something unknown, which may be, or come to be, known under another policy."""
        if len(self._refused_tags) >= self.engine.limits.streams_per_connection_max:
            self._refused_tags.clear()
        self._refused_tags.add(tag)
        self._compare_policies()

    def is_end_of_stream(self, error: TransportLost) -> bool:
        """Whether the peer gave up one stream because it no longer subscribes, and nothing else is wrong."""
        return error.code is CloseCode.NOT_HERE and not self.connection.is_closed
