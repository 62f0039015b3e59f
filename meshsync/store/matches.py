"""All documents that match a peer's query, found by an index: so that not each one that goes out has to be looked at.

They are gathered in small steps, one for each page that goes out meanwhile, and forgotten when any document changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from meshsync.core.query import Query
from meshsync.store.keys import IndexRow
from meshsync.store.listing import Listing, Selected

if TYPE_CHECKING:
    from meshsync.store.replica import Replica

_WORTH = 16
"""Gathering begins when so many times the entries that went out are not fewer than the documents that an index names:
while documents change all the time, it never does.
"""


class Matches:
    """Of the query that was asked for last."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._query: Query | None = None
        self._changes = -1
        """How many changes of documents there were when it was asked for first."""
        self._looked_at = self._try_at = 0
        self._ids: set[str] = set()
        self._index: IndexRow | None = None
        self._steps: Iterator[list[Selected]] | None = None
        self._is_complete = False

    def ids(self, query: Query, count: int) -> set[str] | None:
        """The ids of all documents that match now, for whoever looks at so many entries; None: it is not known."""
        changes = self._replica.tables.document_changes
        if changes != self._changes or query != self._query:
            self._query, self._changes, self._looked_at = query, changes, 0
            self._try_at = self._replica.limits.part_indexed_entries
            self._ids, self._steps, self._is_complete = set(), None, False
        if self._is_complete:
            return self._ids
        if self._index not in self._replica.indexes.rows:
            self._ids, self._steps = set(), None  # it was given up, and names nothing any more
        self._looked_at += count
        self._steps = self._steps or self._begin(query)
        if self._steps is None:
            return None
        for found in islice(self._steps, 1):
            self._ids.update([one.document.row.id for one in found])
            return None
        self._is_complete, self._steps = True, None
        return self._ids

    def _begin(self, query: Query) -> Iterator[list[Selected]] | None:
        """The way by an index; None where there is none, or it is not worth it yet."""
        replica = self._replica
        if self._looked_at < self._try_at or not replica.indexes.is_any:
            return None
        # To count what an index names takes a while where that is much.
        self._try_at = 2 * self._looked_at
        most = min(_WORTH * self._looked_at, replica.limits.named_documents_max)
        listing = Listing(replica, query, whole=True)
        index, spans = listing.plan.index, listing.plan.spans
        if index is None or sum(replica.tables.keys.count(index.number, *span, most + 1) for span in spans) > most:
            return None
        self._index = index
        return listing.steps()
