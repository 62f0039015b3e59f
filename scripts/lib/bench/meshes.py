"""The workloads of many nodes.  Each returns its rows; the docstrings say what is timed."""

from __future__ import annotations

import trio

from bench.mesh import full, line, open_mesh, star
from bench.report import Row
from bench.stage import Stage, percentiles

_PULSES = 200
_PULSES_QUICK = 50
_PULSE_SECONDS = 0.1
_WRITERS = 4
_WARMING_WRITES = 10
_WARMING_SECONDS = 0.2
_STEADY_PULSES = 20
_STEADY_PULSES_QUICK = 5
_STEADY_SECONDS = 1.0
_CALM_SECONDS = 10.0
"""After the last write: what nodes tell each other about themselves comes a little later."""
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

    Counted is from when each of the four has written some entries, so that the links have turned eager or lazy.

    Control bytes are those of frames that are not payloads of entries.
    """
    pulses = _STEADY_PULSES_QUICK if stage.is_quick else _STEADY_PULSES
    idle_seconds = _IDLE_SECONDS_QUICK if stage.is_quick else _IDLE_SECONDS
    edges = full(n)
    async with open_mesh(n, edges) as mesh:
        writers = range(min(_WRITERS, n))
        # Over what the first entries come decides which links are eager from then on.
        warming = {"count": _WARMING_WRITES, "pause": _WARMING_SECONDS}
        await mesh.at_once({one: ("pulse", {"first": one * _WARMING_WRITES, **warming}) for one in writers})
        await mesh.settle()
        before = await mesh.usage()
        first, pulse = _WRITERS * _WARMING_WRITES, {"count": pulses, "pause": _STEADY_SECONDS}
        await mesh.at_once({one: ("pulse", {"first": first + one * pulses, **pulse}) for one in writers})
        await mesh.settle()
        steady = await mesh.used_since(before)
        await trio.sleep(_CALM_SECONDS)
        before = await mesh.usage()
        await trio.sleep(idle_seconds)
        idle = await mesh.used_since(before)
        await mesh.settle()
    entries = len(writers) * pulses
    control = (steady.frame_bytes - steady.payload_bytes) / (n * entries)
    minutes = idle_seconds / 60 * len(edges)
    notes = f"{len(writers)} writers, {entries} entries: {control:,.0f} control bytes a node and entry"
    notes += f"; idle: {idle.frame_bytes / minutes:,.0f} bytes a link and minute"
    notes += f", {idle.bytes / minutes:,.0f} with QUIC's own"
    redundancy = steady.redundancy
    return [Row("M2", n, None, steady.bytes, steady.cpu_s, steady.rss_mb, redundancy=redundancy, notes=notes)]
