"""Several operations as one entry, from JSON lines: all of them, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from meshsync.api.requests import collection_of, read_body, refuse_unknown
from meshsync.api.responses import answer
from meshsync.core.strictjson import decode_untrusted_json
from meshsync.errors import LocalError

if TYPE_CHECKING:
    from meshsync.node import Node
    from meshsync.writes import Batch

_KINDS = ("put", "patch", "delete")
_KEYS = (*_KINDS, "expires", "if_entry", "if_absent")


async def write_batch(node: Node, request: Request) -> Response:
    """Write several documents as one entry, all or nothing, on every node.

    A line each: `{"put": {"id": "n1", …}}`, `{"patch": {"id": "n1", …}}` or `{"delete": {"id": "n1"}}`; beside it may
    stand `"if_entry": ID` or `"if_absent": true`, and beside the first two `"expires": TIME`, as the parameter of PUT.
    Where one line cannot be written, or expects what is not so, nothing is.  `entry` is null where there was nothing
    to write.
    """
    refuse_unknown(request)
    collection = collection_of(node, request)
    lines = (await read_body(request)).split(b"\n")
    async with collection.batch() as batch:
        for number, text in enumerate(lines, 1):
            if text.strip():
                _add(batch, number, text)
    return answer(
        collection=collection.name,
        entry=None if batch.entry is None else str(batch.entry),
        documents=len(batch),
    )


def _add(batch: Batch, number: int, text: bytes) -> None:
    """Take one line.  LocalError, RefusedError: names it."""
    operation = decode_untrusted_json(text, f"line {number}")
    try:
        _add_operation(batch, operation)
    except LocalError as error:
        raise type(error)(f"line {number}: {error}") from None


def _add_operation(batch: Batch, operation: Any) -> None:
    kinds = [kind for kind in _KINDS if isinstance(operation, Mapping) and kind in operation]
    if len(kinds) != 1:
        raise LocalError('one of put, patch and delete is expected, such as {"put": {"id": "n1", "title": "hello"}}')
    for key in operation:
        if key not in _KEYS:
            raise LocalError(f"there is no key {key!r:.40} here; there are {', '.join(_KEYS)}")
    (kind,) = kinds
    body = operation[kind]
    id = body.get("id") if isinstance(body, Mapping) else None
    if not isinstance(id, str) or not id:
        raise LocalError(f'{kind} names no document; add "id": "…" to its object')
    if_entry, if_absent = operation.get("if_entry"), operation.get("if_absent", False)
    if if_entry is not None and not isinstance(if_entry, str):
        raise LocalError(f"if_entry is the id of an entry, not {if_entry!r:.40}")
    if not isinstance(if_absent, bool):
        raise LocalError(f"if_absent is true or false, not {if_absent!r:.40}")
    expires = operation.get("expires")
    if expires is not None and not isinstance(expires, str):
        raise LocalError(
            f"expires is a time such as 2026-12-01T00:00Z, 30d, or never, as a string; not {expires!r:.40}"
        )
    if kind == "put":
        batch.put(id, body, expires=expires, if_entry=if_entry, if_absent=if_absent)
    elif kind == "patch":
        batch.patch(id, body, expires=expires, if_entry=if_entry, if_absent=if_absent)
    else:
        if len(body) > 1 or if_absent or "expires" in operation:
            raise LocalError('delete takes an id and, beside it, if_entry: {"delete": {"id": "n1"}}')
        batch.delete(id, if_entry=if_entry)
