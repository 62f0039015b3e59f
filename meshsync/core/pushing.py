"""What goes out on a session: batches, when they may go, and how far the peer confirmed them."""

from __future__ import annotations

from meshsync.core.batch import Columns, put_in_columns
from meshsync.core.holding import Holding
from meshsync.core.limits import Limits
from meshsync.core.logtable import OwnLogTable
from meshsync.core.messages import FLAG_EXPLICIT, FLAG_FULL, Batch
from meshsync.core.pacing import Pacer
from meshsync.core.peerview import PeerView
from meshsync.core.sieve import Sieve
from meshsync.errors import DamagedError, PeerError


class Pusher:
    """Builds batches for one peer."""

    def __init__(self, held: Holding, view: PeerView, own_logs: OwnLogTable, sieve: Sieve, limits: Limits) -> None:
        self._held = held
        self._view = view
        self._sieve = sieve
        self._own_logs = own_logs
        self._limits = limits
        self._pacer = Pacer(limits)
        self.pushed = 0
        """Entries sent so far."""
        self.explicit = False
        """Name entries by their whole ids: the peer holds a fork, or either side met what may be one."""
        self.is_refused = False
        """The peer takes no entries at present."""
        self.is_blocked = False
        """What the peer lacks is damaged here."""
        self._sent = 0
        self._awaited = 0
        """The greatest cursor to be confirmed; the peer owes nothing for what went out before its OPEN came."""
        self._confirmed = 0

    @property
    def unconfirmed(self) -> bool:
        """Whether something that was sent is not yet confirmed as stored."""
        return self._awaited > self._confirmed

    def begin_anew(self, flags: int) -> None:
        """The peer told its tips: what it lacks of what went out before is sent again."""
        self._awaited = self._confirmed
        self.explicit |= bool(flags & FLAG_EXPLICIT)
        self.is_refused = bool(flags & FLAG_FULL)

    @property
    def stall(self) -> str | None:
        """Why the peer does not get what it lacks, for people."""
        if self.is_refused and self._view.dirty:
            return "the peer takes no more: what it may carry for others is full"
        return "entries that this peer lacks are damaged here: meshsync verify --repair" if self.is_blocked else None

    def confirm(self, cursor: int) -> bool:
        """The peer has stored everything below the cursor; whether that is news.  PeerError: it cannot have."""
        if cursor > self._sent:
            raise PeerError("a HAVE confirms what was never sent")
        is_news = cursor > self._confirmed
        self._confirmed = max(cursor, self._confirmed)
        return is_news

    def next_batch(self, answers: int, now: float, bytes_per_second: float) -> Batch | float | None:
        """The next batch, or the time at which there will be one, or None where the peer lacks nothing.

        `answers`: the round of the peer's OPEN; `bytes_per_second`: what the path is thought to carry.
        """
        held, view, sieve = self._held, self._view, self._sieve
        # What builds on a log that is being located would arrive before it.
        if not view.dirty or view.locating or self.is_refused:
            return None
        waiting = self._waiting()
        if (wait := self._pacer.wait(now, waiting)) > 0 and waiting < self._limits.batch_entries_soft:
            return now + wait
        size = self._batch_bytes(bytes_per_second)
        parcel = held.parcel(view.known, view.dirty, view.floor, size, sieve.choice)
        if parcel is None and sieve.awaits_disk:
            return None
        self.is_blocked = parcel is None and held.is_damaged
        if parcel is None:
            view.dirty.clear()
            return None
        try:
            explicit = self.explicit or held.has_forks()
            columns = put_in_columns(held, parcel.rows, self._own_logs.index, explicit=explicit)
        except DamagedError:
            return now  # it is known of from now on, and the next parcel goes without
        self._sieve.sent(parcel.rows, columns.superseded)
        for branch, seq in {row.branch: row.seq for row in parcel.rows}.items():
            view.sent(branch, seq)
        view.floor = parcel.cursor
        completes = not view.dirty
        cursor = held.next_arrival() if completes else parcel.cursor
        if view.assumed:
            cursor = 1  # the peer may lack something before it
        self._sent = max(self._sent, cursor)
        self._awaited = max(self._awaited, cursor)
        self.pushed += len(parcel.rows)
        seals, root = sorted(parcel.seals.items()), held.root() if completes else None
        return Batch(answers, self._own_logs.take(), *columns, seals, cursor, root)

    def nothing(self, answers: int, cursor: int) -> Batch:
        """A batch without entries: the peer confirms once more what it has."""
        self._sent = max(self._sent, cursor)
        self._awaited = max(self._awaited, cursor)
        return Batch(answers, self._own_logs.take(), *Columns([], [], [], [], [], []), [], cursor, None)

    def _batch_bytes(self, bytes_per_second: float) -> float:
        """How long the next batch may be.  What a connection had not carried to its end is lost with it."""
        limits = self._limits
        return min(limits.batch_bytes_soft, max(limits.batch_bytes_min, bytes_per_second * limits.batch_seconds))

    def _waiting(self) -> int:
        """How many entries wait to be sent; not counted to the end where they surely fill a batch."""
        branches = len(self._view.dirty)
        return branches if branches >= self._limits.batch_entries_soft else self._view.unsent
