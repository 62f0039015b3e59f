"""One session over one channel: the tasks that give the machine its events and carry out its effects."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from meshsync.core.messages import Batch, Close, Open, decode_untrusted, encode_message
from meshsync.core.session import (
    Changed,
    Check,
    Confirm,
    Durable,
    Effect,
    Event,
    Ready,
    Received,
    Send,
    Session,
    Start,
    StateChanged,
    Stored,
    WakeAt,
)
from meshsync.errors import CloseCode, PeerError, StoreError, TransportLost
from meshsync.store.replica import Applied, Replica
from meshsync.transports.base import MessageChannel

if TYPE_CHECKING:
    from meshsync.sync.link import Link


class Exchange:
    """Runs one session.  Ends when the stream does, or when `close` is called."""

    def __init__(self, link: Link, replica: Replica, channel: MessageChannel, tag: bytes) -> None:
        self.link = link
        self.replica = replica
        self.channel = channel
        self.session = Session(replica, link.peer, tag, link.engine.limits)
        self.done = trio.Event()
        self._engine = link.engine
        self._queue: deque[bytes] = deque()
        self._changed: set[int] = set()
        self._wake_at = math.inf
        self._kick = trio.Event()
        self._paced = False
        """While pushes are paced, news wakes nobody, so that many writes cost one batch."""
        self._confirm: int | None = None
        self._confirm_wanted = trio.Event()
        self._scope = trio.CancelScope()
        self._failing = False

    async def run(self, first: Open | None) -> None:
        """Run until the stream ends.  `first`: the peer's OPEN, where it opened the stream.

        PeerError, TransportLost: why the whole connection is to be closed.
        """
        failure: Exception | None = None
        try:
            with self._scope:
                self._handle(Start())
                if first is not None:
                    self._handle(Received(first))
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._send_loop)
                        nursery.start_soon(self._confirm_loop)
                        nursery.start_soon(self._check_loop)
                        await self._receive_loop()
                        nursery.cancel_scope.cancel()
                except* (PeerError, TransportLost, StoreError) as group:
                    failure = _first(group)
        finally:
            self.done.set()
            self._engine.exchange_ended(self)
            if self._scope.cancelled_caught:
                self.channel.close(CloseCode.NOT_HERE)
            with trio.CancelScope(shield=True) as closing:
                closing.deadline = trio.current_time() + self._engine.limits.close_seconds_max
                await self.channel.aclose()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """End the session: this node no longer subscribes."""
        self._scope.cancel()

    def note_changed(self, branches: Iterable[int]) -> None:
        """These branches grew; cheap enough for every single write."""
        self._changed.update(branches)
        if not self._paced:
            self._kick.set()

    def check(self) -> None:
        """Compare roots with the peer now."""
        self._handle(Check())

    def _handle(self, event: Event) -> None:
        """Give the machine an event and carry out what it answers."""
        try:
            effects = self.session.handle(event, trio.current_time(), self._engine.wall_ms())
        except StoreError as error:
            self.session.not_stored(trio.current_time(), str(error))
            self._wake(trio.current_time() + 1.0)
            self._failing = True
            self._engine.store_failed(error)
            return
        if self._failing and type(event) is Received and type(event.message) is Batch:
            self._failing = False
            self._engine.store_recovered()
        self._carry_out(effects)

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(message):
                    self._queue.append(encode_message(message))
                    self._kick.set()
                case Stored(applied):
                    assert isinstance(applied, Applied)
                    self._engine.stored(self.replica, applied)
                case WakeAt(time):
                    self._wake(time)
                case Confirm(cursor):
                    self._confirm = cursor
                    self._confirm_wanted.set()
                case StateChanged(state):
                    self._engine.state_changed(self, state)

    def _wake(self, time: float) -> None:
        self._wake_at = min(self._wake_at, time)

    async def _receive_loop(self) -> None:
        while True:
            try:
                frame = await self.channel.receive()
            except trio.EndOfChannel:
                return
            message = decode_untrusted(frame, self._engine.limits)
            if isinstance(message, Close):
                return
            if isinstance(message, Batch):
                await self.link.afford(len(message.seals))
            self._handle(Received(message))

    async def _send_loop(self) -> None:
        gate, branches = self.link.gate, self.replica.branches
        while True:
            self._kick = trio.Event()
            self._wake_at = math.inf
            if self._changed:
                changed, self._changed = self._changed, set()
                self._handle(Changed({number: branches[number].tip.seq for number in changed}))
            await self._flush()
            pushed = False
            if self._engine.is_syncing():
                async with gate.turn(self._engine.priority(self.replica)):
                    self._handle(Ready())
                    pushed = bool(self._queue)
                    await self._flush()
            if not pushed:
                self._paced = self._wake_at < math.inf
                with trio.move_on_at(self._wake_at):
                    await self._kick.wait()
                self._paced = False

    async def _flush(self) -> None:
        while self._queue:
            await self.channel.send(self._queue.popleft())

    async def _confirm_loop(self) -> None:
        while True:
            await self._confirm_wanted.wait()
            self._confirm_wanted = trio.Event()
            cursor = self._confirm
            assert cursor is not None
            await self._engine.store.synced()
            self._handle(Durable(cursor))

    async def _check_loop(self) -> None:
        limits, rng = self._engine.limits, self._engine.rng
        while True:
            await trio.sleep(limits.root_check_seconds * rng.uniform(0.75, 1.25))
            self._handle(Check())


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """The first plain exception of a group: the others are its consequences."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error
