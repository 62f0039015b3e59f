"""The tip exchange of one collection with one peer: a machine without I/O.

    events   Start, Received(message), Changed(tips, filled), Ready, Durable(cursor), Check, Lost, Chosen, MakeLazy,
             MakeEager
    effects  Send(message), Stored(applied), Arrived(new, repeated, places), Offered(log, seq, age), WakeAt(time),
             Confirm(cursor), Sync, StateChanged(state), Answered, Wished

The events and effects are in `meshsync.core.session_events`, what is known of the peer in
`meshsync.core.peerview`, the numbers for logs in `meshsync.core.logtable`; what goes out is built in
`meshsync.core.pushing` and `meshsync.core.announcing`, what comes in is taken in `meshsync.core.pulling`.

One rule does bootstrap, catch-up, live push and relay: send every entry between what the peer is known to have
and what is held here, and whenever either changes, do it again.

    - OPEN tells the tips.  From the peer's tips follows, per branch, what it is known to have.
    - Ready (the stream takes more) sends the next BATCH and raises what is known.
    - What came from the peer raises it too, so nothing is echoed.
    - HAVE confirms, after the store has synced, and carries the root.
    - Whatever does not fit (a gap after a batch that was not stored, a fork, a clock that is ahead) is left out,
      and a new OPEN, with a higher round, makes the peer compare anew.  Until its answers come nothing is confirmed.
    - A tip that cannot be placed proves a fork.  LOCATE finds the last common entry; both branches are sent.
    - On a lazy link nothing is sent but announcements, until GRAFT.  PRUNE and GRAFT may cross, so that the ends
      differ on whether the link is lazy: then one pushes, the other announces, and nothing is lost.

Payloads may stay away (the words for that are in `meshsync.store`): where the peer's subscription chooses,
`meshsync.core.sieve` says which go along, and names what matches besides.  `meshsync.core.wants` asks for what is
wanted and lacking here, for the past where it is wanted (`meshsync.core.pasts`), and for what others called superseded
and may have been wrong about (`meshsync.core.doubts`); `meshsync.core.session_payloads` joins these to the session.  A
header leaves without its payload only when that would survive a power cut here, or is not here either: so wherever a
header is, there is somebody who has the payload.

Synced has one meaning: both roots are equal, the peer has named all that matches, no payload that is wanted is lacking
here, and the peer has said what it has of the past and of what is in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshsync.core.messages import (
    FLAG_COMPLETE,
    FLAG_LAZY,
    Batch,
    Close,
    Graft,
    Have,
    Locate,
    Match,
    Message,
    Open,
    Payloads,
    Prune,
    Want,
)
from meshsync.core.opening import opening
from meshsync.core.session_events import (
    Changed,
    Check,
    Chosen,
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
    WakeAt,
    Wished,
)
from meshsync.core.session_payloads import SessionPayloads
from meshsync.errors import CloseCode, PeerError
from meshsync.ids import LogId


class Session(SessionPayloads):
    """One collection, one peer, one stream.  Not reusable: a new stream is a new session."""

    # The machine

    def handle(self, event: Event, now: float, wall_ms: int) -> list[Effect]:
        """Take one event at time `now` (seconds, monotonic) and wall clock `wall_ms`; return what is to be done.

        PeerError: the peer broke the protocol; the session is over, but for its `rest`.  StoreError: what came could
        not be stored; the owner calls `not_stored`, and the session goes on and asks again later.
        """
        match event:
            case Received(message):
                effects = self._received(message, now, wall_ms)
            case Changed(tips, filled):
                self._view.grew(tips)
                self._sieve.came_late(filled)
                self._pasts.again(filled)
                if self.is_lazy or self._peer_open is None:
                    self._announcer.note(tips, now)
                effects = []
            case Ready(bytes_per_second):
                effects = self._ready(now, bytes_per_second)
            case Durable(cursor):
                effects = [self._have(cursor)]
            case Check():
                effects = self._check()
            case Lost() | Chosen():
                self._asking.forget()
                self._wants.begin_anew()
                effects = self._open_again() if self._peer_open is not None else []
            case MakeLazy():
                effects = [Send(Prune())]
                self._be_lazy(now)
            case MakeEager():
                effects = self._make_eager(now)
            case _:
                assert isinstance(event, Start)
                self.is_lazy, self._answers_checks = event.lazy, event.answers_checks
                effects = self._open()
        # The owner may turn the link at what it is told: the logs that a message introduces must have gone out by then.
        effects.sort(key=lambda effect: not isinstance(effect, Send))
        return effects + self._settle(now)

    def not_stored(self, now: float, reason: str, unread: Batch | None = None) -> list[Effect]:
        """What came could not be stored (StoreError): ask for it again, after a while.

        `unread`: a batch that the owner did not even give to the session, for lack of space.
        """
        if unread is not None and self._peer_open is not None:
            self._peer_logs.learn(unread.logs)
            self._roots.peers = unread.root or self._roots.peers
            self._puller.note(unread)
        self.stall = reason
        self._asking.left_out(self._puller.round)
        return [*self.rest(), *self._puller.not_stored(now), *self._settle(now)]

    def _settle(self, now: float) -> list[Effect]:
        """Work out the state anew; an effect where it changed."""
        self._roots.note(now)
        self._pasts.notice()
        state = self._state()
        if state is SessionState.SYNCED:
            self.last_synced = now
            self.stall = None
            if not self._puller.left_out:
                self._puller.resync.forget()
        effects: list[Effect] = [WakeAt(now)] if self._wants.can_ask_of_doubts else []
        if self._doubts.is_news:
            self._doubts.is_news = False
            effects.append(Wished())
        if state is not self.state:
            self.state = state
            effects.append(StateChanged(state))
        return effects

    def _state(self) -> SessionState:
        if self._peer_open is None:
            return SessionState.IDLE
        if self._roots.are_equal:
            self._view.level()
            if self._asking.is_answered and self.held.is_satisfied and self._pasts.is_over and self._doubts.is_over:
                return SessionState.SYNCED
            self.stall = self.held.shortage
            return SessionState.PULLING
        if (self._view.dirty or self.unconfirmed) and not self._view.is_ahead:
            return SessionState.PUSHING
        return SessionState.PULLING

    def _received(self, message: Message, now: float, wall_ms: int) -> list[Effect]:
        if isinstance(message, Open):
            return self._on_open(message, now)
        if self._peer_open is None:
            raise PeerError(f"{type(message).__name__} before OPEN")
        self._silent_until = now
        if isinstance(message, Batch | Have | Locate | Want | Payloads):
            self._peer_logs.learn(message.logs)
        match message:
            case Batch():
                return self._on_batch(message, self._peer_open.epoch, now, wall_ms)
            case Prune():
                self._be_lazy(now)
                return []
            case Graft():
                return self._be_eager(now)
            case Have():
                return self._on_have(message, self._peer_open.epoch, now)
            case Locate():
                return self._on_locate(message)
            case Want():
                self._wants.owe(message)
                return []
            case Match():
                return self._on_match(message)
            case Payloads():
                return self._on_payloads(message, now)
            case Close():
                raise PeerError(f"the peer closed the stream: {message.reason}", CloseCode.told(message.code))
            case _:
                raise PeerError(f"{type(message).__name__} does not belong on a collection's stream")

    # OPEN

    def _open(self) -> list[Effect]:
        """Tell what is held."""
        self._said_whole, self._said_full = self._is_whole, bool(self.held.full)
        self._asking.say(self._puller.round)
        self._roots.say()
        messages = opening(
            self.held,
            self._own_logs,
            self.peer,
            self.limits,
            tag=self._tag,
            number=self._puller.round,
            whole=self._is_whole,
            explicit=self._pusher.explicit or self.held.has_forks(),
            lazy=self.is_lazy,
        )
        return [Send(message) for message in messages]

    def _open_again(self) -> list[Effect]:
        self._puller.begin_round()
        self._wants.renew()
        self.stall = self.held.full or (None if self._said_full else self.stall)
        return self._open()

    def _on_open(self, message: Open, now: float) -> list[Effect]:
        if message.tag != self._tag:
            raise PeerError("an OPEN for another collection")
        if self._peer_open is not None and message.round <= self._peer_open.round:
            raise PeerError("an OPEN of a round that is over")
        if message.tips is None:
            raise PeerError("an OPEN without tips")
        self._peer_logs.learn(log for log, _, _ in message.tips)
        self._peer_open = message
        self._roots.peers = message.root
        self.stall = None if self._pusher.is_refused else self.stall
        self._pusher.begin_anew(message.flags)
        self._sieve.opened(message)
        self._wants.renew()
        self._receipt = None
        if message.cursor is not None and message.cursor[0] == self.held.epoch:
            self._is_kept(message.cursor[1])
        forked = self._view.opened(message.tips)
        turned: list[Effect] = []
        if message.round:
            if message.flags & FLAG_LAZY:
                self._be_lazy(now)
            else:
                turned = self._be_eager(now)
        elif message.flags & FLAG_LAZY:
            self.is_lazy = True  # the peer is told by our own OPEN, and of what changed since
        elif not self.is_lazy:
            self._announcer.clear()
        return turned + self._locate(forked) + (self._want() if message.flags & FLAG_COMPLETE else [])

    # Lazy and eager

    def _be_lazy(self, now: float) -> None:
        self._announcer.note(self._view.dirty, now)
        self.is_lazy = True

    def _be_eager(self, now: float) -> list[Effect]:
        """What the peer does not know to be here is told first, so that it is not sent."""
        announcement = self._announcer.take(now, self._roots.say()) if self.is_lazy else None
        self.is_lazy = self.suspects_fork = False
        self._announcer.clear()
        return [] if announcement is None else [Send(announcement)]

    def _make_eager(self, now: float) -> list[Effect]:
        """The peer may have much of what it is not known to have: it says so first."""
        if self.is_lazy:
            self._silent_until = now + self.limits.announce_seconds
        return [*self._be_eager(now), Send(Graft())]

    # Forks

    def _locate(self, forked: Sequence[LogId]) -> list[Effect]:
        if not forked:
            return []
        self._pusher.explicit = True
        self.suspects_fork |= self.is_lazy
        return [Send(question) for question in self._locator.ask(forked)]

    def _on_locate(self, message: Locate) -> list[Effect]:
        rows = self._locator.answer(message)
        self._pusher.explicit = True
        return [self._have(None, rows)]

    # HAVE

    def _on_have(self, message: Have, epoch: bytes, now: float) -> list[Effect]:
        self._roots.peers = message.root
        if self._roots.are_equal:
            self._doubts.has_sent_all()
        if message.cursor is not None:
            if self._pusher.confirm(message.cursor):
                self.held.confirmed(self.peer, epoch, message.cursor)
                self._is_kept(message.cursor)
        elif not message.tips:
            return self._on_check(now)
        return [*self._offers(message), *self._locate(self._locator.told(message))]

    def _offers(self, message: Have) -> list[Effect]:
        if message.age_ms is None or not message.tips:
            return []
        index, seq, _ = message.tips[0]
        return [Offered(self._peer_logs[index], seq, message.age_ms / 1000)]

    # Comparing roots

    def _check(self) -> list[Effect]:
        if self._peer_open is None:
            return []
        self._wants.renew()
        return [self._have(), *self._want()]

    def _on_check(self, now: float) -> list[Effect]:
        """The peer told its root.  Where it differs, and nothing is under way that would change it, compare anew."""
        view, pulled = self._view, self.pulled.entries
        if self.is_lazy:
            # What differs comes by other links, or is announced and asked for; after a while it must have.
            is_idle = self._roots.have_stood_still(now, self.limits.quiet_seconds)
        else:
            is_idle = not (view.dirty or view.locating or self.unconfirmed) and pulled == self._pulled_at_check
        self._pulled_at_check = pulled
        answer: list[Effect] = [self._have()] if self._answers_checks and not self._roots.is_all_said else []
        if self._roots.are_equal or self.held.full:
            return answer
        return [*answer, WakeAt(self._puller.resync.plan(now))] if is_idle else answer

    # BATCH, in

    def _on_batch(self, message: Batch, epoch: bytes, now: float, wall_ms: int) -> list[Effect]:
        self._roots.peers = message.root or self._roots.peers
        before, arrival = self.pulled.entries, self.held.selection.end()
        repeats, is_whole = self._puller.repeats(message), self._puller.has_all_until(message)
        self._doubts.brings(message, arrival, repeats=repeats, is_whole=is_whole)
        effects = self._puller.take(message, epoch, now, wall_ms)
        if self._puller.left_out:
            self._asking.left_out(self._puller.round)
        self._doubts.brought(message, is_whole=self._puller.has_all_until(message))
        self.stall = self._puller.stall or self.stall
        self._pusher.explicit |= self._puller.met_fork
        if message.round == self._puller.round:  # the peer knows how much of the past is wanted
            self._pasts.told(arrival, self.held.selection.end())
        # What others do about the rest may send something in its turn, and logs are numbered in the order of sending.
        return (self._want() if self.pulled.entries > before else []) + effects

    # Ready

    def _ready(self, now: float, bytes_per_second: float) -> list[Effect]:
        if self._peer_open is None:
            return []
        resync = self._puller.resync
        if resync.take(now) or self._has_news:
            return self._open_again()
        self._sieve.awaits_disk = False
        turn: Batch | Have | float | None
        if self.is_lazy:
            turn = self._announcement(now)
        elif now < self._silent_until:
            turn = self._silent_until
        else:
            turn = self._pusher.next_batch(self._peer_open.round, now, bytes_per_second)
        if isinstance(turn, Batch | Have):
            return [Send(turn)]
        self.stall = self._pusher.stall or self.stall
        times = (turn, resync.at)
        return self._besides(now) + [WakeAt(time) for time in times if time is not None]

    def _announcement(self, now: float) -> Have | float | None:
        """What a lazy link carries now, or when it will carry something."""
        if self._roots.is_all_said:
            self._announcer.clear()  # both know that there is nothing to tell
        due = self._announcer.due()
        return self._announcer.take(now, self._roots.say()) if due is not None and now >= due else due
