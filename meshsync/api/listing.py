"""Listing documents, and the indexes by which they are found."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import trio
from starlette.requests import Request
from starlette.responses import Response

from meshsync.api.errors import NotHereError
from meshsync.api.requests import (
    collection_of,
    flag,
    path_text,
    query_of,
    read_object,
    refuse_unknown,
    whole_number,
)
from meshsync.api.responses import SLICE_SECONDS, Lines, Write, answer, line
from meshsync.core.limits import INT_MAX
from meshsync.core.matching import MISSING, getter
from meshsync.core.ordering import Order
from meshsync.core.strictjson import decode_untrusted_json
from meshsync.errors import LetGoError, LocalError
from meshsync.jsonlines import line_of
from meshsync.moments import time_of
from meshsync.past.listing import list_past
from meshsync.store.listing import After, Listing

if TYPE_CHECKING:
    from meshsync.collection import Collection
    from meshsync.documents import Document
    from meshsync.node import Node
    from meshsync.past.snapshots import PastDocument
    from meshsync.store.rows import DocumentPayload

_CHUNK_CHARACTERS = 64 * 1024


async def list_documents(node: Node, request: Request) -> Response:
    """The documents of a collection, a line each: its fields and `id`; with `at`, as they were then.

    Where a document expires, `$expires` says when; see `load` for a field of that name.

    By id, or by the field of `order` and then by id: null, booleans, numbers, strings, arrays, objects, and the
    documents without the field at the end.  With `at`, where the past was let go, those that are known come first, and
    then the error says how many are not.
    """
    refuse_unknown(request, "where", "query", "order", "after", "after_value", "limit", "ids", "at")
    ids_only, at = flag(request, "ids"), request.query_params.get("at")
    if at is not None:
        order = request.query_params.get("order")
        collection, limit = collection_of(node, request), whole_number(request, "limit", 0, INT_MAX)
        snapshot = await collection.snapshot(at)
        after = _after(request, order)
        if after is not None and order is not None and after.value is MISSING:
            with suppress(LetGoError):
                _check_lacking(after, order, await snapshot.get(after.id))
        found = list_past(
            snapshot,
            query_of(request),
            order=None if order is None else Order.parse(order),
            after=after,
            limit=limit,
        )
        return _told(found, ids_only=ids_only)
    listing = _select(node, request)

    async def produce(write: Write) -> None:
        chunk: list[str] = []
        size = 0
        began = trio.current_time()
        for found in listing.steps():
            for document, body in found:
                text = line({"id": document.row.id} if ids_only else line_of(document.row.id, body, _expiry(document)))
                chunk.append(text)
                size += len(text)
            if size > _CHUNK_CHARACTERS:
                await write("".join(chunk))
                chunk.clear()
                size = 0
            if trio.current_time() - began > SLICE_SECONDS:
                await trio.lowlevel.checkpoint()
                began = trio.current_time()
        if chunk:
            await write("".join(chunk))

    return Lines(produce)


def _select(node: Node, request: Request) -> Listing:
    order = request.query_params.get("order")
    collection, limit = collection_of(node, request), whole_number(request, "limit", 0, INT_MAX)
    after = _after(request, order)
    if after is not None and order is not None and after.value is MISSING:
        _check_lacking(after, order, collection.get(after.id))
    return collection.select(query_of(request), order=order, after=after, limit=limit)


def _after(request: Request, order: str | None) -> After | None:
    id, value = request.query_params.get("after"), request.query_params.get("after_value")
    if value is not None and (id is None or order is None):
        raise LocalError("after_value goes with after and order: it is what the field held in that document")
    if id is None:
        return None
    return After(id, MISSING if value is None else decode_untrusted_json(value, "after_value"))


def _check_lacking(after: After, order: str, document: Document | PastDocument | None) -> None:
    """LocalError: a page is to begin behind a document without the field, and the document has it.

    That would be the end of the listing, as if all had been listed.
    """
    path = Order.parse(order).path
    if document is not None and path != ("id",) and getter(path)(document.body) is not MISSING:
        raise LocalError(
            f"document {after.id!r:.80} has the field by which this is sorted; give its value of the page before as"
            " after_value"
        )


async def explain_documents(node: Node, request: Request) -> Response:
    """How the documents are found that `documents` lists, by finding them: which index served, what was looked at."""
    refuse_unknown(request, "where", "query", "order", "after", "after_value", "limit")
    collection, listing = collection_of(node, request), _select(node, request)
    began = trio.current_time()
    for _ in listing.steps():
        await trio.lowlevel.checkpoint()
    return answer(
        collection=collection.name,
        query=str(listing.query),
        index=listing.plan.served_by,
        way=listing.plan.way,
        sorted=listing.plan.sorts,
        keys_read=listing.keys_read,
        documents_read=listing.documents_read,
        matched=listing.matched,
        documents=collection.held,
        ms=round((trio.current_time() - began) * 1000, 3),
    )


def _expiry(document: DocumentPayload) -> datetime | None:
    return None if (ms := document.row.expires_ms) is None else time_of(ms)


def _told(found: AsyncGenerator[PastDocument, None], *, ids_only: bool) -> Response:
    """Documents as they were, a line each.  Finding them lets others run by itself."""

    async def produce(write: Write) -> None:
        async with aclosing(found) as documents:
            async for one in documents:
                await write(line({"id": one.id} if ids_only else line_of(one.id, one.body, one.expires)))

    return Lines(produce)


async def list_indexes(node: Node, request: Request) -> Response:
    """The declared indexes of a collection, at this node."""
    refuse_unknown(request)
    collection = collection_of(node, request)
    return answer(collection=collection.name, documents=collection.held, indexes=_indexes(collection))


async def add_index(node: Node, request: Request) -> Response:
    """Declare an index of a field, for good.  It is built in the background; `ready` says when it serves queries."""
    refuse_unknown(request)
    collection = collection_of(node, request)
    field = (await read_object(request, "field", required=("field",)))["field"]
    if not isinstance(field, str):
        raise LocalError("field is the dotted path of a field, a string")
    await collection.add_index(field)
    return answer(collection=collection.name, documents=collection.held, indexes=_indexes(collection))


async def remove_index(node: Node, request: Request) -> Response:
    """Give up an index.  Where the configuration names it, the next start declares it again."""
    refuse_unknown(request)
    collection, field = collection_of(node, request), path_text(request, "field")
    if not await collection.remove_index(field):
        fields = ", ".join(index.field for index in collection.indexes()) or "none"
        raise NotHereError("no_index", f"{collection.name} has no index of {field}; it has: {fields}")
    return answer(collection=collection.name, documents=collection.held, indexes=_indexes(collection))


def _indexes(collection: Collection) -> list[dict[str, Any]]:
    return [{"field": one.field, "ready": one.ready, "documents": one.documents} for one in collection.indexes()]
