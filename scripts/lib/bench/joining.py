"""The workloads of meshes that come together.  Each returns its rows; the docstrings say what is timed."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import trio
from cable import open_cable

from bench.mesh import Edge, full, open_mesh
from bench.report import Row
from bench.stage import FILL_IN_FLIGHT, Stage, WorkloadFailed

_HEALING_NODES = 10
_APART_SECONDS = 120.0
_APART_SECONDS_QUICK = 2.0
_JOINING_NODES = 20


async def heal(stage: Stage, n: int) -> list[Row]:
    """M3: two halves of a mesh are apart for two minutes while each writes n documents; from the mending of the cables
    until every node has all.

    Within a half each node is linked with each, and across with one: through a cable that lets nothing through, and
    says nothing about it, while it is cut.
    """
    half = _HEALING_NODES // 2
    apart_seconds = _APART_SECONDS_QUICK if stage.is_quick else _APART_SECONDS
    tell = stage.progress.begin
    tell(f"M3: linking {2 * half} nodes")
    inside = [edge for first in (0, half) for edge in shifted(full(half), first)]
    across = [(number, half + number) for number in range(half)]
    async with AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(open_mesh(2 * half, inside))
        cables = {edge: await stack.enter_async_context(open_cable(mesh.workers[edge[1]].address)) for edge in across}
        await mesh.begin_links(across, {edge: cable.address for edge, cable in cables.items()})
        await mesh.linked()
        await mesh.workers[0].call("write", first=0, count=1)
        await mesh.settle()
        tell(f"writing {n} documents on each side of cut cables, which are mended after {apart_seconds:.0f} s")
        for cable in cables.values():
            cable.is_cut = True
        mend_at = trio.current_time() + apart_seconds
        fill = {"count": n, "in_flight": FILL_IN_FLIGHT}
        await mesh.at_once({0: ("write", {"first": 1, **fill}), half: ("write", {"first": 1 + n, **fill})})
        await mesh.each("held", count=1 + n)
        await trio.sleep_until(mend_at)
        roots = [answer["root"] for answer in await mesh.each("root")]
        if len(set(roots[:half])) > 1 or len(set(roots[half:])) > 1 or roots[0] == roots[half]:
            raise WorkloadFailed("the halves were not apart, or not equal within")
        before = await mesh.usage()
        tell(f"waiting for all {2 * half} nodes to hold {1 + 2 * n} documents")
        mended_at = time.monotonic()
        for cable in cables.values():
            cable.is_cut = False
        held_at = [answer["ended"] for answer in await mesh.each("held", count=1 + 2 * n)]
        tell("waiting for all links to be back")
        linked_at = await mesh.linked()
        used = await mesh.used_since(before)
        tell(f"waiting for {2 * half} nodes to be in sync")
        await mesh.settle()
    notes = f"{2 * half} nodes; the first node had all after {min(held_at) - mended_at:.2f} s"
    notes += f", all links were back after {linked_at - mended_at:.2f} s"
    seconds = max(held_at) - mended_at
    return [Row("M3", n, seconds, used.bytes, used.cpu_s, used.rss_mb, redundancy=used.redundancy, notes=notes)]


async def join(stage: Stage, n: int) -> list[Row]:
    """M4: 20 nodes, of which one has n documents, connect all at once, each with each; until all have all."""
    tell = stage.progress.begin
    tell(f"M4: writing {n} documents on one of {_JOINING_NODES} nodes")
    async with open_mesh(_JOINING_NODES) as mesh:
        await mesh.workers[0].call("write", first=0, count=n, in_flight=FILL_IN_FLIGHT)
        before = await mesh.usage()
        tell(f"linking each with each, and waiting for all to hold {n} documents")
        began = await mesh.begin_links(full(_JOINING_NODES))
        held_at = [answer["ended"] for answer in await mesh.each("held", count=n)]
        tell("waiting for all links to be there")
        linked_at = await mesh.linked()
        tell(f"waiting for {_JOINING_NODES} nodes to be in sync")
        await mesh.settle()
        used = await mesh.used_since(before)
    notes = f"{_JOINING_NODES} nodes; half of them had all after {sorted(held_at)[len(held_at) // 2] - began:.2f} s"
    notes += f", all links were there after {linked_at - began:.2f} s"
    seconds = max(held_at) - began
    return [Row("M4", n, seconds, used.bytes, used.cpu_s, used.rss_mb, redundancy=used.redundancy, notes=notes)]


def shifted(edges: list[Edge], by: int) -> list[Edge]:
    """The same edges between nodes with higher numbers."""
    return [(a + by, b + by) for a, b in edges]
