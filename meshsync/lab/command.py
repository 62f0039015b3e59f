"""`meshsync lab`: run emulated networks of nodes, with impairments and verdicts."""

from __future__ import annotations

import random
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from meshsync.cli.exits import CommandError, Exit
from meshsync.cli.main import json_option
from meshsync.cli.output import counted, print_json, write_line
from meshsync.errors import LocalError

if TYPE_CHECKING:
    from meshsync.lab.drivers.base import Lab
    from meshsync.lab.drivers.built import BuiltLab

F = TypeVar("F", bound=Callable[..., Any])

driver_option = click.option(
    "--driver",
    type=click.Choice(["auto", "namespaces", "containerlab"]),
    default="auto",
    envvar="MESHSYNC_LAB_DRIVER",
    help="What runs the nodes; auto is containerlab where that is installed.  [MESHSYNC_LAB_DRIVER; auto]",
)
folder_argument = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))


def read_lab(folder: Path) -> Lab:
    """Read the files of a lab.  ConfigError: what is wrong with them, by file, line and key."""
    from meshsync.lab.drivers.base import Lab
    from meshsync.lab.scenario import FILE_NAME, read_scenario
    from meshsync.lab.topology import find_topology, read_topology

    topology = read_topology(find_topology(folder))
    return Lab(folder, topology, read_scenario(folder / FILE_NAME, topology))


@click.group("lab", context_settings={"help_option_names": ["-h", "--help"]})
def lab_command() -> None:
    """Run emulated networks of nodes, with impairments and verdicts.

    A lab is a folder with a containerlab topology, NAME.clab.yml, and a scenario.yml.  It runs in network namespaces
    of this machine (Linux, root, iproute2), in containers (Linux, root, Docker, containerlab), or simulated in virtual
    time.
    """


@lab_command.command("new")
@click.option("--shape", default="line", metavar="SHAPE", help="pair, line, ring, star, tree, clique, lan or web.")
@click.option("--nodes", type=int, default=None, help="How many; 2 for a pair, otherwise 5.")
@click.option("--profile", default="nominal", metavar="NAME", help="What every link does to what it carries.")
@click.argument("folder", type=click.Path(path_type=Path))
def new_command(folder: Path, shape: str, nodes: int | None, profile: str) -> None:
    """Write a new lab: a topology, and a scenario with a part that is cut off and joined again."""
    from meshsync.lab.generate import write_lab
    from meshsync.lab.shapes import make_shape

    count = nodes if nodes is not None else 2 if shape == "pair" else 5
    write_lab(folder, shape, make_shape(shape, count), profile)
    write_line(f"{folder} is ready; run it with: sudo meshsync lab run {folder}")


@lab_command.command("check")
@folder_argument
@json_option
def check_command(folder: Path, as_json: bool) -> None:
    """Say whether the files of a lab are right, and do nothing else."""
    lab = read_lab(folder)
    topology = lab.topology
    if as_json:
        print_json(
            {"v": 1, "name": lab.name, "nodes": list(topology.nodes), "links": [str(one.a) for one in topology.links]}
        )
        return
    write_line(
        f"{lab.name} is right: {counted(len(lab.scenario.nodes), 'node')}, {counted(len(topology.links), 'link')}"
    )


@lab_command.command("run")
@folder_argument
@click.option("--sim", is_flag=True, help="Simulate it in virtual time: no root, hours in seconds, repeatable.")
@click.option("--seed", type=int, default=None, help="Of what is drawn at random; it repeats a simulation.")
@driver_option
@json_option
def run_command(folder: Path, sim: bool, seed: int | None, driver: str, as_json: bool) -> None:
    """Bring a lab up, run its scenario, take it down, and say what held.

    The exit code is 0 if everything held that was expected, 1 if something did not, 2 if the files are wrong, and 4 if
    the lab cannot come up here.

    With --json a line for each thing that happens, {"event": "progress", "at_s", "text"}; then for each expectation
    {"expect", "holds", "detail"}; last {"lab", "folder", "seed", "pass", "figures", "nodes"}.
    """
    from meshsync.lab.drivers.choose import chosen
    from meshsync.lab.report import Report
    from meshsync.lab.running import run_lab
    from meshsync.lab.verdicts import judge

    lab = read_lab(folder)
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    report = Report(lab, as_json=as_json, seed=seed if sim else None)
    kind = chosen(driver)
    report.progress(0.0, f"{lab.name}: {'simulated' if sim else kind(lab).DRIVER}")
    record = run_lab(lab, seed, report.progress, is_simulated=sim, kind=kind)
    verdicts = judge(lab.scenario, record)
    report.finish(record, verdicts)
    if not all(verdict.holds for verdict in verdicts):
        raise CommandError(
            Exit.NOT_SO, f"to see it again: meshsync lab run --sim --seed {seed} {folder}" if sim else ""
        )


