"""The one table of routes: what is served, and what /openapi.json says of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from meshsync.api import batches, bulk, control, documents, feeds, listing, metrics, openapi, past
from meshsync.api.responses import EVENT_STREAM, JSON, JSON_LINES

if TYPE_CHECKING:
    from meshsync.node import Node

TEXT = "text/plain"

Handler = Callable[["Node", Request], Awaitable[Response]]


@dataclass(frozen=True)
class Parameter:
    """A parameter in the query of a request."""

    name: str
    description: str
    schema: str = "string"
    many: bool = False


@dataclass(frozen=True)
class Route:
    """One method on one path.  The handler's docstring is its description."""

    method: str
    path: str
    handler: Handler
    parameters: tuple[Parameter, ...] = ()
    body: str | None = None
    """The name of its schema in `meshsync.api.openapi`, or a media type."""
    answer: str = "Answer"
    """The same for the answer."""
    errors: tuple[str, ...] = ()
    """Codes besides bad_request and internal."""

    @property
    def name(self) -> str:
        """What the operation is called."""
        return self.handler.__name__


_WHERE = (
    Parameter("where", "a condition such as `team=blue`; several are all required", many=True),
    Parameter("query", "a query as a JSON tree"),
)
_LIST = (
    *_WHERE,
    Parameter("order", "sort by this field, or by -FIELD for descending, instead of the id"),
    Parameter("after", "only documents behind the one with this id: the last one of the page before"),
    Parameter("after_value", "with order: what the field held in that document, as JSON; if it had none, none"),
    Parameter("limit", "at most so many", "integer"),
)
_AT = Parameter("at", "as it was: a time such as 2026-05-04T12:30:00Z, or an entry's id (8 digits or more)")
_EXPIRES = Parameter("expires", "when it expires: a time such as 2026-12-01T00:00Z, in how long (30d, 2h), or never")
_IF_ENTRY = Parameter("if_entry", "only if this is the document's `revision` (8 digits or more)")
_IF = (_IF_ENTRY, Parameter("if_absent", "true: only if the document does not exist", "boolean"))
_COLLECTION = "/v1/collections/{collection}"
_INDEXES = f"{_COLLECTION}/indexes"
_DOCUMENT = f"{_COLLECTION}/documents/{{id}}"
_WRITE_ERRORS = ("no_collection", "refused", "too_large", "store_failed")
_NOT_HERE = ("no_document", "not_in_part", "no_collection")
_DOCUMENT_ERRORS = ("moved_on", *_WRITE_ERRORS)

