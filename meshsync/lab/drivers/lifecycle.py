"""Brings labs up and takes them down that run nodes in real processes, and does to them what a scenario says."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import trio

from meshsync.lab.drivers.base import Lab, LabError, OpenDriver
from meshsync.lab.drivers.built import BuiltLab
from meshsync.lab.drivers.choose import found
from meshsync.lab.drivers.processes import ProcessNode, threads
from meshsync.lab.impairments import DOWN, LinkImpairment
from meshsync.lab.ownership import alone
from meshsync.lab.prepare import STATE, PreparedNode, prepare
from meshsync.lab.topology import LinkSpec

_CUT = LinkImpairment.both(DOWN)


class BuiltDriver:
    """A lab that is up.  See `meshsync.lab.drivers.base.Driver`."""

    def __init__(self, built: BuiltLab, prepared: Mapping[str, PreparedNode]) -> None:
        limiter = threads()
        self.built = built
        self.nodes: Mapping[str, ProcessNode] = {
            name: ProcessNode(name, node.directory, built.processes[name], limiter) for name, node in prepared.items()
        }
        self._prepared = prepared
        self._impairments = dict(built.lab.scenario.links)
        self._parted: set[str] = set()
        self._unplugged: set[str] = set()
        self._offsets: dict[str, float] = {}

    @property
    def cables(self) -> str | None:
        """See `Driver.cables`."""
        return self.built.cables.kind

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
        self._unplugged.add(link)
        await self._plug(link, plugged=False)

    async def heal(self, link: str) -> None:
        """See `Driver.heal`."""
        self._parted.discard(link)
        if link in self._unplugged:  # in a container that is a command, which takes a part of a second
            await self._plug(link, plugged=True)
            self._unplugged.discard(link)
        await self._order(link, self._impairments.get(link, LinkImpairment()))

    async def _plug(self, link: str, *, plugged: bool) -> None:
        for one in self._links(link):
            await trio.to_thread.run_sync(partial(self.built.cables.plug, one, plugged=plugged))

    async def _order(self, link: str, impairment: LinkImpairment) -> None:
        for one in self._links(link):
            await trio.to_thread.run_sync(self.built.cables.impair, one, impairment)

    def _links(self, name: str) -> Iterator[LinkSpec]:
        """The links of a name that something can be done to; `heal: all` names others, too."""
        return (link for link in self.built.cables.links if link.name == name)

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


def open_built(kind: Callable[[Lab], BuiltLab]) -> OpenDriver:
    """What brings a lab up with empty stores for a block, and takes it down whatever happens.

    What the nodes left, logs above all, stays in the folder's `.lab` until the next time.
    """

    @asynccontextmanager
    async def opened(lab: Lab) -> AsyncIterator[BuiltDriver]:
        driver = await trio.to_thread.run_sync(partial(bring_up, lab, kind, for_run=True))
        try:
            await wait_ready(driver)
            yield driver
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(driver.built.destroy)

    return opened


def bring_up(lab: Lab, kind: Callable[[Lab], BuiltLab], *, for_run: bool = False) -> BuiltDriver:
    """Build a lab and start its nodes; blocks.  What a run left that was killed is removed first.

    `for_run`: with new keys and empty stores, and to be removed by whoever comes next should this process be killed.
    LabError: it is up already, or something is missing here; then nothing is left of it.
    """
    built = kind(lab)
    built.require()
    with alone(lab.folder):
        before = found(lab)
        if _is_abandoned(before):
            logging.getLogger(__name__).warning("removing what a run of %s left that was killed", lab.name)
            before.destroy()
        if before.is_up:
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
    return BuiltDriver(built, prepared)


def take_down(lab: Lab) -> str:
    """Take a lab down, whatever became of who brought it up; blocks.  What it was, in words.  LabError."""
    built = found(lab)
    built.require()
    with alone(lab.folder):
        was = "left by a run that was killed" if _is_abandoned(built) else "up" if built.is_up else "not up"
        built.destroy()
    return was


def _is_abandoned(built: BuiltLab) -> bool:
    """Whether it is what a `lab run` left that was killed."""
    return built.is_up and built.run.is_noted and built.run.pid is None


async def wait_ready(driver: BuiltDriver) -> None:
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
