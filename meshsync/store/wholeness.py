"""What is lacking of a document: entries that touch it, whose payloads are not here and may change what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING

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
    """When the earliest write was made that may change what a document holds, and that lacks its payload, or has a mark
    in doubt.

    None: there is none, so the document is what all entries make it that are held.  Writes that came before a put, or
    a delete, change nothing, as they are below its stamp; where all sides of a conflict are kept they must be known to
    it.  DamagedError: the document is not known.
    """
    tag = document_tag(replica.id, row.id)
    if next(_lacking_entries(replica, tag), None) is None:
        return None
    if replica.policy.keeps_all:
        unseen = (entry.hlc for entry in _lacking_entries(replica, tag) if _may_change(replica, row, entry))
        return next(unseen, None)
    cleared = _cleared(replica, row)
    first = next(bare_entries(replica, tag, cleared), None)
    doubted = replica.superseded.entries_in_doubt(tag, cleared)
    return min((entry.hlc for entry in chain(() if first is None else (first,), doubted)), default=None)


def _lacking_entries(replica: Replica, tag: bytes) -> Iterator[EntryRow]:
    """The entries with this tag that lack their payloads, or have marks in doubt."""
    return chain(bare_entries(replica, tag), replica.superseded.entries_in_doubt(tag))


def _may_change(replica: Replica, row: DocumentRow, entry: EntryRow) -> bool:
    """Whether what an entry says of a document may change what that holds."""
    if not replica.policy.keeps_all:
        return entry.hlc >= _cleared(replica, row)
    pointed = replica.tables.entry(row.arrival) if row.state is None else None
    return pointed is None or not replica.ancestry.is_before(entry.place, pointed.place)


def _cleared(replica: Replica, row: DocumentRow) -> int:
    """The stamp below which nothing counts that was written to a document."""
    if row.state is None:
        return replica.merger.stamp(row).hlc
    state = replica.merger.state(row)
    assert isinstance(state, DocumentState)
    return 0 if state.clear is None else state.clear.hlc


class Completion:
    """What is lacking of documents that are being completed, for one replica.

    Payloads come in the order in which their headers arrived.  So as long as the last of those that lack one lacks it,
    none of the others has to be looked at: a document with a long past would be read anew with each payload of it.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._last: dict[bytes, int] = {}
        """By tag, the arrival of an entry that lacked its payload when it was looked at last."""

    def came(self, lacking: Iterable[tuple[bytes, int, int]]) -> None:
        """Entries came without their payloads; as `touches_of`."""
        if self._last:
            self._last.update((tag, arrival) for tag, _, arrival in lacking if tag in self._last)

    def last_lacking(self, tag: bytes) -> EntryRow | None:
        """An entry with a tag that lacks its payload: the last by arrival, or one that was; None: none does."""
        known = self._last.pop(tag, None)
        entry = None if known is None else self._lacking(known)
        if entry is None:
            entry = max(bare_entries(self._replica, tag), key=attrgetter("arrival"), default=None)
        if entry is not None:
            if len(self._last) >= self._replica.limits.named_documents_max:
                self._last.clear()
            self._last[tag] = entry.arrival
        return entry

    def is_whole(self, row: DocumentRow) -> bool:
        """Whether nothing is lacking, or in doubt, that may change what a document holds.

        DamagedError: the document is not known.
        """
        last = self.last_lacking(document_tag(self._replica.id, row.id))
        if last is None:
            return self._replica.superseded.in_doubt is None or first_lacking(self._replica, row) is None
        return not _may_change(self._replica, row, last) and first_lacking(self._replica, row) is None

    def _lacking(self, arrival: int) -> EntryRow | None:
        with suppress(DamagedError):
            entry = self._replica.tables.entry(arrival)
            return entry if entry is not None and is_lacking(entry.bare) else None
        return None
