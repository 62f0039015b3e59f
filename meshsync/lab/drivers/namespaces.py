"""Labs in network namespaces: a namespace a node, virtual Ethernet, real processes of the installed command.

Everything that a lab made can be told from its folder: the names of its namespaces, and in `.lab` the processes' pids.
So one command brings it up, others look into it, and one takes it down, whatever became of those before.

A link that a scenario impairs or parts runs through a cable in user space (`meshsync.lab.cable`), in a namespace of its
own; every other link is a plain pair of virtual interfaces.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from meshsync.lab import namespaces
from meshsync.lab.cable.control import order_cable
from meshsync.lab.drivers.base import Lab, LabError
from meshsync.lab.drivers.processes import LOG, ProcessNode, threads
from meshsync.lab.impairments import DOWN, LinkImpairment
from meshsync.lab.ownership import alone, mark_of, run_of
from meshsync.lab.prepare import STATE, PreparedNode, prepare
from meshsync.lab.processes import ProcessFile
from meshsync.lab.scenario import Cut, Impair, Unplug
from meshsync.lab.topology import End, LinkSpec
from meshsync.launch import CLOCK_OFFSET

MTU = 9500
"""containerlab's default for links."""
_CUT = LinkImpairment.both(DOWN)
_CABLES = "cables"
_SOCKET_SECONDS = 10.0
_LOOK_SECONDS = 0.02


