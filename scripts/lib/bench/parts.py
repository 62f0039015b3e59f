"""Nodes that want a part of a collection, beside those that want all of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.documents import CHOSEN, COLLECTION, MEMBERS_PER_CHOSEN, MESSAGE_BYTES
from bench.report import Row
from bench.stage import FILL_IN_FLIGHT, Pair, Stage, WorkloadFailed
from bench.workers import open_worker

_WRITES_PER_CALL = 10_000
_PART: dict[str, Any] = {"collections": [{"name": COLLECTION, "where": [CHOSEN]}]}


async def bootstrap(stage: Stage, n: int) -> list[Row]:
    """Q1: from the connect call of an empty node until it has its part of A's n documents; then another gets all."""
    matching = len(range(0, n, MEMBERS_PER_CHOSEN))
    with tempfile.TemporaryDirectory(prefix="meshsync-bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        async with open_worker(directory / "a", durability="normal") as a:
            for first in range(0, n, _WRITES_PER_CALL):
                some = min(_WRITES_PER_CALL, n - first)
                await a.call("write", first=first, count=some, kind="member", in_flight=FILL_IN_FLIGHT)
            rows: dict[int, Row] = {}
            for wanted, configuration in ((matching, _PART), (n, {})):
                async with open_worker(directory / f"b{wanted}", durability="full", **configuration) as b:
                    await a.call("accept", id=b.id)
                    rows[wanted] = await _pull(Pair(a, b, directory, stage.with_profile), n, wanted)
                await a.call("parted")
    return list(rows.values())


async def _pull(pair: Pair, n: int, wanted: int) -> Row:
    before_a, before = await pair.a.call("usage"), await pair.usage()
    async with pair.profiled(f"Q1 {wanted} of {n}"):
        pulled = await pair.pull()
    used = await pair.used_since(before, connected_since=True)
    after_a = await pair.a.call("usage")
    right = (await pair.b.call("verify", count=n, kind="member"))["right"]
    if not pulled["documents"] == right == wanted:
        raise WorkloadFailed(f"{pulled['documents']} documents are there, {right} of {wanted} as they were written")
    beyond = (used.bytes - wanted * MESSAGE_BYTES) / n
    notes = f"{wanted:,} of them wanted; {beyond:.1f} bytes a header beyond the payloads wanted"
    notes += f"; A's cpu {after_a['cpu_s'] - before_a['cpu_s']:.2f} s"
    return Row("Q1", n, pulled["ended"] - pulled["began"], used.bytes, used.cpu_s, used.rss_mb, notes=notes)


async def live(stage: Stage, n: int) -> list[Row]:
    """Q4: from the first of n single writes on A, every other one to a document of the query, until B told who follows
    it of all of them; then each document is moved into the query, or out of it.  B has all documents, or those only.
    """
    rows = []
    for what, configuration in (("all", {}), ("a part", _PART)):
        with tempfile.TemporaryDirectory(prefix="meshsync-bench-", ignore_cleanup_errors=True) as name:
            directory = Path(name)
            async with (
                open_worker(directory / "a", durability="normal") as a,
                open_worker(directory / "b", durability="full", **configuration) as b,
            ):
                await a.call("accept", id=b.id)
                rows.append(await _follow(Pair(a, b, directory, stage.with_profile), n, what))
    return rows


async def _follow(pair: Pair, n: int, what: str) -> Row:
    await pair.pull()
    await pair.b.call("follow", where=CHOSEN)
    before = await pair.usage()
    told: list[str] = []
    seconds, count = 0.0, 0
    async with pair.profiled(f"Q4 {what}"):
        # Each document comes or leaves once in each turn, so it cannot be that two changes of it are told as one.
        for update, changes in enumerate((len(range(0, n, 2)), n)):
            count += changes
            writing = {"first": 0, "count": n, "kind": "track", "update": update, "in_flight": FILL_IN_FLIGHT}
            wrote = await pair.a.call("write", **writing)
            seen = await pair.b.call("turned", count=count)
            if seen["shown"] != len(range(update, n, 2)):
                raise WorkloadFailed(f"{seen['shown']} documents of {n} were told to be in the query")
            taken = seen["ended"] - wrote["began"]
            told.append(f"{changes / taken:,.0f} {('put', 'moved')[update]} a second")
            seconds += taken
    used = await pair.used_since(before, connected_since=False)
    notes = f"B has {what}; changes told of documents {' and '.join(told)}"
    return Row("Q4", n, seconds, used.bytes, used.cpu_s, used.rss_mb, notes=notes)
