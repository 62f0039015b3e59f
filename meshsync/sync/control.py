"""The control stream of one connection: pings, clocks, who has begun to subscribe, and summaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from meshsync.core.messages import (
    Carry,
    Known,
    Message,
    Ping,
    Pong,
    Relay,
    Subscribed,
    Summary,
    decode_untrusted,
    encode_message,
)
from meshsync.errors import CloseCode, PeerError, TransportLost
from meshsync.ids import CollectionId
from meshsync.notifier import Notifier

if TYPE_CHECKING:
    from meshsync.sync.link import Link

CLOCK_WARNING_MS = 60_000


class Control:
    """Reads and writes the control stream of one link.

    What is to be said is kept by kind, the newest in the place of what was not said yet, so a peer that asks
    without reading the answers costs no memory.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._engine = link.engine
        self._channel = link.connection.control
        self._unsaid: dict[type[Message] | CollectionId, bytes] = {}
        self._news = Notifier()
        self._pongs = Notifier()
        self._asked = 0
        self.answered = 0
        """The number of the last ping that was answered; `SyncEngine.progressed` is woken when it rises."""
        self._has_warned = False
        self.heard = False
        """The peer has said something here: it has admitted this node.  `SyncEngine.progressed` is woken then."""
        self.peer_relays = False
        """The peer carries collections for others."""
        self.clock_ahead_ms: int | None = None
        """By how much the peer's wall clock is ahead of ours."""

    def tell_all_subscribed(self, tags: tuple[bytes, ...]) -> None:
        """Say what this side subscribes to: once, and before anything else."""
        self._say(Subscribed, Subscribed(tags))

    def tell_subscribed(self, collection: CollectionId, tag: bytes) -> None:
        """Let the dialer open a stream for a collection."""
        self._say(collection, Subscribed((tag,)))

    def tell_relay(self) -> None:
        """Say that this node carries for others."""
        self._say(Relay, Relay())

    def tell_carry(self, collections: tuple[tuple[CollectionId, int], ...]) -> None:
        """Ask the peer to carry these collections, and no others any more."""
        self._say(Carry, Carry(collections))

    def ask(self) -> int:
        """Ask for a sign of life; `answered` reaches the number that is returned when it comes."""
        self._asked += 1
        self._say(Ping, Ping(self._asked, self._engine.wall_ms()))
        return self._asked

    async def ping(self) -> None:
        """Return once the peer answers.  Cancelling stops the waiting only."""
        number = self.ask()
        await self._pongs.wait_until(lambda: self.answered >= number)

    async def keep_asking(self) -> None:
        """Ping for ever.  TransportLost: the peer does not answer, though its machine may."""
        limits, rng = self._engine.limits, self._engine.rng
        # Not at once: most short connections then never need one.
        await trio.sleep(limits.first_ping_seconds * rng.uniform(0.5, 1.5))
        while True:
            patience = limits.patience_seconds(limits.answer_seconds_max, self._link.connection.rtt_seconds)
            with trio.move_on_after(patience) as scope:
                await self.ping()
            if scope.cancelled_caught:
                raise TransportLost(f"the peer did not answer a ping in {patience:.0f} seconds", CloseCode.TIMEOUT)
            await trio.sleep(limits.ping_seconds * rng.uniform(0.75, 1.25))

    async def write(self) -> None:
        """Say what there is to say, for ever.  TransportLost: the connection is gone."""
        while True:
            if self._unsaid:
                await self._channel.send(self._unsaid.pop(next(iter(self._unsaid))))
            elif (frame := self._engine.summaries.next_frame(self._link)) is not None:
                self._link.rate.count(len(frame))
                await self._channel.send(frame)
            else:
                await self._news.wait()

    def wake(self) -> None:
        """There may be summaries to send."""
        self._news.notify()

    async def read(self) -> None:
        """Take what the peer says, for ever.  PeerError: it does not belong here.  TransportLost: it is gone."""
        while True:
            try:
                frame = await self._channel.receive()
            except trio.EndOfChannel:
                raise TransportLost("the peer ended the control stream", CloseCode.OK) from None
            message = decode_untrusted(frame, self._engine.limits)
            if not self.heard:
                self.heard = True
                self._engine.progressed.notify()
            match message:
                case Subscribed(tags):
                    self._link.peer_subscribed(tags)
                case Ping(number, wall_ms):
                    self._compare_clock(wall_ms)
                    self._say(Pong, Pong(number, self._engine.wall_ms()))
                case Pong(number, wall_ms):
                    if number > self._asked:
                        raise PeerError("an answer to a ping that was never sent")
                    self._compare_clock(wall_ms)
                    self.answered = max(number, self.answered)
                    self._pongs.notify()
                    self._engine.progressed.notify()
                case Summary():
                    await self._engine.summaries.take(self._link, message)
                case Known():
                    self._engine.summaries.compare(self._link, message)
                case Relay():
                    self.peer_relays = True
                    self._engine.carrier.tell(self._link)
                case Carry():
                    self._engine.carrier.asked(self._link, message)
                case _:
                    raise PeerError(f"{type(message).__name__} does not belong on the control stream")

    def _say(self, kind: type[Message] | CollectionId, message: Message) -> None:
        self._unsaid[kind] = encode_message(message)
        self._news.notify()

    def _compare_clock(self, wall_ms: int) -> None:
        ahead = self.clock_ahead_ms = wall_ms - self._engine.wall_ms()
        if abs(ahead) >= CLOCK_WARNING_MS and not self._has_warned:
            self._engine.events.emit("clock_differs", peer=self._link.peer, seconds_ahead=round(ahead / 1000))
        self._has_warned = abs(ahead) >= CLOCK_WARNING_MS
