"""Dropping payloads that are not wanted, or not any more, where this node has a part of the collection.

The payload of an entry goes, and its header stays, where none of the documents that it touches matches here or was
named by a peer.  The entry is then as if it had come without its payload, so nothing has to be marked: it is asked for
again when one of its documents is wanted.  The row of a document is made anew of the payloads that are left; where
none are it becomes a *husk*, which only says who wrote the document last.  So nobody can fill the disk of a node that
wants little.

An entry is kept, too, while payloads of a document that it touches are on their way.

Never dropped is what this node wrote, with all that the documents that it wrote to are made of; and what a peer that
has all of the collection has not confirmed.  All is found and done in small steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from meshsync.core.bare import described
from meshsync.core.entry import document_tag, touched_documents, touched_tags
from meshsync.errors import DamagedError
from meshsync.store.applied import Dropped
from meshsync.store.husks import husk_of, is_husk
from meshsync.store.rows import DocumentRow, EntryRow, Touch

if TYPE_CHECKING:
    from meshsync.store.replica import Replica

_SLICE = 16
"""Documents that are looked at in one step, and"""
_ROWS = 256
"""rows, where all are gone through."""
_ENTRIES_MAX = 1024
"""Payloads of one document that go in one step."""
_PAGE = 64


class Unwanted:
    """What of one replica is to be dropped."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._after: str | None = None
        """Behind this id documents are yet to be looked through; None: they were, as far as there is anything."""
        self._noted: dict[str, None] = {}
        self._noted_at: float | None = None
        """Documents that are to be looked at in a while; since about when."""
        self._begins_anew = False
        """In a while all documents are to be looked through."""
        self._todo: dict[str, None] = {}
        self._round = 0
        """How often what had rested was taken up."""
        self._awaited: dict[str, tuple[int, int]] = {}
        """Of documents of which payloads are on their way: how many these were, and in which round."""
        self._waiting: dict[str, None] = {}
        """Documents of which something goes once it is known to be elsewhere."""
        self._elsewhere = 1
        """A peer that has everything has confirmed all that arrived here before."""
        self.dropped = Dropped()
        """Since the start."""

    def begin(self) -> None:
        """It has just become known what is wanted: look through all documents."""
        self._begins_anew = True

    def note(self, id: str) -> None:
        """A document is here and not wanted."""
        self._noted[id] = None

    def kept_elsewhere(self, cursor: int) -> None:
        """A peer that has everything has confirmed all that arrived here before."""
        if cursor > self._elsewhere:
            self._elsewhere = cursor
            if len(self._waiting) >= self._replica.limits.named_documents_max:
                self.begin()  # not all that wait were remembered
            self._todo.update(self._waiting)
            self._waiting.clear()

    @property
    def is_waiting(self) -> bool:
        """Whether something would go if it were known to be elsewhere."""
        return bool(self._waiting)

    @property
    def waiting(self) -> int:
        """Of how many documents something would go if it were known to be elsewhere."""
        return len(self._waiting)

    def due(self, now: float) -> float | None:
        """From when on there is something to do, in the seconds of a monotonic clock; None: nothing as things stand.

        What is not wanted rests for a while.  It may be wanted again; and of nodes that know a document in part, each
        could have the others fetch and drop it in turns.
        """
        interest = self._replica.interest
        if interest is None or not interest.is_settled:
            return None
        if self._todo or self._after is not None:
            return now
        if not self._noted and not self._begins_anew:
            return None
        if self._noted_at is None:
            self._noted_at = now
        return self._noted_at + self._replica.limits.unwanted_seconds

    def step(self, now: float) -> Dropped:
        """Do some milliseconds of it; what that dropped.  StoreError: the disk, and nothing is forgotten."""
        interest, dropped, due = self._replica.interest, Dropped(), self.due(now)
        if interest is None or due is None or due > now:
            return dropped
        if not self._todo and self._after is None:
            self._todo, self._noted, self._noted_at = self._noted, {}, None
            self._after, self._begins_anew = "" if self._begins_anew else None, False
            self._round += 1
        if not self._todo and self._after is not None:
            rows = self._replica.tables.document_rows(self._after, _ROWS)
            self._todo.update((row.id, None) for row in rows if row.id not in interest and not is_husk(row.state))
            self._after = rows[-1].id if len(rows) == _ROWS else None
        for id in list(islice(self._todo, _SLICE)):
            with suppress(DamagedError):
                dropped += self._look(id)
                if dropped.entries >= _ENTRIES_MAX:
                    break
            del self._todo[id]
        self.dropped += dropped
        return dropped

    # One document

    def _look(self, id: str) -> Dropped:
        """Drop what is not wanted of the entries that touch a document."""
        if self._is_kept(id):
            return Dropped()
        goes: list[EntryRow] = []
        touched: dict[str, bool] = {id: False}
        for row, ids in self._entries(id):
            for other in ids:
                if other not in touched:
                    touched[other] = self._is_kept(other)
            if any(touched[other] for other in ids):
                continue
            if row.arrival >= self._elsewhere:
                if len(self._waiting) < self._replica.limits.named_documents_max:
                    self._waiting[id] = None
            else:
                goes.append(row)
                if len(goes) == _ENTRIES_MAX:
                    break
        return self._drop(goes) if goes else Dropped()

    def _is_kept(self, id: str) -> bool:
        """Whether a document is wanted, or may be in a moment, or this node has written to it."""
        replica, interest = self._replica, self._replica.interest
        assert interest is not None
        row = replica.tables.documents([id]).get(id)
        if interest.wants(id, document_tag(replica.id, id)):
            return True
        if row is not None and self._may_return(row):
            self.note(id)
            return True
        return self._is_awaited(id) or any(
            replica.branches[row.branch].log.author == replica.author for row, _ in self._entries(id)
        )

    def _is_awaited(self, id: str) -> bool:
        """Whether payloads of a document are on their way, as far as fewer are lacking than when it was last looked at.

        By an entry that touches two documents the payloads of one bring up the other, and by those of the other the
        first comes again, whole, if it went in the meantime.  What nobody has is not waited for.
        """
        replica, interest = self._replica, self._replica.interest
        assert interest is not None
        before = self._awaited.get(id)
        if before is not None and before[1] == self._round:
            return True
        count = interest.awaited(document_tag(replica.id, id))
        if not count or (before is not None and count >= before[0]):
            self._awaited.pop(id, None)
            return False
        self._awaited[id] = count, self._round
        self.note(id)
        return True

    def _may_return(self, row: DocumentRow) -> bool:
        """Whether a clock that goes wrong may have made a document expire."""
        patience_ms, expiries = self._replica.limits.clock_ahead_ms_max, self._replica.expiries
        return expiries.is_past(row.expires_ms) and expiries.seen_ms < (row.expires_ms or 0) + patience_ms

    def _entries(self, id: str) -> Iterator[tuple[EntryRow, tuple[str, ...]]]:
        """The entries that touch a document and have their payloads, and all that each touches.  DamagedError."""
        tables = self._replica.tables
        tag, row = document_tag(self._replica.id, id), tables.documents([id]).get(id)
        pointed = row.arrival if row is not None and row.state is None else 0
        after, arrivals = None, [pointed] if pointed else []
        while True:
            for arrival in arrivals:
                entry = tables.entry(arrival)
                if entry is not None and entry.payload is not None:
                    ids = tuple(touched_documents(entry.payload))
                    if id in ids:
                        yield entry, ids
            page: list[Touch] = tables.touches.page(tag, after, _PAGE)
            if not page:
                return
            after, arrivals = page[-1], [touch.arrival for touch in page if touch.arrival != pointed]

    # Dropping

    def _drop(self, goes: list[EntryRow]) -> Dropped:
        """Drop payloads, and make anew the documents that they touch, in one transaction."""
        replica, tables, size = self._replica, self._replica.tables, 0
        going = {row.arrival for row in goes}
        ids = list(dict.fromkeys(id for row in goes for id in touched_documents(row.payload or b"")))
        before = tables.documents(ids)
        after: list[DocumentRow] = []
        touches: list[tuple[bytes, int, int]] = []
        for id, document in before.items():
            stays = [entry for entry, _ in self._entries(id) if entry.arrival not in going]
            stays.sort(key=attrgetter("arrival"))
            touches += [(document_tag(replica.id, id), entry.hlc, entry.arrival) for entry in stays]
            made = replica.merger.made_of(id, stays)
            after.append(made or husk_of(document, replica.merger.stamp(document)))
        bodies = [replica.merger.body(row, None) if row.live else None for row in after]
        with replica.store.transaction():
            replica.part_changes.follow(after, bodies, before, late=True, dropped=True)
            replica.indexes.follow(after, bodies)
            tables.put_documents(after, sum(row.live for row in after) - sum(row.live for row in before.values()))
            for row in goes:
                assert row.payload is not None
                tags = touched_tags(replica.id, row.payload)
                touches += [(tag, row.hlc, row.arrival) for tag in tags]
                tables.rewrite_entry(row._replace(payload=None, bare=described(row.payload, tags)))
                size += len(row.payload)
            tables.touches.add(touches)
        return Dropped(len(goes), size)
