"""The workloads between two nodes, and of one.  Each returns its rows; the docstrings say what is timed."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import trio
from cable import Kind, open_cable

from bench.documents import MESSAGE_BYTES
from bench.report import Row
from bench.stage import FILL_IN_FLIGHT, Pair, Stage, WorkloadFailed, fsync_ms, percentiles
from bench.workers import open_worker

_LATENCY_WRITES = 200
_LATENCY_PAUSE_SECONDS = 0.004
_LIVE_BASE = 1000
_LIVE_IN_FLIGHT = 64
_NEW_EACH = 1000
_UPDATED_EACH = 100
_INCREMENT = 10
_WRITES_PER_CALL = 10_000
_ONE_WAY_SECONDS = 0.05
_LONG = Kind(_ONE_WAY_SECONDS)


async def bootstrap(stage: Stage, n: int) -> list[Row]:
    """W1: from the connect call of an empty B until it has all n documents of A; then every one is compared."""
    async with stage.pair() as pair:
        filled = await pair.fill(n)
        before_a, before = await pair.a.call("usage"), await pair.usage()
        async with pair.profiled(f"W1 {n}"):
            pulled = await pair.pull()
        used = await pair.used_since(before, connected_since=True)
        after_a = await pair.a.call("usage")
        right = (await pair.b.call("verify", count=n))["right"]
        if right != n:
            raise WorkloadFailed(f"{right} of {n} documents arrived as they were written")
        written = n / (filled["ended"] - filled["began"])
        notes = f"verified; A wrote {written:,.0f}/s; A's cpu {after_a['cpu_s'] - before_a['cpu_s']:.2f} s"
        return [Row("W1", n, pulled["ended"] - pulled["began"], used.bytes, used.cpu_s, used.rss_mb, notes=notes)]


async def latency(stage: Stage, n: int) -> list[Row]:
    """W2: from the call of a single write on A to its sight in B's changes(), 200 times, with n documents there."""
    async with stage.pair(durability_a="full") as pair:
        await pair.fill(n)
        await pair.pull()
        await pair.b.call("follow")
        before = await pair.usage()
        taken: list[float] = []
        async with pair.profiled("W2"):
            for number in range(n, n + _LATENCY_WRITES):
                written = await pair.a.call("write", first=number, count=1)
                seen = await pair.b.call("sight", number=number)
                taken.append((seen["ended"] - written["began"]) * 1000)
                await trio.sleep(_LATENCY_PAUSE_SECONDS)
        used = await pair.used_since(before, connected_since=False)
        p50, p99 = percentiles(taken)
        notes = f"{_LATENCY_WRITES} writes, one every few ms; max {max(taken):.1f} ms"
        return [Row("W2", n, None, used.bytes, used.cpu_s, used.rss_mb, p50, p99, notes=notes)]


async def live(stage: Stage, n: int) -> list[Row]:
    """W3: n single writes on A while connected, from the first call until B has all; in both durabilities."""
    rows = []
    for durability, in_flight in (("normal", 1), ("full", _LIVE_IN_FLIGHT)):
        async with stage.pair(durability_a=durability) as pair:
            rows.append(await _live(pair, n, durability, in_flight))
    return rows


async def _live(pair: Pair, n: int, durability: str, in_flight: int) -> Row:
    await pair.fill(_LIVE_BASE)
    await pair.pull()
    before_a, before = await pair.a.call("usage"), await pair.usage()
    wrote: dict[str, float] = {}

    async def write() -> None:
        wrote.update(await pair.a.call("write", first=_LIVE_BASE, count=n, in_flight=in_flight))

    async with pair.profiled(f"W3 {durability}"), trio.open_nursery() as nursery:
        nursery.start_soon(write)
        held = await pair.b.call("held", count=_LIVE_BASE + n)
    used = await pair.used_since(before, connected_since=False)
    after_a = await pair.a.call("usage")
    await pair.a.call("synced")
    await pair.check_equal()
    notes = f"{durability}; the writes returned after {wrote['ended'] - wrote['began']:.2f} s"
    notes += f"; A's cpu {after_a['cpu_s'] - before_a['cpu_s']:.2f} s"
    if durability == "full":
        notes = f"full, {in_flight} in flight" + notes.removeprefix("full")
        notes += f"; one fsync takes {fsync_ms(pair.directory):.2f} ms here"
    return Row("W3", n, held["ended"] - wrote["began"], used.bytes, used.cpu_s, used.rss_mb, notes=notes)


