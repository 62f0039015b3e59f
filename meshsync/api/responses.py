"""Writing answers: one JSON object, or a stream of lines that ends with the client or with its source."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from meshsync.api.errors import describe
from meshsync.api.requests import wait_disconnect
from meshsync.core.strictjson import encode_json
from meshsync.errors import MeshsyncError

JSON = "application/json"
JSON_LINES = "application/x-ndjson"
EVENT_STREAM = "text/event-stream"
KEEP_ALIVE_SECONDS = 15.0
"""Between comments on an idle event stream, so that proxies and browsers do not end it."""
SLICE_SECONDS = 0.005
"""How long an answer may keep the event loop to itself: other work, such as a `put`, waits no longer."""

Write = Callable[[str], Awaitable[None]]


def answer(status: int = 200, **keys: Any) -> Response:
    """A JSON object of interface version 1."""
    return Response(encode_json({"v": 1, **keys}) + "\n", status, media_type=JSON)


def line(value: Mapping[str, Any]) -> str:
    """One JSON line."""
    return encode_json(value) + "\n"


def wants_event_stream(request: Request) -> bool:
    """Whether the client asked for server-sent events."""
    return EVENT_STREAM in request.headers.get("accept", "")


def server_sent(id: str, event: str, value: Mapping[str, Any]) -> str:
    """One server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    return f"id: {id}\nevent: {event}\ndata: {encode_json(value)}\n\n"


class Lines(Response):
    """A stream of text, written by `produce`.  It is cancelled when the client goes away.

    An error of `produce` cuts the stream without its final chunk: the client sees that it is not complete.  Of JSON
    lines the last one then holds nothing but the error.
    """

    def __init__(
        self,
        produce: Callable[[Write], Awaitable[None]],
        *,
        media_type: str = JSON_LINES,
        headers: Mapping[str, str] | None = None,
        watch_client: bool = True,
    ) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self._produce = produce
        self._watch_client = watch_client
        # `no-transform` and X-Accel-Buffering keep proxies from collecting lines.
        self.init_headers({"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no", **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(text: str) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

        async def watch() -> None:
            await wait_disconnect(Request(scope, receive))
            nursery.cancel_scope.cancel()

        async def keep_alive() -> None:
            while True:
                await trio.sleep(KEEP_ALIVE_SECONDS)
                await write(":\n\n")

        async with trio.open_nursery() as nursery:
            if self._watch_client:
                nursery.start_soon(watch)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if self.media_type == EVENT_STREAM:
                nursery.start_soon(keep_alive)
            try:
                await self._produce(write)
            except MeshsyncError as error:
                # The status is out already.  This line tells; that the final chunk is missing, nobody can overlook.
                if self.media_type == JSON_LINES:
                    await write(line({"v": 1, "error": describe(error)}))
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            nursery.cancel_scope.cancel()


async def while_connected(request: Request, work: Callable[[], Awaitable[Response]]) -> Response:
    """Do what may take long, and give it up when the client goes away.  The body must have been read."""
    # Errors come out as they are: a nursery would wrap them in a group, which no handler of errors knows.
    done: list[Response] = []
    failed: list[MeshsyncError] = []

    async def watch() -> None:
        await wait_disconnect(request)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            done.append(await work())
        except MeshsyncError as error:
            failed.append(error)
        nursery.cancel_scope.cancel()
    if failed:
        raise failed[0]
    return done[0] if done else Response(status_code=499)  # nobody reads it
