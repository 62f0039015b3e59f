"""Documents: reading, writing and listing them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from meshsync.api.errors import NotHereError
from meshsync.api.requests import collection_of, flag, path_text, read_body, refuse_unknown
from meshsync.api.responses import answer
from meshsync.core.strictjson import decode_untrusted_json
from meshsync.errors import LocalError, NotInPartError
from meshsync.moments import moment_text

if TYPE_CHECKING:
    from meshsync.collection import Collection
    from meshsync.documents import Change, Document
    from meshsync.ids import EntryId
    from meshsync.node import Node
    from meshsync.past.facts import WriteInfo
    from meshsync.past.snapshots import Snapshot


async def get_document(node: Node, request: Request) -> Response:
    """One document with its author and time; with `at`, as it was then."""
    refuse_unknown(request, "at")
    collection, id = collection_of(node, request), path_text(request, "id")
    if (at := request.query_params.get("at")) is not None:
        snapshot = await collection.snapshot(at)
        past = await snapshot.get(id)
        if past is None:
            hint = "meshsync history shows when it was written"
            raise no_document(collection, id, await past_absence(collection, snapshot, id, at, hint))
        written = describe_write(past.write)
        return answer(collection=collection.name, id=id, doc=past.body, expires=moment_text(past.expires), **written)
    document = collection.get(id)
    if document is None:
        raise no_document(collection, id, _absence(collection, id))
    return answer(collection=collection.name, doc=document.body, **describe_document(document))


async def put_document(node: Node, request: Request) -> Response:
    """Write a whole document; with `if_entry` or `if_absent`, only if that is so.

    `expires` is a time, in how long (30d, 2h), or never, as without it: no node shows the document from then on.
    """
    return await _write(node, request, lambda collection: collection.put)


async def patch_document(node: Node, request: Request) -> Response:
    """Set some fields; null removes one.  `if_entry`, `if_absent` and `expires` as for PUT.

    Without `expires` the document expires when it did before.
    """
    return await _write(node, request, lambda collection: collection.patch)


async def _write(
    node: Node, request: Request, method: Callable[[Collection], Callable[..., Awaitable[EntryId]]]
) -> Response:
    """Write with a method of the collection that takes an id, a body, `expires`, `if_entry` and `if_absent`."""
    refuse_unknown(request, "expires", "if_entry", "if_absent")
    collection, id = collection_of(node, request), path_text(request, "id")
    expires, if_entry = request.query_params.get("expires"), request.query_params.get("if_entry")
    if_absent, body = flag(request, "if_absent"), body_of(await read_body(request), id)
    entry = await method(collection)(id, body, expires=expires, if_entry=if_entry, if_absent=if_absent)
    return _written(collection.name, id, entry)


async def delete_document(node: Node, request: Request) -> Response:
    """Delete a document; with `if_entry`, only if that is its revision."""
    refuse_unknown(request, "if_entry")
    collection, id = collection_of(node, request), path_text(request, "id")
    entry = await collection.delete(id, if_entry=request.query_params.get("if_entry"))
    if entry is None:
        raise no_document(collection, id, _absence(collection, id))
    return _written(collection.name, id, entry)


def body_of(data: bytes, id: str | None, what: str = "the document") -> dict[str, Any]:
    """Read a document.  Its `id`, where it has one, must be `id` and is no field of its own."""
    body = decode_untrusted_json(data, what)
    if not isinstance(body, dict):
        raise LocalError(f"{what} must be a JSON object; put a single value into a field")
    if id is not None and body.pop("id", id) != id:
        raise LocalError(f"{what} names another id than {id!r}; remove its field `id`")
    return body


def _absence(collection: Collection, id: str) -> str:
    """Why there is no document."""
    if (expired_at := collection.expired_at(id)) is not None:
        return (
            f"document {id!r} in {collection.name} expired at {moment_text(expired_at)}; meshsync history shows what"
            " was written, and restore --at one of its entries brings it back"
        )
    return f"there is no document {id!r} in {collection.name}"


async def past_absence(collection: Collection, snapshot: Snapshot, id: str, at: str, hint: str) -> str:
    """Why there was no document; `hint`: what to do where it did not exist."""
    if (expired_at := await snapshot.expired_at(id)) is not None:
        return (
            f"document {id!r} in {collection.name} had expired at {moment_text(expired_at)}; name an earlier time, or"
            " one of the entries that meshsync history shows"
        )
    return f"there was no document {id!r} in {collection.name} at {at}; {hint}"


def no_document(collection: Collection, id: str, message: str) -> LocalError:
    """The error for a document that is not here; `message` is for a node that holds all."""
    outside = collection.outside(id)
    if outside is not None and outside.may_exist:
        return NotInPartError(str(outside))
    return NotHereError("no_document", message if outside is None else str(outside))


def describe_document(document: Document) -> dict[str, Any]:
    """What stands beside a document's fields."""
    return {
        "id": document.id,
        "author": str(document.author),
        "time": time_text(document),
        "entry": str(document.entry),
        "conflict": document.conflict,
        "revision": str(document.revision),
        "expires": moment_text(document.expires),
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
    return moment_text(of.time)


def _written(collection: str, id: str, entry: EntryId) -> Response:
    return answer(collection=collection, id=id, entry=str(entry))
