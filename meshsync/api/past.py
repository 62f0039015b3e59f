"""The past of documents: who wrote what, and what of it is still to be seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import trio
from starlette.requests import Request
from starlette.responses import Response

from meshsync.api.documents import describe_write, no_document, past_absence
from meshsync.api.errors import NotHereError
from meshsync.api.requests import collection_of, flag, path_text, read_object, refuse_unknown
from meshsync.api.responses import SLICE_SECONDS, Lines, Write, answer, line
from meshsync.errors import LocalError
from meshsync.moments import moment_text

if TYPE_CHECKING:
    from meshsync.collection import Collection
    from meshsync.node import Node
    from meshsync.past.conflicts import Conflict, FieldConflict
    from meshsync.past.facts import Said
    from meshsync.past.history import FieldChange, PastWrite
    from meshsync.past.origins import Expiry, FieldOrigin


async def get_history(node: Node, request: Request) -> Response:
    """Every write to a document, deleted or not, a line each, in the order that decides what the document shows.

    `set` is what it wrote (in a patch, null removes a field), `expires` what it said of when the document expires
    (null: nothing, which in a put means never), `visible` whether the document still shows some of it.
    In `changes` a field without `before` was not there, and one without `after` is not there any more.  `gone`
    marks the last write of which nothing is here: "let_go", or "not_fetched" where it never came, because peers called
    it superseded; earlier ones that are not listed went before it.
    """
    refuse_unknown(request, "diff")
    collection, id = collection_of(node, request), path_text(request, "id")
    _require_written(collection, id)
    return _lines(map(_describe_past_write, collection.history(id, diff=flag(request, "diff"))))


async def get_why(node: Node, request: Request) -> Response:
    """Where each field of a document comes from, what that overrode, and whether its author had seen it.

    `overrode` lists what that author had not seen, the latest first, down to what they saw last; without `value`
    a field was not there.  `beside` lists the other values of a field that nobody has decided yet (policy `manual`).
    `complete` false: the document was written so often that not all was looked at.  `let_go_until`: not all that was
    overwritten up to then is kept here, and none of it is told; `not_fetched_until`: the same of what never came.
    """
    refuse_unknown(request, "field")
    collection, id = collection_of(node, request), path_text(request, "id")
    name = request.query_params.get("field")
    _require_written(collection, id)
    found = collection.why(id, name)
    assert found is not None
    if name is not None and not found.fields:
        raise NotHereError(
            "no_document", f"document {id!r} has no field {name!r}; meshsync history shows what was written"
        )
    return answer(
        collection=collection.name,
        id=id,
        deleted=None if found.deleted is None else describe_write(found.deleted),
        expiry=None if found.expiry is None else _describe_expiry(found.expiry),
        fields=[_describe_origin(origin) for origin in found.fields],
        complete=found.complete,
        let_go_until=moment_text(found.let_go_until),
        not_fetched_until=moment_text(found.not_fetched_until),
    )


async def list_conflicts(node: Node, request: Request) -> Response:
    """The documents with writes that did not know of each other and that no later one has seen together, by id.

    A line a document: the last write of each side, and for each field on which they differ what is shown and what
    lost.  Writing the document settles it.  `winner` is null where the collection's policy is `manual`: the field
    shows all of `losers` until someone decides.
    """
    refuse_unknown(request)
    collection = collection_of(node, request)
    return _lines(_describe_conflict(collection.name, conflict) for conflict in collection.conflicts())


async def restore_document(node: Node, request: Request) -> Response:
    """Write a document as it was at a time or an entry, as a new entry."""
    refuse_unknown(request)
    collection, id = collection_of(node, request), path_text(request, "id")
    at = (await read_object(request, "at", required=("at",)))["at"]
    if not isinstance(at, str):
        raise LocalError("at must be a string: a time such as 2026-05-04T12:30:00Z, or an entry's id")
    entry = await collection.restore(id, at)
    if entry is None:
        is_here = collection.get(id) is not None
        hint = "delete it by rm" if is_here else "meshsync history shows when it was written"
        snapshot = await collection.snapshot(at)
        raise no_document(collection, id, await past_absence(collection, snapshot, id, at, hint))
    return answer(collection=collection.name, id=id, entry=str(entry))


def _require_written(collection: Collection, id: str) -> None:
    """NotHereError: nobody ever wrote this document."""
    if not collection.was_written(id):
        raise no_document(collection, id, f"document {id!r} was never written in {collection.name}")


def _lines(values: Iterable[Mapping[str, Any]]) -> Response:
    """JSON lines, written as they are read from the store."""

    async def produce(write: Write) -> None:
        began = trio.current_time()
        for value in values:
            await write(line({"v": 1, **value}))
            if trio.current_time() - began > SLICE_SECONDS:
                await trio.lowlevel.checkpoint()
                began = trio.current_time()

    return Lines(produce)


def _describe_past_write(past: PastWrite) -> dict[str, Any]:
    """A line of a history."""
    expires = moment_text(past.expires) if isinstance(past.expires, datetime) else past.expires
    described = {**describe_write(past.write), "set": past.body, "expires": expires, "visible": past.visible}
    if past.gone is not None:
        described["gone"] = past.gone
    if past.changes is not None:
        described["changes"] = [_describe_change(change) for change in past.changes]
    return described


def _describe_change(change: FieldChange) -> dict[str, Any]:
    described: dict[str, Any] = {"field": change.field}
    if change.was_there:
        described["before"] = change.before
    if change.is_there:
        described["after"] = change.after
    return described


def _describe_said(said: Said) -> dict[str, Any]:
    """What one write made of a field; without `value` it is not there."""
    value = {"value": said.value} if said.is_there else {}
    return {**value, **describe_write(said.write)}


def _describe_expiry(expiry: Expiry) -> dict[str, Any]:
    return {"expires": moment_text(expiry.time), "passed": expiry.has_passed, **describe_write(expiry.write)}


def _describe_origin(origin: FieldOrigin) -> dict[str, Any]:
    overrode = [{**_describe_said(one.said), "seen": one.seen} for one in origin.overrode]
    beside = [_describe_said(said) for said in origin.beside]
    return {"field": origin.field, **_describe_said(origin.said), "beside": beside, "overrode": overrode}


def _describe_conflict(collection: str, conflict: Conflict) -> dict[str, Any]:
    return {
        "collection": collection,
        "id": conflict.id,
        "writes": [describe_write(write) for write in conflict.writes],
        "fields": [_describe_field(one) for one in conflict.fields],
        "expires": None if conflict.expires is None else _describe_field(conflict.expires),
        "complete": conflict.complete,
    }


def _describe_field(conflict: FieldConflict) -> dict[str, Any]:
    return {
        "field": conflict.field,
        "winner": None if conflict.winner is None else _describe_said(conflict.winner),
        "losers": [_describe_said(loser) for loser in conflict.losers],
    }
