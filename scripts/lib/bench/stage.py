"""What every workload stands on: two nodes that know each other, their counters, and where the time goes."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from bench.workers import Worker, open_worker

FILL_IN_FLIGHT = 64
_SETTLE_SECONDS = 0.5


class WorkloadFailed(Exception):
    """The nodes do not hold what they should."""


@dataclass(frozen=True)
class Usage:
    """What was used between two readings; the memory is the most so far."""

    cpu_s: float
    rss_mb: float
    bytes: int


@dataclass(frozen=True)
class Pair:
    """Two nodes with stores on disk; A lets B in.  They are not connected yet."""

    a: Worker
    b: Worker
    directory: Path
    with_profile: bool

    async def fill(self, count: int, *, kind: str = "document") -> dict[str, Any]:
        """Write the first documents on A."""
        return await self.a.call("write", first=0, count=count, kind=kind, in_flight=FILL_IN_FLIGHT)

    async def pull(self, address: str | None = None) -> dict[str, Any]:
        """Connect B to A and wait there until both roots are equal."""
        return await self.b.call("pull", id=self.a.id, address=address or self.a.address)

    async def converge(self, address: str | None = None) -> tuple[dict[str, Any], float]:
        """Connect B to A; what `pull` answers, and when both sides knew that the roots were equal."""
        ends: list[float] = []
        answers: list[dict[str, Any]] = []

        async def other_side() -> None:
            ends.append((await self.a.call("synced"))["ended"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other_side)
            answers.append(await self.pull(address))
        return answers[0], max(ends[0], answers[0]["ended"])

    async def part(self) -> None:
        """Cut the connection."""
        await self.b.call("part", id=self.a.id)
        await self.a.call("parted")

    async def check_equal(self) -> None:
        """Compare roots and documents."""
        states = [await worker.call("state") for worker in (self.a, self.b)]
        if states[0] != states[1]:
            raise WorkloadFailed(f"the nodes differ: {states}")

    async def usage(self) -> dict[str, Any]:
        """B's counters, after what the nodes still have to say to each other."""
        await trio.sleep(_SETTLE_SECONDS)
        return await self.b.call("usage")

    async def used_since(self, before: dict[str, Any], *, connected_since: bool) -> Usage:
        """B's share since `before`.  The bytes count from the connection's first where it is newer than that."""
        after = await self.usage()
        count = after["bytes"] - (0 if connected_since else before["bytes"])
        return Usage(after["cpu_s"] - before["cpu_s"], after["rss_max_mb"], count)

    @asynccontextmanager
    async def profiled(self, title: str) -> AsyncIterator[None]:
        """Tell where the time of both processes goes, where that was asked for.  It then takes far more of it."""
        workers = [self.a, self.b] if self.with_profile else []
        for worker in workers:
            await worker.call("profile", order="begin")
        yield
        for worker in workers:
            text = (await worker.call("profile", order="end"))["text"]
            print(f"== {title}, node {worker.name}\n{text}", file=sys.stderr)


class Progress:
    """What a workload that takes minutes is about, told on standard error."""

    def __init__(self) -> None:
        self.step = ""
        """What it does, or waits for, now; nothing where the workload does not tell."""
        self._began = time.monotonic()

    def begin(self, step: str) -> None:
        """Go on to the next step."""
        self.step = step
        print(f"bench: after {time.monotonic() - self._began:.0f} s: {step}", file=sys.stderr)


@dataclass(frozen=True)
class Stage:
    """Where workloads run."""

    with_profile: bool = False
    is_quick: bool = False
    """Shorter waits and fewer writes, for a first look."""
    progress: Progress = field(default_factory=Progress)

    @asynccontextmanager
    async def pair(
        self, *, durability_a: str = "normal", durability_b: str = "full", **configuration: Any
    ) -> AsyncIterator[Pair]:
        """Two nodes, with more configuration for both.  Nothing of them is left at the end."""
        with tempfile.TemporaryDirectory(prefix="meshsync-bench-", ignore_cleanup_errors=True) as name:
            directory = Path(name)
            async with (
                open_worker(directory / "a", durability=durability_a, **configuration) as a,
                open_worker(directory / "b", durability=durability_b, **configuration) as b,
            ):
                await a.call("accept", id=b.id)
                yield Pair(a, b, directory, self.with_profile)


def fsync_ms(directory: Path, times: int = 100) -> float:
    """What one append of 4 KiB with its fsync takes here: the median, in milliseconds."""
    taken = []
    with (directory / "fsync").open("wb", buffering=0) as file:
        for _ in range(times):
            began = time.monotonic()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            taken.append(time.monotonic() - began)
    return sorted(taken)[times // 2] * 1000


def percentiles(taken: Iterable[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    ordered = sorted(taken)
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100 - 1]
