"""scripts/bench: nodes as processes on loopback do the work that other systems were measured by."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import trio
from signals import Interrupted, leaves, run_until_signal

from bench.compare import run_others
from bench.report import Row, as_json, as_text, heading
from bench.stage import Stage, WorkloadFailed
from bench.workers import WorkerFailed
from bench.workloads import WORKLOADS


def _workloads(text: str) -> list[str]:
    """Names of workloads, or a letter for all of its family."""
    names = [name.strip().upper() for name in text.split(",")]
    families = {letter: [name for name in WORKLOADS if name[0] == letter and name[1:].isdigit()] for letter in "WMP"}
    return [name for one in names for name in families.get(one, [one])]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", add_help=False)
    parser.add_argument("--workload", type=_workloads, default="W")
    parser.add_argument("--n", type=lambda text: [int(one) for one in text.split(",")])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--compare", type=Path, metavar="DIR")
    parser.add_argument("--against", type=lambda text: text.split(","), default=["git"])
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.workload if name not in WORKLOADS]:
        parser.error(f"no such workload: {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    return arguments


async def _run(name: str, n: int, stage: Stage) -> tuple[list[Row], bool]:
    """One run of one workload, and whether it went well."""
    workload = WORKLOADS[name]
    reason = ""
    rows: list[Row] = []
    try:
        with trio.fail_after(workload.seconds_max):
            rows = await workload.run(stage, n)
    except* trio.TooSlowError:
        reason = f"not done after {workload.seconds_max:.0f} s"
    except* (WorkerFailed, WorkloadFailed) as group:
        reason = "; ".join(map(str, leaves(group)))
    return rows or [Row(name, n, notes=f"FAILED: {reason}")], bool(rows)


async def main(arguments: argparse.Namespace) -> int:
    """Run what was asked for; 1 where something failed."""
    as_line = as_json if arguments.json or not sys.stdout.isatty() else as_text
    if as_line is as_text:
        print(heading())
    well = True
    for name in arguments.workload:
        for n in arguments.n or WORKLOADS[name].sizes:
            ours: list[Row] = []
            for _ in range(arguments.runs):
                rows, went_well = await _run(name, n, Stage(arguments.profile, arguments.quick))
                well = well and went_well
                ours += rows
                for row in rows:
                    print(as_line(row), flush=True)
            if arguments.compare is not None:
                for row in await run_others(arguments.compare, arguments.against, name, n, arguments.runs, ours):
                    print(as_line(row), flush=True)
    return 0 if well else 1


if __name__ == "__main__":
    try:
        sys.exit(trio.run(run_until_signal, partial(main, _arguments())))
    except* Interrupted as group:
        sys.exit(f"scripts/bench: {group.exceptions[0]}")
