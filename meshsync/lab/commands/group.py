"""The group of commands, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from meshsync.cli.lazy import LazyGroup

F = TypeVar("F", bound=Callable[..., Any])

_COMMANDS = {
    "new": ("files", "Write a new lab."),
    "check": ("files", "Say whether the files of a lab are right."),
    "run": ("run", "Bring a lab up, run its scenario, take it down, say what held."),
    "up": ("upkeep", "Bring a lab up, and leave it running."),
    "status": ("upkeep", "Show the nodes of a lab that is up."),
    "exec": ("upkeep", "Run a command on a node of a lab that is up."),
    "down": ("upkeep", "Take a lab down."),
    "prepare": ("files", "Make what nodes need whom containerlab deploys."),
    "cable": ("cable", "Connect two interfaces with a cable that delays and loses."),
}


def examples(*lines: str) -> str:
    """The end of a command's help."""
    # Click leaves the lines of a paragraph that begins with \b as they are.
    return "\n".join(("\b", "Examples:" if len(lines) > 1 else "Example:", *(f"  {line}" for line in lines)))


folder_argument = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))


def driver_option(function: F) -> F:
    """What a command takes that brings a lab up."""
    return click.option(
        "--driver",
        type=click.Choice(["auto", "namespaces", "containerlab"]),
        default="auto",
        envvar="MESHSYNC_LAB_DRIVER",
        help="What runs the nodes; auto is containerlab where it is installed.  "
        "[env: MESHSYNC_LAB_DRIVER; default: auto]",
    )(function)


def cable_option(function: F) -> F:
    """What a command takes that brings a lab up."""
    return click.option(
        "--cable",
        type=click.Choice(["auto", "netem", "user-space"]),
        default="auto",
        envvar="MESHSYNC_LAB_CABLE",
        help="What impairs the links; auto is netem where the kernel has it.  [env: MESHSYNC_LAB_CABLE; default: auto]",
    )(function)


@click.group(
    "lab",
    cls=LazyGroup,
    package="meshsync.lab.commands",
    places=_COMMANDS,
    epilog=examples(
        "meshsync lab new --shape ring --nodes 8 my-ring",
        "meshsync lab run --sim my-ring",
        "sudo meshsync lab run my-ring",
    ),
)
def lab_command() -> None:
    """Run emulated networks of nodes, with impairments and verdicts.

    A lab is a folder with a containerlab topology, NAME.clab.yml, and a scenario.yml.  It runs in network namespaces
    of this machine (Linux, root, iproute2), in containers (Linux, root, Docker, containerlab, the image that
    scripts/image builds), or simulated in virtual time, which needs nothing.
    """
