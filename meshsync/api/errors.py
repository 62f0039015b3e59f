"""Errors as the API tells them: one JSON shape, the HTTP status and the code by whose fault it is.

    {"v": 1, "error": {"code": "no_document", "message": "what is wrong", "hint": "what to do"}}

The codes are part of the interface: the command line derives its exit code from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from meshsync.errors import (
    LetGoError,
    LocalError,
    MeshsyncError,
    NotSoError,
    PeerError,
    RefusedError,
    StoreError,
    TransportLost,
)

STATUS_OF_CODE: Mapping[str, int] = {
    "bad_request": 400,
    "unauthorized": 401,
    "refused": 403,
    "no_document": 404,
    "not_in_part": 404,
    "no_collection": 404,
    "no_index": 404,
    "no_peer": 404,
    "no_route": 404,
    "bad_method": 405,
    "let_go": 410,
    "cursor_lost": 410,
    "moved_on": 412,
    "too_large": 413,
    "internal": 500,
    "network": 502,
    "store_failed": 507,
}


class NotHereError(LocalError):
    """What was asked for does not exist; `code` says what."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class TooLargeError(RefusedError):
    """A request, or a part of it, is larger than the node takes."""


class UnauthorizedError(RefusedError):
    """The request carries no valid token, or names another host."""


def code_of(error: Exception) -> str:
    """The code of an error."""
    match error:
        case NotHereError() | NotSoError():
            return error.code
        case TooLargeError():
            return "too_large"
        case UnauthorizedError():
            return "unauthorized"
        case RefusedError():
            return "refused"
        case LocalError():
            return "bad_request"
        case StoreError():
            return "store_failed"
        case PeerError() | TransportLost():
            return "network"
        case HTTPException(status_code=404):
            return "no_route"
        case HTTPException(status_code=405):
            return "bad_method"
        case HTTPException(status_code=status) if status < 500:
            return "bad_request"
        case _:
            return "internal"


def describe(error: Exception) -> dict[str, Any]:
    """The `error` object of an answer or of a line of a stream.

    At the end of documents as they were, `missing` is how many of them are not known.
    """
    if isinstance(error, HTTPException):
        text = f"{error.detail}; /openapi.json lists what there is"
    elif isinstance(error, MeshsyncError):
        text = str(error)
    else:
        # The details are in the log: they may hold what this caller must not see.
        text = "the node failed at this; its log says why"
    # By convention messages say what is wrong and then, after a semicolon, what to do.
    message, _, hint = text.partition("; ")
    described: dict[str, Any] = {"code": code_of(error), "message": message, "hint": hint}
    if isinstance(error, LetGoError) and error.missing:
        described["missing"] = error.missing
    return described


def error_response(error: Exception, **more: Any) -> Response:
    """The answer for an error; `more` goes beside it."""
    described = describe(error)
    status = STATUS_OF_CODE[described["code"]]
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"v": 1, "error": described, **more}, status_code=status, headers=headers)


async def handle_error(_request: Request, error: Exception) -> Response:
    """Starlette's hook for exceptions of handlers."""
    return error_response(error)
