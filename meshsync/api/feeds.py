"""Feeds: changes of documents and events of the node, as JSON lines or server-sent events.

A feed goes on until its client goes away.  It continues from a cursor, which means the next one.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from meshsync.api.documents import time_text
from meshsync.api.requests import collection_of, flag, number_of, query_of, refuse_unknown, whole_number
from meshsync.api.responses import EVENT_STREAM, JSON_LINES, Lines, Write, line, server_sent, wants_event_stream
from meshsync.core.limits import INT_MAX
from meshsync.errors import LocalError
from meshsync.events import EVENT_TYPES

if TYPE_CHECKING:
    from meshsync.documents import Change
    from meshsync.events import Event
    from meshsync.node import Node


async def follow_changes(node: Node, request: Request) -> Response:
    """Every change of a collection's documents from a cursor on, or from now on.

    With a query, the changes after which a document matches, and `removed` (or `delete`) where it does not any more.
    Of a part of a collection: the documents that came into it, changed in it and left it, each once as it stands now;
    the feed goes on when the node wants another part, or all.  Server-sent events carry their cursors as ids.
    The header `Meshsync-Cursor` names where the feed begins, so that nothing is missed between this and a listing.
    """
    refuse_unknown(request, "where", "query", "since")
    collection, query = collection_of(node, request), query_of(request)
    since = request.query_params.get("since", request.headers.get("last-event-id"))
    if since is None:
        since = collection.cursor()
    changes = collection.changes(query, since)  # refuses a cursor of another store while there is a status to say so
    as_events = wants_event_stream(request)

    async def produce(write: Write) -> None:
        async with aclosing(changes):
            async for change in changes:
                value = describe_change(change)
                await write(server_sent(change.cursor, "change", value) if as_events else line(value))

    media_type = EVENT_STREAM if as_events else JSON_LINES
    return Lines(produce, media_type=media_type, headers={"Meshsync-Cursor": since})


async def follow_events(node: Node, request: Request) -> Response:
    """The events of the node from a number on, or from now on; only those kept with `follow=false`."""
    refuse_unknown(request, "since", "type", "follow")
    since = whole_number(request, "since", 0, INT_MAX)
    types = request.query_params.getlist("type")
    for unknown in set(types) - set(EVENT_TYPES):
        raise LocalError(f"there is no event {unknown!r}; there are {', '.join(EVENT_TYPES)}")
    last = number_of(request.headers.get("last-event-id", ""))
    if since is None and last is not None:
        since = last + 1
    # Now, and not when the first event is asked for: what happens after the answer has begun is in it.
    begin = node.events.next if since is None else since
    only_kept = "follow" in request.query_params and not flag(request, "follow")
    as_events = wants_event_stream(request)

    async def produce(write: Write) -> None:
        async def tell(event: Event) -> None:
            if not types or event.type in types:
                value = describe_event(event)
                await write(server_sent(str(event.n), event.type, value) if as_events else line(value))

        if only_kept:
            for event in node.events.read(since or 1):
                await tell(event)
            return
        async with aclosing(node.events.follow(begin)) as events:
            async for event in events:
                await tell(event)

    return Lines(produce, media_type=EVENT_STREAM if as_events else JSON_LINES)


def describe_change(change: Change) -> dict[str, Any]:
    """A change as the interface writes it."""
    return {
        "v": 1,
        "cursor": change.cursor,
        "collection": change.collection,
        "id": change.id,
        "doc": change.document,
        "author": str(change.author),
        "time": time_text(change),
        "kind": change.kind,
        "conflict": change.conflict,
    }


def describe_event(event: Event) -> dict[str, Any]:
    """An event as the interface writes it; its facts stand beside its number, time and type."""
    return {"v": 1, "n": event.n, "time": event.time, "type": event.type, **event.facts}
