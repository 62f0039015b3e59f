"""The tip exchange of one collection with one peer: a machine without I/O.

    events   Start, Received(message), Changed(tips), Ready, Durable(cursor), Check, Lost
    effects  Send(message), Stored(applied), WakeAt(time), Confirm(cursor), StateChanged(state), Answered

The events and effects are in `meshsync.core.session_events`, what is known of the peer in
`meshsync.core.peerview`, the numbers for logs in `meshsync.core.logtable`.

One rule does bootstrap, catch-up, live push and relay: send every entry between what the peer is known to have
and what is held here, and whenever either changes, do it again.

    - OPEN tells the tips.  From the peer's tips follows, per branch, what it is known to have.
    - Ready (the stream takes more) sends the next BATCH and raises what is known.
    - What came from the peer raises it too, so nothing is echoed.
    - HAVE confirms, after the store has synced, and carries the root.
    - Whatever does not fit (a gap after a batch that was not stored, a fork, a clock that is ahead) is left out,
      and a new OPEN, with a higher round, makes the peer compare anew.  Until its answers come nothing is confirmed.
    - A tip that cannot be placed proves a fork.  LOCATE finds the last common entry; both branches are sent.

Synced has one meaning: both roots are equal, and no payload is lacking here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from meshsync.core.anchor import Anchor
from meshsync.core.holding import Holding
from meshsync.core.limits import LIMITS, Limits
from meshsync.core.logtable import OwnLogTable, PeerLogTable
from meshsync.core.messages import (
    Batch,
    Close,
    Have,
    Locate,
    Message,
    Open,
    Payloads,
    Want,
)
from meshsync.core.opening import opening
from meshsync.core.pacing import MISFITS_MAX, RESYNC_HELD_SECONDS, Resync
from meshsync.core.peerview import PeerView
from meshsync.core.pushing import Pusher
from meshsync.core.rebuild import Skip
from meshsync.core.session_events import (
    Answered,
    Changed,
    Check,
    Confirm,
    Durable,
    Effect,
    Event,
    Lost,
    Ready,
    Received,
    Send,
    SessionState,
    StateChanged,
    Stored,
    WakeAt,
)
from meshsync.core.tips import TIP_ID_BYTES
from meshsync.core.wants import Wants
from meshsync.errors import CloseCode, PeerError
from meshsync.ids import EndpointId, LogId

_PATIENCE = frozenset({Skip.CLOCK, Skip.QUOTA, Skip.DAMAGED})
"""Only time or the owner can mend these."""


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
        self.conflicts = 0
        self.last_synced: float | None = None
        self._tag = tag
        self._view = PeerView(held)
        self._peer_open: Open | None = None
        self._peer_root: bytes | None = None
        self._own_logs = OwnLogTable()
        self._peer_logs = PeerLogTable(limits.logs_max)
        self._wants = Wants(held, self._own_logs, self._peer_logs, limits)
        self._pusher = Pusher(held, self._view, self._own_logs, limits)
        self._said_complete = True
        self._said_full = False
        self._round = 0
        self._left_out = False
        """Something of this round was left out, so no later cursor may be confirmed in it."""
        self._misfits = 0
        """In so many rounds running something did not fit, and nothing came."""
        self._pulled_at_check = 0
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
    def pushed(self) -> int:
        """How many entries were sent."""
        return self._pusher.pushed

    @property
    def is_opened(self) -> bool:
        """Whether the peer has told its tips."""
        return self._peer_open is not None

    @property
    def is_asking(self) -> bool:
        """Whether the peer has yet to answer for payloads that it was asked for."""
        return self._wants.is_asking

    def peer_seq(self, branch: int) -> int:
        """Up to which entry the peer is known to have a branch."""
        return self._view.known.get(branch, 0)

    @property
    def unconfirmed(self) -> bool:
        """Whether something that was sent is not yet confirmed as stored."""
        return self._pusher.unconfirmed

    # The machine

    def handle(self, event: Event, now: float, wall_ms: int) -> list[Effect]:
        """Take one event at time `now` (seconds, monotonic) and wall clock `wall_ms`; return what is to be done.

        PeerError: the peer broke the protocol; the session is over.  StoreError: what came could not be stored,
        and nothing of it was; the owner calls `not_stored`, and the session goes on and asks again later.
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
                effects = self._check()
            case Lost():
                effects = self._open_again() if self._peer_open is not None else []
            case _:
                effects = self._open()
        return effects + self._settle(now)

    def not_stored(self, now: float, reason: str, unread: Batch | None = None) -> list[Effect]:
        """What came could not be stored (StoreError): ask for it again, after a while.

        `unread`: a batch that the owner did not even give to the session, for lack of space.
        """
        if unread is not None and self._peer_open is not None:
            self._peer_logs.learn(unread.logs)
            self._note(unread)
        self.stall = reason
        self._left_out = True
        return [WakeAt(self._resync.plan(now)), *self._settle(now)]

    def _settle(self, now: float) -> list[Effect]:
        """Work out the state anew; an effect where it changed."""
        state = self._state()
        if state is SessionState.SYNCED:
            self.last_synced = now
            self.stall = None
            if not self._left_out:
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
        if (self._view.dirty or self.unconfirmed) and not self._view.is_ahead:
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
                return self._on_have(message, self._peer_open.epoch, now)
            case Locate():
                return self._on_locate(message)
            case Want():
                self._wants.owe(message)
                return []
            case Payloads():
                return self._on_payloads(message)
            case Close():
                raise PeerError(f"the peer closed the stream: {message.reason}", _close_code(message.code))
            case _:
                raise PeerError(f"{type(message).__name__} does not belong on a collection's stream")

    # OPEN

    def _open(self) -> list[Effect]:
        """Tell what is held."""
        self._said_complete, self._said_full = self.held.complete, bool(self.held.full)
        explicit = self._pusher.explicit or self.held.has_forks()
        messages = opening(
            self.held, self._own_logs, self.peer, self.limits, tag=self._tag, number=self._round, explicit=explicit
        )
        return [Send(message) for message in messages]

    def _open_again(self) -> list[Effect]:
        self._round += 1
        self.stall = self.held.full or (None if self._said_full else self.stall)
        self._left_out = False
        return self._open()

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
        self.stall = None if self._pusher.is_refused else self.stall
        self._pusher.begin_anew(message.flags)
        self._wants.renew()
        return self._locate(self._view.opened(message.tips)) + self._want()

    # Forks

    def _locate(self, forked: Iterable[LogId]) -> list[Effect]:
        effects: list[Effect] = []
        for log in forked:
            self._pusher.explicit = True
            index = self._own_logs.index(log)
            effects.append(Send(Locate(self._own_logs.take(), index, self._view.samples(log))))
        return effects

    def _on_locate(self, message: Locate) -> list[Effect]:
        """The peer holds something of a log that it cannot place among our tips: a fork."""
        if len(message.samples) > self.limits.locate_samples_max:
            raise PeerError(f"a LOCATE of {len(message.samples)} samples", CloseCode.LIMIT)
        log = self._peer_logs[message.log]
        self._pusher.explicit = True
        common = [anchor for seq, id in message.samples for anchor in self.held.find(log, seq, id)[:1]]
        self._view.place(log, common)
        index = self._own_logs.index(log)
        rows = [(index, anchor.seq, anchor.id[:TIP_ID_BYTES]) for anchor in common]
        return [self._have(None, rows or [(index, 0, bytes(TIP_ID_BYTES))])]

    # HAVE

    def _have(self, cursor: int | None = None, tips: Sequence[tuple[int, int, bytes]] = ()) -> Send:
        return Send(Have(cursor, self.held.root(), self._own_logs.take(), list(tips)))

    def _on_have(self, message: Have, epoch: bytes, now: float) -> list[Effect]:
        self._peer_root = message.root
        if message.cursor is not None:
            if self._pusher.confirm(message.cursor):
                self.held.confirmed(self.peer, epoch, message.cursor)
        elif not message.tips:
            return self._on_check(now)
        located: dict[LogId, list[Anchor]] = {}
        told: list[tuple[LogId, int, bytes]] = []
        for index, seq, id in message.tips:
            log = self._peer_logs[index]
            if log in self._view.locating:
                located.setdefault(log, []).extend(self.held.find(log, seq, id)[:1])
            elif seq:
                told.append((log, seq, id))
        for log, anchors in located.items():
            self._view.place(log, anchors)
        return self._locate(self._view.told(told)) if told else []

    # Comparing roots

    def _check(self) -> list[Effect]:
        if self._peer_open is None:
            return []
        self._wants.renew()
        return [self._have(), *self._want()]

    def _on_check(self, now: float) -> list[Effect]:
        """The peer told its root.  Where it differs, and nothing is under way that would change it, compare anew."""
        view = self._view
        is_busy = view.dirty or view.locating or self.unconfirmed or self.pulled != self._pulled_at_check
        self._pulled_at_check = self.pulled
        if self._peer_root != self.held.root() and not (is_busy or self.held.full):
            return [WakeAt(self._resync.plan(now))]
        return []

    # BATCH, in

    def _on_batch(self, message: Batch, epoch: bytes, now: float, wall_ms: int) -> list[Effect]:
        if message.round > self._round:
            raise PeerError("a batch answers an OPEN that was never sent")
        self._note(message)
        if self.held.full:
            # The peer is told, or was: it sends no more, and all of this again once there is room.
            self.stall, self._left_out = self.held.full, True
            return []
        is_current = message.round == self._round
        counts = is_current and not self._left_out
        applied = self.held.receive(message, self._peer_logs.logs, self.peer, epoch if counts else None, wall_ms)
        self.pulled += applied.count
        self.conflicts += applied.conflicts
        self._view.reached(applied.reached)
        effects: list[Effect] = [Stored(applied)] if applied.count or applied.skipped else []
        if applied.count:
            self._misfits = 0
        if applied.skipped:
            if is_current:  # otherwise it was under way when we asked to be compared anew
                effects += self._on_skipped(applied.skipped, now)
        elif counts:
            effects.append(Confirm(message.cursor))
        return effects + self._want()

    def _note(self, message: Batch) -> None:
        """Whatever becomes of a batch, the peer has these entries."""
        for index, first, count, _ in message.runs:
            self._view.told_of(self._peer_logs[index], first + count - 1)
        if message.root is not None:
            self._peer_root = message.root

    def _on_skipped(self, skipped: Mapping[LogId, Skip], now: float) -> list[Effect]:
        """Some logs' parts were left out: they have to be sent again."""
        is_news = not self._left_out
        self._left_out = True
        self.stall = "; ".join(sorted(f"{log.author.short}: {reason.value}" for log, reason in skipped.items())[:3])
        reasons = set(skipped.values())
        if Skip.FORK in reasons:
            self._pusher.explicit = True
        if is_news and not reasons & _PATIENCE:
            self._misfits += 1
            if self._misfits > MISFITS_MAX:
                raise PeerError("batch after batch builds on entries that are not here")
        # Only time or the owner can mend these; asking often would have them sent again and again.
        delay_min = RESYNC_HELD_SECONDS if reasons & _PATIENCE else 0.0
        return [WakeAt(self._resync.plan(now, delay_min))]

    # Payloads that stayed away

    def _want(self) -> list[Effect]:
        want = self._wants.ask()
        return [] if want is None else [Send(want)]

    def _on_payloads(self, message: Payloads) -> list[Effect]:
        return [*(Stored(applied) for applied in self._wants.take(message)), Answered(), *self._want()]

    # Ready

    def _ready(self, now: float) -> list[Effect]:
        if self._peer_open is None:
            return []
        has_news = (self.held.complete and not self._said_complete) or bool(self.held.full) is not self._said_full
        if self._resync.take(now) or has_news:
            return self._open_again()
        batch = self._pusher.next_batch(self._peer_open.round, now)
        if isinstance(batch, Batch):
            return [Send(batch)]
        self.stall = self._pusher.stall or self.stall
        answer = self._wants.answer()
        effects: list[Effect] = [] if answer is None else [Send(answer)]
        return effects + [WakeAt(time) for time in (batch, self._resync.at) if time is not None]


def _close_code(code: int) -> CloseCode:
    try:
        return CloseCode(code)
    except ValueError:
        return CloseCode.PROTOCOL