async def diverge(stage: Stage, n: int) -> list[Row]:
    """W4: n shared; apart, each side writes 1,000 and updates the same 100; reconnecting to equal roots on both."""
    async with stage.pair(durability_b="normal") as pair:
        await pair.fill(n)
        await pair.pull()
        await pair.part()
        for update, worker in enumerate((pair.a, pair.b), 1):
            first = n + (update - 1) * _NEW_EACH
            await worker.call("write", first=first, count=_NEW_EACH, in_flight=FILL_IN_FLIGHT)
            await worker.call("write", first=0, count=_UPDATED_EACH, update=update, in_flight=FILL_IN_FLIGHT)
        before = await pair.usage()
        async with pair.profiled("W4"):
            pulled, ended = await pair.converge()
        used = await pair.used_since(before, connected_since=True)
        await pair.check_equal()
        notes = f"each side {_NEW_EACH:,} new and {_UPDATED_EACH} updated"
        return [Row("W4", n, ended - pulled["began"], used.bytes, used.cpu_s, used.rss_mb, notes=notes)]


async def increment(stage: Stage, n: int) -> list[Row]:
    """W5: n in sync; apart, A writes ten; from reconnecting until B has them.  Bytes include the handshake."""
    async with stage.pair() as pair:
        await pair.fill(n)
        await pair.pull()
        await pair.part()
        await pair.a.call("write", first=n, count=_INCREMENT)
        before = await pair.usage()
        async with pair.profiled(f"W5 {n}"):
            pulled = await pair.pull()
        used = await pair.used_since(before, connected_since=True)
        if pulled["documents"] != n + _INCREMENT:
            raise WorkloadFailed(f"B has {pulled['documents']} documents, not {n + _INCREMENT}")
        await pair.check_equal()
        notes = f"connected after {(pulled['connected'] - pulled['began']) * 1000:.1f} ms"
        return [Row("W5", n, pulled["ended"] - pulled["began"], used.bytes, used.cpu_s, used.rss_mb, notes=notes)]


async def reconcile(stage: Stage, n: int) -> list[Row]:
    """W6: n shared and n new on each side, of 1,000 bytes: the bytes beyond the payloads, and round trips.

    The scenario is that of Kleppmann and Howard, "Byzantine Eventual Consistency" (2020), section 5.
    """
    async with stage.pair(durability_b="normal") as pair:
        await _differ(pair, n)
        before = await pair.usage()
        pulled, ended = await pair.converge()
        used = await pair.used_since(before, connected_since=True)
        await pair.check_equal()
    trips = await _round_trips(stage, n)
    beyond = used.bytes - 2 * n * MESSAGE_BYTES
    notes = f"{beyond:,} bytes beyond the payloads, {beyond / (2 * n):,.0f} each; {trips}"
    return [Row("W6", n, ended - pulled["began"], used.bytes, used.cpu_s, used.rss_mb, notes=notes)]


async def _differ(pair: Pair, n: int, address: str | None = None) -> None:
    """Have n shared and n new on each side, and part them.  B connects to A at the address, where one is given.

    To that alone: what a node knows of a peer adds up, and the quickest way is taken.
    """
    await pair.fill(n, kind="message")
    await pair.pull(address)
    await pair.part()
    for position, worker in enumerate((pair.a, pair.b), 1):
        await worker.call("write", first=position * n, count=n, kind="message", in_flight=FILL_IN_FLIGHT)


async def _round_trips(stage: Stage, n: int) -> str:
    """The time through a cable that delays, in round trips: handshake, acknowledgements and slow start included."""
    async with stage.pair(durability_b="normal") as pair, open_cable(pair.a.address, _LONG) as cable:
        await _differ(pair, n, cable.address)
        pulled, ended = await pair.converge(cable.address)
        await pair.check_equal()
    connected, both = ((end - pulled["began"]) / (2 * _ONE_WAY_SECONDS) for end in (pulled["connected"], ended))
    delay = f"{_ONE_WAY_SECONDS * 1000:.0f} ms"
    how = f"time through a relay that delays {delay} each way"
    return f"{both:.1f} round trips, {connected:.1f} of them to connect ({how})"


async def memory(stage: Stage, n: int) -> list[Row]:  # noqa: ARG001  the arguments of a workload
    """MEM: a store with n entries is opened by a new process: how long that takes, and its memory then."""
    with tempfile.TemporaryDirectory(prefix="meshsync-bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name) / "a"
        async with open_worker(directory, durability="normal") as worker:
            began = time.monotonic()
            for first in range(0, n, _WRITES_PER_CALL):
                await worker.call("write", first=first, count=min(_WRITES_PER_CALL, n - first))
            written_per_s = n / (time.monotonic() - began)
        async with open_worker(Path(name) / "bare") as worker:
            bare = (await worker.call("usage"))["rss_mb"]
        async with open_worker(directory) as worker:
            usage = await worker.call("usage")
            size = sum(path.stat().st_size for path in directory.iterdir() if path.is_file())
            notes = f"opening it; rss of a node with nothing {bare:.1f} MB; {size / n:.0f} bytes on disk an entry"
            notes += f"; written at {written_per_s:,.0f}/s"
            return [Row("MEM", n, worker.open_seconds, None, usage["cpu_s"], usage["rss_mb"], notes=notes)]
