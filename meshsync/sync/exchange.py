"""One session over one channel: the tasks that give the machine its events and carry out its effects."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from meshsync.core.messages import (
    Batch,
    Close,
    Graft,
    Have,
    Locate,
    Message,
    Open,
    Prune,
    Want,
    decode_untrusted,
    encode_message,
)
from meshsync.core.session import Session
from meshsync.core.session_events import (
    Answered,
    Arrived,
    Changed,
    Check,
    Chosen,
    Confirm,
    Durable,
    Effect,
    Event,
    Lost,
    MakeEager,
    MakeLazy,
    Offered,
    Ready,
    Received,
    Send,
    SessionState,
    Start,
    StateChanged,
    Stored,
    Sync,
    WakeAt,
    Wished,
)
from meshsync.errors import CloseCode, PeerError, StoreError, TransportLost
from meshsync.groups import leaves
from meshsync.notifier import Notifier
from meshsync.store.replica import Applied, Replica
from meshsync.transports.base import MessageChannel, Origin

if TYPE_CHECKING:
    from meshsync.sync.link import Link

_URGENT = (Open, Have, Prune, Graft)
SYNCED_AGAIN_SECONDS = 1.0
"""Who was out of sync for so long is told when that is over."""


class Exchange:
    """Runs one session.  Ends when the stream does, or when `close` is called."""

    def __init__(self, link: Link, replica: Replica, channel: MessageChannel, tag: bytes) -> None:
        self.link = link
        self.replica = replica
        self.channel = channel
        self.session = Session(replica, link.peer, tag, link.limits)
        self.done = trio.Event()
        self.began = trio.current_time()
        self._engine = link.engine
        self._spread = link.engine.spreads.of(replica.id)
        self._queue: deque[tuple[bytes, bool]] = deque()
        """Frames, and whether each may go above the rate: what tells a peer where we stand must not wait."""
        self._queued_bytes = 0
        self._is_throttled = False
        """It is this node's own rate that holds up what is queued."""
        self._sent = Notifier()
        self._changed: set[int] = set()
        self._filled: set[int] = set()
        self._kick = trio.Event()
        self._wake_at = math.inf
        self._sleep: trio.CancelScope | None = None
        """What the send loop sleeps in; it ends at `_wake_at`."""
        self._paced = False
        """While pushes are paced, news wakes nobody, so that many writes cost one batch."""
        self._parted_at: float | None = -math.inf
        """Since when the roots differ; None where they do not."""
        self._confirm: int | None = None
        self._sync_wanted = False
        """Something waits to be durable before it is sent."""
        self._confirm_wanted = trio.Event()
        self._scope = trio.CancelScope()
        self.prioritise()

    async def run(self, first: Open | None) -> None:
        """Run until the stream ends.  `first`: the peer's OPEN, where it opened the stream.

        PeerError, TransportLost: why the whole connection is to be closed.
        """
        failure: PeerError | TransportLost | None = None
        try:
            with self._scope:
                try:
                    await self._run(first)
                except* (PeerError, TransportLost) as group:
                    failure = _culprit(group)
        finally:
            self.done.set()
            self._spread.end(self)
            self._engine.exchange_ended(self)
            if self._scope.cancelled_caught:
                self.channel.close(CloseCode.NOT_HERE)
            elif isinstance(failure, PeerError):
                self.channel.close(failure.code)  # not the clean end that `aclose` would be
            with trio.CancelScope(shield=True) as closing:
                closing.deadline = trio.current_time() + self._engine.limits.close_seconds_max
                await self.channel.aclose()
        if failure is None or (isinstance(failure, TransportLost) and self.link.is_end_of_stream(failure)):
            return
        raise failure

    async def _run(self, first: Open | None) -> None:
        is_dialer = self.link.connection.origin is Origin.DIALED
        self._handle(Start(lazy=self._spread.begin(self), answers_checks=not is_dialer))
        if first is not None:
            self._receive(first)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_loop)
            nursery.start_soon(self._confirm_loop)
            if is_dialer:  # a difference is found by whoever hears of it, so one side is enough
                nursery.start_soon(self._check_loop)
            await self._receive_loop()
            nursery.cancel_scope.cancel()

    def close(self) -> None:
        """End the session: this node no longer subscribes, or another stream takes its place."""
        self._scope.cancel()

    @property
    def is_ending(self) -> bool:
        """Whether `close` was called, or the stream has ended."""
        return self._scope.cancel_called or self.done.is_set()

    @property
    def is_under_way(self) -> bool:
        """Whether the peer has told its tips, and is told of news: both ends share the collection at present."""
        return self.session.is_opened and not self.is_ending

    def prioritise(self) -> None:
        """The collection may be more or less urgent than it was."""
        self.channel.set_priority(self._engine.priority(self.replica))

    def note_changed(self, branches: Iterable[int], filled: Iterable[int]) -> None:
        """These branches grew, and these entries got their payloads; cheap enough for every single write."""
        self._changed.update(branches)
        self._filled.update(filled)
        if not self._paced:
            self._kick.set()

    def absorb(self) -> None:
        """Let the session know what has changed here, so that its state is that of this moment."""
        if self._changed or self._filled:
            changed, self._changed = self._changed, set()
            filled, self._filled = self._filled, set()
            branches = self.replica.branches
            self._handle(Changed({number: branches[number].tip.seq for number in changed}, sorted(filled)))

    def resume(self) -> None:
        """Look anew at what there is to send or to ask for."""
        self._kick.set()

    def check(self) -> None:
        """Compare roots with the peer now, and ask it for the payloads that are lacking here."""
        self._handle(Check())

    def ask_again(self) -> None:
        """Less is held here than the peer was told: it is to send the rest again."""
        self._handle(Lost())

    def choose(self) -> None:
        """Another part of the collection is wanted: the peer is told."""
        self._handle(Chosen())
        self._kick.set()

    def turn(self, *, lazy: bool) -> None:
        """Have entries of this collection pushed over this link, or only announced."""
        self._handle(MakeLazy() if lazy else MakeEager())

    # The machine

    def _handle(self, event: Event) -> None:
        """Give the machine an event and carry out what it answers."""
        was_lazy = self.session.is_lazy
        try:
            effects = self.session.handle(event, trio.current_time(), self._engine.wall_ms())
        except PeerError:
            self._carry_out(self.session.rest())
            raise
        except StoreError as error:
            self._not_stored(error)
        else:
            self._carry_out(effects)
        if self.session.is_lazy is not was_lazy:
            self._engine.summaries.look_soon()

    def _not_stored(self, error: StoreError, unread: Batch | None = None) -> None:
        """The session asks again later, which needs no more than to be given Ready then."""
        now = trio.current_time()
        effects = self.session.not_stored(now, str(error), unread)
        self.wake(now + self._engine.limits.store_retry_seconds)
        self._engine.store_failed(error)
        self._carry_out(effects)

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(message):
                    frame = encode_message(message)
                    self._queue.append((frame, isinstance(message, _URGENT)))
                    self._queued_bytes += len(frame)
                    self._kick.set()
                case Stored(applied):
                    assert isinstance(applied, Applied)
                    self._engine.stored(self.replica, applied)
                    if applied.mended:
                        self._engine.mended(self, applied.mended)
                case Arrived():
                    self._spread.arrived(self, effect)
                case Offered():
                    self._spread.offered(self, effect)
                case WakeAt(time):
                    self.wake(time)
                case Confirm(cursor):
                    self._confirm = cursor
                    self._confirm_wanted.set()
                case Sync():
                    self._sync_wanted = True
                    self._confirm_wanted.set()
                case StateChanged(state):
                    self._engine.state_changed(self, is_news=self._is_news(state))
                case Answered():
                    self._engine.progressed.notify()
                case Wished():
                    self._engine.parts.turned(self.replica)

    def _is_news(self, state: SessionState) -> bool:
        """Whether the owner is told that this is synced: not after each of many writes, each a moment apart."""
        now = trio.current_time()
        if state is not SessionState.SYNCED:
            self._parted_at = self._parted_at if self._parted_at is not None else now
            return False
        is_news = self._parted_at is None or now >= self._parted_at + SYNCED_AGAIN_SECONDS
        self._parted_at = None
        return is_news

    def wake(self, time: float) -> None:
        """Have the send loop go round at this time, if not before."""
        if time < self._wake_at:
            self._wake_at = time
            if self._sleep is not None:
                self._sleep.deadline = time

    # Receiving

    async def _receive_loop(self) -> None:
        while True:
            try:
                frame = await self.channel.receive()
            except trio.EndOfChannel:
                return
            message = decode_untrusted(frame, self._engine.limits)
            if isinstance(message, Close):
                return
            if not self._engine.is_syncing():
                await self._engine.wait_syncing()
            await self._take(message)
            if self._queued_bytes > self._engine.limits.answers_bytes_max:
                await self._wait_answers_read()

    async def _take(self, message: Message) -> None:
        if isinstance(message, Batch):
            await self.link.afford(len(message.seals))
            if self._engine.store.low_space():
                # What is left is for the writes made here.
                reason = self._engine.store.trouble() or "too little space is left on the disk"
                self._not_stored(StoreError(reason), message)
                return
        self._receive(message)
        if isinstance(message, Open | Locate | Want | Graft) or (isinstance(message, Have) and message.tips):
            self._kick.set()  # it says, or may show, that the peer lacks something

    def _receive(self, message: Message) -> None:
        self._handle(Received(message))
        if not isinstance(message, Batch):  # `Arrived` tells of those
            self._spread.heard()
        if isinstance(message, Have):
            self._engine.parts.look(self.replica)

    async def _wait_answers_read(self) -> None:
        """Read no more questions of a peer that does not read the answers.  PeerError: it never does."""
        limits = self._engine.limits
        while (before := self._queued_bytes) > limits.answers_bytes_max:
            with trio.move_on_after(limits.answer_seconds_max):
                await self._sent.wait_until(lambda before=before: self._queued_bytes < before)  # type: ignore[misc]
            if self._queued_bytes >= before and not self._is_throttled:
                raise PeerError("the peer asks and does not read the answers", CloseCode.TIMEOUT)

    # Sending

    async def _send_loop(self) -> None:
        interval = self._engine.limits.push_interval_seconds
        while True:
            self._kick = trio.Event()
            self._wake_at = math.inf
            self.wake(self._spread.turn(self))
            self.absorb()
            await self._flush()
            if self._engine.is_syncing() and await self._push():
                continue
            self._paced = self._wake_at <= trio.current_time() + interval
            with trio.CancelScope(deadline=self._wake_at) as self._sleep:
                await self._kick.wait()
            self._sleep, self._paced = None, False

    async def _push(self) -> bool:
        """Send the next batch; whether there was one."""
        self.absorb()
        self._handle(Ready(self.channel.bytes_per_second))
        has_more = bool(self._queue)
        await self._flush()
        return has_more

    async def _flush(self) -> None:
        while self._queue:
            frame, is_urgent = self._queue.popleft()
            if is_urgent:
                self.link.rate.count(len(frame))
            else:
                self._is_throttled = True
                await self.link.rate.take(len(frame), self._engine.priority(self.replica))
                self._is_throttled = False
            await self.channel.send(frame)
            self._queued_bytes -= len(frame)
            self._sent.notify()

    # Besides

    async def _confirm_loop(self) -> None:
        while True:
            await self._confirm_wanted.wait()
            self._confirm_wanted = trio.Event()
            cursor, arrival = self._confirm, self.replica.tables.next_arrival()
            try:
                await self._engine.store.synced()
            except StoreError as error:
                self._engine.store_failed(error)
                await trio.sleep(self._engine.limits.store_retry_seconds)
                self._confirm_wanted.set()
                continue
            self.replica.outbox.synced(arrival)
            if cursor is not None:
                self._confirm = None if self._confirm == cursor else self._confirm
                self._handle(Durable(cursor))
            if self._sync_wanted:
                self._sync_wanted = False
                self._kick.set()

    async def _check_loop(self) -> None:
        limits, rng = self._engine.limits, self._engine.rng
        while True:
            await trio.sleep(limits.root_check_seconds * rng.uniform(0.75, 1.25))
            self._handle(Check())


def _culprit(group: BaseExceptionGroup[PeerError | TransportLost]) -> PeerError | TransportLost:
    """Of several failures the one that the peer is to blame for, if any: the others follow from it."""
    errors = [error for error in leaves(group) if isinstance(error, PeerError | TransportLost)]
    return next((error for error in errors if isinstance(error, PeerError)), errors[0])