class NamespaceLab:
    """The kernel's side of a lab: what `up` makes and `down` removes, known by the lab's folder."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.state = lab.folder / STATE
        # Two checkouts may hold labs of one name.
        self._prefix = f"mslab-{mark_of(lab.folder)}-{lab.name}"
        self.cabled = _cabled(lab)
        self.processes = {name: ProcessFile(self.state / name / "node.pid") for name in lab.scenario.nodes}
        self.cables = ProcessFile(self.state / "cables.pid")
        self.run = run_of(self.state)

    def namespace(self, node: str) -> str:
        """The namespace of a node; a bridge of the host has one of its own, a bridge inside a node that node's."""
        if (spec := self.lab.topology.nodes.get(node)) is not None and spec.is_bridge and spec.bridge[1]:
            return self.namespace(spec.bridge[1])
        return f"{self._prefix}-{node}"

    @property
    def is_up(self) -> bool:
        """Whether any of its namespaces is there."""
        return any(namespaces.exists(self.namespace(name)) for name in (*self.lab.topology.nodes, _CABLES))

    @property
    def is_abandoned(self) -> bool:
        """Whether it is what a `lab run` left that was killed."""
        return self.is_up and self.run.is_noted and self.run.pid is None

    @property
    def cable_socket(self) -> Path:
        """Where the cables are laid and impaired."""
        return self.state / "cables.sock"

    # Up

    def build(self) -> None:
        """Make namespaces, links and addresses; nothing runs yet but the cables.  LabError."""
        topology = self.lab.topology
        for name in dict.fromkeys(map(self.namespace, topology.nodes)):
            namespaces.add(name)
        for node in topology.nodes.values():
            if node.is_bridge:
                bridge = node.bridge[0]
                namespaces.ip("-n", self.namespace(node.name), "link", "add", bridge, "type", "bridge")
                namespaces.ip("-n", self.namespace(node.name), "link", "set", bridge, "up")
        if self.cabled:
            namespaces.add(self.namespace(_CABLES))
        for number, link in enumerate(topology.links):
            if link in self.cabled:
                near, far = self.cable_ends(link)
                for end, cable in ((link.a, near), (link.b, far)):
                    self._lay(end, End(_CABLES, cable), link.mtu, f"{number}")
            else:
                self._lay(link.a, link.b, link.mtu, f"{number}")
        for node in topology.machines:
            for line in node.exec:
                self._exec(node.name, line)
        if self.cabled:
            self._start_cables()

    def _lay(self, a: End, b: End, mtu: int | None, mark: str) -> None:
        """A pair of virtual interfaces, each in its node."""
        # Under names that nobody else uses, because both may be in one namespace, and then under their own.
        first, second = f"ms{mark}a", f"ms{mark}b"
        size = str(mtu or MTU)
        namespaces.ip(
            *("link", "add", first, "mtu", size, "netns", self.namespace(a.node), "type", "veth"),
            *("peer", "name", second, "mtu", size, "netns", self.namespace(b.node)),
        )
        for end, name in ((a, first), (b, second)):
            namespace = self.namespace(end.node)
            namespaces.ip("-n", namespace, "link", "set", name, "name", end.interface)
            spec = self.lab.topology.nodes.get(end.node)
            master = ("master", spec.bridge[0]) if spec is not None and spec.is_bridge else ()
            namespaces.ip("-n", namespace, "link", "set", end.interface, *master, "up")

    def _exec(self, node: str, line: str) -> None:
        try:
            namespaces.run(namespaces.inside(self.namespace(node), *shlex.split(line)))
        except (namespaces.CommandFailedError, ValueError) as error:
            raise LabError(f"{self.lab.topology.path}: node {node}, exec: {error}") from None

    def _start_cables(self) -> None:
        command = [*_MESHSYNC, "lab", "cable", "--control", str(self.cable_socket)]
        self.cable_socket.unlink(missing_ok=True)
        log = self.state / "cables.log"
        self.cables.start(namespaces.inside(self.namespace(_CABLES), *command), log)
        end = time.monotonic() + _SOCKET_SECONDS
        while not self.cable_socket.exists():
            if self.cables.pid is None or time.monotonic() > end:
                raise LabError(f"the cables do not start; see {log}")
            time.sleep(_LOOK_SECONDS)
        for link in self.cabled:
            self.impair(link, self.lab.scenario.links.get(link.name, LinkImpairment()))

    def start(self, node: PreparedNode, clock_offset_seconds: float = 0.0) -> None:
        """Start the process of a node."""
        command = [*_MESHSYNC, "node", "--config", str(node.config), "--log-format", "json"]
        environ = {CLOCK_OFFSET: str(clock_offset_seconds)} if clock_offset_seconds else {}
        log = node.directory / LOG
        self.processes[node.name].start(namespaces.inside(self.namespace(node.name), *command), log, environ)

    # While it is up

    def cable_ends(self, link: LinkSpec) -> tuple[str, str]:
        """The interfaces of a link's cable."""
        number = self.lab.topology.links.index(link)
        return f"l{number}a", f"l{number}b"

    def impair(self, link: LinkSpec, impairment: LinkImpairment) -> dict[str, Any]:
        """Have a link's cable do this; what it carried so far.  LabError: it has no cable, or that does not answer."""
        if link not in self.cabled:
            raise LabError(f"{link.name} has no cable: only links that the scenario names can be impaired")
        return order_cable(self.cable_socket, f"{link.a}-{link.b}", self.cable_ends(link), impairment)

    def plug(self, link: LinkSpec, *, plugged: bool) -> None:
        """Give both interfaces of a link their carrier, or take it."""
        for end in self.cable_ends(link):
            namespaces.ip("-n", self.namespace(_CABLES), "link", "set", end, "up" if plugged else "down")

    # Down

    def destroy(self) -> None:
        """End every process and remove every namespace; what is not there is no fault.

        LabError: something stays, the last that did; all else is gone.
        """
        processes = (*self.processes.values(), self.cables)
        for process in processes:
            process.signal(signal.SIGTERM)
        failed: LabError | None = None
        for process in processes:
            try:
                process.end()
            except LabError as error:
                failed = error
        for name in (*self.lab.topology.nodes, _CABLES):
            try:
                namespaces.remove(self.namespace(name))
            except LabError as error:
                failed = error
        if failed is not None:
            raise failed
        self.run.forget()


