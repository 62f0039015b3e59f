"""What every driver builds that runs nodes in real processes: found again by the lab's folder, whoever built it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from meshsync.lab.drivers.base import Lab
from meshsync.lab.drivers.cables import Cables
from meshsync.lab.prepare import PreparedNode
from meshsync.lab.processes import ProcessFile


class Process(Protocol):
    """The process of one node."""

    @property
    def is_running(self) -> bool:
        """Whether it runs."""

    def kill(self) -> None:
        """End it at once (SIGKILL); blocks until it has ended.  LabError: it does not end."""


class BuiltLab(Protocol):
    """A lab's machines and links.  All of its methods block."""

    DRIVER: str
    """How the command line calls the driver."""

    @property
    def lab(self) -> Lab:
        """What it is built from."""

    @property
    def state(self) -> Path:
        """The directory of the nodes' directories."""

    @property
    def cables(self) -> Cables:
        """What does something to its links."""

    @property
    def processes(self) -> Mapping[str, Process]:
        """By the name of the node; of those that run meshsync."""

    @property
    def run(self) -> ProcessFile:
        """The command `lab run` that built it."""

    @property
    def is_up(self) -> bool:
        """Whether any of it is there."""

    def require(self) -> None:
        """LabError: something is missing here; what, and what helps."""

    def build(self) -> None:
        """Make machines, links and addresses; nothing runs yet but the cables.  LabError."""

    def start(self, node: PreparedNode, clock_offset_seconds: float = 0.0) -> None:
        """Start the process of a node, with its clock off by so much.  LabError."""

    def inside(self, node: str, *command: str) -> list[str]:
        """The arguments of a process that runs a command on a machine; one of meshsync's asks the node there."""

    def destroy(self) -> None:
        """End every process and remove everything; what is not there is no fault.  LabError: something stays."""
