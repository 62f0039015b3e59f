"""`lab up`, `lab down`, and what is asked of a lab meanwhile: `lab status` and `lab exec`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshsync.cli.exits import CommandError, Exit
from meshsync.cli.main import json_option
from meshsync.cli.output import print_json, write_line
from meshsync.errors import LocalError
from meshsync.lab.commands.group import cable_option, driver_option, examples, folder_argument

if TYPE_CHECKING:
    from meshsync.lab.drivers.built import BuiltLab


@click.command("up", epilog=examples("sudo meshsync lab up topologies/line"))
@folder_argument
@driver_option
@cable_option
@json_option
def up_command(folder: Path, driver: str, cable: str, as_json: bool) -> None:
    """Bring a lab up, and leave it running until `meshsync lab down`.

    Its nodes run as configured, its links do what the scenario says of them; none of the scenario's steps is done.
    Needs Linux, root and iproute2; with --driver containerlab instead Linux, root, containerlab, Docker and the image
    that scripts/image builds.
    """
    import trio

    from meshsync.groups import unwrapped
    from meshsync.lab.drivers.base import read_lab
    from meshsync.lab.drivers.choose import chosen
    from meshsync.lab.drivers.lifecycle import bring_up, wait_ready
    from meshsync.lab.interruption import tidy_at_the_end

    lab = read_lab(folder)
    with tidy_at_the_end():
        up = bring_up(lab, chosen(driver, cable))
        try:
            with unwrapped():
                trio.run(wait_ready, up)
        except BaseException:
            up.built.destroy()
            raise
    if as_json:
        described = {"v": 1, "name": lab.name, "driver": up.built.DRIVER, "cables": up.cables}
        print_json({**described, "nodes": list(up.nodes)})
        return
    write_line(
        f"{lab.name} is up ({up.built.DRIVER}): {', '.join(up.nodes)}; "
        f"a node's own commands: meshsync lab exec {folder} NODE -- status"
    )


@click.command("down", epilog=examples("sudo meshsync lab down topologies/line"))
@folder_argument
@click.option("--keep", is_flag=True, help="Keep the keys, stores and logs in .lab for the next time.")
@json_option
def down_command(folder: Path, keep: bool, as_json: bool) -> None:
    """Take a lab down: end its processes, remove its namespaces or containers and what they left.

    Also one that a `lab run` left that was killed, and one that containerlab deployed by itself.  Needs root, and
    whatever it was brought up with.
    """
    from meshsync.lab.drivers.base import read_lab
    from meshsync.lab.drivers.lifecycle import forget, take_down

    lab = read_lab(folder)
    was = take_down(lab)
    if not keep:
        forget(lab)
    if as_json:
        print_json({"v": 1, "name": lab.name, "was": was})
        return
    write_line(f"{lab.name} is down; it was {was}")


@click.command(
    "status",
    epilog=examples("sudo meshsync lab status topologies/line", "sudo meshsync lab status --json topologies/line"),
)
@folder_argument
@json_option
def status_command(folder: Path, as_json: bool) -> None:
    """Show the nodes of a lab that is up: whether each runs, with whom it is connected, and whether it is in sync.

    With --json what `meshsync status --json` says on each node, too.  Exits with 3 where the lab is not up.  Needs
    root.
    """
    built = _up(folder)
    rows = [_row(built, name) for name in built.processes]
    if as_json:
        print_json({"v": 1, "name": built.lab.name, "cables": built.cables.kind, "nodes": rows})
        return
    if built.cables.kind is not None:
        write_line(f"links impaired by: {built.cables.kind}")
    for row in rows:
        state = "down" if not row["running"] else "in sync" if row["synced"] else "not in sync"
        write_line(f"{row['name']:12}  {state:12}  {len(row['connected'])} connected: {', '.join(row['connected'])}")


def _row(built: BuiltLab, name: str) -> dict[str, Any]:
    from meshsync.cli.client import Client
    from meshsync.datadir import DataDir

    row: dict[str, Any] = {"name": name, "running": False, "synced": False, "connected": [], "status": None}
    try:
        if not built.processes[name].is_running:
            return row
        status = Client(DataDir(built.state / name)).get("v1", "status")
    except (CommandError, PermissionError):
        if os.geteuid() != 0:
            # It may well run: its directory is root's.
            raise CommandError(
                Exit.REFUSED, f"{name} answers root only: sudo meshsync lab status {built.lab.folder}"
            ) from None
        return row
    connected = [peer["name"] or peer["id"][:8] for peer in status["peers"] if peer["state"] == "connected"]
    return row | {"running": True, "synced": status["synced"], "connected": connected, "status": status}


@click.command(
    "exec",
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "sudo meshsync lab exec topologies/line n3 -- status        asks the node",
        "sudo meshsync lab exec topologies/line n3 -- ip address    looks into its network",
    ),
)
@folder_argument
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_command(folder: Path, node: str, command: tuple[str, ...]) -> None:
    """Run a command on a node of a lab that is up: one of meshsync's, or any program.

    The exit code is the command's; 3 where the lab is not up.  Needs root.
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


def _up(folder: Path) -> BuiltLab:
    from meshsync.lab.drivers.base import read_lab
    from meshsync.lab.drivers.choose import found

    built = found(read_lab(folder))
    if not built.is_up:
        raise CommandError(Exit.NO_NODE, f"{built.lab.name} is not up; bring it up with: meshsync lab up {folder}")
    return built
