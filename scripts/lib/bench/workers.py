"""The processes of a benchmark, each with a node, and the directories that they leave nothing of."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from bench.lines import read_lines, write_line

_CLOSE_SECONDS = 15


class WorkerFailed(Exception):
    """A node's process ended in the middle of a benchmark; what it wrote to standard error says why."""


class Worker:
    """One node in a process of its own."""

    id: str
    address: str
    open_seconds: float
    """How long opening the node took."""

    def __init__(self, name: str, process: trio.Process) -> None:
        assert process.stdout is not None
        self.name = name
        self._process = process
        self._answers = read_lines(process.stdout)

    async def opened(self) -> None:
        """Wait until the node runs."""
        opened = await self.answer()
        self.id, self.address, self.open_seconds = opened["id"], opened["address"], opened["seconds"]

    async def end(self) -> None:
        """Tell the process to end; it takes a moment for its farewells."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()

    async def call(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Give a command and wait for the answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(trio.BrokenResourceError):
            await write_line(self._process.stdin, {"command": command, **arguments})
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        """The next line that the process writes."""
        async for answer in self._answers:
            return answer
        raise WorkerFailed(f"the process of node {self.name} ended; what it said is above")


@asynccontextmanager
async def start_worker(directory: Path, **configuration: Any) -> AsyncIterator[Worker]:
    """A node with its store in `directory`, which may hold one already; `opened` waits until it runs.

    `configuration` counts over what the benchmarks have in common.  The process is gone at the end.
    """
    process = await trio.lowlevel.open_process(
        [sys.executable, "-P", "-m", "bench.driver", json.dumps({"data_dir": str(directory), **configuration})],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        worker = Worker(directory.name, process)
        yield worker
        await worker.end()
        with trio.move_on_after(_CLOSE_SECONDS):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@asynccontextmanager
async def open_worker(directory: Path, **configuration: Any) -> AsyncIterator[Worker]:
    """A node that runs; see `start_worker`."""
    async with start_worker(directory, **configuration) as worker:
        await worker.opened()
        yield worker
