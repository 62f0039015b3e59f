"""Two sessions joined back to back, and a transcript of what they say."""

from __future__ import annotations

import math
from collections import deque

from meshsync.core.limits import LIMITS, Limits
from meshsync.core.messages import Message, decode_untrusted, encode_message
from meshsync.core.session import Session
from meshsync.core.session_events import (
    Changed,
    Confirm,
    Durable,
    Event,
    Ready,
    Received,
    Send,
    SessionState,
    Start,
    Stored,
    Sync,
    WakeAt,
)
from meshsync.errors import StoreError
from meshsync.store.replica import Applied, Replica
from tests.authors import START_MS

TAG = bytes(16)
IDLE, PULLING, PUSHING, SYNCED = SessionState
BOTH_SYNCED = (SYNCED, SYNCED)


class Side:
    """One session, its owner's duties, and what is on its way to it."""

    def __init__(self, name: str, replica: Replica, peer: Replica, limits: Limits) -> None:
        self.name = name
        self.replica = replica
        self.session = Session(replica, peer.author, TAG, limits)
        self.inbox: deque[bytes] = deque()
        self.sent: list[Message] = []
        self.applied: list[Applied] = []
        self.wall_ms = START_MS
        self.is_synced_at_once = True
        """Whether the disk syncs by itself; otherwise `sync` does it."""
        self.confirm: int | None = None
        self.wake_at: float | None = None

    @property
    def state(self) -> SessionState:
        return self.session.state


class Duo:
    """Sides a and b; `run` until both have nothing to say."""

    def __init__(
        self, a: Replica, b: Replica, limits: Limits = LIMITS, *, start: bool = True, bytes_per_second: float = math.inf
    ) -> None:
        self.a = Side("a", a, b, limits)
        self.b = Side("b", b, a, limits)
        self.bytes_per_second = bytes_per_second
        self.now = 0.0
        self.transcript: list[str] = []
        """Who sent what: "a Open", …"""
        self.bytes = 0
        if start:
            self.handle(self.a, Start())
            self.handle(self.b, Start())

    def other(self, side: Side) -> Side:
        return self.b if side is self.a else self.a

    def handle(self, side: Side, event: Event) -> None:
        """Give a session an event, and carry out its effects."""
        try:
            effects = side.session.handle(event, self.now, side.wall_ms)
        except StoreError as error:
            effects = side.session.not_stored(self.now, str(error))
        for effect in effects:
            match effect:
                case Send(message):
                    self.send(side, message)
                case Stored(applied):
                    side.applied.append(applied)
                    self.handle(side, Changed(dict(applied.tips), tuple(applied.filled)))
                case Confirm(cursor):
                    side.confirm = cursor
                    if side.is_synced_at_once:
                        self.sync(side)
                case Sync():
                    if side.is_synced_at_once:
                        self.sync(side)
                case WakeAt(time):
                    side.wake_at = time if side.wake_at is None else min(time, side.wake_at)

    def send(self, side: Side, message: Message) -> None:
        """Put a message on its way, whoever made it up."""
        frame = encode_message(message)
        self.transcript.append(f"{side.name} {type(message).__name__}")
        self.bytes += len(frame)
        side.sent.append(message)
        self.other(side).inbox.append(frame)

    def sync(self, side: Side) -> None:
        """The disk of a side has synced."""
        side.replica.outbox.synced(side.replica.tables.next_arrival())
        if side.confirm is not None:
            cursor, side.confirm = side.confirm, None
            self.handle(side, Durable(cursor))

    def receive(self, side: Side) -> None:
        """Hand the next message over."""
        self.handle(side, Received(decode_untrusted(side.inbox.popleft())))

    def ready(self, side: Side) -> None:
        """Let a side send as much as it likes."""
        while True:
            before = len(side.sent), side.replica.durable_next
            self.handle(side, Ready(self.bytes_per_second))
            if (len(side.sent), side.replica.durable_next) == before:
                return

    def run(self, seconds: float = 0.0) -> None:
        """Deliver until nothing is on its way, and again whenever a side wants to be woken within some seconds."""
        end = self.now + seconds
        while True:
            while self.a.inbox or self.b.inbox:
                for side in (self.a, self.b):
                    while side.inbox:
                        self.receive(side)
                for side in (self.a, self.b):
                    self.ready(side)
            for side in (self.a, self.b):
                self.ready(side)
            if self.a.inbox or self.b.inbox:
                continue
            wakes = [side.wake_at for side in (self.a, self.b) if side.wake_at is not None and side.wake_at <= end]
            if not wakes:
                self.now = max(self.now, end)
                return
            self.now = max(self.now, min(wakes))
            for side in (self.a, self.b):
                if side.wake_at is not None and side.wake_at <= self.now:
                    side.wake_at = None
                    self.ready(side)

    def write(self, side: Side, *changes: Applied) -> None:
        """Tell a session of writes at its side."""
        for applied in changes:
            self.handle(side, Changed(dict(applied.tips)))

    @property
    def states(self) -> tuple[SessionState, SessionState]:
        return self.a.state, self.b.state
