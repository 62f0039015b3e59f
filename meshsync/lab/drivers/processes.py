"""Nodes of a lab that are processes: reached over the Unix sockets of their data directories.

The client is the command line's, which blocks, so each call runs in a thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from meshsync.cli.client import Client
from meshsync.cli.exits import CommandError
from meshsync.datadir import DataDir
from meshsync.lab.drivers.base import LabError, Seen
from meshsync.lab.drivers.built import Process
from meshsync.lab.last_words import last_words

READY_SECONDS_MAX = 30.0
_LOOK_SECONDS = 0.05
_THREADS_MAX = 256
LOG = "node.log"
"""In a node's directory: what its process prints."""

T = TypeVar("T")


class ProcessNode:
    """A node that runs in a process.  See `meshsync.lab.drivers.base.LabNode`."""

    def __init__(self, name: str, directory: Path, process: Process, limiter: trio.CapacityLimiter) -> None:
        self.name = name
        self.directory = directory
        self.process = process
        self._client = Client(DataDir(directory))
        self._limiter = limiter

    @property
    def is_running(self) -> bool:
        """Whether its process runs."""
        return self.process.is_running

    async def put(self, collection: str, id: str, body: Mapping[str, Any]) -> None:
        """See `LabNode.put`."""
        path = ("v1", "collections", collection, "documents", id)
        await self._call(partial(self._client.request, "PUT", *path, body=body))

    async def status(self) -> Mapping[str, Any]:
        """See `LabNode.status`."""
        return await self._call(partial(self._client.get, "v1", "status"))

    async def ids(self, collection: str) -> set[str]:
        """See `LabNode.ids`."""

        def read() -> set[str]:
            with self._client.lines("v1", "collections", collection, "documents") as lines:
                return {line["id"] for line in lines if "id" in line}

        return await self._call(read)

    @asynccontextmanager
    async def changes(self, collection: str) -> AsyncIterator[AsyncIterator[Seen]]:
        """See `LabNode.changes`."""
        send, receive = trio.open_memory_channel[Seen](math.inf)
        begun = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def read() -> None:
            try:
                with self._client.lines("v1", "collections", collection, "changes") as lines:
                    token.run_sync_soon(begun.set)
                    for seen in _seen(lines):
                        token.run_sync_soon(send.send_nowait, seen)
            except (CommandError, trio.RunFinishedError, trio.BrokenResourceError):
                pass  # the process has ended, or nobody listens any more
            finally:
                token.run_sync_soon(begun.set)
                token.run_sync_soon(send.close)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.to_thread.run_sync, read, abandon_on_cancel=True, limiter=self._limiter))
            await begun.wait()
            yield receive
            nursery.cancel_scope.cancel()

    async def wait_ready(self) -> None:
        """Wait until the node answers.  LabError: its process ended, or takes too long; its last words."""
        with trio.move_on_after(READY_SECONDS_MAX):
            while self.is_running:
                try:
                    await self.status()
                except LabError:
                    await trio.sleep(_LOOK_SECONDS)
                else:
                    return
        state = f"does not answer after {READY_SECONDS_MAX:g} s" if self.is_running else "ended instead of coming up"
        raise LabError(f"{self.name} {state}; its last words: {self.last_words()}")

    def last_words(self) -> str:
        """See `LabNode.last_words`."""
        return last_words(self.directory / LOG)

    async def _call(self, function: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=self._limiter)
        except CommandError as error:
            raise LabError(f"{self.name}: {error}") from None


def threads() -> trio.CapacityLimiter:
    """What bounds the threads that talk to the nodes of one lab."""
    return trio.CapacityLimiter(_THREADS_MAX)


def _seen(lines: Iterator[Mapping[str, Any]]) -> Iterator[Seen]:
    """The documents of a feed, as they come."""
    for line in lines:
        if "id" in line and line.get("doc") is not None:
            yield Seen(line["id"], time.perf_counter())
