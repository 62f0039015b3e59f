"""The tip exchange of one collection with one peer: a machine without I/O.

    events   Start, Received(message), Changed(tips), Ready, Durable(cursor), Check
    effects  Send(message), Stored(applied), WakeAt(time), Confirm(cursor), StateChanged(state)

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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from meshsync.core.batch import PARENT, Anchor, OutgoingEntry, Skip, build_batch
from meshsync.core.limits import LIMITS, Limits
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
from meshsync.core.tips import TIP_ID_BYTES, Tip
from meshsync.errors import CloseCode, PeerError
from meshsync.ids import CollectionId, EndpointId, LogId

RESYNC_FIRST_SECONDS = 0.2
RESYNC_HELD_SECONDS = 5.0
RESYNC_LAST_SECONDS = 30.0
SAMPLES_PER_BRANCH = 40
WANT_ENTRIES_MAX = 256


class SessionState(StrEnum):
    """Where a session stands."""

    IDLE = "idle"
    PULLING = "pulling"
    PUSHING = "pushing"
    SYNCED = "synced"


# Events


@dataclass(frozen=True, slots=True)
class Start:
    """The stream is open."""


@dataclass(frozen=True, slots=True)
class Received:
    """The peer sent a message."""

    message: Message


@dataclass(frozen=True, slots=True)
class Changed:
    """These branches grew here, whoever wrote the entries: {branch: tip seq}."""

    tips: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Ready:
    """The stream takes another message, and nothing is queued."""


@dataclass(frozen=True, slots=True)
class Durable:
    """What `Confirm(cursor)` asked for is on disk."""

    cursor: int


@dataclass(frozen=True, slots=True)
class Check:
    """It is time to compare roots on an idle link, or to resync if that is due."""


Event = Start | Received | Changed | Ready | Durable | Check

# Effects


@dataclass(frozen=True, slots=True)
class Send:
    """Send this message, after those before it."""

    message: Message


@dataclass(frozen=True, slots=True)
class Stored:
    """A batch was applied: tell the other sessions and the watchers."""

    applied: Any


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Give Ready again at this time: small batches are paced so that many writes share one."""

    time: float


