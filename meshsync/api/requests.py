"""Reading requests: paths, parameters and bodies, each checked once."""

from __future__ import annotations

import shlex
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from meshsync.api.errors import NotHereError, TooLargeError
from meshsync.core.limits import LIMITS
from meshsync.core.query import Query
from meshsync.core.strictjson import decode_untrusted_json
from meshsync.errors import LocalError

if TYPE_CHECKING:
    from meshsync.collection import Collection
    from meshsync.node import Node


def path_text(request: Request, name: str) -> str:
    """A part of the path, as text.  The routes see the path as it was sent, so that an id may hold any character."""
    try:
        return unquote_to_bytes(request.path_params[name]).decode()
    except UnicodeDecodeError:
        raise LocalError(f"{name} in the path is not UTF-8; percent-encode its bytes") from None


def collection_of(node: Node, request: Request) -> Collection:
    """The collection that the path names.  NotHereError: this node does not have it."""
    return find_collection(node, path_text(request, "collection"))


def find_collection(node: Node, name: str) -> Collection:
    """A collection by its name.  NotHereError: this node does not have it."""
    if name not in node.collections():
        if node.relay.find(name) is not None:
            raise NotHereError(
                "no_collection",
                f"{name!r} is only relayed for others, and nothing of it is shown; whoever knows its name can join it:"
                " meshsync collections join NAME",
            )
        raise NotHereError(
            "no_collection", f"this node has no collection {name!r}; meshsync collections join {shlex.quote(name)}"
        )
    return node.collection(name)


def query_of(request: Request) -> Query:
    """The query of `where` (expressions, all required) and `query` (a JSON tree)."""
    condition = Query.parse(request.query_params.getlist("where"))
    tree = request.query_params.get("query")
    return condition if tree is None else condition & Query.from_json(decode_untrusted_json(tree, "query"))


def whole_number(request: Request, name: str, least: int, greatest: int) -> int | None:
    """A parameter that is a number, None where it is not given."""
    text = request.query_params.get(name)
    if text is None:
        return None
    number = number_of(text)
    if number is not None and least <= number <= greatest:
        return number
    raise LocalError(f"{name} is a whole number from {least} to {greatest}, not {text!r}")


def number_of(text: str) -> int | None:
    """The number that some digits are; None of all else, and of more digits than any number here has."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def flag(request: Request, name: str) -> bool:
    """A parameter that is on or off; off where it is not given."""
    text = request.query_params.get(name, "false")
    if text not in ("true", "1", "false", "0"):
        raise LocalError(f"{name} is true or false, not {text!r}")
    return text in ("true", "1")


def refuse_unknown(request: Request, *known: str) -> None:
    """LocalError for a parameter that does not exist: a misspelt `where` would select everything."""
    for name in request.query_params:
        if name not in known:
            raise LocalError(f"there is no parameter {name!r} here; there are {', '.join(known) or 'none'}")


async def read_body(request: Request) -> bytes:
    """The body.  TooLargeError as soon as it is longer than a node takes."""
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > LIMITS.request_bytes_max:
                raise TooLargeError(f"the body has more than {LIMITS.request_bytes_max} bytes")
    return bytes(body)


async def read_object(request: Request, *known: str, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """The body as a JSON object with keys out of `known`.  No body is an empty object."""
    body = await read_body(request)
    value = decode_untrusted_json(body, "the body") if body.strip() else {}
    if not isinstance(value, dict):
        raise LocalError("the body must be a JSON object")
    for key in value:
        if key not in known:
            raise LocalError(f"the body has the key {key!r}; there are {', '.join(known) or 'none'}")
    for key in required:
        if key not in value:
            raise LocalError(f"the body lacks the key {key!r}")
    return value


async def read_lines(request: Request) -> AsyncGenerator[tuple[int, bytes], None]:
    """The lines of a body as it arrives, with their numbers from 1; blank ones are left out.

    TooLargeError: one line is longer than a node takes.  ClientDisconnect: the client went away.
    """
    number = 0
    rest = b""
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                number += 1
                if line.strip():
                    yield number, line
            if len(rest) > LIMITS.request_bytes_max:
                raise TooLargeError(f"line {number + 1} has more than {LIMITS.request_bytes_max} bytes")
    if rest.strip():
        yield number + 1, rest


async def wait_disconnect(request: Request) -> None:
    """Return when the client goes away.  The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
