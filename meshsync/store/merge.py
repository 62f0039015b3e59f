"""Keeps the documents in step with the entries: which operation a document shows, and what was concurrent.

A document whose latest writer had seen everything before it, and put or deleted it, needs no copy: its row
points at the operation.  Only patched and contested documents have a merged state (see DocumentRow).

Damage does not keep entries from being stored: where what was there before cannot be read, the document is lost
(LOST_STATE) until it is made anew from its entries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from meshsync.core import cbor
from meshsync.core.anchor import Place
from meshsync.core.bare import count_marked, is_marked
from meshsync.core.document import DocumentState, Stamp
from meshsync.core.entry import PATCH, PUT, Operation, document_tag, said_expiry
from meshsync.core.siblings import Mark, SiblingState
from meshsync.errors import DamagedError
from meshsync.store.drafts import Draft, MergedDocument, State
from meshsync.store.husks import is_husk, stamp_of
from meshsync.store.rows import LOST_STATE, DocumentPayload, DocumentRow, EntryRow
from meshsync.store.wholeness import touches_of

if TYPE_CHECKING:
    from meshsync.store.replica import Replica

FRONTIER_MAX = 256
"""Of so many writers that did not know of each other the latest are remembered."""


class DocumentMerger:
    """Merges operations into the document rows of one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.bare = 0
        """How many entries that lack their payloads were stored so far."""
        self.lacking: list[tuple[bytes, int, int]] = []
        """What those of the entries merged last touch that lack their payloads: (tag, hlc, arrival)."""
        self._touches: list[tuple[bytes, int, int]] = []
        self._left: set[tuple[bytes, int]] = set()
        """Of documents, and when they were written, the writes that do not contribute any more."""
        self._recent: dict[int, EntryRow] = {}
        """The entries of the batch at hand, by arrival: asked for again when a batch writes a document twice."""

    def merge(
        self,
        rows: Sequence[EntryRow],
        operations: Sequence[Any],
        only: Collection[str] | None = None,
        *,
        late: bool = False,
    ) -> int:
        """Merge the operations of newly stored entries; returns how many documents came into conflict.

        `only`: leave all other documents alone.  `late`: entries that build on these may be merged already.
        """
        tables = self._replica.tables
        ids = [operation[1] for ops in operations if ops is not None for operation in ops]
        known = tables.documents(ids)
        fresh: dict[str, DocumentRow] = {}
        """The most frequent case, kept cheap: documents that were never written before."""
        drafts: dict[str, Draft] = {}
        conflicts = 0
        self._touches = []
        self._left = set()
        self._recent = {}
        merge_one = self._merge_noting_what_left if self._replica.retaining.is_on else self._merge_one
        for row, ops in self._whole(rows, operations, late=late):
            self._recent[row.arrival] = row
            for number, operation in enumerate(ops):
                kind, id = operation[0], operation[1]
                if only is not None and id not in only:
                    continue
                draft = drafts.get(id)
                if draft is None:
                    before = known.get(id)
                    if before is None and kind != PATCH and id not in fresh:
                        expires_ms = operation[3] if len(operation) > 3 else None
                        live = kind == PUT and not (expires_ms is not None and self._has_passed(expires_ms))
                        fresh[id] = DocumentRow(id, row.arrival, number, live, False, None, expires_ms)
                        continue
                    draft = drafts[id] = Draft(before, fresh.pop(id, None))
                had_conflict = draft.conflict
                try:
                    merge_one(draft, row, number, operation, late=late)
                    if draft.expires_ms is not None:
                        draft.live = not self._has_passed(draft.expires_ms)
                except DamagedError:
                    draft.lose(row.arrival)
                if draft.has_state or draft.arrival != row.arrival:
                    self._note(id, row.hlc, row.arrival)
                conflicts += draft.conflict and not had_conflict
                if had_conflict and not draft.conflict:
                    self._replica.retaining.settled()
        changed = list(fresh.values())
        live_change = sum(one.live for one in changed)
        if drafts:
            live_change += sum(draft.live - draft.was_live for draft in drafts.values())
            changed += [draft.row(id) for id, draft in drafts.items()]
        if self._touches:
            tables.touches.add(self._touches)
        if changed:
            tables.put_documents(changed, live_change)
            indexes, followed = self._replica.indexes, self._replica.part_changes
            bodies = self._bodies_of(changed, rows, operations, drafts) if indexes.is_any or followed.is_kept else []
            indexes.follow(changed, bodies)
            followed.follow(changed, bodies, None if only is not None else known, late=late)
        self._replica.retaining.superseded(self._left)
        self._recent = {}
        return conflicts

    def made_of(self, id: str, entries: Iterable[EntryRow]) -> DocumentRow | None:
        """A document as these entries alone make it, which come by arrival; None where none of them touches it."""
        draft = Draft(None)
        self._touches = []
        for row in entries:
            for number, operation in enumerate(cbor.decode_trusted(row.payload or b"")):
                if operation[1] == id:
                    self._merge_one(draft, row, number, operation, late=False)
        draft.live &= not self._replica.expiries.is_past(draft.expires_ms)
        return draft.row(id) if draft.arrival else None

    def _bodies_of(
        self,
        changed: Sequence[DocumentRow],
        rows: Sequence[EntryRow],
        operations: Sequence[Any],
        drafts: Mapping[str, Draft],
    ) -> list[dict[str, Any] | None]:
        """The fields of documents that were just merged; None of one that is deleted, or lost."""
        by_arrival = {row.arrival: ops for row, ops in zip(rows, operations, strict=True)}
        bodies: list[dict[str, Any] | None] = []
        for row in changed:
            draft = drafts.get(row.id)
            if not row.live or row.state == LOST_STATE:
                bodies.append(None)
            elif draft is not None and draft.state is not None:
                bodies.append(draft.state.visible())
            elif row.state is None and (ops := by_arrival.get(row.arrival)) is not None:
                bodies.append(ops[row.op][2])
            else:
                bodies.append(self._sound_body(row))
        return bodies

    def _sound_body(self, row: DocumentRow) -> dict[str, Any] | None:
        """The fields of a document; None where they cannot be read."""
        with suppress(DamagedError):
            return self.body(row, None)
        return None

    def _merge_noting_what_left(self, draft: Draft, row: EntryRow, number: int, operation: Any, *, late: bool) -> None:
        before = self._contributing(draft)
        self._merge_one(draft, row, number, operation, late=late)
        if left := before - self._contributing(draft):
            tag = document_tag(self._replica.id, operation[1])
            self._left.update((tag, one.hlc) for one in left)

    def _contributing(self, draft: Draft) -> set[Stamp | Place]:
        """What names the writes that a document is made of (`meshsync.store.contributing`)."""
        if draft.is_lost or not draft.arrival:
            return set()
        if not draft.has_state:
            return {self._place(draft.arrival)}
        state = self._state(draft)
        return {*state.stamps(), *state.frontier}

    def _merge_one(self, draft: Draft, row: EntryRow, number: int, operation: Any, *, late: bool) -> None:
        kind = operation[0]
        if draft.is_lost:
            return
        here = row.place
        frontier: list[Place] = []
        is_seen = False
        if draft.arrival:
            if draft.has_state:
                before = self._state(draft).frontier
            else:
                before = [self._place(draft.arrival)]
                # The row is about to point elsewhere, or nowhere.
                self._note(operation[1], before[0].hlc, draft.arrival)
            if here in before:
                return  # it was here already, and is stored again
            frontier = self._replica.ancestry.unseen(here, before)
            if not frontier and kind != PATCH:
                draft.point_at(row.arrival, number, said_expiry(operation), exists=kind == PUT)
                return
            is_seen = late and any(self._replica.ancestry.is_before(here, place) for place in frontier)
            if is_seen and not draft.has_state:
                return  # what the document shows had seen it
        state, body = self._state(draft), operation[2] if len(operation) > 2 else None
        draft.arrival, draft.op, draft.state = row.arrival, number, state
        if isinstance(state, SiblingState):
            mark = Mark(self._stamp(row), here, kind)
            state.apply(mark, body, self._replica.ancestry.exactly_unseen, said_expiry(operation), late=late)
            draft.live, draft.conflict, draft.expires_ms = state.exists, state.is_contested, state.expires_ms
            return
        state.apply(kind, body, self._stamp(row), said_expiry(operation))
        if not is_seen:
            frontier.append(here)
        if len(frontier) > FRONTIER_MAX:
            # Whoever has seen the others wrote later than the earliest, whose fields are then below its clear stamp.
            frontier.remove(min(frontier, key=attrgetter("hlc")))
        state.frontier = frontier
        draft.live, draft.conflict, draft.expires_ms = state.exists is not None, len(frontier) > 1, state.expires_ms

    def _has_passed(self, expires_ms: int) -> bool:
        """Whether the time has passed at which a document expires that is about to be stored."""
        self._replica.expiries.note(expires_ms)
        return self._replica.expiries.is_past(expires_ms)

    def follow_time(self, ids: Sequence[str]) -> list[DocumentRow]:
        """Let documents be live or not, as the time wants it, in a transaction; returns the rows that changed."""
        is_past = self._replica.expiries.is_past
        before = self._replica.tables.documents(ids)
        changed = [
            row._replace(live=not row.live)
            for row in before.values()
            if row.expires_ms is not None and row.live == is_past(row.expires_ms)
        ]
        if changed:
            self._replica.tables.put_documents(changed, sum(1 if row.live else -1 for row in changed))
            if self._replica.indexes.is_any or self._replica.part_changes.is_kept:
                bodies = [self.body(row, None) if row.live else None for row in changed]
                self._replica.indexes.follow(changed, bodies)
                self._replica.part_changes.follow(changed, bodies, before, late=False)
        return changed

    def _whole(self, rows: Sequence[EntryRow], operations: Sequence[Any], *, late: bool) -> list[tuple[EntryRow, Any]]:
        """The entries with payloads; of the others it is noted which documents they touch."""
        lone = [row for row, ops in zip(rows, operations, strict=True) if ops is None]
        unsure: list[tuple[bytes, int, int]] = []
        if count_marked([row.bare for row in lone if row.bare is not None]):
            marked = touches_of([row for row in lone if is_marked(row.bare)])
            self._replica.tables.touches.let_go(marked)
            unsure = marked if self._replica.superseded.in_doubt is not None else []
            lone = [row for row in lone if not is_marked(row.bare)]
        self.bare += len(lone)
        self.lacking = touches_of(lone)
        if self.lacking or unsure:
            self._replica.part_changes.lacking([tag for tag, _, _ in (*self.lacking, *unsure)])
        if late:
            self._touches += self.lacking
        elif self.lacking:
            self._replica.tables.touches.add_lacking(self.lacking)
        return [(row, ops) for row, ops in zip(rows, operations, strict=True) if ops is not None]

    def _note(self, id: str, hlc: int, arrival: int) -> None:
        """Note that an entry touches a document (see DocumentTouches)."""
        self._touches.append((document_tag(self._replica.id, id), hlc, arrival))

    def new_state(self) -> State:
        """The state of a document that was never written."""
        policy = self._replica.policy
        return SiblingState(policy) if policy.keeps_all else DocumentState()

    def decode_state(self, state: bytes) -> State:
        """Read an encoded state."""
        if is_husk(state):
            return self.new_state()
        policy = self._replica.policy
        return SiblingState.decode(state, policy) if policy.keeps_all else DocumentState.decode(state)

    def state(self, row: DocumentRow) -> State:
        """The merged state of a stored document.  DamagedError: it is not known."""
        return self._state(Draft(row)) if row.state is None else self._decoded(row.id, row.state)

    def _state(self, draft: Draft) -> State:
        """The merged state of a document, also where its row only points at an operation."""
        if draft.state is None:
            if draft.encoded is not None:
                draft.state = self.decode_state(draft.encoded)
            elif not draft.arrival:
                draft.state = self.new_state()
            else:
                entry = self._entry(draft.arrival)
                return self._state_of(entry, cbor.decode_trusted(entry.payload or b"")[draft.op])
        return draft.state

    def _state_of(self, entry: EntryRow, item: Sequence[Any]) -> State:
        """The state of a document that one operation made, as its payload has it."""
        state, place, operation = self.new_state(), entry.place, Operation.of(item)
        kind, body, expires_ms = operation.kind, operation.body, operation.expires_ms
        if isinstance(state, SiblingState):
            mark = Mark(self._stamp(entry), place, kind)
            state.apply(mark, body, self._replica.ancestry.exactly_unseen, expires_ms)
        else:
            state.frontier.append(place)
            state.apply(kind, body, self._stamp(entry), expires_ms)
        return state

    def read(self, row: DocumentRow, payload: bytes | None = None) -> MergedDocument:
        """The document of a row.  `payload`: of the row's entry, where the caller has it at hand."""
        if row.state is not None:
            state = self._decoded(row.id, row.state)
            stamp = stamp_of(row.state) if is_husk(row.state) else state.last()
            return MergedDocument(state.visible(), stamp, row.conflict, row.expires_ms)
        entry = self._entry(row.arrival)
        operation = cbor.decode_trusted(payload or entry.payload or b"")[row.op]
        body = operation[2] if operation[0] == PUT else None
        return MergedDocument(body, self._stamp(entry), row.conflict, row.expires_ms)

    def stamp(self, row: DocumentRow) -> Stamp:
        """Of the write that contributed last.  DamagedError: it is not known."""
        if row.state is None:
            return self._stamp(self._entry(row.arrival))
        return stamp_of(row.state) if is_husk(row.state) else self._decoded(row.id, row.state).last()

    def body(self, row: DocumentRow, payload: bytes | None) -> dict[str, Any] | None:
        """Only the fields of a document: what a listing needs, without a look at the entry where `payload` is given."""
        if row.state is not None:
            return self._decoded(row.id, row.state).visible()
        operation = cbor.decode_trusted(payload or self._entry(row.arrival).payload or b"")[row.op]
        body: dict[str, Any] | None = operation[2] if operation[0] == PUT else None
        return body

    def bodies(self, documents: Sequence[DocumentPayload]) -> list[dict[str, Any] | None]:
        """`body` of each."""
        # Many documents may be what one entry says.
        payloads = {one.row.arrival: one.payload for one in documents if one.payload is not None}
        decoded = dict(zip(payloads, cbor.decode_many_trusted(list(payloads.values())), strict=True))
        bodies: list[dict[str, Any] | None] = []
        for row, payload in documents:
            if payload is None or row.state is not None:
                bodies.append(self.body(row, payload))
            else:
                operation = decoded[row.arrival][row.op]
                bodies.append(operation[2] if operation[0] == PUT else None)
        return bodies

    def _decoded(self, id: str, state: bytes) -> State:
        if state == LOST_STATE:
            error = DamagedError(self._replica.name, document=id)
            self._replica.damage.note(error)
            raise error
        return self.decode_state(state)

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
        return entry.place

    def _stamp(self, row: EntryRow) -> Stamp:
        return Stamp(row.hlc, bytes(self._replica.branches[row.branch].log.author), row.id)
