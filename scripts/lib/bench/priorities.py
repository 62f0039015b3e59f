"""What is urgent, behind much that is not, over a link that is full."""

from __future__ import annotations

import random
import time

import trio
from cable import Kind, open_cable

from bench.documents import BLOCK_BYTES, COLLECTION
from bench.report import Row
from bench.stage import Stage, WorkloadFailed, percentiles

_ALARMS = "alarms"
_COUNT = 100
_COUNT_QUICK = 10
_PAUSE_SECONDS_MAX = 0.4
_FULL_SECONDS = 5.0  # until the link is full, and datagrams have the size that it takes
_ROUND_TRIP_SECONDS = 0.05
# A second's worth may wait, as in the modems of slow links; datagrams are those of an Ethernet.
_NARROW = Kind(_ROUND_TRIP_SECONDS / 2, bytes_per_second=125_000, queue_bytes=128 * 1024, datagram_bytes_max=1472)


async def alarms(stage: Stage, n: int) -> list[Row]:
    """P1: from the call of a single write of the critical collection on A to its sight in B's changes().

    Meanwhile n documents of the low one are on their way; only a part of them gets through until the end.
    """
    collections = [{"name": COLLECTION, "priority": "low"}, {"name": _ALARMS, "priority": "critical"}]
    count = _COUNT_QUICK if stage.is_quick else _COUNT
    rng = random.Random(n)
    async with stage.pair(collections=collections) as pair, open_cable(pair.a.address, _NARROW) as cable:
        await pair.fill(n, kind="block")
        await pair.b.call("follow", collection=_ALARMS)
        await pair.b.call("connect", peers=[(pair.a.id, cable.address)])
        await pair.b.call("linked", count=1)
        await trio.sleep(_FULL_SECONDS)
        before, began = await pair.b.call("usage"), time.monotonic()
        taken: list[float] = []
        for number in range(count):
            written = await pair.a.call("write", first=number, count=1, collection=_ALARMS)
            seen = await pair.b.call("sight", number=number)
            taken.append((seen["ended"] - written["began"]) * 1000)
            await trio.sleep(rng.uniform(0, _PAUSE_SECONDS_MAX))
        after, seconds = await pair.b.call("usage"), time.monotonic() - began
        held = (await pair.b.call("state"))["documents"]
        if held >= n:
            raise WorkloadFailed(f"all {n} documents were through before the end: ask for more with --n")
    p50, p99 = percentiles(taken)
    count_bytes = after["bytes"] - before["bytes"]
    trips = " and ".join(f"{one / 1000 / _ROUND_TRIP_SECONDS:.1f}" for one in (p50, p99))
    share = count_bytes / seconds / _NARROW.bytes_per_second
    notes = f"{trips} round trips of the empty link; max {max(taken):.0f} ms; {count} writes"
    notes += f" behind {(n - held) * BLOCK_BYTES / 1e6:.0f} MB; the link was {share:.0%} full"
    cpu = after["cpu_s"] - before["cpu_s"]
    return [Row("P1", n, None, count_bytes, cpu, after["rss_max_mb"], p50, p99, notes=notes)]
