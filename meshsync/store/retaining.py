"""Letting the past of one replica go, as far as its owner does not want it, a few milliseconds at a time.

The payload of an entry is dropped once it is superseded (`meshsync.store.contributing`), older than what is kept
(`meshsync.core.retention`), and, where this node wrote it, stored by someone who keeps the whole collection; and no
document that it touches is in conflict, because what the sides of one say is never hidden.  The header stays, with a
mark, and the documents are what they were.

Nothing is looked at twice without a reason.  Two pointers pass over the arrivals: `new` looks at each entry once, soon
after it came, because it may be old already; `old` follows the age, in the order of arrival, so that an entry that
came late is dropped so long after it came, at the latest.  What is superseded behind them is told by the merge itself,
in the transaction that supersedes it, and waits in a queue.  So a document that is written a million times costs one
look a write.  Pointers and queue are on the disk, in the transactions that they speak of: whenever the process ends,
the next one goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING

from meshsync.core import cbor
from meshsync.core.entry import touched_documents
from meshsync.core.hlc import COUNTER_BITS, HLC_MAX
from meshsync.core.retention import ALL, Retention
from meshsync.errors import DamagedError, StoreError
from meshsync.store.applied import Dropped
from meshsync.store.contributing import contributing
from meshsync.store.rows import EntryRow, Touch

if TYPE_CHECKING:
    from meshsync.store.replica import Replica

_PAGE = 64
"""Entries that are looked at in one step: some milliseconds."""
_SAME_TIME_MAX = 64
"""Writes to one document with one stamp that are looked at; there is one, unless authors mean it."""
_FRESH_MAX = 16_384
"""What was queued in this process and is looked at first; beyond that the queue is read from the start."""


@dataclass(slots=True)
class _Kept:
    """What is kept on the disk."""

    retention: Retention = ALL
    new: int = 1
    """All arrivals below were looked at once."""
    old: int = 1
    """All arrivals below were looked at when they were too old."""
    horizon: int = 0
    """The greatest stamp that ever counted as too old."""
    elsewhere: int = 0
    """What this node wrote, of the arrivals below, is stored by someone who keeps the whole collection."""
    dropped: int = 0
    dropped_bytes: int = 0
    """How many payloads were dropped since the beginning, and what they took."""

    def encode(self) -> bytes:
        retention = None if self.retention.keeps_all else [int(self.retention.seconds), self.retention.entries]
        numbers = [self.new, self.old, self.horizon, self.elsewhere, self.dropped, self.dropped_bytes]
        return cbor.encode([retention, *numbers])

    @classmethod
    def decode(cls, data: bytes) -> _Kept:
        retention, *numbers = cbor.decode_trusted(data)
        return cls(ALL if retention is None else Retention(*retention), *numbers)


class Retaining:
    """The retention of one replica.  Call `step` until it says that there is nothing left to do for now."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        stored = replica.tables.retained()
        self._kept = _Kept() if stored is None else _Kept.decode(stored)
        self._has_begun = True
        """Whether it is written that all is looked through anew, where it is."""
        self._fresh: dict[int, None] = {}
        """Queued in this process, and not looked at since."""
        self._scan: int | None = 0
        """The queue is looked at behind this arrival; None: all of it was, and what is left waits."""
        self._scan_end = math.inf
        self._next_hlc = 0
        """When the entry was written that the pointer `old` waits for."""
        self._elsewhere = self._kept.elsewhere

    @property
    def retention(self) -> Retention:
        """What is kept."""
        return self._kept.retention

    @property
    def is_on(self) -> bool:
        """Whether anything is ever dropped, so that changes have to be followed."""
        return not self._kept.retention.keeps_all

    @property
    def dropped(self) -> Dropped:
        """What was dropped here since the beginning."""
        return Dropped(self._kept.dropped, self._kept.dropped_bytes)

    @property
    def waiting(self) -> int:
        """How many payloads wait until someone else has them, or until a conflict is settled.  Counts them."""
        return len(self._replica.tables.to_let_go)

    def keep(self, retention: Retention) -> None:
        """Keep so much from now on; all of the past is looked through anew."""
        if retention != self._kept.retention:
            self._begin_anew(retention)
            with suppress(StoreError):  # then nothing else is written either, until a `step` writes it
                self._write_beginning()

    def _begin_anew(self, retention: Retention) -> None:
        self._kept = replace(self._kept, retention=retention, new=1, old=1, horizon=0)
        self._has_begun = False
        self._fresh.clear()
        self._next_hlc = 0
        self._scan_from_the_start()

    def _write_beginning(self) -> None:
        with self._replica.store.transaction():
            self._replica.tables.to_let_go.clear()
            self._replica.tables.set_retained(self._kept.encode())
        self._has_begun = True

    def _scan_from_the_start(self, end: float = math.inf) -> None:
        self._scan_end = end if self._scan is None else math.inf
        self._scan = 0

    def kept_elsewhere(self, cursor: int) -> None:
        """Someone who keeps the whole collection has stored all that arrived here before."""
        cursor = min(cursor, self._replica.tables.next_arrival())
        if cursor > self._elsewhere:
            self._elsewhere = cursor
            # Only what this node wrote waits, so nothing behind the cursor is new.
            self._scan_from_the_start(cursor)

    def superseded(self, writes: Collection[tuple[bytes, int]]) -> None:
        """Writes to documents, by tag and stamp, do not contribute to them any more.  In the transaction of that."""
        touches = self._replica.tables.touches
        found: list[int] = []
        for tag, hlc in writes:
            if hlc <= self._kept.horizon:
                page = touches.page(tag, Touch(hlc, -1), _SAME_TIME_MAX)
                found += [touch.arrival for touch in page if touch.hlc == hlc]
        self.look_again(found)

    def settled(self) -> None:
        """A document is not in conflict any more: payloads may have waited for that."""
        self._scan_from_the_start()

    def look_again(self, arrivals: Iterable[int]) -> None:
        """Payloads may have to be dropped that were passed already.  In the transaction that is the reason."""
        passed = [arrival for arrival in arrivals if arrival < self._kept.new]
        if not self.is_on or not passed:
            return
        self._replica.tables.to_let_go.add(passed)
        self._fresh.update(dict.fromkeys(passed))
        if len(self._fresh) > _FRESH_MAX:
            self._fresh.clear()
            self._scan_from_the_start()

    # Looking

    def step(self, now_ms: int) -> bool:
        """Do some milliseconds of it; whether there was something to do.  StoreError: the disk."""
        if not self._has_begun:
            self._write_beginning()
        if not self.is_on:
            return False
        horizon = self._horizon(now_ms)
        if horizon + (self._replica.limits.clock_set_back_ms_min << COUNTER_BITS) < self._kept.horizon:
            # The clock was set back.  What counted as too old before is young now, and has to be met again.
            self._begin_anew(self.retention)
            self._write_beginning()
        kept = replace(self._kept, horizon=max(horizon, self._kept.horizon), elsewhere=self._elsewhere)
        if arrivals := self._queued():
            self._look(kept, self._entries(arrivals), arrivals)
            return True
        limit = self._replica.tables.next_arrival() - self.retention.entries
        if kept.new < limit:
            self._pass_new(kept, limit)
            return True
        if kept.old < kept.new and self._pass_old(kept):
            return True
        if kept.elsewhere != self._kept.elsewhere:
            self._commit(kept)
        return False

    def _horizon(self, now_ms: int) -> int:
        """The greatest stamp that is too old."""
        if not self.retention.seconds:
            return HLC_MAX
        return max(0, (now_ms - int(self.retention.seconds * 1000) << COUNTER_BITS) - 1)

    def _queued(self) -> list[int]:
        """The next of the queue to look at."""
        if self._fresh:
            chosen = list(self._fresh)[:_PAGE]
            for arrival in chosen:
                del self._fresh[arrival]
            return chosen
        if self._scan is None:
            return []
        found = self._replica.tables.to_let_go.page(self._scan, _PAGE)
        if not found or found[0] >= self._scan_end:
            self._scan = None
            return []
        self._scan = found[-1]
        return found

    def _pass_new(self, kept: _Kept, limit: int) -> None:
        rows, after = self._page(kept.new, limit)
        aged = [row for row in rows if row.hlc <= kept.horizon]
        if kept.old == kept.new and len(aged) == len(rows):
            kept.old = after  # they need not be looked at again for their age
        kept.new = after
        self._look(kept, aged)

    def _pass_old(self, kept: _Kept) -> bool:
        """Pass over the next entries that have become too old; whether there are any."""
        if kept.horizon < self._next_hlc:
            return False
        rows, after = self._page(kept.old, kept.new)
        aged = list(takewhile(lambda row: row.hlc <= kept.horizon, rows))
        self._next_hlc = rows[len(aged)].hlc if len(aged) < len(rows) else 0
        if rows and not aged:
            return False
        kept.old = after if len(aged) == len(rows) else aged[-1].arrival + 1
        self._look(kept, aged)
        return True

    def _page(self, arrival: int, end: int) -> tuple[list[EntryRow], int]:
        """Some entries from an arrival on and below another, and the arrival to go on from."""
        try:
            rows = self._replica.tables.entries_from(arrival, min(_PAGE, end - arrival))
        except DamagedError:
            return [], arrival + 1  # if it is ever written anew, it is looked at again
        return rows, rows[-1].arrival + 1 if rows else end

    def _entries(self, arrivals: Iterable[int]) -> list[EntryRow]:
        rows = []
        for arrival in arrivals:
            with suppress(DamagedError):
                if (row := self._replica.tables.entry(arrival)) is not None:
                    rows.append(row)
        return rows

    def _look(self, kept: _Kept, rows: Iterable[EntryRow], queued: Collection[int] = ()) -> None:
        """Drop what is superseded of entries that are too old, or queue what may not be dropped yet; and commit."""
        present = [row for row in rows if row.payload is not None]
        needed = contributing(self._replica, present)
        superseded = [row for row in present if row.arrival not in needed]
        contested = self._contested(superseded)
        goes: list[EntryRow] = []
        waits: set[int] = set()
        for row in superseded:
            if row.arrival in contested or self._is_held_here_alone(row, kept.elsewhere):
                waits.add(row.arrival)
            else:
                goes.append(row)
        kept.dropped += len(goes)
        self._commit(kept, goes=goes, queue=waits, unqueue=set(queued) - waits)

    def _contested(self, rows: Iterable[EntryRow]) -> set[int]:
        """Those that touch a document in conflict: what its sides say of a field may stand in any of its writes."""
        touched = {row.arrival: touched_documents(row.payload or b"") for row in rows}
        documents = self._replica.tables.documents(list({id for ids in touched.values() for id in ids}))
        return {arrival for arrival, ids in touched.items() if any(documents[id].conflict for id in ids)}

    def _is_held_here_alone(self, row: EntryRow, elsewhere: int) -> bool:
        return row.arrival >= elsewhere and self._replica.branches[row.branch].log.author == self._replica.author

    def _commit(
        self,
        kept: _Kept,
        *,
        goes: Sequence[EntryRow] = (),
        queue: Collection[int] = (),
        unqueue: Collection[int] = (),
    ) -> None:
        tables = self._replica.tables
        with self._replica.store.transaction():
            tables.to_let_go.add(queue)
            tables.to_let_go.remove(unqueue)
            kept.dropped_bytes += self._replica.payloads.let_go(goes)
            tables.set_retained(kept.encode())
        self._kept = kept
