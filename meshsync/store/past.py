"""What was ever written to a document, read from the store write by write, and what a write had seen.

Everything here only reads.  The writes of a document come in the order of their stamps, which decides what it shows:
replaying them gives the present document.  Memory holds one write at a time, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from meshsync.core import cbor
from meshsync.core.anchor import Place
from meshsync.core.bare import SUPERSEDED, is_lacking, mark_of
from meshsync.core.document import Stamp
from meshsync.core.entry import DELETE, PATCH, PUT, Operation, document_tag
from meshsync.core.hlc import to_datetime
from meshsync.core.naming import check_named_document
from meshsync.core.siblings import Mark, SiblingState
from meshsync.errors import LetGoError
from meshsync.ids import EndpointId
from meshsync.moments import moment_text
from meshsync.store.husks import is_husk
from meshsync.store.rows import DocumentRow, EntryRow, Touch

if TYPE_CHECKING:
    from meshsync.store.branches import Branch
    from meshsync.store.drafts import State
    from meshsync.store.replica import Replica

_PAGE = 64


@dataclass(frozen=True, slots=True)
class Write:
    """One operation on one document, and the entry that holds it."""

    stamp: Stamp
    place: Place
    kind: int
    body: Mapping[str, Any] | None
    arrival: int
    """The arrival number of the entry."""
    expires_ms: int | None
    """What it says of when the document expires; see `Operation`."""

    @classmethod
    def of(cls, entry: EntryRow, author: bytes, item: Sequence[Any]) -> Write:
        """The write of one operation of an entry, as its payload has it."""
        operation, place = Operation.of(item), entry.place
        stamp = Stamp(entry.hlc, author, entry.id)
        return cls(stamp, place, operation.kind, operation.body, entry.arrival, operation.expires_ms)

    def touches(self, field: str) -> bool:
        """Whether it says what the field is: a put or a delete says it of all."""
        return self.kind in (PUT, DELETE) or field in (self.body or {})

    def value_of(self, field: str) -> tuple[bool, Any]:
        """What it makes of a field: whether the field is there, and its value."""
        if self.body is None or field not in self.body:
            return False, None
        value = self.body[field]
        return (False, None) if self.kind == PATCH and value is None else (True, value)


class Header(NamedTuple):
    """What is known of a write without its payload."""

    author: EndpointId
    hlc: int
    is_lacking: bool
    """Whether the payload is not here, and may say something that counts."""


class Gone(NamedTuple):
    """A write of which the payload is not here, because nobody needs it now."""

    stamp: Stamp
    not_fetched: bool
    """It never came, because peers called it superseded; else it was let go here."""


class Past:
    """Reads the past of one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def row(self, id: str) -> DocumentRow | None:
        """The row of a document that was ever written, as far as it is known here."""
        check_named_document(id)
        row = self._replica.tables.documents([id]).get(id)
        return None if row is None or is_husk(row.state) else row

    def state(self, row: DocumentRow) -> State:
        """The present state of a document.  DamagedError: it is not known."""
        return self._replica.merger.state(row)

    def has_expired(self, row: DocumentRow) -> bool:
        """Whether a document is not shown any more because its time has come."""
        return self._replica.expiries.is_past(row.expires_ms)

    def shows(self, row: DocumentRow) -> bool:
        """Whether a document exists now."""
        return self._replica.expiries.shows(row)

    def new_state(self) -> State:
        """The state of a document that was never written."""
        return self._replica.merger.new_state()

    def decode_state(self, encoded: bytes) -> State:
        """Read a state that was encoded."""
        return self._replica.merger.decode_state(encoded)

    def apply(self, state: State, write: Write) -> None:
        """Merge a write into a state."""
        if isinstance(state, SiblingState):
            mark = Mark(write.stamp, write.place, write.kind)
            state.apply(mark, write.body, self._replica.ancestry.exactly_unseen, write.expires_ms)
        else:
            state.apply(write.kind, write.body, write.stamp, write.expires_ms)

    def replay(self, state: State, row: DocumentRow, counts: Callable[[Write], bool]) -> Iterator[None]:
        """Make a document anew in `state`, which is new, of those of its writes that count.

        They must be all that the last of them had seen.  It yields after each write that it read, so that others may
        run in between, and the state is complete when it ends.  LetGoError: writes that count may not be here.
        """
        keeps_all, is_present = isinstance(state, SiblingState), True
        cleared: Write | None = None
        """The last of those that count that said all of the document."""
        # Backwards where the latest counts, because nothing below the last put or delete does.
        for write in self.writes(row, reverse=not keeps_all):
            if not counts(write):
                is_present = False
            else:
                self.apply(state, write)
                cleared = write if keeps_all and write.kind != PATCH else cleared
                if not keeps_all and write.kind != PATCH:
                    if (gone := self.gone(row.id)) is None or write.stamp.hlc > gone.hlc:
                        return
                    break
            yield
        # What was let go, before this began or since, is part of no present document, and it may be of every other.
        gone = None if is_present else self.gone(row.id)
        if gone is not None and not (cleared is not None and self._saw_all(cleared.place, gone.hlc)):
            raise LetGoError(row.id, moment_text(to_datetime(gone.hlc)))

    def _saw_all(self, write: Place, hlc: int) -> bool:
        """Whether the author of a write had seen all entries up to a time; False where that takes too long to find."""
        branches = self._replica.branches.values()
        last = [place for branch in branches if (place := self._last_until(branch, hlc)) is not None]
        return write.hlc > hlc and not self._replica.ancestry.unseen(write, last)

    def _last_until(self, branch: Branch, hlc: int) -> Place | None:
        """The last entry of a branch up to a time, which its stamps follow."""
        tables, low, high = self._replica.tables, branch.first_seq - 1, branch.tip.seq
        found: Place | None = None
        while low < high:
            middle = (low + high + 1) // 2
            head = tables.entry_at(branch.number, middle)
            if head is not None and head.hlc <= hlc:
                found, low = Place(branch.number, middle, head.hlc), middle
            else:
                high = middle - 1
        return found

    def gone(self, id: str) -> Touch | None:
        """The latest of the writes to a document whose payloads are not here because nobody needs them now; None where
        all are here.
        """
        if not self._replica.tables.marked():
            return None
        return self._replica.tables.touches.gone(document_tag(self._replica.id, id))

    def gone_write(self, id: str) -> Gone | None:
        """What is known of that one.  DamagedError: it cannot be read."""
        gone = self.gone(id)
        entry = None if gone is None else self._replica.tables.entry(gone.arrival)
        if entry is None:
            return None
        stamp = Stamp(entry.hlc, bytes(self._replica.branches[entry.branch].log.author), entry.id)
        return Gone(stamp, entry.bare is not None and mark_of(entry.bare) == SUPERSEDED)

    def rows(self, after: str = "", *, contested: bool = False) -> Iterator[DocumentRow]:
        """The rows of all documents that were ever written, by id, behind the id `after`, read in pages; `contested`:
        with conflicts only.  Each is as it stands when it is asked for.
        """
        tables = self._replica.tables
        while page := tables.document_rows(after, _PAGE, contested=contested):
            read_at = tables.document_changes
            for row in page:
                if tables.document_changes == read_at:
                    yield row
                # What a row points at may be let go once the document has changed.
                elif (now := tables.documents([row.id]).get(row.id)) is not None and (now.conflict or not contested):
                    yield now
            after = page[-1].id

    def writes(self, row: DocumentRow, *, reverse: bool = False) -> Iterator[Write]:
        """The writes to a document in the order of their stamps, read one by one; `reverse`: the latest first.

        Those whose payload is not here are left out.  DamagedError: one cannot be read, or is not known.
        """
        self.state(row)  # a lost document does not know its writes
        for _, touches in groupby(self._touches(row, reverse=reverse), attrgetter("hlc")):
            writes = [write for touch in touches if (write := self._write(row.id, touch.arrival)) is not None]
            yield from sorted(writes, key=attrgetter("stamp"), reverse=reverse)

    def all_writes(self, row: DocumentRow, limit: int) -> list[Write] | None:
        """The writes to a document in the order of their arrival; None where they are more than `limit`, or not all
        of them are here.  DamagedError: as `writes`.
        """
        if self.is_gone(row.id):
            return None
        found: list[Write] = []
        for count, touch in enumerate(self._touches(row, reverse=False)):
            entry = self._replica.tables.entry(touch.arrival)
            if count == limit or entry is None or entry.payload is None:
                return None
            if (write := self._write(row.id, touch.arrival)) is not None:
                found.append(write)
        return sorted(found, key=attrgetter("arrival"))

    def headers(self, id: str) -> Iterator[Header]:
        """The writes to a document that are known, by their headers at least, the latest first.

        Where the payload is not here it may be another document with the same tag that was written.  DamagedError: as
        `writes`.
        """
        row, tables = self.row(id), self._replica.tables
        touches = self._noted(id, reverse=True) if row is None else self._touches(row, reverse=True)
        for touch in touches:
            entry = tables.entry(touch.arrival)
            assert entry is not None
            author = self._replica.branches[entry.branch].log.author
            if entry.payload is None or self._write(id, touch.arrival) is not None:
                yield Header(author, entry.hlc, is_lacking(entry.bare))

    def _touches(self, row: DocumentRow, *, reverse: bool) -> Iterator[Touch]:
        pointed: list[Touch] = []
        if row.state is None and (entry := self._replica.tables.entry(row.arrival)) is not None:
            pointed.append(Touch(entry.hlc, row.arrival))
        noted = self._noted(row.id, reverse=reverse)
        for touch, _ in groupby(merge(noted, pointed, reverse=reverse)):
            yield touch

    def is_gone(self, id: str) -> bool:
        """Whether writes to a document were let go, or never came because later ones supersede them."""
        return self.gone(id) is not None

    def is_noted(self, id: str) -> bool:
        """Whether the index knows a write to a document: False for one that was written once at most."""
        return bool(self._replica.tables.touches.page(document_tag(self._replica.id, id), None, 1))

    def _noted(self, id: str, *, reverse: bool) -> Iterator[Touch]:
        tag = document_tag(self._replica.id, id)
        after: Touch | None = None
        while page := self._replica.tables.touches.page(tag, after, _PAGE, reverse=reverse):
            yield from page
            after = page[-1]

    def _write(self, id: str, arrival: int) -> Write | None:
        entry = self._replica.tables.entry(arrival)
        if entry is None or entry.payload is None:
            return None
        author = bytes(self._replica.branches[entry.branch].log.author)
        for item in cbor.decode_trusted(entry.payload):
            if item[1] == id:
                return Write.of(entry, author, item)
        return None  # another document with the same tag

    def had_seen(self, write: Place, earlier: Place) -> bool:
        """Whether the author of a write had seen an earlier one when writing."""
        return self._replica.ancestry.is_before(earlier, write)

    def seen_by(self, write: Place, places: Iterable[Place]) -> set[Place]:
        """Those of some writes that the author of one knew when it was written, itself included."""
        asked = set(places)
        return asked - set(self._replica.ancestry.unseen(write, asked - {write}))

    def explore(self, write: Place) -> Iterator[dict[int, int]]:
        """See `Ancestry.explore`."""
        return self._replica.ancestry.explore(write)

    def find(self, first: bytes, last: bytes, page: int) -> Iterator[list[Place]]:
        """The entries with ids from `first` to `last`, looked for among `page` entries at a time."""
        tables = self._replica.tables
        for arrival in range(1, tables.next_arrival(), page):
            rows = [tables.entry(one) for one in tables.entries_named(first, last, arrival, page)]
            yield [row.place for row in rows if row is not None]
