"""scripts/bench: nodes as processes on loopback do the work that other systems were measured by."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio
from signals import Interrupted, leaves, run_until_signal

from bench.compare import run_others
from bench.report import AnyRow, Row, as_json, as_text, heading
from bench.stage import Stage, WorkloadFailed
from bench.workers import WorkerFailed
from bench.workloads import WORKLOADS


def _workloads(text: str) -> list[str]:
    """Names of workloads, or a letter for all of its family."""
    names = [name.strip().upper() for name in text.split(",")]
    families = {letter: [name for name in WORKLOADS if name[0] == letter and name[1:].isdigit()] for letter in "WMPQ"}
    return [name for one in names for name in families.get(one, [one])]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", add_help=False)
    parser.add_argument("--workload", type=_workloads, default="W")
    parser.add_argument("--lab", nargs="?", const="all")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
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
    if arguments.real and arguments.lab is None:
        parser.error("--real belongs to --lab")
    return arguments


def run_labs(arguments: argparse.Namespace) -> int:
    """Run the labs that were asked for; 1 where one went wrong."""
    # Labs run nodes in this process; the other workloads must not depend on what the package does when it is imported.
    from bench import labs
    from meshsync.errors import MeshsyncError

    names = labs.names() if arguments.lab == "all" else arguments.lab.split(",")
    if unknown := [name for name in names if name not in labs.names()]:
        print(f"bench: no such lab: {', '.join(unknown)}; there are {', '.join(labs.names())}", file=sys.stderr)
        return 2
    as_line = _printer(arguments, labs.LabRow)
    well = True
    for name in names:
        if arguments.real and not labs.is_short(name):
            continue
        for n in arguments.n or [labs.BEHIND]:
            for run in range(arguments.runs):
                try:
                    row, went_well = labs.run_one(name, n, arguments.seed + run, is_simulated=not arguments.real)
                except MeshsyncError as error:
                    print(f"bench: {error}", file=sys.stderr)
                    return 1
                well = well and went_well
                print(as_line(row), flush=True)
    return 0 if well else 1


def _printer(arguments: argparse.Namespace, kind: type[AnyRow]) -> Callable[[AnyRow], str]:
    """What makes a line of a row, once the heading is printed."""
    if arguments.json or not sys.stdout.isatty():
        return as_json
    print(heading(kind))
    return as_text


async def _run(name: str, n: int, stage: Stage) -> tuple[list[Row], bool]:
    """One run of one workload, and whether it went well."""
    workload = WORKLOADS[name]
    reason = ""
    rows: list[Row] = []
    try:
        with trio.fail_after(workload.seconds_max):
            rows = await workload.run(stage, n)
    except* trio.TooSlowError:
        step = stage.progress.step
        reason = f"not done after {workload.seconds_max:.0f} s" + (f", but still {step}" if step else "")
    except* (WorkerFailed, WorkloadFailed) as group:
        reason = "; ".join(map(str, leaves(group)))
    return rows or [Row(name, n, notes=f"FAILED: {reason}")], bool(rows)


async def main(arguments: argparse.Namespace) -> int:
    """Run what was asked for; 1 where something failed."""
    as_line = _printer(arguments, Row)
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
    given = _arguments()
    try:
        sys.exit(run_labs(given) if given.lab is not None else trio.run(run_until_signal, partial(main, given)))
    except* Interrupted as group:
        sys.exit(f"scripts/bench: {group.exceptions[0]}")
