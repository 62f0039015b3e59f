"""Payloads that no document needs any more: which they are, marking those that peers name, and where they stand.

What contributes is said in `meshsync.store.contributing`; a mark is part of what stands for a payload that is not here
(`meshsync.core.bare`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING

from meshsync.core import cbor
from meshsync.core.anchor import Anchor, Place
from meshsync.core.bare import (
    SUPERSEDED,
    bare_of,
    described,
    described_by,
    is_lacking,
    is_marked,
    mark_of,
    tags_of,
    with_mark,
)
from meshsync.core.entry import touched_documents, touched_tags
from meshsync.core.history import History
from meshsync.core.holding import StoredEntry
from meshsync.core.limits import INT_MAX
from meshsync.errors import DamagedError
from meshsync.ids import EndpointId, LogId, LogPlace
from meshsync.store.applied import Applied
from meshsync.store.contributing import contributing
from meshsync.store.doubtful import Doubtful
from meshsync.store.past import Past
from meshsync.store.rows import DocumentRow, EntryRow
from meshsync.store.sides import read_sides
from meshsync.store.wholeness import touches_of

if TYPE_CHECKING:
    from meshsync.store.replica import Replica

_SIDES_MAX = 256
"""Documents in conflict that are remembered: a batch of entries may ask for one many times."""
_EARLIER = object()
"""The words that were in doubt when an earlier process ended."""


class Superseded:
    """The superseded payloads of one replica.  Implements `meshsync.core.holding.Superseding`."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.starts: dict[EndpointId, int] = {}
        self._sides: dict[str, tuple[DocumentRow, set[Place] | None]] = {}
        """Of documents in conflict that stood so: the writes that their sides are made of."""
        self._doubts: dict[object, int] = {}
        """By whose word: from which arrival on marks are in doubt."""
        self.said = 0
        """How often somebody said so."""
        self._doubted: int | None = None
        """The least of them, as the disk has it, or one below."""
        self._by_document = Doubtful(replica)
        if (stored := replica.store.meta(self._key)) is not None:
            self._doubted = self._doubts[_EARLIER] = cbor.decode_trusted(stored)

    def among(self, entries: Sequence[StoredEntry]) -> set[int]:
        """The arrivals of those of some entries that are superseded here, and that no side of a conflict is made of.

        So whoever fetches only the latest can name the same losers.
        """
        superseded = {entry.arrival for entry in entries} - contributing(self._replica, entries)
        tables = self._replica.tables
        # Where documents keep what their sides say, all of it contributes.
        if not superseded or self._replica.policy.keeps_all or not tables.document_rows("", 1, contested=True):
            return superseded
        touched = {
            entry.arrival: (entry.place, touched_documents(entry.payload))
            for entry in entries
            if entry.arrival in superseded and entry.payload is not None
        }
        documents = tables.documents(list({id for _, ids in touched.values() for id in ids}))
        sides = {id: self._sides_of(row) for id, row in documents.items() if row.conflict}
        return superseded - {
            arrival
            for arrival, (place, ids) in touched.items()
            if any(places is None or place in places for places in [sides.get(id, set()) for id in ids])
        }

    def _sides_of(self, row: DocumentRow) -> set[Place] | None:
        """The writes that the sides of a document in conflict are made of; None where one cannot be read."""
        known = self._sides.get(row.id)
        if known is None or known[0] != row:
            places: set[Place] | None = None
            with suppress(DamagedError):
                sides, _ = read_sides(Past(self._replica), row, self._replica.merger.state(row).frontier)
                places = {place for side in sides for place in side.places()}
            if len(self._sides) >= _SIDES_MAX:
                self._sides.clear()
            known = self._sides[row.id] = row, places
        return known[1]

    def not_durable(self, entries: Sequence[StoredEntry]) -> set[int]:
        """The arrivals of those of some entries that may be superseded by what would not survive a power cut."""
        tables, durable_next = self._replica.tables, self._replica.durable_next
        if tables.next_arrival() <= durable_next:
            return set()
        touched = [() if entry.payload is None else touched_documents(entry.payload) for entry in entries]
        documents = tables.documents(list(dict.fromkeys(chain.from_iterable(touched))))
        fresh = {id for id, row in documents.items() if row.arrival >= durable_next}
        return {entry.arrival for entry, ids in zip(entries, touched, strict=True) if not fresh.isdisjoint(ids)}

    def without(self, entries: Sequence[EntryRow], arrivals: Collection[int]) -> list[EntryRow]:
        """Entries as they go out: without the payloads of these, which are superseded."""
        return [
            row
            if row.payload is None or row.arrival not in arrivals
            else EntryRow(*row[:7], None, self._passed(row.payload), row.seal)
            for row in entries
        ]

    def _passed(self, payload: bytes) -> bytes:
        return with_mark(described(payload, touched_tags(self._replica.id, payload)), SUPERSEDED)

    # Marking

    def told(self, log: LogId, seq: int, id: bytes) -> Applied | None:
        """A peer says that the payload of the entry whose id begins so is superseded; None where it is not lacking."""
        rows = list(self._lacking(self._replica.find(log, seq, id)))
        if not rows:
            return None
        with self._replica.change():
            return Applied(filled=self._mark(rows))

    def mark(self, anchors: Iterable[Anchor]) -> list[int]:
        """Mark entries, in a `Replica.change`, of which a peer says that their payloads are superseded; the arrivals of
        those that lacked them.

        A lie keeps a payload away that the same peer could also have kept back by silence, but for one difference:
        while this node wants the latest only, it does not ask others for it once it has all that the peer has.  No
        header tells a lie from the truth: it says that a later write touches the same documents, not which fields that
        sets.  Only the latest write of all is surely no such one, and whoever may write can write once more.
        """
        return self._mark(list(self._lacking(anchors)))

    def _mark(self, rows: Sequence[EntryRow]) -> list[int]:
        tables, touches = self._replica.tables, touches_of(rows)
        if rows:
            tables.touches.let_go(touches)
            for row in rows:
                tables.rewrite_entry(row._replace(bare=with_mark(row.bare or b"", SUPERSEDED)))
            self._by_document.marked(rows)
            self._replica.part_changes.superseded([tag for tag, _, _ in touches])
            self._replica.needs_none(rows)
        return [row.arrival for row in rows]

    def _lacking(self, anchors: Iterable[Anchor]) -> Iterator[EntryRow]:
        """Of entries those that lack their payloads, as far as they can be read."""
        for anchor in anchors:
            with suppress(DamagedError):
                head = self._replica.tables.entry_at(anchor.branch, anchor.seq)
                row = None if head is None else self._replica.tables.entry(head.arrival)
                if row is not None and is_lacking(row.bare):
                    yield row

    # Marks in doubt; see meshsync.core.doubts

    @property
    def _key(self) -> str:
        return f"doubted:{self._replica.id}"

    def doubt(self, word: object, arrival: int) -> None:
        """Somebody calls payloads superseded from an arrival on, and has yet to send what supersedes them."""
        self.said += 1
        self._doubts[word] = min(arrival, self._doubts.get(word, arrival))
        if self._doubted is None or arrival < self._doubted:
            self._keep(arrival)

    def trust(self, words: Collection[object]) -> bool:
        """What was in doubt by these words is not any more; whether less is in doubt now."""
        before = self._first
        for word in words:
            self._doubts.pop(word, None)
        if not self._doubts and self._doubted is not None:
            self._keep(None)
            self._by_document.forget()
        if self._first == before:
            return False
        self.look_again()
        return True

    def look_again(self) -> None:
        """What holds documents back from the part may be less than before."""
        if self._replica.interest is not None:
            self._replica.interest.look_again()

    def rolled_back(self) -> None:
        """Entries that were about to be stored, or marked, were not."""
        self._by_document.forget()

    @property
    def _first(self) -> int | None:
        return min(self._doubts.values(), default=None)

    @property
    def in_doubt(self) -> int | None:
        """From which arrival on marks are in doubt; None where none are.

        Who wants the whole history asks everybody for everything.
        """
        return None if self._replica.history is History.FULL else self._first

    def entries_in_doubt(self, tag: bytes, hlc: int = 0) -> Iterator[EntryRow]:
        """The entries with this tag, from one time on, that have marks in doubt: at least one where there are any."""
        first = self.in_doubt
        return iter(()) if first is None else self._by_document.entries(tag, first, hlc)

    def _keep(self, arrival: int | None) -> None:
        with self._replica.store.transaction():
            self._replica.store.set_meta(self._key, None if arrival is None else cbor.encode(arrival))
            if arrival is None:
                self._replica.part_changes.trusted()
        self._doubted = arrival

    def without_doubts(self, entries: Sequence[EntryRow]) -> Sequence[EntryRow]:
        """Entries as others may be told of them: what is in doubt is lacking."""
        if not self._doubts:
            return entries
        first = min(self._doubts.values())
        return [self._doubtful(row) if row.arrival >= first and row.bare is not None else row for row in entries]

    def _doubtful(self, row: EntryRow) -> EntryRow:
        bare = row.bare or b""
        return row._replace(bare=bare_of(described_by(bare))) if mark_of(bare) == SUPERSEDED else row

    def words(self) -> set[object]:
        """By whose words something is in doubt."""
        return set(self._doubts)

    def doubted(self, but: object) -> int | None:
        """From which arrival on something is in doubt by other words than this; None where nothing is."""
        if self.in_doubt is None:
            return None
        return min((arrival for word, arrival in self._doubts.items() if word is not but), default=None)

    def said_from(self, arrival: int, limit: int) -> tuple[list[LogPlace], int]:
        """Where, among the next `limit` entries with marks from an arrival on, those stand that a peer called
        superseded; and where to go on.
        """
        rows = self._replica.tables.marked_entries(arrival, limit)
        said = [row for row in rows if mark_of(row.bare or b"") == SUPERSEDED]
        places = [(self._replica.branches[row.branch].log, row.seq) for row in said]
        return places, rows[-1].arrival + 1 if rows else self._replica.tables.next_arrival()

    # The past, for who wants it all the same

    @property
    def count(self) -> int:
        """How many superseded payloads are not here."""
        return self._replica.tables.marked()

    @property
    def is_wanted(self) -> bool:
        """Whether superseded payloads are not here and are wanted: not by a node that lets them go itself."""
        replica = self._replica
        return self.count > 0 and replica.history is History.FULL and replica.retaining.retention.keeps_all

    def places_from(
        self, arrival: int, limit: int, end: int = INT_MAX, tags: Collection[bytes] | None = None
    ) -> tuple[list[LogPlace], int]:
        """Where the wanted ones stand among the next `limit` from an arrival number on, and where to go on.

        `tags`: of these documents only.
        """
        rows = [row for row in self._replica.tables.marked_entries(arrival, limit) if row.arrival < end]
        after = rows[-1].arrival + 1 if rows else min(end, self._replica.tables.next_arrival())
        return self._places(
            rows if tags is None else [row for row in rows if any(tag in tags for tag in tags_of(row.bare or b""))]
        ), after

    def places_of(self, arrivals: Iterable[int]) -> list[LogPlace]:
        """Where the wanted ones stand among some entries."""
        return self._places(row for row in self._rows(arrivals) if is_marked(row.bare))

    def _places(self, rows: Iterable[EntryRow]) -> list[LogPlace]:
        """Of a part, the past of what is in the view."""
        branches, interest = self._replica.branches, self._replica.interest
        return [
            (branches[row.branch].log, row.seq)
            for row in rows
            if interest is None or interest.has_any(tags_of(row.bare or b""))
        ]

    def _rows(self, arrivals: Iterable[int]) -> Iterator[EntryRow]:
        for arrival in arrivals:
            with suppress(DamagedError):
                row = self._replica.tables.entry(arrival)
                if row is not None:
                    yield row
