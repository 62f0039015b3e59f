"""Which documents of one replica have expired, as far as its rows say so: they follow the time in steps.

A document is shown as long as the present is before the time at which it expires.  The present is what the clock of
this node says, or the latest stamp of the collection where that is later: whoever wrote that knew of a later time.
The rows are those of a moment in the past, `passed_ms`, which is kept beside them: whatever expires up to then is not
live, and whatever expires later is.  To go on from there takes one look into an index, and touches only what expires
in between.  When a clock is set back, so is that moment, and what expired too early is shown again.

Many documents that expire go in slices, and the rows are behind that moment until the last one went.  A document that
is due is shown by nobody from the first slice on, whatever its row says yet (`Expiries.shows`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from meshsync.core.entry import PATCH, PUT, Operation
from meshsync.core.hlc import milliseconds
from meshsync.core.limits import EXPIRES_MS_MAX
from meshsync.store.rows import DocumentRow, Moment

if TYPE_CHECKING:
    from meshsync.store.replica import Replica

_END = Moment(EXPIRES_MS_MAX + 1, "")


def _behind(ms: int) -> Moment:
    """Before whatever expires later than at this millisecond."""
    return Moment(ms + 1, "")


class Expiries:
    """Follows the time for one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._key = f"expired:{replica.id}"
        kept = replica.store.meta(self._key)
        self.passed_ms = 0 if kept is None else int(kept)
        """The rows are those of this moment, in milliseconds since the Unix epoch."""
        self.seen_ms = self.passed_ms
        """The present when it was looked at last, which is later where nothing expired since."""
        self._todo: tuple[Moment, Moment] | None = None
        """What is left of a step on."""
        self.comes_earlier: Callable[[], None] = _nothing
        """Told when something expires earlier than `next_ms` and the clock say."""
        self.next_ms: int | None = None
        """Nothing expires before this moment; None: nothing does at all."""
        self._look()

    @property
    def passed(self) -> Moment:
        """Whatever stands before this has expired."""
        return _behind(self.passed_ms)

    @property
    def is_any(self) -> bool:
        """Whether any document has a time at which it expires, or expired."""
        return bool(self._replica.tables.expiring(Moment(0, ""), _END, 1))

    def is_past(self, expires_ms: int | None) -> bool:
        """Whether a document that expires then is not live in its row."""
        return expires_ms is not None and expires_ms <= self.passed_ms

    def shows(self, row: DocumentRow) -> bool:
        """Whether a document is shown, for whoever reads its row."""
        return row.live and not self.is_past(row.expires_ms)

    @property
    def is_behind(self) -> bool:
        """Whether documents that expired are live in their rows yet."""
        return self._todo is not None and self._todo[1] <= self.passed

    def due(self) -> int:
        """How many documents are live in their rows that expired.  Counts them."""
        return self._replica.tables.expiring_live(*self._todo) if self._todo is not None and self.is_behind else 0

    def due_ids(self) -> Iterator[str]:
        """Which documents they are, with others that are not live."""
        start, end = self._todo if self._todo is not None and self.is_behind else (_END, _END)
        while moments := self._replica.tables.expiring(start, end, self._replica.limits.expiring_slice_documents):
            yield from [moment.id for moment in moments]
            start = moments[-1].next()

    def present_ms(self, now_ms: int) -> int:
        """The present, for a node whose clock says `now_ms`."""
        return max(now_ms, milliseconds(self._replica.latest))

    def has_expired(self, expires_ms: int | None, now_ms: int) -> bool:
        """Whether a document that expires then is not to be shown any more, whatever its row says yet."""
        return expires_ms is not None and (self.is_past(expires_ms) or expires_ms <= self.present_ms(now_ms))

    def as_meant(self, operations: Sequence[Operation], now_ms: int) -> Sequence[Operation]:
        """Operations as an entry has to say them that is written now, so that all nodes agree on what they mean.

        A patch of a document that has expired to this node is a put: nothing of what was comes back.
        """
        if self.next_ms is None and not self.passed_ms:
            return operations  # nothing ever expired, nor will
        patched = [operation.id for operation in operations if operation.kind == PATCH]
        rows = self._replica.tables.documents(patched).values()
        expired = {row.id for row in rows if self.has_expired(row.expires_ms, now_ms)}
        if not expired:
            return operations
        return [_as_put(one) if one.kind == PATCH and one.id in expired else one for one in operations]

    def note(self, expires_ms: int) -> None:
        """A document that expires then is stored."""
        if expires_ms > self.passed_ms and (self.next_ms is None or expires_ms < self.next_ms):
            self.next_ms = expires_ms
            self.comes_earlier()

    def stamped(self) -> None:
        """Entries were stored, and their stamps may tell of a later time."""
        if self.next_ms is not None and self.next_ms <= milliseconds(self._replica.latest):
            self.comes_earlier()

    def step(self, now_ms: int) -> bool:
        """Let the rows follow the time, some milliseconds of work at once; False: there was nothing to do.

        StoreError: the disk; to be called again.
        """
        present, passed = self.present_ms(now_ms), self.passed_ms
        self.seen_ms = present
        if self._todo is not None:
            if self.is_behind and present > passed:
                self._todo, self.passed_ms = (self._todo[0], _behind(present)), present
        else:
            if self.next_ms is not None and self.next_ms <= present:
                self._todo = _behind(passed), _behind(present)
            elif passed - present > self._replica.limits.clock_set_back_ms_min:
                self._todo = _behind(present), _behind(passed)
            else:
                return False
            # From here on, whatever is merged goes by it.
            self.passed_ms = present
        start, end = self._todo
        store, tables = self._replica.store, self._replica.tables
        limit = self._replica.limits.expiring_slice_documents
        moments = tables.expiring(start, end, limit)
        is_last = len(moments) < limit
        with store.transaction():
            rows = self._replica.merger.follow_time([moment.id for moment in moments])
            if is_last:
                store.set_meta(self._key, b"%d" % self.passed_ms)
        if self._replica.interest is not None:
            self._replica.interest.turned(rows)
        self._todo = None if is_last else (moments[-1].next(), end)
        if is_last:
            self._look()
        return True

    def _look(self) -> None:
        found = self._replica.tables.expiring(self.passed, _END, 1)
        self.next_ms = found[0].expires_ms if found else None


def _as_put(patch: Operation) -> Operation:
    body = {name: value for name, value in (patch.body or {}).items() if value is not None}
    return Operation(PUT, patch.id, body, patch.expires_ms or None)


def _nothing() -> None:
    """Nobody asks."""
