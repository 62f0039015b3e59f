"""What a store is: the two interfaces that every implementation offers.  Its rows are in `meshsync.store.rows`.

A store remembers and counts; it knows nothing of validity, merging or peers.  That logic stands once, in
`meshsync.store.replica`, above these tables.  All calls are synchronous and short, and run on the event loop's
own thread: a commit without a sync costs some ten microseconds, a hop to a thread five times as much.  Only
`Store.synced` waits, for the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from meshsync.errors import DamagedError
from meshsync.ids import CollectionId
from meshsync.store.changes import DocumentChanges
from meshsync.store.keys import DocumentKeys
from meshsync.store.rows import (
    BranchRow,
    CursorRow,
    DocumentPage,
    DocumentPayload,
    DocumentRow,
    EntryHead,
    EntryRow,
    InspectedEntry,
    MergeRow,
    Moment,
    PeerRow,
    Touch,
)


class DocumentTouches(Protocol):
    """Which entries touch a document, by its tag; two documents may share one, so whoever reads looks at the ids.

    Of a document whose row has no state, the entry that the row points at may be missing here: most documents are
    written once, and take no second row.
    """

    def add(self, touches: Sequence[tuple[bytes, int, int]]) -> None:
        """Note (tag, hlc, arrival) of entries; what is noted already stays.  In the transaction of the documents."""

    def add_lacking(self, touches: Sequence[tuple[bytes, int, int]]) -> None:
        """The same of entries that lack their payloads and are stored in this transaction, which say it themselves."""

    def let_go(self, touches: Sequence[tuple[bytes, int, int]]) -> None:
        """Forget entries that have a mark in place of their payloads: of each tag the latest is remembered."""

    def gone(self, tag: bytes) -> Touch | None:
        """The latest of the entries on a document that were ever `let_go`, up to the last `forget_gone`."""

    def forget_gone(self) -> None:
        """All payloads came back: nothing is let go of any document."""

    def noted(self, tags: Sequence[bytes]) -> set[bytes]:
        """Those of some tags under which entries are noted."""

    def page(self, tag: bytes, after: Touch | None, limit: int, *, reverse: bool = False) -> list[Touch]:
        """At most `limit` of the entries behind `after`, by time; `reverse`: those before it, the latest first."""


class ArrivalQueue(Protocol):
    """Entries, by arrival.  What writes runs inside `Store.transaction()`."""

    def add(self, arrivals: Iterable[int]) -> None:
        """Put entries in; those that are in stay."""

    def remove(self, arrivals: Iterable[int]) -> None:
        """Take entries out; those that are not in are left."""

    def clear(self) -> None:
        """Take all out."""

    def page(self, after: int, limit: int) -> list[int]:
        """At most `limit` of them behind the arrival `after`, in order."""

    def __len__(self) -> int:
        """How many there are.  Counts them."""


class CollectionTables(Protocol):
    """The tables of one collection.  Everything that writes must run inside `Store.transaction()`.

    Every row has a checksum, and no reader gets one that does not fit it: an entry raises DamagedError (those that
    read many return the ones before it, and raise when it is the first), a document comes with LOST_STATE.
    """

    name: str
    """What people call it: where no name is known, the first digits of its id."""
    is_named: bool
    """Whether its name is known.  One that is only carried for others is known by its id."""
    id: CollectionId
    document_changes: int
    """Rises with each change of documents."""
    found_damage: Callable[[DamagedError], None]
    """Told of every damaged row that is met, whatever the reader makes of it.  Set by whoever keeps count."""

    @property
    def touches(self) -> DocumentTouches:
        """Which entries touch a document."""

    @property
    def keys(self) -> DocumentKeys:
        """The declared indexes."""

    @property
    def changes(self) -> DocumentChanges:
        """What followers of a part were told."""

    @property
    def to_let_go(self) -> ArrivalQueue:
        """The entries whose payloads may have to be let go (meshsync.store.retaining)."""

    def retained(self) -> bytes | None:
        """What was set by `set_retained`."""

    def set_retained(self, state: bytes) -> None:
        """Keep how far the past was looked through."""

    def branches(self) -> list[BranchRow]:
        """All branches, by number."""

    def add_branch(self, author: bytes, incarnation: bytes, base: int | None, first_seq: int) -> int:
        """Number a new branch."""

    def set_covered(self, covered: Sequence[tuple[int, int]]) -> None:
        """Set covered_seq for (branch, covered_seq) pairs."""

    def tip(self, branch: int, below: int | None = None) -> tuple[int, EntryHead] | None:
        """(seq, head) of the last entry of a branch, or of the last one before the seq `below`; None: there is none."""

    def insert_entries(self, rows: Sequence[EntryRow]) -> None:
        """Append entries; arrivals continue without a gap."""

    def entry_at(self, branch: int, seq: int) -> EntryHead | None:
        """The head of one entry."""

    def entry(self, arrival: int) -> EntryRow | None:
        """One entry."""

    def entries_of(self, branch: int, after_seq: int, limit: int) -> list[EntryRow]:
        """At most `limit` entries of a branch with a seq above `after_seq`, by seq."""

    def entries_named(self, first: bytes, last: bytes, arrival: int, count: int) -> list[int]:
        """The arrivals of the entries with ids from `first` to `last`, among the `count` from `arrival` on."""

    def entries_from(self, arrival: int, limit: int) -> list[EntryRow]:
        """At most `limit` entries with arrival numbers from `arrival` on, in that order."""

    def merges_before(self, branch: int, seq: int, limit: int) -> list[MergeRow]:
        """At most `limit` entries of a branch that have parents, with a seq of at most `seq`, greatest seq first."""

    def bare_entries(self, limit: int) -> list[EntryRow]:
        """At most `limit` entries that lack their payloads, by arrival; not those with a mark (meshsync.core.bare)."""

    def marked_entries(self, arrival: int, limit: int) -> list[EntryRow]:
        """At most `limit` entries that have a mark in place of their payloads, from an arrival number on."""

    def next_arrival(self) -> int:
        """The arrival number of the next entry."""

    def inspect_entries(self, arrival: int, limit: int) -> list[InspectedEntry]:
        """As `entries_from`, with the damaged ones."""

    def rewrite_entry(self, row: EntryRow) -> None:
        """Put an entry in the place of the one with the same arrival number, whatever is left of that."""

    def documents(self, ids: Sequence[str]) -> dict[str, DocumentRow]:
        """The rows of those of `ids` that were ever written."""

    def put_documents(self, rows: Sequence[DocumentRow], live_change: int) -> None:
        """Insert or replace rows; `live_change` is by how much the number of live documents changes."""

    def document_page(
        self,
        after: str | None,
        limit: int,
        *,
        reverse: bool = False,
        hint: Callable[[bytes], object] | None = None,
    ) -> DocumentPage:
        """The next `limit` live documents by id (bytewise order of UTF-8), after the id `after`.

        `hint` gets the stored bytes of each, its state or the payload of its entry, and where that counts as false the
        document is left out.  One that is damaged never is.
        """

    def document_payloads(
        self,
        ids: Sequence[str],
        hint: Callable[[bytes], object] | None = None,
        at_hand: Mapping[int, bytes] | None = None,
    ) -> list[DocumentPayload]:
        """Those of `ids` that are live, in no certain order; `hint` as of `document_page`.

        `at_hand`: payloads of entries, by arrival, that need not be read.
        """

    def document_rows(self, after: str, limit: int, *, contested: bool = False) -> list[DocumentRow]:
        """At most `limit` rows by id behind the id `after`, deleted ones too; `contested`: those with conflicts."""

    def expiring(self, start: Moment, end: Moment, limit: int, *, reverse: bool = False) -> list[Moment]:
        """At most `limit` of the documents that expire from `start` on and before `end`, shown still or not, in that
        order; `reverse`: the last ones first.
        """

    def expiring_live(self, start: Moment, end: Moment) -> int:
        """How many of the documents that expire from `start` on and before `end` are live; looks at each."""

    def damaged_documents(self, after: bytes, limit: int) -> tuple[list[bytes], bytes | None]:
        """Look at `limit` rows behind the id `after`, deleted documents too: the ids of those that are damaged or
        lost, and the id to go on after, None at the end.  Ids in UTF-8, or whatever stands there.
        """

    def forget_documents(self, ids: Sequence[bytes]) -> None:
        """Remove rows, to be made anew from the entries.  The counts are not trusted after this; see `recount`."""

    def recount(self) -> None:
        """Count live documents and entries without payload anew, marked or not.  Reads everything once."""

    def counts(self) -> tuple[int, int, int]:
        """(entries, live documents, entries that lack their payloads), in constant time."""

    def marked(self) -> int:
        """How many entries have a mark in place of their payloads, in constant time."""

    def size_bytes(self) -> int:
        """What the collection takes on disk, roughly (ENTRY_BYTES), in constant time."""

    def cursor(self, peer: bytes) -> CursorRow | None:
        """The cursor kept for a peer."""

    def set_cursor(self, peer: bytes, cursor: CursorRow) -> None:
        """Keep the cursor of a peer, in the same transaction as the batch that moved it."""


class Store(Protocol):
    """All that a node remembers."""

    epoch: bytes
    """8 random bytes, new for a store that was created or restored."""
    life: bytes
    """8 bytes, new wherever numbers that were given out may be given out again: with the epoch, under another boot id
    (or an unknown one), after a failed sync, and once a collection is dropped."""

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing.  Not nested.

        StoreError: the disk does not take it; everything is rolled back.
        """

    def collection(self, id: CollectionId, name: str) -> CollectionTables:
        """The tables of a collection, made at the first call.

        `name`: "" where it is not known; the first call with a name names it.
        """

    def collections(self) -> list[tuple[CollectionId, str]]:
        """The collections that have tables, with "" for a name that is not known."""

    def drop_collection(self, id: CollectionId) -> None:
        """Forget a collection and everything in it, with the small values whose names end in a colon and its id."""

    def incarnation(self, id: CollectionId) -> bytes:
        """The 8 bytes under which this process may write to a collection.

        The first call for a collection marks it as being written, durably, before it returns: the last
        incarnation again after a clean end or under the same boot id, a new random one otherwise (store.md
        section 1).  Not inside a transaction, because that could still be rolled back.
        """

    def renew_incarnation(self, id: CollectionId) -> bytes:
        """Take a new incarnation: this store was found behind its own log."""

    def meta(self, key: str) -> bytes | None:
        """A small value by name."""

    def set_meta(self, key: str, value: bytes | None) -> None:
        """Keep a small value by name, or forget it."""

    def peers(self) -> list[PeerRow]:
        """All remembered endpoints."""

    def put_peer(self, row: PeerRow) -> None:
        """Insert or replace a remembered endpoint."""

    def forget_peer(self, id: bytes) -> bool:
        """Forget an endpoint; False when it was not known."""

    async def synced(self) -> None:
        """Return once everything committed before the call survives a power cut.

        Cancelling stops the waiting only.  StoreError: the disk does not take it.
        """

    def low_space(self) -> bool:
        """Whether so little space is left that entries of others must be refused, to leave it to writes made here."""

    def trouble(self) -> str:
        """What is wrong with the disk at this moment, for people; "" when nothing is."""

    def verify(self) -> Iterator[str]:
        """Check the structure of the store; yields one line a fault.  May take long."""

    async def verify_aside(self) -> list[str]:
        """The same, all at once, while others run.  Cancelling waits for what was begun."""

    def rebuild_indexes(self) -> None:
        """Make anew what is derived from the rows: indexes and counts.  Takes long on a large store.

        StoreError: the rows do not allow it.
        """

    def size_bytes(self) -> int:
        """What the store takes on disk (or in memory, roughly)."""

    def close(self) -> None:
        """A clean end: sync, and remove the marks of `incarnation`."""
