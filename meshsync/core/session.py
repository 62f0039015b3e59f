"""The tip exchange of one collection with one peer: a machine without I/O.

    events   Start, Received(message), Changed(tips), Ready, Durable(cursor), Check
    effects  Send(message), Stored(applied), WakeAt(time), Confirm(cursor), StateChanged(state)

The events and effects are in `meshsync.core.session_events`, what is known of the peer in
`meshsync.core.peerview`, the numbers for logs in `meshsync.core.logtable`.

One rule does bootstrap, catch-up, live push and relay: send every entry between what the peer is known to have
and what is held here, and whenever either changes, do it again.

    - OPEN tells the tips.  From the peer's tips follows, per branch, what it is `known` to have.
    - Ready (the stream takes more) sends the next BATCH and raises `known`.
    - What came from the peer raises `known` too, so nothing is echoed.
    - HAVE confirms, after the store has synced, and carries the root.
    - Whatever does not fit (a gap after a batch that was not stored, a fork, a clock that is ahead) is left out,
      and a new OPEN, with a higher round, makes the peer compare anew.
    - A tip that cannot be placed proves a fork.  LOCATE finds the last common entry; both branches are sent.

Synced has one meaning: both roots are equal, and no payload is lacking here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meshsync.core.anchor import Anchor
from meshsync.core.batch import build_batch, outgoing
from meshsync.core.holding import Holding
from meshsync.core.limits import LIMITS, Limits
from meshsync.core.logtable import OwnLogTable, PeerLogTable
from meshsync.core.messages import (
    FLAG_COMPLETE,
    FLAG_EXPLICIT,
    Batch,
    Close,
    Have,
    Locate,
    Message,
    Open,
    Payloads,
    Want,
)
from meshsync.core.pacing import RESYNC_HELD_SECONDS, Pacer, Resync
from meshsync.core.peerview import PeerView
from meshsync.core.rebuild import Skip
from meshsync.core.session_events import (
    Changed,
    Check,
    Confirm,
    Durable,
    Effect,
    Event,
    Ready,
    Received,
    Send,
    SessionState,
    Start,
    StateChanged,
    Stored,
    WakeAt,
)
from meshsync.core.tips import TIP_ID_BYTES
from meshsync.core.wants import Wants
from meshsync.errors import CloseCode, PeerError
from meshsync.ids import EndpointId, LogId

__all__ = [
    "Changed",
    "Check",
    "Confirm",
    "Durable",
    "Effect",
    "Event",
    "Ready",
    "Received",
    "Send",
    "Session",
    "SessionState",
    "Start",
    "StateChanged",
    "Stored",
    "WakeAt",
]


class Session:
    """One collection, one peer, one stream.  Not reusable: a new stream is a new session."""

    def __init__(self, held: Holding, peer: EndpointId, tag: bytes, limits: Limits = LIMITS) -> None:
        self.held = held
        self.peer = peer
        self.limits = limits
        self.state = SessionState.IDLE
        self.stall: str | None = None
        """Why it does not go on, for people; None while it does."""
        self.pulled = 0
        self.pushed = 0
        self.conflicts = 0
        self.last_synced: float | None = None
        self._tag = tag
        self._view = PeerView(held)
        self._peer_open: Open | None = None
        self._peer_root: bytes | None = None
        self._own_logs = OwnLogTable()
        self._peer_logs = PeerLogTable(limits.open_tips_max)
        self._wants = Wants(held, self._own_logs, self._peer_logs, limits)
        self._explicit = False
        self._round = 0
        self._sent_cursor = 0
        self._confirmed_cursor = 0
        self._pacer = Pacer(limits)
        self._resync = Resync()

    # What a status shows

    @property
    def missing(self) -> int:
        """How many entries the peer said to have that are not here."""
        return self._view.missing

    @property
    def unsent(self) -> int:
        """How many entries here the peer is not known to have been sent."""
        return self._view.unsent

    @property
    def is_opened(self) -> bool:
        """Whether the peer has told its tips."""
        return self._peer_open is not None

    @property
    def unconfirmed(self) -> bool:
        """Whether something that was sent is not yet confirmed as stored."""
        return self._sent_cursor > self._confirmed_cursor

    # The machine

    def handle(self, event: Event, now: float, wall_ms: int) -> list[Effect]:
        """Take one event at time `now` (seconds, monotonic) and wall clock `wall_ms`; return what is to be done.

        PeerError: the peer broke the protocol; the session is over.  StoreError: a batch could not be stored;
        nothing of it was, and the session goes on and asks again later.
        """
        match event:
            case Received(message):
                effects = self._received(message, now, wall_ms)
            case Changed(tips):
                self._view.grew(tips)
                effects = []
            case Ready():
                effects = self._ready(now)
            case Durable(cursor):
                effects = [self._have(cursor)]
            case Check():
                effects = [self._have()] if self.is_opened else []
            case _:
                effects = [Send(self._open())]
        return effects + self._settle(now)

    def _settle(self, now: float) -> list[Effect]:
        """Work out the state anew; an effect where it changed."""
        state = self._state()
        if state is SessionState.SYNCED:
            self.last_synced = now
            self.stall = None
            self._resync.forget()
        if state is self.state:
            return []
        self.state = state
        return [StateChanged(state)]

    def _state(self) -> SessionState:
        if self._peer_open is None:
            return SessionState.IDLE
        if self._peer_root == self.held.root():
            if self.held.complete:
                return SessionState.SYNCED
            self.stall = "payloads are lacking that this peer has not sent"
            return SessionState.PULLING
        if (self._view.dirty or self.unconfirmed) and not self.missing:
            return SessionState.PUSHING
        return SessionState.PULLING

    def _received(self, message: Message, now: float, wall_ms: int) -> list[Effect]:
        if isinstance(message, Open):
            return self._on_open(message)
        if self._peer_open is None:
            raise PeerError(f"{type(message).__name__} before OPEN")
        if isinstance(message, Batch | Have | Locate | Want | Payloads):
            self._peer_logs.learn(message.logs)
        match message:
            case Batch():
                return self._on_batch(message, self._peer_open.epoch, now, wall_ms)
            case Have():
                return self._on_have(message, now)
            case Locate():
                return self._on_locate(message)
            case Want():
                return [Send(payloads) for payloads in self._wants.answer(message)]
            case Payloads():
                self._wants.take(message)
                return self._want()
            case Close():
                raise PeerError(f"the peer closed the stream: {message.reason}", _close_code(message.code))
            case _:
                raise PeerError(f"{type(message).__name__} does not belong on a collection's stream")

    # OPEN

    def _open(self) -> Open:
        tips = self.held.tips()[: self.limits.open_tips_max]
        self._own_logs.named_by_open(tip.log for tip in tips)
        flags = (FLAG_COMPLETE if self.held.complete else 0) | (FLAG_EXPLICIT if self.held.has_forks() else 0)
        return Open(
            self._tag,
            self._round,
            self.held.epoch,
            self.held.cursor_for(self.peer),
            self.held.root(),
            tuple((tip.log, tip.seq, tip.id[:TIP_ID_BYTES]) for tip in tips),
            flags,
        )

    def _on_open(self, message: Open) -> list[Effect]:
        if message.tag != self._tag:
            raise PeerError("an OPEN for another collection")
        if self._peer_open is not None and message.round <= self._peer_open.round:
            raise PeerError("an OPEN of a round that is over")
        if message.tips is None:
            raise PeerError("an OPEN without tips")
        self._peer_logs.learn(log for log, _, _ in message.tips)
        self._peer_open = message
        self._peer_root = message.root
        self._explicit = self._explicit or bool(message.flags & FLAG_EXPLICIT) or self.held.has_forks()
        forked = self._view.opened(message.tips)
        self._explicit = self._explicit or bool(forked)
        return [Send(self._locate(log)) for log in forked]

    # Forks

    def _locate(self, log: LogId) -> Locate:
        index = self._own_logs.index(log)
        return Locate(self._own_logs.take(), index, self._view.samples(log))

    def _on_locate(self, message: Locate) -> list[Effect]:
        """The peer holds something of a log that it cannot place among our tips: a fork."""
        log = self._peer_logs[message.log]
        self._explicit = True
        common = [anchor for seq, id in message.samples for anchor in self.held.find(log, seq, id)[:1]]
        self._view.place(log, common)
        index = self._own_logs.index(log)
        return [
            self._have(
                None, [(index, anchor.seq, anchor.id[:TIP_ID_BYTES]) for anchor in common] or [(index, 0, bytes(16))]
            )
        ]

    # HAVE

    def _have(self, cursor: int | None = None, tips: Sequence[tuple[int, int, bytes]] = ()) -> Send:
        return Send(Have(cursor, self.held.root(), self._own_logs.take(), list(tips)))

    def _on_have(self, message: Have, now: float) -> list[Effect]:
        self._peer_root = message.root
        if message.cursor is not None:
            if message.cursor > self._sent_cursor:
                raise PeerError("a HAVE confirms what was never sent")
            if message.cursor > self._confirmed_cursor:
                self._confirmed_cursor = message.cursor
                self.held.confirmed(self.peer, message.cursor)
        located: dict[LogId, list[Anchor]] = {}
        for index, seq, id in message.tips:
            log = self._peer_logs[index]
            anchors = located.setdefault(log, [])
            if seq:
                anchors += self.held.find(log, seq, id)[:1]
        for log, anchors in located.items():
            if log in self._view.locating:
                self._view.place(log, anchors)
            else:
                for anchor in anchors:
                    self._view.has(anchor.branch, anchor.seq)
        if message.cursor is None and not message.tips and self._is_stuck():
            return [WakeAt(self._resync.plan(now))]
        return []

    # BATCH, in

    def _on_batch(self, message: Batch, epoch: bytes, now: float, wall_ms: int) -> list[Effect]:
        applied = self.held.receive(message, self._peer_logs.logs, self.peer, epoch, wall_ms)
        self.pulled += applied.count
        self.conflicts += applied.conflicts
        self._view.reached(applied.reached)
        if message.root is not None:
            self._peer_root = message.root
        for index, first, count, _ in message.runs:
            self._view.told_of(self._peer_logs[index], first + count - 1)
        effects: list[Effect] = [Stored(applied)] if applied.count or applied.skipped else []
        if applied.forked:
            self._explicit = True
        if applied.skipped:
            effects += self._on_skipped(applied.skipped, message.round, now)
        else:
            effects.append(Confirm(message.cursor))
        return effects + self._want()

    def _on_skipped(self, skipped: Mapping[LogId, Skip], answered: int, now: float) -> list[Effect]:
        """Some logs' parts were left out."""
        if answered < self._round:
            return []  # it was under way when we asked to be compared anew
        reasons = set(skipped.values())
        if reasons & {Skip.GAP, Skip.PARENT} and not reasons - {Skip.GAP, Skip.PARENT} and self._resync.at is None:
            raise PeerError("a batch builds on entries that are not here")
        self.stall = "; ".join(sorted(f"{log.author.short}: {reason.value}" for log, reason in skipped.items())[:3])
        if Skip.FORK in reasons:
            self._explicit = True
        # Only time or the owner can mend these; asking often would have them sent again and again.
        delay_min = RESYNC_HELD_SECONDS if reasons & {Skip.CLOCK, Skip.QUOTA} else 0.0
        return [WakeAt(self._resync.plan(now, delay_min))]

    def _want(self) -> list[Effect]:
        want = self._wants.ask()
        return [] if want is None else [Send(want)]

    # Being compared anew

    def not_stored(self, now: float, reason: str) -> None:
        """A batch could not be stored (StoreError): what follows it will not fit either, until the next OPEN."""
        self.stall = reason
        self._round += 1
        self._resync.plan(now)

    def _is_stuck(self) -> bool:
        """Roots differ, and nothing is under way that would change it."""
        view = self._view
        return self._peer_root != self.held.root() and not (view.dirty or view.locating or self.unconfirmed)

    # BATCH, out

    def _ready(self, now: float) -> list[Effect]:
        if self._peer_open is None:
            return []
        if self._resync.take(now):
            self._round += 1
            return [Send(self._open())]
        wake: list[Effect] = [WakeAt(self._resync.at)] if self._resync.at is not None else []
        view = self._view
        if not view.sweep():
            return wake
        if (wait := self._pacer.wait(now)) > 0 and view.unsent < self.limits.batch_entries_soft:
            return [WakeAt(now + wait)]
        parcel = self.held.parcel(view.known, view.dirty)
        if parcel is None:
            view.dirty.clear()
            return wake
        entries = outgoing(self.held, parcel.rows, self._own_logs.index)
        self._sent_cursor = max(self._sent_cursor, parcel.cursor)
        batch = build_batch(
            entries,
            parcel.seals,
            answers=self._peer_open.round,
            logs=self._own_logs.take(),
            cursor=parcel.cursor,
            root=self.held.root() if parcel.complete else None,
            explicit=self._explicit,
        )
        for row in parcel.rows:
            view.sent(row.branch, row.seq)
        self.pushed += len(parcel.rows)
        return [Send(batch)]


def _close_code(code: int) -> CloseCode:
    try:
        return CloseCode(code)
    except ValueError:
        return CloseCode.PROTOCOL
