"""What a driver of labs offers to the runner of scenarios.

A driver brings the nodes of a topology up, each with the configuration of the scenario and a key of its own, and takes
everything down again whatever happens.  It does to links and nodes what the steps say, and lets the runner talk to the
nodes.  All times are seconds of the driver's clock, which is virtual in a simulation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from meshsync.errors import RefusedError
from meshsync.lab.impairments import LinkImpairment
from meshsync.lab.scenario import FILE_NAME, Scenario, read_scenario
from meshsync.lab.topology import Topology, find_topology, read_topology


class LabError(RefusedError):
    """A lab cannot come up or go on here; the message says what is missing, and what to do."""


@dataclass(frozen=True)
class Lab:
    """A lab as its files describe it."""

    folder: Path
    topology: Topology
    scenario: Scenario

    @property
    def name(self) -> str:
        """The topology's name."""
        return self.topology.name


def read_lab(folder: Path) -> Lab:
    """Read the files of a lab.  ConfigError: what is wrong with them, by file, line and key."""
    topology = read_topology(find_topology(folder))
    return Lab(folder, topology, read_scenario(folder / FILE_NAME, topology))


@dataclass(frozen=True)
class Seen:
    """A document that a node's `changes` told of."""

    id: str
    at: float
    """The driver's time."""


class LabNode(Protocol):
    """A node of a lab that runs meshsync.  While its process does not run every call raises LabError."""

    @property
    def name(self) -> str:
        """Its name in the topology."""

    @property
    def is_running(self) -> bool:
        """Whether its process runs."""

    def last_words(self) -> str:
        """What its process printed last; for people."""

    async def put(self, collection: str, id: str, body: Mapping[str, Any]) -> None:
        """Write a document; returns once the node has acknowledged it."""

    async def status(self) -> Mapping[str, Any]:
        """What `meshsync status --json` prints."""

    async def ids(self, collection: str) -> set[str]:
        """The ids of all documents of a collection."""

    def changes(self, collection: str) -> AbstractAsyncContextManager[AsyncIterator[Seen]]:
        """The documents that are stored from now on, in order; ends when the process does."""


class Driver(Protocol):
    """A lab that is up."""

    @property
    def nodes(self) -> Mapping[str, LabNode]:
        """The nodes that run meshsync, by name."""

    @property
    def cables(self) -> str | None:
        """What impairs the links: netem or user-space; None where nothing does, or nothing is real."""

    def now(self) -> float:
        """Seconds since an arbitrary moment."""

    async def impair(self, link: str, impairment: LinkImpairment) -> None:
        """From now on a link does this; where it is cut it stays so until it is healed."""

    async def cut(self, link: str) -> None:
        """From now on a link loses everything, and both interfaces stay up."""

    async def unplug(self, link: str) -> None:
        """From now on both interfaces of a link have no carrier."""

    async def heal(self, link: str) -> None:
        """Undo `cut` and `unplug`."""

    async def kill(self, node: str) -> None:
        """End a node's process at once (SIGKILL)."""

    async def restart(self, node: str, clock_offset_seconds: float | None = None) -> None:
        """Start a node's process with the disk that it had; with an offset, its wall clock is off by so much."""


class OpenDriver(Protocol):
    """Brings a lab up for a block, and takes all of it down afterwards."""

    def __call__(self, lab: Lab) -> AbstractAsyncContextManager[Driver]:
        """LabError: it cannot come up here; what is missing, and what to do."""