@lab_command.command("up")
@folder_argument
@driver_option
def up_command(folder: Path, driver: str) -> None:
    """Bring a lab up, and leave it running; `meshsync lab down` takes it down."""
    import trio

    from meshsync.groups import unwrapped
    from meshsync.lab.drivers.choose import chosen
    from meshsync.lab.drivers.lifecycle import bring_up, wait_ready
    from meshsync.lab.interruption import tidy_at_the_end

    lab = read_lab(folder)
    with tidy_at_the_end():
        up = bring_up(lab, chosen(driver))
        try:
            with unwrapped():
                trio.run(wait_ready, up)
        except BaseException:
            up.built.destroy()
            raise
    write_line(
        f"{lab.name} is up ({up.built.DRIVER}): {', '.join(up.nodes)}; "
        f"a node's own commands: meshsync lab exec {folder} NODE -- status"
    )


@lab_command.command("down")
@folder_argument
@click.option("--keep", is_flag=True, help="Keep the keys, stores and logs in .lab for the next time.")
def down_command(folder: Path, keep: bool) -> None:
    """Take a lab down: end its processes, remove its namespaces or containers and what they left."""
    from meshsync.lab.drivers.lifecycle import forget, take_down

    lab = read_lab(folder)
    was = take_down(lab)
    if not keep:
        forget(lab)
    write_line(f"{lab.name} is down; it was {was}")


@lab_command.command("status")
@folder_argument
@json_option
def status_command(folder: Path, as_json: bool) -> None:
    """Show the nodes of a lab that is up: whether each runs, with whom it is connected, and whether it is in sync."""
    built = _up(folder)
    rows = [_row(built, name) for name in built.processes]
    if as_json:
        print_json({"v": 1, "name": built.lab.name, "nodes": rows})
        return
    for row in rows:
        state = "down" if not row["running"] else "in sync" if row["synced"] else "not in sync"
        write_line(f"{row['name']:12}  {state:12}  {len(row['connected'])} connected: {', '.join(row['connected'])}")


def _row(built: BuiltLab, name: str) -> dict[str, Any]:
    from meshsync.cli.client import Client
    from meshsync.datadir import DataDir

    row: dict[str, Any] = {"name": name, "running": False, "synced": False, "connected": [], "status": None}
    if not built.processes[name].is_running:
        return row
    try:
        status = Client(DataDir(built.state / name)).get("v1", "status")
    except CommandError:
        return row
    connected = [peer["name"] or peer["id"][:8] for peer in status["peers"] if peer["state"] == "connected"]
    return row | {"running": True, "synced": status["synced"], "connected": connected, "status": status}


@lab_command.command("prepare")
@folder_argument
def prepare_command(folder: Path) -> None:
    """Make the keys and the configuration of every node, for who deploys the topology with containerlab."""
    from meshsync.lab.prepare import prepare

    lab = read_lab(folder)
    prepare(lab)
    write_line(f"{lab.name} is prepared; bring it up with: containerlab deploy -t {lab.topology.path}")


@lab_command.command("exec", context_settings={"ignore_unknown_options": True})
@folder_argument
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_command(folder: Path, node: str, command: tuple[str, ...]) -> None:
    """Run a command on a node of a lab that is up: one of meshsync's, or any program.

    `meshsync lab exec DIR a -- status` asks the node, `meshsync lab exec DIR a -- ip address` looks into its network.
    """
    from meshsync.cli.main import COMMAND_NAMES

    built = _up(folder)
    if node not in built.lab.topology.nodes:
        raise LocalError(f"{node!r} is no node of {built.lab.name}; it has {', '.join(built.lab.topology.nodes)}")
    if command[0] in COMMAND_NAMES and node in built.processes:
        command = ("meshsync", *command)
    done = subprocess.run(built.inside(node, *command), check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def _built(folder: Path) -> BuiltLab:
    from meshsync.lab.drivers.choose import found

    return found(read_lab(folder))


def _up(folder: Path) -> BuiltLab:
    built = _built(folder)
    if not built.is_up:
        raise CommandError(Exit.NO_NODE, f"{built.lab.name} is not up; bring it up with: meshsync lab up {folder}")
    return built


@lab_command.command("cable")
@click.argument("interfaces", nargs=-1)
@click.option("--profile", default="nominal", metavar="NAME", help="What the cable does to what it carries.")
@click.option("--control", type=click.Path(path_type=Path), default=None, hidden=True)
def cable_command(interfaces: tuple[str, ...], profile: str, control: Path | None) -> None:
    """Connect two interfaces with a cable that delays and loses what it carries, until it is ended.

    The interfaces may come later.  Needs the right to open packet sockets.
    """
    import trio

    from meshsync.groups import unwrapped
    from meshsync.lab.cable.cable import Cable
    from meshsync.lab.cable.control import serve_cables
    from meshsync.lab.cable.ends import require_right
    from meshsync.lab.impairments import read_link_impairment

    rng = random.Random()
    with unwrapped():
        if control is not None:
            trio.run(serve_cables, control, rng)
            return
        if len(interfaces) != 2:
            raise click.UsageError("a cable has two ends: name two interfaces")
        impairment = read_link_impairment(profile)
        require_right()
        missing = sorted(set(interfaces) - {name for _, name in socket.if_nameindex()})
        waits = f"; waiting for {' and '.join(missing)}" if missing else ""
        write_line(f"a cable between {' and '.join(interfaces)}, {profile}, until it is interrupted{waits}")

        async def carry() -> None:
            await Cable(interfaces[0], interfaces[1], impairment, rng).run()

        trio.run(carry)
