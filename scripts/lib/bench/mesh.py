"""What the workloads of many nodes stand on: a mesh of processes, linked as asked for, and what all of them used."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import trio

from bench.stage import WorkloadFailed
from bench.workers import Worker, start_worker

Answer = dict[str, Any]
Edge = tuple[int, int]
"""Two nodes by number; the first dials."""
_SETTLE_SECONDS = 0.5


def line(count: int) -> list[Edge]:
    """Each node with the next one."""
    return [(number, number + 1) for number in range(count - 1)]


def star(count: int) -> list[Edge]:
    """Every node with the last one."""
    return [(number, count - 1) for number in range(count - 1)]


def full(count: int) -> list[Edge]:
    """Every node with every other."""
    return list(combinations(range(count), 2))


@dataclass(frozen=True)
class MeshUsage:
    """What all nodes used between two readings; the memory is that of the largest so far."""

    cpu_s: float
    rss_mb: float
    bytes: int
    frame_bytes: int
    """Of `bytes`, what is not QUIC's own."""
    payload_bytes: int
    """Of entries that were received, each as often as it was; a part of `frame_bytes`."""
    payload_bytes_new: int
    """Of those that were new: the least that had to be received."""

    @property
    def redundancy(self) -> float | None:
        """How often a payload was received on average; None where none was."""
        return self.payload_bytes / self.payload_bytes_new if self.payload_bytes_new else None


class Mesh:
    """Nodes with stores on disk, a process each, that let everyone in."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = workers
        self._links: dict[int, int] = defaultdict(int)

    async def each(self, command: str, *, of: Iterable[int] | None = None, **arguments: Any) -> list[Answer]:
        """Give all nodes, or those with these numbers, a command at once; their answers in order."""
        return await self.at_once(dict.fromkeys(of or range(len(self.workers)), (command, arguments)))

    async def at_once(self, calls: dict[int, tuple[str, Answer]]) -> list[Answer]:
        """Give nodes, by number, their own commands at once; their answers in order."""
        answers: dict[int, Answer] = {}

        async def call(number: int, command: str, arguments: Answer) -> None:
            answers[number] = await self.workers[number].call(command, **arguments)

        async with trio.open_nursery() as nursery:
            for number, (command, arguments) in calls.items():
                nursery.start_soon(call, number, command, arguments)
        return [answers[number] for number in calls]

    async def begin_links(self, edges: Iterable[Edge], through: Mapping[Edge, str] | None = None) -> float:
        """Let all these pairs begin to connect at once; when the first did.

        `through` has the addresses to dial where they are not the nodes' own.
        """
        dials: dict[int, list[tuple[str, str]]] = defaultdict(list)
        for edge in edges:
            dialer, other = edge
            address = (through or {}).get(edge, self.workers[other].address)
            dials[dialer].append((self.workers[other].id, address))
            for number in edge:
                self._links[number] += 1
        answers = await self.at_once({number: ("connect", {"peers": peers}) for number, peers in dials.items()})
        return min(float(answer["began"]) for answer in answers)

    async def linked(self) -> float:
        """Wait until all are connected that began to; when the last was."""
        answers = await self.at_once({number: ("linked", {"count": count}) for number, count in self._links.items()})
        return max(float(answer["ended"]) for answer in answers)

    async def eager(self) -> set[tuple[int, str]]:
        """The ends of links over which entries go as they come: a node's number and its peer's id."""
        answers = await self.each("eager")
        return {(number, peer) for number, answer in enumerate(answers) for peer in answer["peers"]}

    async def settle(self) -> None:
        """Wait until every node is in sync with all its neighbours, and all hold the same."""
        while True:
            await self.each("synced")
            roots = {answer["root"] for answer in await self.each("root")}
            if len(roots) == 1:
                break
        states = await self.each("state")
        if any(state != states[0] for state in states):
            raise WorkloadFailed(f"the nodes differ: {states}")

    async def usage(self) -> list[Answer]:
        """Every node's counters, after what they still have to say to each other."""
        await trio.sleep(_SETTLE_SECONDS)
        return await self.each("usage")

    async def used_since(self, before: Sequence[Answer]) -> MeshUsage:
        """What was used since `before`, over connections that are there all the while."""
        after = await self.usage()

        def rise(key: str) -> float:
            return sum(float(late[key]) - float(early[key]) for early, late in zip(before, after, strict=True))

        return MeshUsage(
            cpu_s=rise("cpu_s"),
            rss_mb=max(float(answer["rss_max_mb"]) for answer in after),
            bytes=round(rise("bytes_received")),
            frame_bytes=round(rise("frame_bytes")),
            payload_bytes=round(rise("payload_bytes")),
            payload_bytes_new=round(rise("payload_bytes_new")),
        )


@asynccontextmanager
async def open_mesh(count: int, edges: Iterable[Edge] = ()) -> AsyncIterator[Mesh]:
    """So many nodes, linked as the edges say.  Nothing of them is left at the end."""
    with tempfile.TemporaryDirectory(prefix="meshsync-bench-", ignore_cleanup_errors=True) as name:
        async with AsyncExitStack() as stack:
            # All are started before the first is waited for.
            starts = [start_worker(Path(name) / f"n{number}", trust="open") for number in range(count)]
            workers = [await stack.enter_async_context(start) for start in starts]
            for worker in workers:
                await worker.opened()
            mesh = Mesh(workers)
            if edges:
                await mesh.begin_links(edges)
                await mesh.linked()
            yield mesh
            for worker in workers:
                await worker.end()