ROUTES = (
    Route("GET", "/v1/health", control.get_health, answer="Health"),
    Route("GET", "/v1/status", control.get_status, answer="Status"),
    Route("GET", "/v1/graph", control.get_graph, answer="Graph"),
    Route(
        "GET",
        "/v1/peers",
        control.list_peers,
        (Parameter("state", "only peers in this state; `pending` are those that wait to be accepted"),),
        answer="Peers",
    ),
    Route("POST", "/v1/peers/{id}/accept", control.accept_peer, answer="PeerId", errors=("no_peer",)),
    Route("POST", "/v1/peers/{id}/forget", control.forget_peer, answer="PeerId", errors=("no_peer",)),
    Route("POST", "/v1/peers/{id}/ban", control.ban_peer, answer="PeerId", errors=("no_peer",)),
    Route("POST", "/v1/connect", control.connect, body="Connect", answer="Connected", errors=("network", "refused")),
    Route("POST", "/v1/sync", control.sync, body="Sync", answer="Cycle", errors=("no_collection", "network")),
    Route("POST", "/v1/wait", control.wait_synced, body="Wait", answer="Waited", errors=("no_collection", "no_peer")),
    Route(
        "GET",
        "/v1/events",
        feeds.follow_events,
        (
            Parameter("since", "the number of the first event wanted; without it, from now on", "integer"),
            Parameter("type", "only events of this type", many=True),
            Parameter("follow", "false: only the events that are kept", "boolean"),
        ),
        answer=f"{JSON_LINES} or {EVENT_STREAM}",
    ),
    Route("POST", "/v1/verify", control.verify, body="Verify", answer=JSON_LINES),
    Route("GET", "/v1/collections", control.list_collections, answer="Collections"),
    Route("POST", "/v1/collections", control.join_collection, body="Join", answer="Joined", errors=("refused",)),
    Route("DELETE", _COLLECTION, control.leave_collection, answer="Joined", errors=("no_collection",)),
    Route(
        "GET",
        f"{_COLLECTION}/documents",
        listing.list_documents,
        (*_LIST, Parameter("ids", "true: only the ids", "boolean"), _AT),
        answer=JSON_LINES,
        errors=("no_collection",),
    ),
    Route(
        "GET",
        f"{_COLLECTION}/explain",
        listing.explain_documents,
        _LIST,
        answer="Explanation",
        errors=("no_collection",),
    ),
    Route("GET", _INDEXES, listing.list_indexes, answer="Indexes", errors=("no_collection",)),
    Route("POST", _INDEXES, listing.add_index, body="Index", answer="Indexes", errors=("no_collection",)),
    Route(
        "DELETE",
        f"{_INDEXES}/{{field}}",
        listing.remove_index,
        answer="Indexes",
        errors=("no_collection", "no_index"),
    ),
    Route(
        "GET",
        _DOCUMENT,
        documents.get_document,
        (_AT,),
        answer="Document",
        errors=_NOT_HERE,
    ),
    Route(
        "PUT",
        _DOCUMENT,
        documents.put_document,
        (_EXPIRES, *_IF),
        body="Body",
        answer="Written",
        errors=_DOCUMENT_ERRORS,
    ),
    Route(
        "PATCH",
        _DOCUMENT,
        documents.patch_document,
        (_EXPIRES, *_IF),
        body="Body",
        answer="Written",
        errors=_DOCUMENT_ERRORS,
    ),
    Route(
        "DELETE",
        _DOCUMENT,
        documents.delete_document,
        (_IF_ENTRY,),
        answer="Written",
        errors=("no_document", "not_in_part", *_DOCUMENT_ERRORS),
    ),
    Route(
        "GET",
        f"{_DOCUMENT}/history",
        past.get_history,
        (Parameter("diff", "true: with what each write changed in the document", "boolean"),),
        answer=JSON_LINES,
        errors=_NOT_HERE,
    ),
    Route(
        "GET",
        f"{_DOCUMENT}/why",
        past.get_why,
        (Parameter("field", "only this field, also where the document does not have it any more"),),
        answer="Why",
        errors=_NOT_HERE,
    ),
    Route(
        "POST",
        f"{_DOCUMENT}/restore",
        past.restore_document,
        body="Restore",
        answer="Written",
        errors=("no_document", *_WRITE_ERRORS),
    ),
    Route("GET", f"{_COLLECTION}/conflicts", past.list_conflicts, answer=JSON_LINES, errors=("no_collection",)),
    Route(
        "POST",
        f"{_COLLECTION}/batch",
        batches.write_batch,
        body=JSON_LINES,
        answer="Batch",
        errors=_DOCUMENT_ERRORS,
    ),
    Route(
        "POST",
        f"{_COLLECTION}/load",
        bulk.load_documents,
        (
            Parameter("batch", "how many lines make one entry, up to 256: faster, and less history; 1", "integer"),
            _EXPIRES,
            Parameter("skip_bad", "true: go on after a bad line and list it", "boolean"),
            Parameter("progress", "true: answer with JSON lines while it runs", "boolean"),
        ),
        body=JSON_LINES,
        answer="Loaded",
        errors=_WRITE_ERRORS,
    ),
    Route(
        "GET",
        f"{_COLLECTION}/changes",
        feeds.follow_changes,
        (*_WHERE, Parameter("since", "a cursor; `0` is the beginning; without it, from now on")),
        answer=f"{JSON_LINES} or {EVENT_STREAM}",
        errors=("no_collection", "cursor_lost"),
    ),
    Route(
        "GET",
        f"{_COLLECTION}/log",
        control.list_log,
        (Parameter("limit", "at most so many", "integer"),),
        answer=JSON_LINES,
        errors=("no_collection",),
    ),
    Route("GET", "/metrics", metrics.get_metrics, answer=TEXT),
    Route("GET", "/openapi.json", openapi.get_openapi, answer=JSON),
)
