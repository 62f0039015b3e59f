"""Plans: how the documents that a query wants are found, and in which order.

Of the indexes that can serve, the one with the fewest keys in its spans is taken; none where it would name more than
a quarter of the documents, because looking them up one by one takes longer than reading all in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from meshsync.core.conditions import Path
from meshsync.core.limits import SORT_KEY_BYTES_MAX, Limits
from meshsync.core.ordering import ARRAYS, STRINGS, Order
from meshsync.core.query import Query
from meshsync.core.spans import EVERYTHING, Span, Spans, spans_of
from meshsync.store.base import CollectionTables
from meshsync.store.keys import IndexRow

ID = ("id",)
_FEW = 64
"""So many are looked up one by one in any case."""
_SHARE = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """Where to look, and whether what is found there is in the order that is wanted."""

    way: Literal["scan", "ids", "keys", "ordered"]
    """All documents by id, certain ids, the candidates that an index names, or an index in its own order."""
    index: IndexRow | None
    spans: Spans
    """Of the ids or of the index."""
    sorts: bool
    """Whether the matches have to be sorted."""

    @property
    def served_by(self) -> str | None:
        """The field that narrowed the search, or gave the order; None where all documents are looked at."""
        if self.index is not None:
            return self.index.path
        return "id" if self.way == "ids" or self.spans != (EVERYTHING,) else None


def make_plan(
    query: Query,
    order: Order | None,
    limit: int | None,
    tables: CollectionTables,
    indexes: Sequence[tuple[IndexRow, Path]],
    limits: Limits,
) -> Plan:
    """The way that looks at the fewest documents.  `indexes`: those that are ready, and their paths."""
    condition = query.condition
    sorts = order is not None and order.path != ID
    of_ids = spans_of(condition, ID)
    if of_ids is not None:
        of_ids = tuple(span for span in of_ids if span.high > STRINGS and span.low < ARRAYS)
        if all(span.is_one_key and len(span.low) <= SORT_KEY_BYTES_MAX for span in of_ids):
            return Plan("ids", None, of_ids, sorts)
        return Plan("scan", None, (Span(of_ids[0].low, of_ids[-1].high),), sorts)
    live = tables.counts()[1]
    # Counted no further than where it would not be taken any more.
    most = min(limits.candidates_max, max(_FEW, live // _SHARE))
    best: Plan | None = None
    for row, path in indexes:
        spans = spans_of(condition, path)
        if spans is not None:
            found = sum(tables.keys.count(row.number, *span, most + 1) for span in spans)
            if found <= most:
                best, most = Plan("keys", row, spans, sorts), found
    if order is None or not sorts:
        return best or Plan("scan", None, (EVERYTHING,), sorts)
    for row, path in indexes:
        if path == order.path:
            # In its order as many are looked at as it takes to find enough, if what matches is spread evenly.
            looked_at = live if limit is None else min(live, limit * live // max(1, most if best else live))
            if best is None or looked_at < most:
                return Plan("ordered", row, spans_of(condition, path) or (EVERYTHING,), sorts=False)
    return best or Plan("scan", None, (EVERYTHING,), sorts)
