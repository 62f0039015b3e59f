"""Listing documents as they were: those that a query wants, by id or in another order."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from meshsync.core.limits import LIMITS
from meshsync.core.matching import getter
from meshsync.core.ordering import NULL_KEY, Order, rank, sort_key
from meshsync.core.query import Query
from meshsync.errors import LocalError
from meshsync.past.snapshots import Missing, PastDocument, Snapshot
from meshsync.store.listing import After

_ID = ("id",)
_KEPT = 1024
"""When only the first are wanted, so many more are kept before the rest is thrown away."""


async def list_past(
    snapshot: Snapshot,
    query: Query,
    *,
    order: Order | None = None,
    after: After | None = None,
    limit: int | None = None,
    sorted_max: int = LIMITS.sorted_documents_max,
) -> AsyncGenerator[PastDocument, None]:
    """The documents that match as they were; `order`, `after` and `limit` as of `Collection.documents`.

    No index knows the past: every document is made anew, and with an order what matches is sorted, so that the first
    comes after all were looked at.  LocalError: too many match to be sorted.  LetGoError: in the end, where some are
    not known that may belong among those that were told.  DamagedError: as `Snapshot.get`.  Cancelling loses nothing.
    """
    missing = Missing()
    if order is None:
        async with aclosing(_by_id(snapshot, query, missing, "" if after is None else after.id, limit)) as documents:
            async for document in documents:
                yield document
        missing.check()
        return
    get, descending = getter(order.path), order.descending

    def rank_of(id: str, value: object) -> tuple[bool, bytes, str]:
        # Of the id itself it is the id that decides, and all of it.
        return rank(NULL_KEY if order.path == _ID else sort_key(value), id, descending=descending)

    last = None if after is None else rank_of(after.id, after.value)
    kept: list[tuple[bool, bytes, str]] = []
    most = sorted_max if limit is None else min(limit, sorted_max)
    async with aclosing(_by_id(snapshot, query, missing)) as documents:
        async for document in documents:
            key = rank_of(document.id, get(document.body))
            if last is None or (key < last if descending else key > last):
                kept.append(key)
            if len(kept) > most + _KEPT:
                if limit is None or limit > most:
                    raise LocalError(
                        f"more than {most} documents matched, which are too many to sort; ask for fewer with a limit"
                    )
                kept.sort(reverse=descending)
                del kept[most:]
    kept.sort(reverse=descending)
    for _, _, id in kept[:limit]:
        if (found := await snapshot.get(id)) is not None:
            yield found
    missing.check()


async def _by_id(
    snapshot: Snapshot, query: Query, missing: Missing, after: str = "", limit: int | None = None
) -> AsyncGenerator[PastDocument, None]:
    count = 0
    async with aclosing(snapshot.known_and_missing(after)) as documents:
        async for document in documents:
            if count == limit:
                return
            if not isinstance(document, PastDocument):
                missing.add(document)
            elif query.matches(document.body, document.id):
                count += 1
                yield document
