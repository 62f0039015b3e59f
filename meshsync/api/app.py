"""The application: routes, errors, and the guard of what is reachable by TCP."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from meshsync.api.errors import UnauthorizedError, error_response, handle_error
from meshsync.api.routes import ROUTES, Handler
from meshsync.errors import MeshsyncError

if TYPE_CHECKING:
    from meshsync.node import Node


def create_app(node: Node) -> ASGIApp:
    """The application over one node, for a socket that only the owner can open."""
    app = Starlette(
        routes=[
            StarletteRoute(route.path, _endpoint(node, route.handler), methods=[route.method], name=route.name)
            for route in ROUTES
        ],
        exception_handlers={MeshsyncError: handle_error, HTTPException: handle_error, Exception: handle_error},
    )
    app.router.redirect_slashes = False
    return _RawPath(app)


def guard(app: ASGIApp, token: str, port: int) -> ASGIApp:
    """An application for localhost: whoever asks must know the token, and must have asked for localhost.

    Any program and any web page on the machine can open a TCP port.  The token keeps out the programs of others;
    the check of Host keeps out a page whose name was rebound to 127.0.0.1, even one that has learnt the token.
    There is no CORS, so no other page can read an answer.
    """
    hosts = frozenset(f"{host}:{port}".encode() for host in ("127.0.0.1", "localhost", "[::1]"))
    expected = f"Bearer {token}".encode()

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        if scope["type"] != "http" or headers.get(b"host") not in hosts:
            refused = UnauthorizedError("the request is not for localhost; use http://127.0.0.1 and this port")
        elif not hmac.compare_digest(headers.get(b"authorization", b""), expected):
            refused = UnauthorizedError("the request has no valid token; send Authorization: Bearer and api.token")
        else:
            await app(scope, receive, send)
            return
        await error_response(refused)(scope, receive, send)

    return guarded


class _RawPath:
    """Routes see the path as it was sent: decoded, an id with a slash in it would look like two parts."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": scope["raw_path"].decode("ascii")}
        await self._app(scope, receive, send)


def _endpoint(node: Node, handler: Handler) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        return await handler(node, request)

    return endpoint
