"""Which payloads the documents are made of, and which are superseded.

The payload of an entry contributes when one of the documents that it touches shows it or hangs on it, as it stands
here: the row points at the entry; or the merged state has a stamp of it (of the clear, of existing, of when it expires,
of a field, a removed one too); or no other write to the document has seen it, so that it is a side of a conflict, which
is never hidden.  Otherwise it is superseded, and that stays true for ever whatever arrives later: a state is a join of
writes, and what lies below a join lies below all that it grows to.  A document made anew from the payloads that
contribute is the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from meshsync.core import cbor
from meshsync.core.bare import is_marked
from meshsync.core.entry import touched_documents
from meshsync.errors import DamagedError

if TYPE_CHECKING:
    from meshsync.core.holding import StoredEntry
    from meshsync.store.replica import Replica
    from meshsync.store.rows import DocumentRow

_Test = Callable[["StoredEntry"], bool]


def contributing(replica: Replica, entries: Sequence[StoredEntry]) -> set[int]:
    """The arrival numbers of those of some entries whose payloads contribute.

    Of a payload that is not here the mark decides.  Where nobody knows, it contributes: it is lacking, or it or a
    document that it touches is damaged.
    """
    touched = {entry.arrival: _documents_of(entry.payload) for entry in entries if entry.payload is not None}
    documents = replica.tables.documents(list({id for ids in touched.values() for id in ids}))
    tests = {id: _test_of(replica, row) for id, row in documents.items()}
    found: set[int] = set()
    for entry in entries:
        ids = touched.get(entry.arrival)
        if ids is None:
            is_needed = not is_marked(entry.bare)
        else:
            is_needed = not ids or any(id not in tests or tests[id](entry) for id in ids)
        if is_needed:
            found.add(entry.arrival)
    return found


def _documents_of(payload: bytes) -> list[str]:
    """The ids of the documents that a payload touches; none where it makes no sense, though it fits its checksum."""
    try:
        return touched_documents(payload)
    except cbor.GARBAGE:
        return []


def _test_of(replica: Replica, row: DocumentRow) -> _Test:
    """Whether an entry that touches the document contributes to it."""
    if row.state is None:
        return lambda entry: entry.arrival == row.arrival
    try:
        state = replica.merger.state(row)
    except DamagedError:
        return lambda entry: True  # noqa: ARG005
    ids, frontier = {stamp.entry for stamp in state.stamps()}, set(state.frontier)
    return lambda entry: entry.id in ids or entry.place in frontier
