"""`lab run`."""

from __future__ import annotations

import random
from pathlib import Path

import click

from meshsync.cli.exits import CommandError, Exit
from meshsync.cli.main import json_option
from meshsync.lab.commands.group import cable_option, driver_option, examples, folder_argument


@click.command(
    "run",
    epilog=examples(
        "meshsync lab run --sim --seed 1 topologies/split-heal",
        "sudo meshsync lab run topologies/split-heal",
        "sudo meshsync lab run --driver containerlab topologies/pair",
    ),
)
@folder_argument
@click.option("--sim", is_flag=True, help="Simulate it in virtual time: no root, hours in seconds, repeatable.")
@click.option("--seed", type=int, default=None, help="Of what is drawn at random; it repeats a simulation.")
@driver_option
@cable_option
@json_option
def run_command(folder: Path, sim: bool, seed: int | None, driver: str, cable: str, as_json: bool) -> None:
    """Bring a lab up, run its scenario, take it down, and say what held.

    Needs Linux, root and iproute2; with --driver containerlab instead Linux, root, containerlab, Docker and the image
    that scripts/image builds; with --sim nothing.  However it ends, nothing of the lab stays but what the nodes left
    in the folder's `.lab`.

    The exit code is 0 if everything held that was expected, 1 if something did not, 2 if the files are wrong, and 4 if
    the lab cannot come up here.

    With --json a line for each thing that happens, {"event": "progress", "at_s", "text"}; then for each expectation
    {"expect", "holds", "detail"}; last {"lab", "folder", "seed", "pass", "cables", "figures", "nodes"}.
    """
    from meshsync.lab.drivers.base import read_lab
    from meshsync.lab.drivers.choose import chosen
    from meshsync.lab.report import Report
    from meshsync.lab.running import run_lab
    from meshsync.lab.verdicts import judge

    lab = read_lab(folder)
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    report = Report(lab, as_json=as_json, seed=seed if sim else None)
    kind = chosen(driver, cable)
    report.progress(0.0, f"{lab.name}: {'simulated' if sim else kind(lab).DRIVER}")
    record = run_lab(lab, seed, report.progress, is_simulated=sim, kind=kind)
    verdicts = judge(lab.scenario, record)
    report.finish(record, verdicts)
    if not all(verdict.holds for verdict in verdicts):
        raise CommandError(
            Exit.NOT_SO, f"to see it again: meshsync lab run --sim --seed {seed} {folder}" if sim else ""
        )
