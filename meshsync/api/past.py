"""The past of documents: who wrote what, and what of it is still to be seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import trio
from starlette.requests import Request
from starlette.responses import Response

from meshsync.api.documents import time_text
from meshsync.api.errors import NotHereError
from meshsync.api.requests import collection_of, flag, path_text, refuse_unknown
from meshsync.api.responses import Lines, Write, line

if TYPE_CHECKING:
    from meshsync.collection import Collection
    from meshsync.history import FieldChange, PastWrite, WriteInfo
    from meshsync.node import Node

_SLICE_SECONDS = 0.005
"""How long reading may keep the event loop to itself."""


async def get_history(node: Node, request: Request) -> Response:
    """Every write to a document, deleted or not, a line each, in the order that decides what the document shows.

    `set` is what it wrote (in a patch, null removes a field), `visible` whether the document still shows some of it.
    In `changes` a field without `before` was not there, and one without `after` is not there any more.
    """
    refuse_unknown(request, "diff")
    collection, id = collection_of(node, request), path_text(request, "id")
    _require_written(collection, id)
    return _lines(map(describe_past_write, collection.history(id, diff=flag(request, "diff"))))


def _require_written(collection: Collection, id: str) -> None:
    """NotHereError: nobody ever wrote this document."""
    if not collection.was_written(id):
        raise NotHereError("no_document", f"document {id!r} was never written in {collection.name}")


def _lines(values: Iterable[Mapping[str, Any]]) -> Response:
    """JSON lines, written as they are read from the store."""

    async def produce(write: Write) -> None:
        began = trio.current_time()
        for value in values:
            await write(line(value))
            if trio.current_time() - began > _SLICE_SECONDS:
                await trio.lowlevel.checkpoint()
                began = trio.current_time()

    return Lines(produce)


def describe_write(write: WriteInfo) -> dict[str, Any]:
    """Which entry wrote, whose it is, when and how."""
    return {
        "entry": str(write.entry),
        "author": str(write.author),
        "time": time_text(write),
        "kind": write.kind,
    }


def describe_past_write(past: PastWrite) -> dict[str, Any]:
    """A line of a history."""
    described = {**describe_write(past.write), "set": past.body, "visible": past.visible}
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
