"""/openapi.json, made from the table of routes and the schemas below (OpenAPI 3.1)."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from meshsync.api.errors import STATUS_OF_CODE
from meshsync.core.entry import KINDS

if TYPE_CHECKING:
    from meshsync.api.routes import Parameter, Route
    from meshsync.node import Node

_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "number"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_INTEGER: dict[str, Any] = {"type": "integer"}
_FLAG: dict[str, Any] = {"type": "boolean"}
_HEX: dict[str, Any] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_TIME: dict[str, Any] = {"type": "string", "format": "date-time"}


def _maybe(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


def _said(schema: dict[str, Any], meaning: str) -> dict[str, Any]:
    return {**schema, "description": meaning}


def _list(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema}


def _object(required: dict[str, Any], /, **optional: Any) -> dict[str, Any]:
    return {"type": "object", "required": sorted(required), "properties": {**required, **optional}}


def _answer(**keys: Any) -> dict[str, Any]:
    return _object({"v": {"const": 1}, **keys})


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _maybe_ref(name: str) -> dict[str, Any]:
    return {"anyOf": [_ref(name), {"type": "null"}]}


_SESSION = _object(
    {
        "id": _HEX,
        "state": {"enum": ["idle", "pulling", "pushing", "synced"]},
        "missing": _maybe(_COUNT),
        "unsent": _maybe(_COUNT),
        "last_synced": _maybe(_NUMBER),
        "stall": _maybe(_TEXT),
        "lazy": _said(_FLAG, "whether entries are only announced here, because they come by another link"),
    }
)

_WRITE: dict[str, Any] = {
    "entry": _HEX,
    "author": _HEX,
    "time": _TIME,
    "kind": {"enum": [*KINDS, "let go", "not fetched"]},
}
_VALUE: dict[str, Any] = {"description": "any JSON; without it the field was not there"}

_RETAIN: dict[str, Any] = _said(_TEXT, "what is kept here of what was overwritten: all, latest, 30d, 10000 entries")
_HISTORY: dict[str, Any] = {"enum": ["full", "latest"]}
_POLICY: dict[str, Any] = {"enum": ["latest", "greatest", "least", "manual"]}

SCHEMAS: dict[str, dict[str, Any]] = {
    "Error": _answer(
        error=_object({"code": {"enum": sorted(STATUS_OF_CODE)}, "message": _TEXT, "hint": _TEXT}, missing=_COUNT)
    ),
    "Health": _answer(healthy=_FLAG),
    "Peer": _object(
        {
            "id": _HEX,
            "name": _TEXT,
            "state": {"enum": ["connected", "dialing", "waiting", "pending", "down"]},
            "origin": {"enum": ["dialed", "accepted", None]},
            "address": _maybe(_TEXT),
            "via": _maybe(_TEXT),
            "rtt_ms": _maybe(_NUMBER),
            "since": _maybe(_NUMBER),
            "next_dial_s": _maybe(_NUMBER),
            "last_error": _maybe(_TEXT),
        },
        bytes_sent=_COUNT,
        bytes_received=_COUNT,
        clock_ahead_ms=_maybe(_INTEGER),
        banned=_said(_FLAG, "the owner keeps it out, so it is not missed"),
    ),
    "Collection": _object(
        {
            "name": _TEXT,
            "id": _HEX,
            "root": _HEX,
            "entries": _COUNT,
            "documents": _COUNT,
            "logs": _COUNT,
            "forks": _COUNT,
            "relayed": _FLAG,
            "idle": _said(_FLAG, "it was relayed for others, and this node relays no longer"),
            "bytes": _COUNT,
            "priority": {"enum": ["critical", "high", "medium", "low"]},
            "query": _maybe({"type": "object"}),
            "where": _said(_maybe(_TEXT), "the same query as an expression"),
            "certain": _said(_FLAG, "a node with all payloads has named what the query wants, or it is this one"),
            "settled": _said(_FLAG, "all documents were looked at for the query: until then `documents` is too low"),
            "lacking": _said(_COUNT, "payloads that are wanted and not here: documents are older, or not shown yet"),
            "conflicts": _POLICY,
            "history": _said(_HISTORY, "how much of the past is fetched"),
            "superseded": _said(_COUNT, "payloads that are not here and that no document needs any more"),
            "retain": _RETAIN,
            "let_go": _said(
                _object({"payloads": _COUNT, "bytes": _COUNT, "waiting": _COUNT}),
                "superseded payloads that were dropped here, and those that wait for a peer, or a decision",
            ),
            "unwanted": _said(
                _object({"payloads": _COUNT, "bytes": _COUNT, "documents_waiting": _COUNT}),
                "payloads that were dropped since the start because the query does not want them; documents of which "
                "some would be, once a peer that has everything has confirmed that",
            ),
            "differing": _said(
                _list(_object({"id": _HEX, "conflicts": _POLICY})),
                "connected peers that have it under another policy for conflicts: nothing is replicated with them",
            ),
            "peers": _list(_SESSION),
            "subscribers": _said(_COUNT, "nodes that are known to replicate it, this one included"),
            "payload_bytes": _object({"received": _COUNT, "new": _COUNT}),
            "redundancy": _said(_maybe(_NUMBER), "payload bytes received for each that was new; null: none was"),
            "held": {"type": "object"},
        }
    ),
    "Status": _answer(
        id=_HEX,
        name=_TEXT,
        version=_TEXT,
        uptime_s=_NUMBER,
        listen=_list(_TEXT),
        trust={"enum": ["closed", "mesh-key", "open"]},
        store=_object({"entries": _COUNT, "bytes": _COUNT, "fault": _maybe(_TEXT)}),
        syncing=_FLAG,
        synced=_FLAG,
        pending=_COUNT,
        peers=_list(_ref("Peer")),
        collections=_list(_ref("Collection")),
        relay=_object(
            {
                "enabled": _FLAG,
                "collections": _COUNT,
                "bytes": _COUNT,
                "bytes_max": _COUNT,
                "turned_away": _COUNT,
                "fault": _maybe(_TEXT),
            }
        ),
        discovery=_object(
            {
                "ways": _list(_object({"via": _TEXT, "fault": _maybe(_TEXT)})),
                "interfaces": _list(_object({"name": _TEXT, "addresses": _list(_TEXT)})),
                "fault": _said(_maybe(_TEXT), "why not everybody can be found that might be; null: all is well"),
            }
        ),
    ),
    "MeshNode": _object(
        {
            "id": _HEX,
            "name": _TEXT,
            "age_s": _maybe(_said(_NUMBER, "since the newest word by it or about it; null: none was heard")),
            "state": {"enum": ["self", "connected", "reachable", "unreachable"]},
            "addresses": _list(_said(_TEXT, "where it says that it can be reached, as IP:PORT")),
            "collections": _list(_TEXT),
            "holdings": _list(_ref("MeshHolding")),
        }
    ),
    "MeshHolding": _object(
        {
            "collection": _TEXT,
            "root": _HEX,
            "equal": _said(_FLAG, "whether its root was this node's"),
            "entries": _COUNT,
            "documents": _COUNT,
            "behind": _said(_COUNT, "entries that this node holds now and it did not"),
            "ahead": _said(_COUNT, "entries that it held and this node does not"),
            "exact": _said(_FLAG, "false: `behind` and `ahead` are the least that can be"),
            "age_s": _said(_NUMBER, "since it said what it holds"),
        }
    ),
    "MeshLink": _object(
        {
            "a": _HEX,
            "b": _HEX,
            "state": {"enum": ["connected", "disputed", "stale", "dialing", "waiting", "pending", "down"]},
            "rtt_ms": _maybe(_NUMBER),
            "age_s": _said(_NUMBER, "since the newest word about it"),
            "said_by": _list(_HEX),
            "denied_by": _list(_HEX),
            "collections": _list(_TEXT),
        }
    ),
    "Peers": _answer(peers=_list(_ref("Peer"))),
    "PeerId": _answer(id=_HEX),
    "Connect": _object({"peer": {"type": "string", "description": "HEX@HOST:PORT"}}),
    "Connected": _answer(id=_HEX, connected=_FLAG),
    "Sync": _object({}, collection=_TEXT),
    "Cycle": _answer(pulled=_COUNT, pushed=_COUNT, conflicts=_COUNT, peers={}),
    "Wait": _object({}, collections=_list(_TEXT), peers=_list(_TEXT), timeout_s=_NUMBER),
    "Waited": _answer(synced=_FLAG, waited_s=_NUMBER),
    "Verify": _object({}, repair=_FLAG),
    "Collections": _answer(collections=_list(_ref("Collection"))),
    "Join": _object(
        {"name": _TEXT},
        where=_said(_list(_TEXT), "expressions that the documents match, all of them; none: all documents"),
        priority={"enum": ["critical", "high", "medium", "low"]},
        conflicts=_POLICY,
        retain=_RETAIN,
        history=_HISTORY,
    ),
    "Joined": _answer(
        collection=_TEXT,
        changed=_object(
            {}, **dict.fromkeys(("where", "history", "priority", "retain"), _object({"before": _TEXT, "after": _TEXT}))
        ),
    ),
    "Index": _object({"field": _said(_TEXT, "the dotted path of a field")}),
    "Indexes": _answer(
        collection=_TEXT,
        documents=_said(_COUNT, "in the collection"),
        indexes=_list(
            _object(
                {
                    "field": _TEXT,
                    "ready": _said(_FLAG, "false: it is being built, and serves no query yet"),
                    "documents": _said(_COUNT, "in the index"),
                }
            )
        ),
    ),
    "Explanation": _answer(
        collection=_TEXT,
        query=_said(_TEXT, "the query as an expression"),
        index=_said(_maybe(_TEXT), "the field whose index served; null: all documents were looked at"),
        way={"enum": ["scan", "ids", "keys", "ordered"]},
        sorted=_said(_FLAG, "whether no index had the order, so that what matches was sorted"),
        keys_read=_said(_COUNT, "rows of the index that were looked at"),
        documents_read=_said(_COUNT, "documents that were looked at"),
        matched=_COUNT,
        documents=_said(_COUNT, "in the collection"),
        ms=_NUMBER,
    ),
    "Graph": _answer(
        self=_HEX,
        nodes=_list(_ref("MeshNode")),
        links=_list(_ref("MeshLink")),
    ),
    "Body": {"type": "object", "description": "The document's fields, and optionally its `id`."},
    "Document": _object(
        {
            "v": {"const": 1},
            "collection": _TEXT,
            "id": _TEXT,
            "doc": _ref("Body"),
            "author": _HEX,
            "time": _TIME,
            "entry": _HEX,
        },
        conflict=_said(_FLAG, "of the present document"),
        revision=_said(_HEX, "the entry that changed the present document last at this node, for `if_entry`"),
        expires=_said(_maybe(_TIME), "from when on it is not shown any more; null: it is for ever"),
        kind=_said(_WRITE["kind"], "of the write that contributed last to a past document"),
    ),
    "Write": _object(_WRITE),
    "Why": _answer(
        collection=_TEXT,
        id=_TEXT,
        deleted=_maybe_ref("Write"),
        expiry=_maybe_ref("Expiry"),
        fields=_list(_ref("FieldOrigin")),
        complete=_said(_FLAG, "false: not all writes could be looked at"),
        let_go_until=_said(_maybe(_TIME), "not all that was overwritten up to then is kept here, and none is told"),
        not_fetched_until=_said(_maybe(_TIME), "the same where the last of it never came here"),
    ),
    "Expiry": _object(
        {"expires": _said(_TIME, "from when on the document is not shown"), "passed": _FLAG, **_WRITE},
    ),
    "FieldOrigin": _object(
        {"field": _TEXT, **_WRITE, "beside": _list(_ref("Said")), "overrode": _list(_ref("Overridden"))}, value=_VALUE
    ),
    "Said": _object(_WRITE, value=_VALUE),
    "Overridden": _object({**_WRITE, "seen": _said(_FLAG, "whether whoever overrode it had seen it")}, value=_VALUE),
    "Restore": _object({"at": _said(_TEXT, "a time such as 2026-05-04T12:30:00Z, or an entry's id")}),
    "Written": _answer(collection=_TEXT, id=_TEXT, entry=_HEX),
    "Batch": _answer(collection=_TEXT, entry=_maybe(_HEX), documents=_COUNT),
    "Loaded": _answer(
        stored=_COUNT,
        bad=_COUNT,
        expired=_said(_COUNT, "documents that were left out because they have expired"),
        bad_lines=_list({"type": "object"}),
    ),
}


def describe_api(routes: tuple[Route, ...], version: str) -> dict[str, Any]:
    """The OpenAPI document of `routes`."""
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "meshsync control API",
            "version": "1",
            "description": f"Interface version 1, served by meshsync {version} on its Unix socket and on localhost.",
        },
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "On localhost: the content of api.token in the data directory.",
                }
            },
        },
    }


async def get_openapi(_node: Node, _request: Request) -> Response:
    """This description."""
    # The table of routes holds this function, so it can only be imported when the function runs.
    from importlib.metadata import version

    from meshsync.api.routes import ROUTES

    return JSONResponse(describe_api(ROUTES, version("meshsync")))


def _operation(route: Route) -> dict[str, Any]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": _TEXT} for name in re.findall(r"{(\w+)}", route.path)
    ]
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": (inspect.getdoc(route.handler) or "").partition("\n")[0],
        "description": inspect.getdoc(route.handler),
        "parameters": [*in_path, *map(_parameter, route.parameters)],
        "responses": {"200": {"description": "Done.", "content": _content(route.answer)}},
    }
    if route.body is not None:
        operation["requestBody"] = {"content": _content(route.body)}
    for code in ("bad_request", "unauthorized", *route.errors, "internal"):
        status = str(STATUS_OF_CODE[code])
        known = operation["responses"].setdefault(status, {"description": "", "content": _content("Error")})
        known["description"] = f"{known['description']} `{code}`".strip()
    return operation


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": parameter.schema}
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        "schema": _list(schema) if parameter.many else schema,
    }


def _content(names: str) -> dict[str, Any]:
    """`names` is a schema, or media types joined by "or"."""
    if names in SCHEMAS:
        return {"application/json": {"schema": _ref(names)}}
    return {media_type: {} for media_type in names.split(" or ")}
