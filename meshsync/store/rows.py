"""The rows that stores keep and give.

Numbers: a *branch* is a small integer that stands for one chain of a log inside one collection of this store
(a log has one branch, and one more for each fork); an *arrival* is the position of an entry in this store's
collection, starting at 1, without gaps, in an order in which parents come first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from meshsync.core.anchor import Place


class BranchRow(NamedTuple):
    """One chain of entries of one author and incarnation."""

    number: int
    author: bytes
    incarnation: bytes
    base: int | None
    """The branch that this one forked from, None for the first branch of a log."""
    first_seq: int
    """The seq of the first entry that is its own: 1, or where it forked."""
    covered_seq: int
    """The greatest seq that an entry of another log names as a parent, 0 for none."""


class EntryHead(NamedTuple):
    """What later entries need to know of an entry."""

    arrival: int
    id: bytes
    hlc: int
    height: int


class EntryRow(NamedTuple):
    """An entry as it is stored: the parts of its header that cannot be derived, its payload, its seal."""

    arrival: int
    branch: int
    seq: int
    id: bytes
    hlc: int
    height: int
    parents: bytes | None
    """Packed (branch, seq) pairs as `PARENT` packs them, in the order of the header; None for no parents."""
    payload: bytes | None
    """None where the payload is not here; then `bare` is set."""
    bare: bytes | None
    """What stands for the payload: see `meshsync.core.bare`."""
    seal: bytes | None
    """64 bytes, where one was received or made for this very entry."""

    @property
    def place(self) -> Place:
        """Where it stands in the DAG."""
        return Place(self.branch, self.seq, self.hlc)


entry_row: Callable[[Sequence[Any]], EntryRow] = partial(tuple.__new__, EntryRow)
"""EntryRow(*columns) at two thirds of its cost, for where every entry passes that is sent or received."""


class InspectedEntry(NamedTuple):
    """An entry as the disk gives it, and what can be trusted of it."""

    row: EntryRow
    """Where a part is damaged its values are anything, of any type."""
    has_head: bool
    """All but payload and bare is what was written."""
    has_body: bool
    """Payload and bare are what was written."""


class MergeRow(NamedTuple):
    """An entry that has parents, for walks over the DAG."""

    seq: int
    hlc: int
    parents: bytes


class DocumentRow(NamedTuple):
    """The present state of a document, or of its deletion.

    With `state` None the document is what operation `op` (a put or a delete) of entry `arrival` says, because
    everything else that was ever written to it happened before.  Otherwise `state` holds the merged state, and
    `arrival` and `op` name the last operation that arrived; or in its place stands LOST_STATE, or a husk where the
    payloads were dropped (`meshsync.store.husks`).

    `live`: it is shown.  One that is not was deleted, or dropped, or expired where `expires_ms` is set.
    """

    id: str
    arrival: int
    op: int
    live: bool
    conflict: bool
    state: bytes | None
    expires_ms: int | None = None
    """From when on it is not shown, in milliseconds since the Unix epoch; None: for ever, or it is not live anyway."""


ENTRY_BYTES = 160
"""What an entry takes on disk beside its payload, roughly: its other columns, its places in the indexes, and the row
of a document.  Measured: 90 to 125 for entries of one small document each, and 64 more for those with a seal."""

LOST_STATE = b"\x80"
"""The `state` of a document that is not known: its row is damaged, or what it was merged from is.  It is no merged
state in any encoding (an empty CBOR array), and only replaying the entries leads from it to one."""


class DocumentPayload(NamedTuple):
    """A live document as a listing needs it: its row, and the payload of its entry where the row has no state."""

    row: DocumentRow
    payload: bytes | None


class DocumentPage(NamedTuple):
    """Some live documents in a row, and how far the store was read for them."""

    documents: list[DocumentPayload]
    looked_at: int
    """Rows that were read, those that a hint left out included."""
    last: str | None
    """The id to go on after; None at the end."""


class Moment(NamedTuple):
    """When a document expires.  Sorts by time, and then by id."""

    expires_ms: int
    id: str

    def next(self) -> Moment:
        """The first that can come behind it."""
        return Moment(self.expires_ms, self.id + "\0")


class Touch(NamedTuple):
    """An entry that touches a document, as the index beside the documents names it.  Sorts by time."""

    hlc: int
    arrival: int


class CursorRow(NamedTuple):
    """How far one peer and this node have read each other's collection."""

    epoch: bytes
    """The peer's store epoch: 8 bytes that change when the peer's store is created or restored."""
    next_read: int
    """The next arrival number of the peer's store to read."""
    next_confirm: int
    """The next arrival number of this store that the peer has yet to confirm as stored."""


class PeerRow(NamedTuple):
    """What is remembered of an endpoint that the owner decided upon, or that knocked."""

    id: bytes
    trust: str
    """accepted, banned or pending."""
    name: str
    address: str
    seen: float
    """Seconds since the epoch (UTC) when it was last seen."""
