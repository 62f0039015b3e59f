"""Nodes that want a part of a collection, or of its history, beside those that want all of it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.documents import CHOSEN, COLLECTION, MEMBERS_PER_CHOSEN, MESSAGE_BYTES
from bench.report import Row
from bench.stage import FILL_IN_FLIGHT, Pair, Stage, WorkloadFailed
from bench.workers import Worker, open_worker

_WRITES_PER_CALL = 10_000
_UPDATES = 100
_QUICK = 10
_PART: dict[str, Any] = {"collections": [{"name": COLLECTION, "where": [CHOSEN]}]}


async def bootstrap(stage: Stage, n: int) -> list[Row]:
    """Q1: from the connect call of an empty node until it has its part of A's n documents; then the same for another
    one, with an index of what its query looks at; then another one gets all.
    """
    matching = len(range(0, n, MEMBERS_PER_CHOSEN))
    async with _source() as (a, directory):
        for first in range(0, n, _WRITES_PER_CALL):
            some = min(_WRITES_PER_CALL, n - first)
            await a.call("write", first=first, count=some, kind="member", in_flight=FILL_IN_FLIGHT)
        rows = []
        kinds: tuple[tuple[str, int, dict[str, Any]], ...] = (
            ("a part", matching, _PART),
            ("a part, by an index", matching, _PART),
            ("all", n, {}),
        )
        for number, (what, wanted, configuration) in enumerate(kinds):
            if "index" in what:
                await a.call("index", field=CHOSEN.partition("=")[0])
            async with _empty(a, directory / f"b{number}", configuration, stage) as pair:
                row = await _pull(pair, f"Q1 {n}: {what}", {"count": n, "kind": "member"}, wanted)
            beyond = ((row.bytes or 0) - wanted * MESSAGE_BYTES) / n
            notes = f"{what}: {wanted:,} wanted; {beyond:.1f} bytes a header beyond the payloads wanted; {row.notes}"
            rows.append(replace(row, workload="Q1", n=n, notes=notes))
    return rows


async def histories(stage: Stage, n: int) -> list[Row]:
    """Q2: from the connect call of an empty node until it has the latest state of A's n documents, each of which was
    updated 100 times; then another gets them with their history.
    """
    updates = _UPDATES // _QUICK if stage.is_quick else _UPDATES
    async with _source() as (a, directory):
        for update in range(updates + 1):
            await a.call("write", first=0, count=n, update=update, in_flight=FILL_IN_FLIGHT)
        rows = []
        for history in ("latest", "full"):
            configuration = {"collections": [{"name": COLLECTION, "history": history}]}
            async with _empty(a, directory / history, configuration, stage) as pair:
                row = await _pull(pair, f"Q2 {n} {history}", {"count": n, "update": updates}, n)
            rows.append(replace(row, workload="Q2", n=n, notes=f"{history}, {updates} updates each; {row.notes}"))
    return rows


@asynccontextmanager
async def _source() -> AsyncIterator[tuple[Worker, Path]]:
    """The node that has what others get, and the directory for them all."""
    with tempfile.TemporaryDirectory(prefix="meshsync-bench-", ignore_cleanup_errors=True) as name:
        async with open_worker(Path(name) / "a", durability="normal") as a:
            yield a, Path(name)


@asynccontextmanager
async def _empty(a: Worker, directory: Path, configuration: dict[str, Any], stage: Stage) -> AsyncIterator[Pair]:
    """An empty node beside the one that has all."""
    async with open_worker(directory, durability="full", **configuration) as b:
        await a.call("accept", id=b.id)
        yield Pair(a, b, directory, stage.with_profile)
    await a.call("parted")


async def _pull(pair: Pair, title: str, documents: dict[str, Any], wanted: int) -> Row:
    """Bring an empty node what it wants of certain documents, and compare them."""
    await pair.a.call("durable")  # a header leaves without its payload only when that is
    before_a, before = await pair.a.call("usage"), await pair.usage()
    async with pair.profiled(title):
        pulled = await pair.pull()
    used = await pair.used_since(before, connected_since=True)
    after_a = await pair.a.call("usage")
    right = (await pair.b.call("verify", **documents))["right"]
    if not pulled["documents"] == right == wanted:
        raise WorkloadFailed(f"{pulled['documents']} documents are there, {right} of {wanted} as they were written")
    notes = f"A's cpu {after_a['cpu_s'] - before_a['cpu_s']:.2f} s"
    return Row("", 0, pulled["ended"] - pulled["began"], used.bytes, used.cpu_s, used.rss_mb, notes=notes)


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