class NamespaceDriver:
    """A lab that is up.  See `meshsync.lab.drivers.base.Driver`."""

    def __init__(self, built: NamespaceLab, prepared: Mapping[str, PreparedNode]) -> None:
        limiter = threads()
        self.built = built
        self.nodes: Mapping[str, ProcessNode] = {
            name: ProcessNode(name, node.directory, built.processes[name], limiter) for name, node in prepared.items()
        }
        self._prepared = prepared
        self._impairments = dict(built.lab.scenario.links)
        self._parted: set[str] = set()
        self._offsets: dict[str, float] = {}

    def now(self) -> float:
        """See `Driver.now`."""
        return time.perf_counter()

    async def impair(self, link: str, impairment: LinkImpairment) -> None:
        """See `Driver.impair`."""
        self._impairments[link] = impairment
        if link not in self._parted:
            await self._order(link, impairment)

    async def cut(self, link: str) -> None:
        """See `Driver.cut`."""
        self._parted.add(link)
        await self._order(link, _CUT)

    async def unplug(self, link: str) -> None:
        """See `Driver.unplug`."""
        for one in self._links(link):
            await trio.to_thread.run_sync(lambda one=one: self.built.plug(one, plugged=False))  # type: ignore[misc]

    async def heal(self, link: str) -> None:
        """See `Driver.heal`."""
        self._parted.discard(link)
        for one in self._links(link):
            await trio.to_thread.run_sync(lambda one=one: self.built.plug(one, plugged=True))  # type: ignore[misc]
        await self._order(link, self._impairments.get(link, LinkImpairment()))

    async def _order(self, link: str, impairment: LinkImpairment) -> None:
        for one in self._links(link):
            await trio.to_thread.run_sync(self.built.impair, one, impairment)

    def _links(self, name: str) -> Iterator[LinkSpec]:
        """The links of a name that something can be done to; `heal: all` names others, too."""
        return (link for link in self.built.cabled if link.name == name)

    async def kill(self, node: str) -> None:
        """See `Driver.kill`."""
        await trio.to_thread.run_sync(self.built.processes[node].kill)

    async def restart(self, node: str, clock_offset_seconds: float | None = None) -> None:
        """See `Driver.restart`."""
        if clock_offset_seconds is not None:
            self._offsets[node] = clock_offset_seconds
        await self.kill(node)
        await trio.to_thread.run_sync(self.built.start, self._prepared[node], self._offsets.get(node, 0.0))
        await self.nodes[node].wait_ready()


@asynccontextmanager
async def open_namespaces(lab: Lab) -> AsyncIterator[NamespaceDriver]:
    """Bring a lab up with empty stores for the block, and take it down whatever happens.  See `OpenDriver`.

    What the nodes left, logs above all, stays in the folder's `.lab` until the next time.
    """
    driver = await trio.to_thread.run_sync(partial(bring_up, lab, for_run=True))
    try:
        await wait_ready(driver)
        yield driver
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(driver.built.destroy)


def bring_up(lab: Lab, *, for_run: bool = False) -> NamespaceDriver:
    """Build a lab and start its nodes; blocks.  What a run left that was killed is removed first.

    `for_run`: with new keys and empty stores, and to be removed by whoever comes next should this process be killed.
    LabError: it is up already, or something is missing here; then nothing is left of it.
    """
    namespaces.require()
    with alone(lab.folder):
        built = NamespaceLab(lab)
        if built.is_abandoned:
            logging.getLogger(__name__).warning("removing what a run of %s left that was killed", lab.name)
            built.destroy()
        if built.is_up:
            raise LabError(f"the lab {lab.name} is up already; take it down with: meshsync lab down {lab.folder}")
        if for_run:
            forget(lab)
        prepared = prepare(lab)
        try:
            if for_run:
                built.run.note(os.getpid())
            built.build()
            for node in prepared.values():
                built.start(node)
        except BaseException:
            built.destroy()
            raise
    return NamespaceDriver(built, prepared)


def take_down(lab: Lab) -> str:
    """Take a lab down, whatever became of who brought it up; blocks.  What it was, in words.  LabError."""
    namespaces.require()
    with alone(lab.folder):
        built = NamespaceLab(lab)
        was = "left by a run that was killed" if built.is_abandoned else "up" if built.is_up else "not up"
        built.destroy()
    return was


async def wait_ready(driver: NamespaceDriver) -> None:
    """Wait until every node answers.  LabError: what became of each that does not come up, a line each."""
    failures: list[str] = []

    async def wait(node: ProcessNode) -> None:
        try:
            await node.wait_ready()
        except LabError as error:
            failures.append(str(error))

    async with trio.open_nursery() as nursery:
        for node in driver.nodes.values():
            nursery.start_soon(wait, node)
    if failures:
        raise LabError("\n".join(failures))


def forget(lab: Lab) -> None:
    """Remove the state of a lab that is down: keys, stores and logs."""
    shutil.rmtree(lab.folder / STATE, ignore_errors=True)


def _cabled(lab: Lab) -> tuple[LinkSpec, ...]:
    """The links that something is done to."""
    named = set(lab.scenario.links)
    for step in lab.scenario.steps:
        if isinstance(step.action, Cut | Unplug | Impair):
            named |= set(step.action.links)
    return tuple(link for link in lab.topology.links if link.name in named)


_MESHSYNC = (sys.executable, "-P", "-m", "meshsync")
