"""Documents: reading, writing and listing them."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import trio
from starlette.requests import Request
from starlette.responses import Response

from meshsync.api.errors import NotHereError
from meshsync.api.requests import collection_of, flag, path_text, query_of, read_body, refuse_unknown, whole_number
from meshsync.api.responses import Lines, Write, answer, line
from meshsync.core.limits import INT_MAX
from meshsync.core.strictjson import decode_untrusted_json
from meshsync.errors import LocalError

if TYPE_CHECKING:
    from meshsync.core.query import Query
    from meshsync.documents import Change, Document
    from meshsync.ids import EntryId
    from meshsync.node import Node
    from meshsync.past.facts import WriteInfo
    from meshsync.past.snapshots import Snapshot

_SLICE_SECONDS = 0.005
"""How long a listing may keep the event loop to itself: other work, such as a `put`, waits no longer."""
_SLICE_DOCUMENTS = 64
_CHUNK_CHARACTERS = 64 * 1024


async def get_document(node: Node, request: Request) -> Response:
    """One document with its author and time; with `at`, as it was then."""
    refuse_unknown(request, "at")
    collection, id = collection_of(node, request), path_text(request, "id")
    if (at := request.query_params.get("at")) is not None:
        past = await (await collection.snapshot(at)).get(id)
        if past is None:
            raise NotHereError("no_document", f"there was no document {id!r} in {collection.name} at {at}")
        return answer(collection=collection.name, id=id, doc=past.body, **describe_write(past.write))
    document = collection.get(id)
    if document is None:
        raise NotHereError("no_document", f"there is no document {id!r} in {collection.name}")
    return answer(collection=collection.name, doc=document.body, **describe_document(document))


async def put_document(node: Node, request: Request) -> Response:
    """Write a whole document; with `if_entry` or `if_absent`, only if that is so."""
    refuse_unknown(request, "if_entry", "if_absent")
    collection, id = collection_of(node, request), path_text(request, "id")
    if_entry, if_absent = request.query_params.get("if_entry"), flag(request, "if_absent")
    body = body_of(await read_body(request), id)
    return _written(collection.name, id, await collection.put(id, body, if_entry=if_entry, if_absent=if_absent))


async def patch_document(node: Node, request: Request) -> Response:
    """Set some fields; null removes one.  `if_entry` and `if_absent` as for PUT."""
    refuse_unknown(request, "if_entry", "if_absent")
    collection, id = collection_of(node, request), path_text(request, "id")
    if_entry, if_absent = request.query_params.get("if_entry"), flag(request, "if_absent")
    body = body_of(await read_body(request), id)
    return _written(collection.name, id, await collection.patch(id, body, if_entry=if_entry, if_absent=if_absent))


async def delete_document(node: Node, request: Request) -> Response:
    """Delete a document; with `if_entry`, only if that is its revision."""
    refuse_unknown(request, "if_entry")
    collection, id = collection_of(node, request), path_text(request, "id")
    entry = await collection.delete(id, if_entry=request.query_params.get("if_entry"))
    if entry is None:
        raise NotHereError("no_document", f"there is no document {id!r} in {collection.name}")
    return _written(collection.name, id, entry)


async def list_documents(node: Node, request: Request) -> Response:
    """The documents of a collection, by id, a line each: its fields and `id`; with `at`, as they were then."""
    refuse_unknown(request, "where", "query", "after", "limit", "ids", "at")
    collection, query = collection_of(node, request), query_of(request)
    after = request.query_params.get("after")
    limit = whole_number(request, "limit", 0, INT_MAX)
    ids_only = request.query_params.get("ids") in ("true", "1")

    at = request.query_params.get("at")
    if at is not None:
        return _list_past(await collection.snapshot(at), query, after, limit, ids_only=ids_only)

    async def produce(write: Write) -> None:
        left = INT_MAX if limit is None else limit
        chunk: list[str] = []
        size = seen = 0
        began = trio.current_time()
        for id, body in collection.bodies():
            # The clock is looked at now and then: a look costs as much as matching.
            seen += 1
            if seen % _SLICE_DOCUMENTS == 0 and trio.current_time() - began > _SLICE_SECONDS:
                await trio.lowlevel.checkpoint()
                began = trio.current_time()
            if left == 0:
                break
            if (after is not None and id <= after) or not query.matches(body, id):
                continue
            left -= 1
            text = line({"id": id} if ids_only else {**body, "id": id})
            chunk.append(text)
            size += len(text)
            if size > _CHUNK_CHARACTERS:
                await write("".join(chunk))
                chunk.clear()
                size = 0
        if chunk:
            await write("".join(chunk))

    return Lines(produce)


def _list_past(snapshot: Snapshot, query: Query, after: str | None, limit: int | None, *, ids_only: bool) -> Response:
    """The same of documents as they were.  The snapshot lets others run by itself."""

    async def produce(write: Write) -> None:
        left = INT_MAX if limit is None else limit
        async with aclosing(snapshot.documents()) as documents:
            async for one in documents:
                if left == 0:
                    break
                if (after is None or one.id > after) and query.matches(one.body, one.id):
                    left -= 1
                    await write(line({"id": one.id} if ids_only else {**one.body, "id": one.id}))

    return Lines(produce)


def body_of(data: bytes, id: str | None, what: str = "the document") -> dict[str, Any]:
    """Read a document.  Its `id`, where it has one, must be `id` and is no field of its own."""
    body = decode_untrusted_json(data, what)
    if not isinstance(body, dict):
        raise LocalError(f"{what} must be a JSON object; put a single value into a field")
    if id is not None and body.pop("id", id) != id:
        raise LocalError(f"{what} names another id than {id!r}; remove its field `id`")
    return body


def describe_document(document: Document) -> dict[str, Any]:
    """What stands beside a document's fields."""
    return {
        "id": document.id,
        "author": str(document.author),
        "time": time_text(document),
        "entry": str(document.entry),
        "conflict": document.conflict,
        "revision": str(document.revision),
    }


def describe_write(write: WriteInfo) -> dict[str, Any]:
    """Which entry wrote, whose it is, when and how."""
    return {
        "entry": str(write.entry),
        "author": str(write.author),
        "time": time_text(write),
        "kind": write.kind,
    }


def time_text(of: Document | Change | WriteInfo) -> str:
    """The time of a document, a change or a write: RFC 3339, UTC, milliseconds."""
    return of.time.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _written(collection: str, id: str, entry: EntryId) -> Response:
    return answer(collection=collection, id=id, entry=str(entry))
