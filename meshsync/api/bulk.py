"""Loading many documents from JSON lines.

Every line is an entry of its own.  Many writes are on their way to the disk at once, so that all of them share its
syncs; two writes of one document never overtake each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from meshsync.api.documents import body_of
from meshsync.api.errors import STATUS_OF_CODE, TooLargeError, describe
from meshsync.api.requests import collection_of, flag, read_lines, refuse_unknown
from meshsync.api.responses import Lines, Write, line
from meshsync.core.limits import LIMITS
from meshsync.errors import LocalError, MeshsyncError

if TYPE_CHECKING:
    from meshsync.collection import Collection
    from meshsync.node import Node

_PROGRESS_SECONDS = 0.2
_BAD_LINES_LISTED_MAX = 100

Report = Callable[[], Awaitable[None]]


class _Load:
    """One load while it runs, and what came of it."""

    def __init__(self, collection: Collection, *, skip_bad: bool) -> None:
        self.collection = collection
        self.skip_bad = skip_bad
        self.stored = 0
        self.bad: list[dict[str, Any]] = []
        self.bad_count = 0
        self.error: dict[str, Any] | None = None
        self._ids_in_flight: dict[str, trio.Event] = {}
        self._room = trio.Semaphore(LIMITS.load_writes_in_flight_max)

    async def run(self, request: Request, report: Report) -> None:
        """Store all lines, or those before the first bad one."""
        async with trio.open_nursery() as nursery, aclosing(read_lines(request)) as lines:
            reported, number = trio.current_time(), 0
            try:
                async for number, text in lines:
                    await self._take(nursery, number, text)
                    if self.error is not None:
                        break
                    if trio.current_time() - reported > _PROGRESS_SECONDS:
                        reported = trio.current_time()
                        await report()
            except TooLargeError as error:
                self._fail(number + 1, error)

    async def _take(self, nursery: trio.Nursery, number: int, text: bytes) -> None:
        try:
            body = body_of(text, None, f"line {number}")
            id = _id_of(body, number)
        except LocalError as error:
            self._fail(number, error)
        else:
            await self._start(nursery, number, id, body)

    async def _start(self, nursery: trio.Nursery, number: int, id: str, body: dict[str, Any]) -> None:
        await self._room.acquire()
        while (earlier := self._ids_in_flight.get(id)) is not None:
            await earlier.wait()
        self._ids_in_flight[id] = trio.Event()
        nursery.start_soon(self._store, number, id, body)

    async def _store(self, number: int, id: str, body: dict[str, Any]) -> None:
        try:
            await self.collection.put(id, body)
            self.stored += 1
        except MeshsyncError as error:
            self._fail(number, error)
        finally:
            self._ids_in_flight.pop(id).set()
            self._room.release()

    def _fail(self, number: int, error: MeshsyncError) -> None:
        """Note a line that was not stored; unless only the line is to blame and is to be skipped, stop."""
        described = {"line": number, **describe(error)}
        if self.skip_bad and isinstance(error, LocalError):
            self.bad_count += 1
            if len(self.bad) < _BAD_LINES_LISTED_MAX:
                self.bad.append(described)
        elif self.error is None or number < self.error["line"]:
            # Writes that are under way finish; of several that fail, the first line is where to go on.
            self.error = described

    def progress(self) -> dict[str, Any]:
        """How far it is."""
        return {"v": 1, "stored": self.stored, "bad": self.bad_count}

    def result(self) -> dict[str, Any]:
        """What came of it."""
        result = {"v": 1, "stored": self.stored, "bad": self.bad_count, "bad_lines": self.bad}
        return result if self.error is None else {**result, "error": self.error}


async def load_documents(node: Node, request: Request) -> Response:
    """Write the documents of JSON lines.

    It stops at the first bad line, and `error` names it: what comes before is stored, and going on from that line
    loses nothing.  With `skip_bad` it goes on and lists the bad lines.  With `progress` the answer is a stream of
    lines while it runs, the last of which has `done`.
    """
    refuse_unknown(request, "skip_bad", "progress")
    load = _Load(collection_of(node, request), skip_bad=flag(request, "skip_bad"))
    if not flag(request, "progress"):
        await _run(load, request, trio.lowlevel.checkpoint)
        status = 200 if load.error is None else STATUS_OF_CODE[load.error["code"]]
        return JSONResponse(load.result(), status_code=status)

    async def produce(write: Write) -> None:
        async def report() -> None:
            await write(line(load.progress()))

        await report()
        await _run(load, request, report)
        await write(line({**load.result(), "done": True}))

    return Lines(produce, watch_client=False)


async def _run(load: _Load, request: Request, report: Report) -> None:
    try:
        await load.run(request, report)
    except* ClientDisconnect:
        # What was stored is stored; nobody is left to tell.
        pass


def _id_of(body: dict[str, Any], number: int) -> str:
    id = body.pop("id", None)
    if not isinstance(id, str) or not id:
        raise LocalError(f'line {number} has no document id; add "id": "…" to it')
    return id
