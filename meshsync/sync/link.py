"""The exchanges with one peer over one connection: which streams there are, and the control stream."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import trio

from meshsync.core.messages import Close, Open, Ping, Pong, Subscribed, decode_untrusted, encode_message
from meshsync.errors import CloseCode, PeerError, TransportLost
from meshsync.ids import CollectionId, EndpointId
from meshsync.notifier import Notifier
from meshsync.store.replica import Replica
from meshsync.sync.exchange import Exchange
from meshsync.sync.gate import PriorityGate
from meshsync.transports.base import Connection, MessageChannel, Origin

if TYPE_CHECKING:
    from meshsync.sync.engine import SyncEngine

_TAG_DOMAIN = b"meshsync/tag/1\0"
PING_SECONDS = 60.0


def tag_of(nonces: tuple[bytes, bytes], collection: CollectionId) -> bytes:
    """How a collection is named on one connection: 16 bytes that tell nothing to who does not know it."""
    return hashlib.sha256(_TAG_DOMAIN + nonces[0] + nonces[1] + collection).digest()[:16]


class Link:
    """One connection, seen by the sync engine."""

    def __init__(self, engine: SyncEngine, connection: Connection) -> None:
        self.engine = engine
        self.connection = connection
        self.peer: EndpointId = connection.peer
        self.gate = PriorityGate()
        self.exchanges: dict[CollectionId, Exchange] = {}
        self.clock_ahead_ms: int | None = None
        """By how much the peer's wall clock is ahead of ours."""
        self._nursery: trio.Nursery | None = None
        self._failure: Exception | None = None
        self._seals = engine.limits.seals_per_second_max
        self._seals_at = trio.current_time()
        self._pongs = Notifier()
        self._control_send = trio.Lock()  # two tasks send on the control stream, a frame at a time

    async def run(self) -> None:
        """Run until the connection ends.

        PeerError: the peer broke the protocol.  TransportLost: the connection is gone.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._guarded, self._read_control)
                nursery.start_soon(self._guarded, self._accept_channels)
                nursery.start_soon(self._guarded, self._ping)
                if self.connection.origin is Origin.DIALED:
                    for replica in self.engine.subscribed():
                        self._open(replica)
        finally:
            self._nursery = None
        if self._failure is not None:
            raise self._failure

    def subscribed(self, replica: Replica) -> None:
        """This node has begun to subscribe to a collection."""
        if self._nursery is None or replica.id in self.exchanges:
            return
        if self.connection.origin is Origin.DIALED:
            self._open(replica)
        else:
            self._nursery.start_soon(self._guarded, self._tell_subscribed, self._tag(replica.id))

    def unsubscribed(self, replica: Replica) -> None:
        """This node no longer subscribes to a collection."""
        if exchange := self.exchanges.get(replica.id):
            exchange.close()

    async def afford(self, seals: int) -> None:
        """Wait until the peer's budget of signature checks allows some more: it is slowed down, not refused."""
        limit = self.engine.limits.seals_per_second_max
        now = trio.current_time()
        self._seals = min(limit, self._seals + (now - self._seals_at) * limit) - seals
        self._seals_at = now
        if self._seals < 0:
            await trio.sleep(-self._seals / limit)

    def _tag(self, collection: CollectionId) -> bytes:
        return tag_of(self.connection.nonces, collection)

    def _by_tag(self, tag: bytes) -> Replica | None:
        return next((replica for replica in self.engine.subscribed() if self._tag(replica.id) == tag), None)

    async def _guarded(self, function, *args) -> None:  # type: ignore[no-untyped-def]
        """Run one task of the link; what the peer or the network did ends the link, and nothing else."""
        try:
            await function(*args)
        except (PeerError, TransportLost) as error:
            self._failure = self._failure or error
            assert self._nursery is not None
            self._nursery.cancel_scope.cancel()

    def _open(self, replica: Replica) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._guarded, self._dial_exchange, replica)

    async def _dial_exchange(self, replica: Replica) -> None:
        if replica.id not in self.exchanges:
            channel = await self.connection.open_channel()
            await self._run_exchange(replica, channel, None)

    async def _run_exchange(self, replica: Replica, channel: MessageChannel, first: Open | None) -> None:
        exchange = Exchange(self, replica, channel, self._tag(replica.id))
        if before := self.exchanges.get(replica.id):
            before.close()
            await before.done.wait()
        self.exchanges[replica.id] = exchange
        await exchange.run(first)

    async def _accept_channels(self) -> None:
        while True:
            channel = await self.connection.accept_channel()
            assert self._nursery is not None
            self._nursery.start_soon(self._guarded, self._answer, channel)

    async def _answer(self, channel: MessageChannel) -> None:
        try:
            frame = await channel.receive()
        except trio.EndOfChannel:
            await channel.aclose()
            return
        message = decode_untrusted(frame, self.engine.limits)
        if not isinstance(message, Open):
            raise PeerError("a stream must begin with OPEN")
        replica = self._by_tag(message.tag)
        if replica is None:
            # Unknown and forbidden are the same answer, so that nobody can probe for collections.
            await channel.send(encode_message(Close(CloseCode.NOT_HERE, "")))
            await channel.aclose()
            return
        await self._run_exchange(replica, channel, message)

    # The control stream

    async def _read_control(self) -> None:
        while True:
            try:
                frame = await self.connection.control.receive()
            except trio.EndOfChannel:
                raise TransportLost("the peer ended the control stream", CloseCode.OK) from None
            message = decode_untrusted(frame, self.engine.limits)
            match message:
                case Subscribed(tags):
                    for tag in tags[: self.engine.limits.streams_per_connection_max]:
                        replica = self._by_tag(tag)
                        if replica is not None and self.connection.origin is Origin.DIALED:
                            self._open(replica)
                case Ping(number, wall_ms):
                    self._compare_clock(wall_ms)
                    await self._send_control(encode_message(Pong(number, self.engine.wall_ms())))
                case Pong(_, wall_ms):
                    self._compare_clock(wall_ms)
                    self._pongs.notify()
                case _:
                    raise PeerError(f"{type(message).__name__} does not belong on the control stream")

    async def ping(self) -> None:
        """Return once the peer answers.  TransportLost: the connection is gone."""
        await self._send_control(encode_message(Ping(0, self.engine.wall_ms())))
        await self._pongs.wait()

    async def _ping(self) -> None:
        while True:
            await self.ping()
            await trio.sleep(PING_SECONDS * self.engine.rng.uniform(0.75, 1.25))

    def _compare_clock(self, wall_ms: int) -> None:
        self.clock_ahead_ms = wall_ms - self.engine.wall_ms()
        self.engine.clock_compared(self)

    async def _tell_subscribed(self, tag: bytes) -> None:
        await self._send_control(encode_message(Subscribed((tag,))))

    async def _send_control(self, frame: bytes) -> None:
        async with self._control_send:
            await self.connection.control.send(frame)
