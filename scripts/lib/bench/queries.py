"""Queries on one node that holds many documents."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.documents import document
from bench.report import Row
from bench.stage import Stage, WorkloadFailed, percentiles
from bench.workers import Worker, open_worker

_WRITES_PER_CALL = 10_000
_WRITERS = 64
_TIMES_WITH_INDEX = 50
_TIMES_WITHOUT = 3
_QUICK = 10


async def listings(stage: Stage, n: int) -> list[Row]:
    """Q3: queries of n documents that select few: first without an index, then with one of each field."""
    count = n // _QUICK if stage.is_quick else n
    middle = document(count // 2)
    title = f'title="{middle["title"]}"'
    number = f"count>={middle['count']} and count<{middle['count'] + 1000}"
    with tempfile.TemporaryDirectory(prefix="meshsync-bench-", ignore_cleanup_errors=True) as name:
        async with open_worker(Path(name) / "a", durability="normal") as worker:
            for first in range(0, count, _WRITES_PER_CALL):
                some = min(_WRITES_PER_CALL, count - first)
                await worker.call("write", first=first, count=some, in_flight=_WRITERS)
            rows = [
                await _row(worker, count, _TIMES_WITHOUT, {"where": title}),
                await _row(worker, count, _TIMES_WITHOUT, {"where": number}),
            ]
            for field in ("title", "count"):
                built = await worker.call("index", field=field)
                rows.append(Row("Q3", count, built["seconds"], notes=f"building the index of {field}"))
            rows += [
                await _row(worker, count, _TIMES_WITH_INDEX, {"where": title}, served="title"),
                await _row(worker, count, _TIMES_WITH_INDEX, {"where": number}, served="count"),
                await _row(worker, count, _TIMES_WITH_INDEX, {"order": "-count", "limit": 100}, served="count"),
            ]
    return rows


async def _row(worker: Worker, count: int, times: int, listing: dict[str, Any], served: str | None = None) -> Row:
    before = await worker.call("usage")
    told = await worker.call("listing", times=times, **listing)
    after = await worker.call("usage")
    if told["index"] != served or not told["matched"]:
        raise WorkloadFailed(f"{listing}: {told['matched']} matched, and the index that served was {told['index']}")
    p50, p99 = percentiles(told["ms"])
    best = min(told["ms"]) / 1000
    what = " ".join(f"{key} {value}" for key, value in listing.items())
    by = f"index of {served}" if served else f"no index, {count / best:,.0f} documents/s at best"
    notes = f"{what}: {by}; {told['matched']} matched, {told['documents_read']:,} looked at"
    cpu = (after["cpu_s"] - before["cpu_s"]) / times
    return Row("Q3", count, best, None, cpu, after["rss_max_mb"], p50, p99, notes=notes)
