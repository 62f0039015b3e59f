"""Keeps the documents in step with the entries: which operation a document shows, and what was concurrent.

A document whose latest writer had seen everything before it, and put or deleted it, needs no copy: its row
points at the operation.  Only patched and contested documents have a merged state (see DocumentRow).

Damage does not keep entries from being stored: where what was there before cannot be read, the document is lost
(LOST_STATE) until it is made anew from its entries.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshsync.core import cbor
from meshsync.core.document import DocumentState, Stamp
from meshsync.core.entry import PATCH, PUT
from meshsync.errors import DamagedError
from meshsync.ids import EntryId
from meshsync.store.ancestry import Place
from meshsync.store.base import LOST_STATE, DocumentRow, EntryRow

if TYPE_CHECKING:
    from meshsync.store.replica import Replica


@dataclass(frozen=True, slots=True)
class MergedDocument:
    """A document as it stands, and the write that contributed last."""

    body: dict[str, Any] | None
    stamp: Stamp
    conflict: bool

    @property
    def entry(self) -> EntryId:
        """The entry of that write."""
        return EntryId(self.stamp.entry)


class DocumentMerger:
    """Merges operations into the document rows of one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._recent: dict[int, EntryRow] = {}
        """The entries of the batch at hand, by arrival: asked for again when a batch writes a document twice."""

    def merge(self, rows: Sequence[EntryRow], operations: Sequence[Any], only: Collection[str] | None = None) -> int:
        """Merge the operations of newly stored entries; returns how many documents came into conflict.

        `only`: leave all other documents alone.
        """
        tables = self._replica.tables
        ids = [operation[1] for ops in operations if ops is not None for operation in ops]
        known = tables.documents(ids)
        changed: dict[str, DocumentRow] = {}
        live_change = conflicts = 0
        self._recent = {}
        for row, ops in zip(rows, operations, strict=True):
            if ops is None:
                continue
            self._recent[row.arrival] = row
            for number, operation in enumerate(ops):
                kind, id = operation[0], operation[1]
                if only is not None and id not in only:
                    continue
                before = changed.get(id) or known.get(id)
                if before is None and kind != PATCH:
                    after = DocumentRow(id, row.arrival, number, kind == PUT, False, None)
                else:
                    body = operation[2] if len(operation) == 3 else None
                    try:
                        after = self._merge_one(before, row, number, kind, id, body)
                    except DamagedError:
                        after = DocumentRow(id, row.arrival, number, True, False, LOST_STATE)
                    conflicts += after.conflict and not (before is not None and before.conflict)
                live_change += after.live - (before is not None and before.live)
                changed[id] = after
        if changed:
            tables.put_documents(list(changed.values()), live_change)
        self._recent = {}
        return conflicts

    def _merge_one(
        self, before: DocumentRow | None, row: EntryRow, number: int, kind: int, id: str, body: Any
    ) -> DocumentRow:
        here = Place(row.branch, row.seq, row.hlc)
        is_before = self._replica.ancestry.is_before
        frontier: list[int] = []
        state = DocumentState()
        if before is not None:
            if before.state == LOST_STATE:
                return before
            frontier = [before.arrival] if before.state is None else DocumentState.decode(before.state).frontier
            places = [(arrival, self._place(arrival)) for arrival in frontier]
            if row.arrival in frontier:
                return before  # it was here already, and is stored again
            frontier = [arrival for arrival, place in places if not is_before(place, here)]
            if not frontier and kind != PATCH:
                return DocumentRow(id, row.arrival, number, kind == PUT, False, None)
            if before.state is None and any(is_before(here, place) for _, place in places):
                return before  # a payload that came late, and what the document shows had seen it
            if not any(is_before(here, place) for _, place in places):
                frontier.append(row.arrival)
            state = self.state_of(before)
        else:
            frontier = [row.arrival]
        state.apply(kind, body, self._stamp(row))
        state.frontier = frontier
        live = state.visible() is not None
        return DocumentRow(id, row.arrival, number, live, len(frontier) > 1, state.encode())

    def state_of(self, row: DocumentRow) -> DocumentState:
        """The merged state behind a row, also where the row only points at an operation."""
        if row.state is not None:
            return self._decoded(row.id, row.state)
        entry = self._entry(row.arrival)
        operation = cbor.decode_trusted(entry.payload or b"")[row.op]
        state = DocumentState(frontier=[row.arrival])
        state.apply(operation[0], operation[2] if len(operation) == 3 else None, self._stamp(entry))
        return state

    def read(self, row: DocumentRow, payload: bytes | None = None) -> MergedDocument:
        """The document of a row.  `payload`: of the row's entry, where the caller has it at hand."""
        if row.state is not None:
            state = self._decoded(row.id, row.state)
            return MergedDocument(state.visible(), state.last(), row.conflict)
        entry = self._entry(row.arrival)
        operation = cbor.decode_trusted(payload or entry.payload or b"")[row.op]
        return MergedDocument(operation[2] if operation[0] == PUT else None, self._stamp(entry), row.conflict)

    def body(self, row: DocumentRow, payload: bytes | None) -> dict[str, Any] | None:
        """Only the fields of a document: what a listing needs, without a look at the entry where `payload` is given."""
        if row.state is not None:
            return self._decoded(row.id, row.state).visible()
        operation = cbor.decode_trusted(payload or self._entry(row.arrival).payload or b"")[row.op]
        body: dict[str, Any] | None = operation[2] if operation[0] == PUT else None
        return body

    def _decoded(self, id: str, state: bytes) -> DocumentState:
        if state == LOST_STATE:
            error = DamagedError(self._replica.name, document=id)
            self._replica.damage.note(error)
            raise error
        return DocumentState.decode(state)

    def _entry(self, arrival: int) -> EntryRow:
        row = self._recent.get(arrival) or self._replica.tables.entry(arrival)
        if row is None:
            raise LookupError(f"no entry with arrival number {arrival}")
        return row

    def _place(self, arrival: int) -> Place:
        try:
            entry = self._entry(arrival)
        except DamagedError as error:
            if not error.has_head:
                raise
            entry = self._replica.tables.inspect_entries(arrival, 1)[0].row
        return Place(entry.branch, entry.seq, entry.hlc)

    def _stamp(self, row: EntryRow) -> Stamp:
        return Stamp(row.hlc, bytes(self._replica.branches[row.branch].log.author), row.id)
