"""Listings: the documents that a query wants, in the order that is wanted, found in small steps.

A step takes some milliseconds, so that whoever runs on the event loop can let others run in between.  Documents are
read when their turn comes: writes in between are seen, and a document may be missed, or met twice, when a write moves
it within an order other than that of the ids.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from meshsync.core.limits import DOCUMENT_ID_BYTES_MAX
from meshsync.core.matching import MISSING, getter
from meshsync.core.ordering import MISSING_KEY, STRINGS, Order, rank, sort_key
from meshsync.core.query import Query
from meshsync.core.spans import Span
from meshsync.errors import DamagedError, LocalError
from meshsync.store.keys import KeyRow
from meshsync.store.plan import make_plan
from meshsync.store.rows import DocumentPayload

if TYPE_CHECKING:
    from meshsync.store.replica import Replica

_PAGE_DOCUMENTS_MIN, _PAGE_DOCUMENTS_MAX = 64, 512
_PAGE_BYTES = 256 * 1024
_LOOKUPS = 256
_KEYS = 1024
_KEPT = 1024
"""When only the first are wanted, so many more are kept before the rest is thrown away."""


_GREATEST = "\U0010ffff"


class After(NamedTuple):
    """The last document of the page before: its id, and, where there is an order, what its field held."""

    id: str
    value: Any = MISSING


class Selected(NamedTuple):
    """A document that matches."""

    document: DocumentPayload
    body: dict[str, Any]


class Listing:
    """One run of a query.  LocalError while it is read: too many documents match to be sorted without an index.

    `whole`: also what is outside of the part of the collection that this node shows, and past documents that are
    damaged; DamagedError otherwise.  `page_max`: so many documents at most are read in one step.
    """

    def __init__(
        self,
        replica: Replica,
        query: Query,
        *,
        order: Order | None = None,
        after: After | None = None,
        limit: int | None = None,
        whole: bool = False,
        page_max: int = _PAGE_DOCUMENTS_MAX,
    ) -> None:
        self._tables = replica.tables
        self._merger = replica.merger
        self._name = replica.name
        self._expiries = replica.expiries
        self._interest = None if whole else replica.interest
        self._bodies = self._sound_bodies if whole else replica.merger.bodies
        self.query = query
        # Where all sides of a conflict are kept, what a document shows is not what is stored.
        self._hint = None if replica.policy.keeps_all else query.hint
        self._order = order
        self._after = after
        self._limit = math.inf if limit is None else limit
        self._sorted_max = replica.limits.sorted_documents_max
        self._get = getter(order.path) if order is not None else None
        self._reverse = order is not None and order.descending
        entries = max(1, replica.entry_count())
        page = _PAGE_BYTES * entries // max(1, self._tables.size_bytes())
        self._page = min(max(_PAGE_DOCUMENTS_MIN, min(page, _PAGE_DOCUMENTS_MAX)), page_max)
        # A document that is lost may match: whoever reads all of them is told.
        indexes = [] if replica.damage.has_documents else replica.indexes.ready()
        self.plan = make_plan(query, order, limit, self._tables, indexes, replica.limits)
        self.keys_read = 0
        """Keys of indexes that were looked at."""
        self.documents_read = 0
        """Documents that were looked at."""
        self.matched = 0
        """Documents that were given out."""

    def steps(self) -> Iterator[list[Selected]]:
        """The documents, in pieces; an empty one where a step found none."""
        left = self._limit
        for found in self._sorted() if self.plan.sorts else self._matching(self._source()):
            if left <= 0:
                return
            chosen = found if len(found) <= left else found[: int(left)]
            left -= len(chosen)
            self.matched += len(chosen)
            yield chosen
            if left <= 0:
                return

    def __iter__(self) -> Iterator[Selected]:
        """The documents one by one."""
        for found in self.steps():
            yield from found

    def _matching(self, pages: Iterator[list[DocumentPayload]]) -> Iterator[list[Selected]]:
        matches, interest, expiries = self.query.matches, self._interest, self._expiries
        for page in pages:
            if expiries.is_behind:
                page = [document for document in page if expiries.shows(document.row)]  # noqa: PLW2901
            yield [
                Selected(document, body)
                for document, body in zip(page, self._bodies(page), strict=True)
                if body is not None
                and (interest is None or interest.shows(document.row.id, body))
                and matches(body, document.row.id)
            ]

    def _sound_bodies(self, page: Sequence[DocumentPayload]) -> list[dict[str, Any] | None]:
        try:
            return self._merger.bodies(page)
        except DamagedError:
            return [self._body(document) for document in page]

    def _body(self, document: DocumentPayload) -> dict[str, Any] | None:
        with suppress(DamagedError):
            return self._merger.body(*document)
        return None

    # Where documents come from

    def _source(self) -> Iterator[list[DocumentPayload]]:
        match self.plan.way:
            case "scan":
                return self._scan(self.plan.spans[0])
            case "ids":
                return self._look_up(self._ids_behind([_id_of(span) for span in self.plan.spans]))
            case "keys":
                return self._candidates()
            case "ordered":
                return self._in_order()

    def _scan(self, span: Span) -> Iterator[list[DocumentPayload]]:
        """All documents with ids in a span."""
        reverse = self._reverse and not self.plan.sorts
        after = None if self._after is None or self.plan.sorts else self._after.id
        begin = _id_before(span.high if reverse else span.low, reverse=reverse)
        if begin is not None and (after is None or (begin < after if reverse else begin > after)):
            after = begin
            if not reverse:
                yield self._payloads([begin])  # what follows begins behind it
        size = min(self._page, max(_PAGE_DOCUMENTS_MIN, self._limit)) if self._hint is None else self._page
        while True:
            page = self._tables.document_page(after, int(size), reverse=reverse, hint=self._hint)
            self.documents_read += page.looked_at
            yield page.documents
            after = page.last
            if after is None or not (sort_key(after) >= span.low if reverse else sort_key(after) < span.high):
                return

    def _payloads(self, ids: Sequence[str]) -> list[DocumentPayload]:
        self.documents_read += len(ids)
        return self._tables.document_payloads(ids, self._hint)

    def _look_up(self, ids: Sequence[str]) -> Iterator[list[DocumentPayload]]:
        """Certain documents, by id, in the order of `ids`."""
        rest = iter(ids)
        while page := list(islice(rest, _LOOKUPS)):
            found = {one.row.id: one for one in self._payloads(page)}
            yield [found[id] for id in page if id in found]

    def _ids_behind(self, ids: Sequence[str]) -> list[str]:
        """Ids in the order of the listing, those behind `after`."""
        reverse = self._reverse and not self.plan.sorts
        after = None if self._after is None or self.plan.sorts else self._after.id
        behind = [id for id in ids if after is None or (id < after if reverse else id > after)]
        return sorted(behind, reverse=reverse)

    def _candidates(self) -> Iterator[list[DocumentPayload]]:
        """What an index names."""
        span = self.plan.spans[0] if self.plan.spans else None
        if span is not None and len(self.plan.spans) == 1 and span.is_one_key and not self.plan.sorts:
            # All under one key are in the order of their ids already.
            after = None if self._after is None else KeyRow(span.low, self._after.id)
            for keys in self._keys_of(span, after, reverse=self._reverse):
                yield from self._look_up([key.id for key in keys])
            return
        ids: list[str] = []
        for span in self.plan.spans:
            for keys in self._keys_of(span, None, reverse=False):
                ids += [key.id for key in keys]
                yield []
        yield from self._look_up(self._ids_behind(ids))

    def _keys_of(self, span: Span, after: KeyRow | None, *, reverse: bool) -> Iterator[list[KeyRow]]:
        assert self.plan.index is not None
        while True:
            keys = self._tables.keys.page(self.plan.index.number, *span, after, _KEYS, reverse=reverse)
            self.keys_read += len(keys)
            yield keys
            if len(keys) < _KEYS:
                return
            after = keys[-1]

    def _in_order(self) -> Iterator[list[DocumentPayload]]:
        """All that an index names, in its order; the documents without the field last."""
        missing = Span(MISSING_KEY, MISSING_KEY + b"\0")
        spans = [span for whole in self.plan.spans for span in _cut(whole, MISSING_KEY)]
        if self._reverse:
            spans = [span for span in reversed(spans) if span != missing] + [span for span in spans if span == missing]
        last = None if self._after is None else KeyRow(sort_key(self._after.value), self._after.id)
        for span in spans:
            after = last if last is not None and span.low <= last.key < span.high else None
            if after is not None or last is None or self._lies_behind(span, last):
                for keys in self._keys_of(span, after, reverse=self._reverse):
                    yield from self._look_up([key.id for key in keys])

    def _lies_behind(self, span: Span, last: KeyRow) -> bool:
        row = KeyRow(span.low, "")
        return self._rank(row) < self._rank(last) if self._reverse else self._rank(row) > self._rank(last)

    # Sorting

    def _sorted(self) -> Iterator[list[Selected]]:
        """All that match, sorted here: their keys first, then the documents once more."""
        assert self._get is not None
        last = None if self._after is None else self._rank(KeyRow(sort_key(self._after.value), self._after.id))
        kept: list[KeyRow] = []
        most = self._limit if self._limit <= self._sorted_max else math.inf
        for found in self._matching(self._source()):
            for document, body in found:
                row = KeyRow(sort_key(self._get(body)), document.row.id)
                if last is None or (self._rank(row) < last if self._reverse else self._rank(row) > last):
                    kept.append(row)
            if len(kept) > most + _KEPT:
                kept.sort(key=self._rank, reverse=self._reverse)
                del kept[int(most) :]
            if len(kept) > self._sorted_max + _KEPT:
                raise LocalError(
                    f"more than {self._sorted_max} documents match, which are too many to sort: declare an index "
                    f"(meshsync index add {self._name} FIELD), or ask for fewer with a limit"
                )
            yield []
        kept.sort(key=self._rank, reverse=self._reverse)
        looked_at = self.documents_read
        for found in self._matching(self._look_up([row.id for row in kept])):
            self.documents_read = looked_at  # these are the same documents once more
            yield found

    def _rank(self, row: KeyRow) -> tuple[bool, bytes, str]:
        return rank(row.key, row.id, descending=self._reverse)


def _cut(span: Span, key: bytes) -> list[Span]:
    """A span in two, before and from a key on, without what is empty."""
    parts = (Span(span.low, min(span.high, key)), Span(max(span.low, key), span.high))
    return [part if part.low != key else Span(key, key + b"\0") for part in parts if part.low < part.high]


def _id_of(span: Span) -> str:
    return span.low.removeprefix(STRINGS).decode(errors="ignore")


def _id_before(key: bytes, *, reverse: bool) -> str | None:
    """The id at which a scan from a key of the ids begins, or some way before; None for either end."""
    if not key.startswith(STRINGS):
        return None
    if not reverse:
        return key.removeprefix(STRINGS).decode(errors="ignore") or None
    # No id that begins so is longer than this.
    return key[1:-1].decode(errors="ignore") + _GREATEST * (DOCUMENT_ID_BYTES_MAX // len(_GREATEST.encode()) + 1)
