"""Loading many documents from JSON lines.

Lines are committed in their order, one entry each or `batch` of them in one.  The disk is waited for behind that,
for many entries at once, and at most so many are on their way to it.
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
from meshsync.api.requests import collection_of, flag, read_lines, refuse_unknown, whole_number
from meshsync.api.responses import SLICE_SECONDS, Lines, Write, line
from meshsync.core.entry import PUT, Operation
from meshsync.core.limits import LIMITS, OPERATIONS_MAX
from meshsync.errors import LocalError, MeshsyncError, PassedError, StoreError
from meshsync.jsonlines import take_expiry

if TYPE_CHECKING:
    from meshsync.collection import Collection
    from meshsync.node import Node

_PROGRESS_SECONDS = 0.2
_BAD_LINES_LISTED_MAX = 100

Report = Callable[[], Awaitable[None]]


class _Load:
    """One load while it runs, and what came of it."""

    def __init__(self, collection: Collection, *, batch: int, skip_bad: bool, expires_ms: int | None) -> None:
        self.collection = collection
        self.stored = 0
        """Documents that are as durable as the node was configured."""
        self.bad: list[dict[str, Any]] = []
        self.bad_count = 0
        self.expired = 0
        """Documents that were left out because they have expired."""
        self.error: dict[str, Any] | None = None
        """Why it stopped, and at which line: everything before that line is stored."""
        self._batch = batch
        self._skip_bad = skip_bad
        self._expires_ms = expires_ms
        self._waiting: list[tuple[int, Operation]] = []
        self._ids_waiting: set[str] = set()
        self._committed = 0
        self._committed_line = self._stored_line = 0
        self._more = trio.Event()
        self._done = trio.Event()
        self._is_over = False

    async def run(self, request: Request, report: Report) -> None:
        """Store all lines, or those before the first bad one."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._confirm)
            number = 0
            try:
                async with aclosing(read_lines(request)) as lines:
                    reported = sliced = trio.current_time()
                    async for number, text in lines:
                        self._take(number, text)
                        await self._hold_back()
                        if self.error is not None:
                            break
                        now = trio.current_time()
                        if now - sliced > SLICE_SECONDS:
                            await trio.lowlevel.checkpoint()
                            sliced = trio.current_time()
                        if now - reported > _PROGRESS_SECONDS:
                            reported = now
                            await report()
            except TooLargeError as error:
                self._fail(number + 1, error)
            self._commit()
            self._is_over = True
            self._more.set()

    def _take(self, number: int, text: bytes) -> None:
        """Read a line and commit it, or keep it until its entry is full."""
        try:
            body = body_of(text, None, f"line {number}")
            id = _id_of(body, number)
            expires_ms = self._expiry_of(body, number)
            # An entry names a document once.
            if id in self._ids_waiting:
                self._commit()
            self._waiting.append((number, Operation(PUT, id, body, expires_ms)))
            self._ids_waiting.add(id)
        except PassedError:
            self.expired += 1
        except LocalError as error:
            if not self._skip_bad:
                self._commit()
            self._fail(number, error)
        if len(self._waiting) >= self._batch:
            self._commit()

    def _expiry_of(self, body: dict[str, Any], number: int) -> int | None:
        """When the document of a line expires, taken out of its fields.  PassedError: it has expired."""
        try:
            said = take_expiry(body)
            return self.collection.expiry_ms(said) if self._expires_ms is None else self._expires_ms
        except PassedError:
            raise
        except LocalError as error:
            raise LocalError(f"line {number}: {error}") from None

    def _commit(self) -> None:
        """Write the lines that wait as one entry; where that is refused, one by one, so that the bad one is found."""
        waiting, self._waiting = self._waiting, []
        self._ids_waiting.clear()
        if not waiting or self.error is not None:
            return
        try:
            self.collection.write_soon([operation for _, operation in waiting])
        except StoreError as error:
            self._fail(waiting[0][0], error)
        except LocalError as error:
            if len(waiting) == 1:
                self._fail(waiting[0][0], error)
                return
            for one in waiting:
                self._waiting = [one]
                self._commit()
        else:
            self._committed += len(waiting)
            self._committed_line = waiting[-1][0]
            self._more.set()

    async def _confirm(self) -> None:
        """Wait for the disk, again and again, for everything that was committed meanwhile."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            is_over, committed, last_line = self._is_over, self._committed, self._committed_line
            try:
                await self.collection.wait_durable()
            except StoreError as error:
                # Which of the lines are on the disk is not known; loading them again is harmless.
                self._fail(self._stored_line + 1, error)
            else:
                self.stored, self._stored_line = committed, last_line
            self._done.set()
            if is_over:
                return

    async def _hold_back(self) -> None:
        """Wait while too many documents are on their way to the disk."""
        while self._committed - self.stored > LIMITS.load_writes_in_flight_max and self.error is None:
            self._done = trio.Event()
            await self._done.wait()

    def _fail(self, number: int, error: MeshsyncError) -> None:
        """Note a line that was not stored; unless only the line is to blame and is to be skipped, stop."""
        described = {"line": number, **describe(error)}
        if self._skip_bad and isinstance(error, LocalError):
            self.bad_count += 1
            if len(self.bad) < _BAD_LINES_LISTED_MAX:
                self.bad.append(described)
        elif self.error is None:
            self.error = described

    def progress(self) -> dict[str, Any]:
        """How far it is."""
        return {"v": 1, "stored": self.stored, "bad": self.bad_count, "expired": self.expired}

    def result(self) -> dict[str, Any]:
        """What came of it."""
        result = {**self.progress(), "bad_lines": self.bad}
        return result if self.error is None else {**result, "error": self.error}


async def load_documents(node: Node, request: Request) -> Response:
    """Write the documents of JSON lines.

    It stops at the first bad line, and `error` names it: what comes before is stored, and going on from that line
    loses nothing.  With `skip_bad` it goes on and lists the bad lines.  With `progress` the answer is a stream of
    lines while it runs, the last of which has `done`.

    A line is an object with an `id`; `$expires` in it says when the document expires, as the parameter `expires` of
    PUT does, and a field of that name is written as `"$expires": [null, …]`.  A document that has expired is left out
    and counted in `expired`.  With `expires` all of them expire at the same moment, whatever their lines say.
    """
    refuse_unknown(request, "batch", "expires", "skip_bad", "progress")
    batch, collection = whole_number(request, "batch", 1, OPERATIONS_MAX) or 1, collection_of(node, request)
    expires_ms = collection.expiry_ms(request.query_params.get("expires"))
    load = _Load(collection, batch=batch, skip_bad=flag(request, "skip_bad"), expires_ms=expires_ms)
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
        # What was committed stays; nobody is left to tell.
        pass


def _id_of(body: dict[str, Any], number: int) -> str:
    id = body.pop("id", None)
    if not isinstance(id, str) or not id:
        raise LocalError(f'line {number} has no document id; add "id": "…" to it')
    return id
