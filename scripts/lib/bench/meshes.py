"""The workloads of many nodes.  Each returns its rows; the docstrings say what is timed."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from bench.mesh import Mesh, full, line, open_mesh, star
from bench.report import Row
from bench.stage import Stage, percentiles

_PULSES = 200
_PULSES_QUICK = 50
_PULSE_SECONDS = 0.1
_WRITERS = 4
_WARMING_PULSES = 8
_WARMING_SECONDS = 0.25
_WARMING_ROUNDS_MIN = 3
_WARMING_SECONDS_MAX = 60.0
_TURNING_MAX = 0.2
"""Of the ends of links, for each node, that turned while a round was written: then they are taken to have turned.

Where machines are too busy they never have; then it is counted nevertheless, and the row says so."""
_STEADY_PULSES = 60
_STEADY_PULSES_QUICK = 10
_STEADY_SECONDS = 1.0
_CALM_SECONDS = 60.0
"""After the last write: what nodes tell each other about themselves comes later, and over some links every 30 s."""
_CALM_SECONDS_QUICK = 10.0
_IDLE_SECONDS = 60.0
_IDLE_SECONDS_QUICK = 20.0


async def spread(stage: Stage, n: int) -> list[Row]:
    """M1: from the call of a single write to its sight in the changes() of the last of n nodes, 200 times.

    One write is begun every 100 ms, whether the one before has arrived or not.  The writer is an end of the line, a
    leaf of the star.
    """
    rows = []
    count = _PULSES_QUICK if stage.is_quick else _PULSES
    for shape in (line, star, full):
        stage.progress.begin(f"M1: {n} nodes ({shape.__name__}), {count} writes")
        async with open_mesh(n, shape(n)) as mesh:
            await mesh.each("follow")
            # The first write on a new collection waits for more than those after it.
            await mesh.workers[0].call("write", first=0, count=1)
            await mesh.settle()
            before = await mesh.usage()
            written = await mesh.workers[0].call("pulse", first=1, count=count, pause=_PULSE_SECONDS)
            sights = await mesh.each("sights", of=range(1, n), first=1, count=count)
            used = await mesh.used_since(before)
            await mesh.settle()
        seen = zip(*(answer["seen"] for answer in sights), strict=True)
        taken = [(max(times) - began) * 1000 for began, times in zip(written["began"], seen, strict=True)]
        p50, p99 = percentiles(taken)
        notes = f"{shape.__name__}: {count} writes, one every {_PULSE_SECONDS * 1000:.0f} ms; max {max(taken):.1f} ms"
        rows.append(Row("M1", n, None, used.bytes, used.cpu_s, used.rss_mb, p50, p99, used.redundancy, notes))
    return rows


async def cost(stage: Stage, n: int) -> list[Row]:
    """M2: what n nodes, each linked with each, send while four of them write once a second each; then while none does.

    Counted is from when writes no longer turn links eager or lazy; at rest, from when what nodes say about themselves
    after the last write has gone round.

    Control bytes are those of frames that are not payloads of entries.
    """
    pulses = _STEADY_PULSES_QUICK if stage.is_quick else _STEADY_PULSES
    calm_seconds = _CALM_SECONDS_QUICK if stage.is_quick else _CALM_SECONDS
    idle_seconds = _IDLE_SECONDS_QUICK if stage.is_quick else _IDLE_SECONDS
    edges = full(n)
    tell = stage.progress.begin
    tell(f"M2: linking {n} nodes, each with each")
    async with open_mesh(n, edges) as mesh:
        writers = range(min(_WRITERS, n))
        first, warmed = await _warm(stage, mesh, writers)
        tell(f"waiting for {n} nodes to be in sync after the first writes")
        await mesh.settle()
        entries = len(writers) * pulses
        tell(f"writing {entries} entries, {len(writers)} a second")
        before = await mesh.usage()
        pulse = {"count": pulses, "pause": _STEADY_SECONDS}
        await mesh.at_once({one: ("pulse", {"first": first + one * pulses, **pulse}) for one in writers})
        tell(f"waiting for {n} nodes to be in sync after {entries} entries")
        await mesh.settle()
        steady = await mesh.used_since(before)
        tell(f"waiting {calm_seconds:.0f} s, and counting for {idle_seconds:.0f} s what is sent at rest")
        await trio.sleep(calm_seconds)
        before = await mesh.usage()
        await trio.sleep(idle_seconds)
        idle = await mesh.used_since(before)
        await mesh.settle()
    control = (steady.frame_bytes - steady.payload_bytes) / (n * entries)
    minutes = idle_seconds / 60 * len(edges)
    notes = f"{len(writers)} writers, {entries} entries, {warmed}; "
    notes += f"{control:,.0f} control bytes a node and entry"
    notes += f"; idle: {idle.frame_bytes / minutes:,.0f} bytes a link and minute"
    notes += f", {idle.bytes / minutes:,.0f} with QUIC's own, {calm_seconds:.0f} s after the last entry"
    redundancy = steady.redundancy
    return [Row("M2", n, None, steady.bytes, steady.cpu_s, steady.rss_mb, redundancy=redundancy, notes=notes)]


async def _warm(stage: Stage, mesh: Mesh, writers: Sequence[int]) -> tuple[int, str]:
    """Write until that no longer turns links, or for long enough; the number of the next document, and how it went."""
    began = trio.current_time()
    pulse = {"count": _WARMING_PULSES, "pause": _WARMING_SECONDS}
    ends_max = round(_TURNING_MAX * len(mesh.workers))
    number, turned, rounds, seconds = 0, 0, 0, 0.0
    before = await mesh.eager()
    while rounds < _WARMING_ROUNDS_MIN or (turned > ends_max and seconds < _WARMING_SECONDS_MAX):
        stage.progress.begin(f"writing until no more than {ends_max} ends of links turn; {turned} did")
        calls = {one: number + at * _WARMING_PULSES for at, one in enumerate(writers)}
        await mesh.at_once({one: ("pulse", {"first": first, **pulse}) for one, first in calls.items()})
        number += len(writers) * _WARMING_PULSES
        rounds += 1
        after = await mesh.eager()
        turned, before = len(before ^ after), after
        seconds = trio.current_time() - began
    how = f"links still turning ({turned} ends)" if turned > ends_max else "links no longer turning"
    return number, f"{how} after {seconds:.0f} s of writes"
