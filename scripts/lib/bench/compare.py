"""Runs the drivers of other systems beside, where someone has them: `bench.py PEER WORKLOAD N` in a directory.

Their rows have the same keys; their bytes are those of the loopback device, headers of UDP or TCP and IP included.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import trio

from bench.report import Row

_SECONDS_MAX = 120
_WORKLOADS = {"W1", "W2", "W3", "W4", "W5"}
_LIVE_BASE = 1000  # their W3 is called with the documents that are there before, and writes 5,000


async def run_others(
    directory: Path, names: Sequence[str], workload: str, n: int, runs: int, ours: Sequence[Row]
) -> list[Row]:
    """Rows of the other systems for a workload; the notes begin with the ratio of the medians."""
    if workload not in _WORKLOADS:
        return []
    rows: list[Row] = []
    for name in names:
        theirs = await _run_one(directory, name, workload, n, runs)
        ratio = _ratio(theirs, ours)
        said = f"{ratio:.2f} times the time of meshsync" if ratio is not None else "no ratio"
        rows += [replace(row, notes=f"{said}; {row.notes}") for row in theirs]
    return rows


async def _run_one(directory: Path, name: str, workload: str, n: int, runs: int) -> list[Row]:
    argument = _LIVE_BASE if workload == "W3" else n
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as output:
        command = ["python3", "bench.py", name, workload, str(argument), "--runs", str(runs)]
        command += ["--limit", str(_SECONDS_MAX // 2), "--out", output.name]
        with trio.move_on_after(_SECONDS_MAX * runs):
            await trio.run_process(command, cwd=directory, check=False, capture_stdout=True, stderr=subprocess.DEVNULL)
        lines = [json.loads(line) for line in output.read().splitlines()]
    found = [Row(**{key: value for key, value in line.items() if key != "version"}) for line in lines]
    return [row for row in found if row.workload == workload] or [
        Row(workload, n, peer=name, notes="it did not run: are its packages installed?")
    ]


def _ratio(theirs: Sequence[Row], ours: Sequence[Row]) -> float | None:
    medians = []
    for rows in (theirs, ours):
        times = [row.seconds or row.p50_ms or 0.0 for row in rows if row.n == ours[0].n]
        # A driver that cannot follow single writes sees them before they are written.
        if not times or min(times) <= 0:
            return None
        medians.append(statistics.median(times))
    return medians[0] / medians[1]
