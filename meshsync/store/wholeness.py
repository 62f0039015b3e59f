"""What is lacking of a document: entries that touch it, whose payloads are not here and may change what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from meshsync.core.anchor import Place
from meshsync.core.bare import is_lacking, tags_of
from meshsync.core.document import DocumentState
from meshsync.core.entry import document_tag
from meshsync.errors import DamagedError
from meshsync.store.rows import DocumentRow, EntryRow, Touch

if TYPE_CHECKING:
    from meshsync.store.replica import Replica

_PAGE = 64


def touches_of(rows: Iterable[EntryRow]) -> list[tuple[bytes, int, int]]:
    """What entries without payload touch: (tag, hlc, arrival)."""
    return [(tag, row.hlc, row.arrival) for row in rows for tag in tags_of(row.bare or b"")]


def bare_entries(replica: Replica, tag: bytes, hlc: int = 0) -> Iterator[EntryRow]:
    """The entries with this tag that lack their payloads, from one time on, in the order of time.

    One that is damaged is left out: nobody knows whether it lacks anything.
    """
    tables, after = replica.tables, Touch(hlc, 0)
    if not tables.counts()[2]:
        return
    while page := tables.touches.page(tag, after, _PAGE):
        for touch in page:
            with suppress(DamagedError):
                entry = tables.entry(touch.arrival)
                if entry is not None and is_lacking(entry.bare):
                    yield entry
        after = page[-1]


def first_lacking(replica: Replica, row: DocumentRow) -> int | None:
    """When the earliest write was made that may change what a document holds, and that lacks its payload.

    None: there is none, so the document is what all entries make it that are held.  Writes that came before a put, or
    a delete, change nothing, as they are below its stamp; where all sides of a conflict are kept they must be known to
    it.  DamagedError: the document is not known.
    """
    tag = document_tag(replica.id, row.id)
    if next(bare_entries(replica, tag), None) is None:
        return None
    if replica.policy.keeps_all:
        return _first_unseen(replica, tag, row)
    if row.state is None:
        cleared = replica.merger.stamp(row).hlc
    else:
        state = replica.merger.state(row)
        assert isinstance(state, DocumentState)
        cleared = 0 if state.clear is None else state.clear.hlc
    found = next(bare_entries(replica, tag, cleared), None)
    return None if found is None else found.hlc


def _first_unseen(replica: Replica, tag: bytes, row: DocumentRow) -> int | None:
    pointed = replica.tables.entry(row.arrival) if row.state is None else None
    for entry in bare_entries(replica, tag):
        if pointed is None or not replica.ancestry.is_before(_place(entry), _place(pointed)):
            return entry.hlc
    return None


def _place(entry: EntryRow) -> Place:
    return Place(entry.branch, entry.seq, entry.hlc)