@dataclass(frozen=True, slots=True)
class Confirm:
    """Give Durable(cursor) once everything committed by now is synced."""

    cursor: int


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The session entered another state."""

    state: SessionState


Effect = Send | Stored | WakeAt | Confirm | StateChanged


class _Branch(Protocol):
    @property
    def number(self) -> int: ...
    @property
    def log(self) -> LogId: ...
    @property
    def first_seq(self) -> int: ...
    @property
    def tip(self) -> Anchor: ...


class _Row(Protocol):
    """A stored entry; see meshsync.store.base.EntryRow."""

    branch: int
    seq: int
    id: bytes
    hlc: int
    parents: bytes | None
    payload: bytes | None
    bare: bytes | None


class Holding(Protocol):
    """What a session needs of the replica.  Calls are synchronous and short."""

    id: CollectionId

    def tips(self) -> list[Tip]: ...
    def root(self) -> bytes: ...
    def find(self, log: LogId, seq: int, id: bytes | None) -> list[Anchor]: ...
    def anchor(self, branch: int, seq: int) -> Anchor: ...
    def branches_of(self, log: LogId) -> Sequence[_Branch]: ...
    def branch(self, number: int) -> _Branch: ...
    def is_forked(self, log: LogId) -> bool: ...
    def has_forks(self) -> bool: ...
    def unsent(self, known: Mapping[int, int], branches: Iterable[int]) -> int: ...
    def parcel(self, known: Mapping[int, int], branches: Iterable[int]) -> Any: ...
    def receive(self, batch: Batch, logs: Sequence[LogId], peer: EndpointId, epoch: bytes, now_ms: int) -> Any: ...
    def cursor_for(self, peer: EndpointId) -> tuple[bytes, int] | None: ...
    def confirmed(self, peer: EndpointId, cursor: int) -> None: ...
    def bare_places(self, limit: int) -> list[tuple[LogId, int]]: ...
    def payload_at(self, log: LogId, seq: int) -> bytes | None: ...
    def fill_payload(self, log: LogId, seq: int, payload: bytes) -> bool: ...
    @property
    def epoch(self) -> bytes: ...
    @property
    def complete(self) -> bool: ...


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
        self._known: dict[int, int] = {}
        self._dirty: set[int] = set()
        """Branches of which the peer may lack something."""
        self._locating: set[LogId] = set()
        self._peer_open: Open | None = None
        self._peer_root: bytes | None = None
        self._peer_tips: dict[LogId, int] = {}
        self._confirmed_tips: set[int] = set()
        """Branches that the peer said itself to hold something of."""
        self._peer_logs: list[LogId] = []
        self._peer_log_set: set[LogId] = set()
        self._my_logs: dict[LogId, int] = {}
        self._announce: list[LogId] = []
        self._explicit = False
        self._round = 0
        self._sent_cursor = 0
        self._confirmed_cursor = 0
        self._tokens = float(limits.push_burst)
        self._tokens_at = 0.0
        self._resync_at: float | None = None
        self._resync_delay = RESYNC_FIRST_SECONDS
        self._wanted: set[tuple[LogId, int]] = set()

    # What a status shows

    @property
    def missing(self) -> int:
        """How many entries the peer said to have that are not here."""
        return sum(
            max(0, seq - max((branch.tip.seq for branch in self.held.branches_of(log)), default=0))
            for log, seq in self._peer_tips.items()
        )

    @property
    def unsent(self) -> int:
        """How many entries here the peer is not known to have been sent."""
        return self.held.unsent(self._known, self._dirty)

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
                self._dirty.update(number for number, seq in tips.items() if self._known.get(number, 0) < seq)
                effects = []
            case Ready():
                effects = self._ready(now)
            case Durable(cursor):
                effects = [Send(Have(cursor, self.held.root(), self._take_logs(), []))]
            case Check():
                effects = self._check(now)
            case _:
                effects = [Send(self._open())]
        return effects + self._settle(now)

    def _settle(self, now: float) -> list[Effect]:
        """Work out the state anew; an effect where it changed."""
        state = self._state()
        if state is SessionState.SYNCED:
            self.last_synced = now
            self.stall = None
            self._resync_delay, self._resync_at = RESYNC_FIRST_SECONDS, None
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
        if (self._dirty or self.unconfirmed) and not self.missing:
            return SessionState.PUSHING
        return SessionState.PULLING

    @property
    def _peer_round(self) -> int:
        return self._peer_open.round if self._peer_open is not None else 0

    def _received(self, message: Message, now: float, wall_ms: int) -> list[Effect]:
        match message:
            case Open():
                return self._on_open(message)
            case _ if self._peer_open is None:
                raise PeerError(f"{type(message).__name__} before OPEN")
            case Batch():
                return self._on_batch(message, now, wall_ms)
            case Have():
                return self._on_have(message, now)
            case Locate():
                return self._on_locate(message)
            case Want():
                return self._on_want(message)
            case Payloads():
                return self._on_payloads(message)
            case Close():
                raise PeerError(f"the peer closed the stream: {message.reason}", _close_code(message.code))
            case _:
                raise PeerError(f"{type(message).__name__} does not belong on a collection's stream")

    # OPEN

    def _open(self) -> Open:
        tips = self.held.tips()
        if len(tips) > self.limits.open_tips_max:
            tips = tips[: self.limits.open_tips_max]
        for tip in tips:
            self._index(tip.log, announce=False)
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
        self._learn_logs([log for log, _, _ in message.tips])
        self._peer_open = message
        self._peer_root = message.root
        self._explicit = self._explicit or bool(message.flags & FLAG_EXPLICIT) or self.held.has_forks()
        self._known.clear()
        self._confirmed_tips.clear()
        self._locating.clear()
        self._peer_tips = {}
        by_log: dict[LogId, list[tuple[int, bytes]]] = {}
        for log, seq, id in message.tips:
            self._peer_tips[log] = max(seq, self._peer_tips.get(log, 0))
            by_log.setdefault(log, []).append((seq, id))
        effects: list[Effect] = []
        for log, places in by_log.items():
            effects += self._compare(log, places)
        self._dirty = {
            branch.number
            for tip_log in {tip.log for tip in self.held.tips()} - self._locating
            for branch in self.held.branches_of(tip_log)
            if branch.tip.seq > self._known.get(branch.number, 0)
        }
        return effects

    def _compare(self, log: LogId, places: list[tuple[int, bytes]]) -> list[Effect]:
        """Place the peer's tips of one log among the branches held here."""
        branches = self.held.branches_of(log)
        strangers: list[int] = []
        for seq, id in places:
            if found := self.held.find(log, seq, id):
                self._raise_known(found[0].branch, seq)
                self._confirmed_tips.add(found[0].branch)
            else:
                strangers.append(seq)
        if not strangers or not branches:
            return []
        forked = any(branch.tip.seq >= seq for branch in branches for seq in strangers)
        if forked:
            self._explicit = True
            self._locating.add(log)
            return [Send(self._locate(log))]
        # The peer is ahead; should it not hold what is here, it sees that in our tips and sends LOCATE.
        for branch in branches:
            self._known[branch.number] = branch.tip.seq
        return []

    def _raise_known(self, number: int, seq: int) -> None:
        """The peer has the entry `seq` of a branch, hence all before it, also on the branches it forked from."""
        if seq > self._known.get(number, 0):
            self._known[number] = seq
        branch = self.held.branch(number)
        while branch.first_seq > 1:
            base = self.held.anchor(branch.number, branch.first_seq - 1)
            if self._known.get(base.branch, 0) >= base.seq:
                return
            self._known[base.branch] = base.seq
            branch = self.held.branch(base.branch)

    # Forks

    def _locate(self, log: LogId) -> Locate:
        samples: dict[int, set[bytes]] = {}
        for branch in self.held.branches_of(log):
            tip = branch.tip.seq
            steps = [tip, *(tip - (1 << k) for k in range(SAMPLES_PER_BRANCH)), 1]
            for seq in {step for step in steps if step >= 1}:
                samples.setdefault(seq, set()).add(self.held.anchor(branch.number, seq).id[:TIP_ID_BYTES])
        index = self._index(log)
        rows = [(seq, id) for seq in sorted(samples, reverse=True) for id in sorted(samples[seq])]
        return Locate(self._take_logs(), index, rows)

    def _on_locate(self, message: Locate) -> list[Effect]:
        """The peer holds something of a log that it cannot place among our tips: a fork."""
        self._learn_logs(message.logs)
        log = self._peer_log(message.log)
        self._explicit = True
        common = [anchor for seq, id in message.samples for anchor in self.held.find(log, seq, id)[:1]]
        self._place_branches(log, common)
        index = self._index(log)
        tips = [(index, anchor.seq, anchor.id[:TIP_ID_BYTES]) for anchor in common]
        return [Send(Have(None, self.held.root(), self._take_logs(), tips or [(index, 0, bytes(16))]))]

    def _place_branches(self, log: LogId, common: Sequence[Anchor]) -> None:
        """Of each branch of a forked log the peer has what `common` says; the rest is to be sent."""
        self._locating.discard(log)
        for branch in self.held.branches_of(log):
            if branch.number not in self._confirmed_tips:
                self._known[branch.number] = 0
        for anchor in common:
            self._raise_known(anchor.branch, anchor.seq)
        for branch in self.held.branches_of(log):
            if branch.tip.seq > self._known.get(branch.number, 0):
                self._dirty.add(branch.number)

    # HAVE

    def _on_have(self, message: Have, now: float) -> list[Effect]:
        self._learn_logs(message.logs)
        self._peer_root = message.root
        if message.cursor is not None:
            if message.cursor > self._sent_cursor:
                raise PeerError("a HAVE confirms what was never sent")
            if message.cursor > self._confirmed_cursor:
                self._confirmed_cursor = message.cursor
                self.held.confirmed(self.peer, message.cursor)
        located: dict[LogId, list[Anchor]] = {}
        for index, seq, id in message.tips:
            log = self._peer_log(index)
            anchors = located.setdefault(log, [])
            if seq:
                anchors += self.held.find(log, seq, id)[:1]
        for log, anchors in located.items():
            if log in self._locating:
                self._place_branches(log, anchors)
            else:
                for anchor in anchors:
                    self._raise_known(anchor.branch, anchor.seq)
        if message.cursor is None and not message.tips and self._is_stuck():
            return self._resync(now)
        return []

    # BATCH, in

    def _on_batch(self, message: Batch, now: float, wall_ms: int) -> list[Effect]:
        assert self._peer_open is not None
        self._learn_logs(message.logs)
        applied = self.held.receive(message, self._peer_logs, self.peer, self._peer_open.epoch, wall_ms)
        self.pulled += applied.count
        self.conflicts += applied.conflicts
        for number, seq in applied.reached.items():
            self._raise_known(number, seq)
        self._dirty -= {number for number in applied.reached if self._is_level(number)}
        if message.root is not None:
            self._peer_root = message.root
        for index, first, count, _ in message.runs:
            log = self._peer_logs[index]
            self._peer_tips[log] = max(self._peer_tips.get(log, 0), first + count - 1)
        effects: list[Effect] = [Stored(applied)] if applied.count else []
        if applied.forked:
            self._explicit = True
        if applied.skipped:
            effects += self._on_skipped(applied.skipped, message.round, now)
        else:
            effects.append(Confirm(message.cursor))
        return effects + self._want()

    def _on_skipped(self, skipped: Mapping[LogId, Skip], round: int, now: float) -> list[Effect]:
        """Some logs' parts were left out."""
        if round < self._round:
            return []  # it was under way when we asked to be compared anew
        reasons = set(skipped.values())
        if reasons & {Skip.GAP, Skip.PARENT} and not reasons - {Skip.GAP, Skip.PARENT} and self._resync_at is None:
            raise PeerError("a batch builds on entries that are not here")
        self.stall = "; ".join(sorted(f"{log.author.short}: {reason.value}" for log, reason in skipped.items())[:3])
        if Skip.FORK in reasons:
            self._explicit = True
        if reasons & {Skip.CLOCK, Skip.QUOTA}:
            # Only time or the owner can mend these; asking often would have them sent again and again.
            self._resync_delay = max(self._resync_delay, RESYNC_HELD_SECONDS)
        return self._resync(now)

    def not_stored(self, now: float, reason: str) -> None:
        """A batch could not be stored (StoreError): what follows it will not fit either, until the next OPEN."""
        self.stall = reason
        self._round += 1
        self._resync_at = max(self._resync_at or 0.0, now + self._resync_delay)
        self._resync_delay = min(2 * self._resync_delay, RESYNC_LAST_SECONDS)

    def _is_stuck(self) -> bool:
        """Roots differ, and nothing is under way that would change it."""
        return self._peer_root != self.held.root() and not self._dirty and not self.unconfirmed and not self._locating

    def _resync(self, now: float) -> list[Effect]:
        """Send a new OPEN now, or at the next Check after the delay, which doubles while nothing comes of it."""
        if self._resync_at is None:
            self._resync_at = now + self._resync_delay
            self._resync_delay = min(2 * self._resync_delay, RESYNC_LAST_SECONDS)
        return [WakeAt(self._resync_at)]

    def _check(self, now: float) -> list[Effect]:
        if self._peer_open is None:
            return []
        return [Send(Have(None, self.held.root(), self._take_logs(), []))]

    # BATCH, out

    def _ready(self, now: float) -> list[Effect]:
        if self._peer_open is None:
            return []
        if self._resync_at is not None and now >= self._resync_at:
            self._resync_at = None
            self._round += 1
            return [Send(self._open())]
        wake: list[Effect] = [WakeAt(self._resync_at)] if self._resync_at is not None else []
        self._dirty = {number for number in self._dirty if not self._is_level(number)}
        if not self._dirty:
            return wake
        if (wait := self._pace(now)) > 0:
            return [WakeAt(now + wait)]
        parcel = self.held.parcel(self._known, self._dirty)
        if parcel is None:
            self._dirty.clear()
            return wake
        entries = self._outgoing(parcel.rows)
        root = self.held.root() if parcel.complete else None
        self._sent_cursor = max(self._sent_cursor, parcel.cursor)
        batch = build_batch(
            entries,
            parcel.seals,
            round=self._peer_round,
            logs=self._take_logs(),
            cursor=parcel.cursor,
            root=root,
            explicit=self._explicit,
        )
        for row in parcel.rows:
            self._known[row.branch] = row.seq
        self.pushed += len(parcel.rows)
        return [Send(batch)]

    def _is_level(self, number: int) -> bool:
        branch = self.held.branch(number)
        return self._known.get(number, 0) >= branch.tip.seq or branch.log in self._locating

    def _pace(self, now: float) -> float:
        """Seconds to wait before a batch that is not full: a burst goes at once, then one an interval."""
        interval = self.limits.push_interval_seconds
        self._tokens = min(self.limits.push_burst, self._tokens + (now - self._tokens_at) / interval)
        self._tokens_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        if self.held.unsent(self._known, self._dirty) >= self.limits.batch_entries_soft:
            return 0
        return max(interval * (1 - self._tokens), 1e-4)

    def _outgoing(self, rows: Sequence[_Row]) -> list[OutgoingEntry]:
        entries: list[OutgoingEntry] = []
        last: dict[int, _Row] = {}
        held = self.held
        for row in rows:
            before = last.get(row.branch)
            if before is not None and before.seq == row.seq - 1:
                prev = before.id
            else:
                prev = held.anchor(row.branch, row.seq - 1).id
            parents: Sequence[tuple[int, int, bytes]] = ()
            if row.parents is not None:
                anchors = [held.anchor(number, seq) for number, seq in PARENT.iter_unpack(row.parents)]
                parents = [(self._index(held.branch(one.branch).log), one.seq, one.id) for one in anchors]
            log = self._index(held.branch(row.branch).log)
            entries.append(
                OutgoingEntry(log, row.seq, row.id, prev, row.hlc, parents, row.payload, row.bare, row.branch)
            )
            last[row.branch] = row
        return entries

    # Payloads that stayed away

    def _want(self) -> list[Effect]:
        if self.held.complete:
            return []
        places = [place for place in self.held.bare_places(WANT_ENTRIES_MAX) if place not in self._wanted]
        if not places:
            return []
        self._wanted.update(places)
        entries = [(self._index(log), seq) for log, seq in places]
        return [Send(Want(self._take_logs(), entries))]

    def _on_want(self, message: Want) -> list[Effect]:
        self._learn_logs(message.logs)
        if len(message.entries) > WANT_ENTRIES_MAX:
            raise PeerError("a WANT of too many payloads", CloseCode.LIMIT)
        effects: list[Effect] = []
        rows: list[tuple[int, int, bytes]] = []
        size = 0
        for index, seq in message.entries:
            log = self._peer_log(index)
            payload = self.held.payload_at(log, seq)
            if payload is None:
                continue
            rows.append((self._index(log), seq, payload))
            size += len(payload)
            if size > self.limits.batch_bytes_soft:
                effects.append(Send(Payloads(self._take_logs(), rows)))
                rows, size = [], 0
        return [*effects, Send(Payloads(self._take_logs(), rows))] if rows else effects

    def _on_payloads(self, message: Payloads) -> list[Effect]:
        self._learn_logs(message.logs)
        for index, seq, payload in message.payloads:
            log = self._peer_log(index)
            if (log, seq) not in self._wanted:
                raise PeerError("a payload that was not asked for")
            self._wanted.discard((log, seq))
            self.held.fill_payload(log, seq, payload)
        return self._want()

    # Log tables

    def _index(self, log: LogId, *, announce: bool = True) -> int:
        index = self._my_logs.get(log)
        if index is None:
            index = self._my_logs[log] = len(self._my_logs)
            if announce:
                self._announce.append(log)
        return index

    def _take_logs(self) -> tuple[LogId, ...]:
        announced = tuple(self._announce)
        self._announce.clear()
        return announced

    def _learn_logs(self, logs: Iterable[LogId]) -> None:
        for log in logs:
            if log not in self._peer_log_set:
                self._peer_log_set.add(log)
                self._peer_logs.append(log)
        if len(self._peer_logs) > self.limits.open_tips_max:
            raise PeerError(f"more than {self.limits.open_tips_max} logs", CloseCode.LIMIT)

    def _peer_log(self, index: int) -> LogId:
        if index >= len(self._peer_logs):
            raise PeerError("a message names no log")
        return self._peer_logs[index]


def _close_code(code: int) -> CloseCode:
    try:
        return CloseCode(code)
    except ValueError:
        return CloseCode.PROTOCOL
