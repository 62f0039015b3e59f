"""Runs a scenario on a lab that is up: the steps at their times, writers beside, watchers on every node."""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import trio

from meshsync.core.limits import LIMITS
from meshsync.lab.drivers.base import Driver, Lab, LabError, LabNode
from meshsync.lab.expectations import Converged
from meshsync.lab.patience import patience_seconds
from meshsync.lab.record import Record, Statuses, Waited, Written, is_converged
from meshsync.lab.scenario import Action, Clock, Cut, Heal, Impair, Kill, Restart, Unplug, Wait, Write
from meshsync.lab.topology import LinkSpec

SAMPLE_SECONDS = 0.25
IDLE_SAMPLE_SECONDS = 5.0
BUSY_SECONDS = 30.0
"""So long after a step or a write samples are taken often."""
LATE_SECONDS = 1.0
"""A step that is late by more is told of."""
CONVERGE_SECONDS = 60.0
"""How long to wait for equal roots where no expectation says it."""
_FILLER = "abcdefghijklmnopqrstuvwxyz"

Progress = Callable[[float, str], None]
"""Is told what happens: seconds since the beginning, and words."""


class Runner:
    """One run of a scenario."""

    def __init__(self, lab: Lab, driver: Driver, rng: random.Random, progress: Progress) -> None:
        self._lab = lab
        self._driver = driver
        self._rng = rng
        self._progress = progress
        self._began = driver.now()
        self._parted: set[str] = {
            name for name, link in lab.scenario.links.items() if link.forward.down or link.backward.down
        }
        """Links that do not carry, and nodes that do not run."""
        self._healed: dict[str, float] = {}
        """When a link was last changed for the better, perhaps, or a node started anew."""
        self._is_calm = False
        self._acted = self._began
        """When the last step was carried out, or the last document written."""
        self._serial = 0
        self._writers = 0
        self._written = trio.Event()
        """Set whenever one of the writers is done."""
        self._waited_seconds = 0.0
        """By so much steps are later than the scenario says."""
        changed = [step.action for step in lab.scenario.steps if isinstance(step.action, Impair)]
        links = itertools.chain(lab.scenario.links.values(), *(action.links.values() for action in changed))
        self._pairs = {link: pairs_over(lab, link) for link in lab.topology.links}
        self.record = Record(tuple(driver.nodes), driver.cables, patience_seconds=patience_seconds(links))

    async def run(self) -> Record:
        """Run it to its end: all steps, then until the nodes are equal or the time for that is over."""
        async with trio.open_nursery() as nursery:
            for node in self._driver.nodes.values():
                await self._watch_all(node, nursery)
            nursery.start_soon(self._sample)
            await self._wait_converged(self._lab.scenario.settle_seconds, "all nodes are in sync")
            self._began = self._driver.now()
            async with trio.open_nursery() as steps:
                for step in self._lab.scenario.steps:
                    early = step.at_seconds + self._waited_seconds - self._elapsed()
                    if early < -LATE_SECONDS:
                        self._say(f"{-early:.1f} s late: the steps before took longer than the scenario gives them")
                    await trio.sleep(max(0.0, early))
                    await self._carry_out(step.action, steps, nursery)
            last = self._driver.now()
            allowed = max(
                (one.within_seconds for one in self._lab.scenario.expect if isinstance(one, Converged)),
                default=CONVERGE_SECONDS,
            )
            if await self._wait_converged(allowed, "all nodes are in sync again"):
                self.record.converged_after = self._driver.now() - last
            await self._take_stock()
            nursery.cancel_scope.cancel()
        return self.record

    def _elapsed(self) -> float:
        return self._driver.now() - self._began

    def _say(self, text: str) -> None:
        self._progress(self._elapsed(), text)

    # Steps

    async def _carry_out(self, action: Action, steps: trio.Nursery, watchers: trio.Nursery) -> None:
        driver = self._driver
        self._acted = driver.now()
        match action:
            case Write():
                self._say(f"{action.node} writes {action.count} documents to {action.collection}")
                self._writers += 1
                steps.start_soon(self._write, action)
            case Cut(links) | Unplug(links):
                self._say(f"{'cut' if isinstance(action, Cut) else 'unplug'} {', '.join(links)}")
                for link in links:
                    self._part(link)
                await _all_at_once(driver.cut if isinstance(action, Cut) else driver.unplug, links)
            case Heal(links):
                self._say(f"heal {', '.join(links)}")
                await _all_at_once(driver.heal, links)
                for link in links:
                    self._parted.discard(link)
                    self._healed[link] = driver.now()
            case Impair(impairments):
                for link, impairment in impairments.items():
                    is_down = impairment.forward.down or impairment.backward.down
                    self._part(link) if is_down else self._parted.discard(link)
                    self._say(f"impair {link}")
                    await driver.impair(link, impairment)
                    self._healed[link] = driver.now()
            case Kill(nodes):
                self._say(f"kill {', '.join(nodes)}")
                for name in nodes:
                    self._part(name)
                    await driver.kill(name)
            case Restart(nodes):
                self._say(f"restart {', '.join(nodes)}")
                for name in nodes:
                    await self._restart(name, None, watchers)
            case Clock(node, offset_seconds):
                self._say(f"the clock of {node} is off by {offset_seconds:g} s")
                await self._restart(node, offset_seconds, watchers)
            case Wait(within_seconds):
                await self._wait(within_seconds)

    async def _wait(self, seconds: float) -> None:
        began = self._driver.now()
        with trio.move_on_after(seconds):
            while self._writers:
                self._written = trio.Event()
                await self._written.wait()
        is_so = await self._wait_converged(began + seconds - self._driver.now(), "all nodes are in sync")
        self.record.note_sent(await self._statuses())
        took = self._driver.now() - began
        self.record.waits.append(Waited(took if is_so else None, self.record.bytes_sent))
        self._waited_seconds += took

    def _part(self, name: str) -> None:
        self._parted.add(name)
        self._is_calm = False

    async def _restart(self, name: str, offset: float | None, watchers: trio.Nursery) -> None:
        self._part(name)
        try:
            await self._driver.restart(name, offset)
        except LabError as error:
            self.record.ended[name] = f"restarted at {self._elapsed():.1f} s: {error}"
            self._say(str(error))
            return
        self._parted.discard(name)
        self._healed[name] = self._driver.now()
        await self._watch_all(self._driver.nodes[name], watchers)

    # Writing

    async def _write(self, action: Write) -> None:
        node, began = self._driver.nodes[action.node], self._driver.now()
        for number in range(action.count):
            if action.rate is not None:
                await trio.sleep(max(0.0, began + number / action.rate - self._driver.now()))
            await self._put(node, action)
        self._writers -= 1
        self._written.set()

    async def _put(self, node: LabNode, action: Write) -> None:
        self._serial += 1
        id = f"{node.name}-{self._serial}"
        body: dict[str, Any] = {"by": node.name, "n": self._serial}
        body["text"] = "".join(self._rng.choices(_FILLER, k=max(0, action.size_bytes - 40)))
        self._acted = self._driver.now()
        write = Written(node.name, action.collection, id, self._driver.now(), self._is_calm)
        try:
            await node.put(action.collection, id, body)
        except LabError:
            self.record.refused += 1
        else:
            self.record.writes[id] = write

    # Watching

    async def _watch_all(self, node: LabNode, nursery: trio.Nursery) -> None:
        for collection in self._lab.scenario.collections:
            await nursery.start(self._watch, node, collection)

    async def _watch(self, node: LabNode, collection: str, *, task_status: trio.TaskStatus[None]) -> None:
        """Note what a node tells of, until its process ends."""
        try:
            async with node.changes(collection) as changes:
                task_status.started()
                async for seen in changes:
                    self.record.note_seen(node.name, seen.id, seen.at)
        except LabError:
            task_status.started()

    def _blind(self) -> frozenset[frozenset[str]]:
        """The pairs of nodes that cannot know of each other: they are parted, or were until a moment ago."""
        since = self._driver.now() - LIMITS.idle_seconds_max
        parted = self._parted | {name for name, at in self._healed.items() if at > since}
        over_links = (pair for link, pairs in self._pairs.items() if link.name in parted for pair in pairs)
        of_nodes = (frozenset(pair) for pair in itertools.combinations(self._driver.nodes, 2) if parted & {*pair})
        return frozenset([*over_links, *of_nodes])

    def _note_ended(self) -> None:
        """Note the nodes that run no more, though nobody killed them."""
        for node in self._driver.nodes.values():
            if not node.is_running and node.name not in self._parted and node.name not in self.record.ended:
                self._part(node.name)
                words = node.last_words()
                self.record.ended[node.name] = f"ended by itself at {self._elapsed():.1f} s; its last words: {words}"
                self._say(f"{node.name} ended by itself; its last words: {words}")

    async def _statuses(self) -> Statuses:
        self._note_ended()
        found: dict[str, Any] = {}

        async def ask(node: LabNode) -> None:
            try:
                found[node.name] = await node.status()
            except LabError:
                return  # it was killed, or is about to be

        async with trio.open_nursery() as nursery:
            for node in self._driver.nodes.values():
                if node.is_running:
                    nursery.start_soon(ask, node)
        return found

    async def _sample(self) -> None:
        while True:
            statuses = await self._statuses()
            self.record.note(self._driver.now(), statuses, self._blind())
            if not self._is_calm and not self._parted and len(statuses) == len(self._driver.nodes):
                self._is_calm = is_converged(statuses)
            is_busy = self._driver.now() < self._acted + BUSY_SECONDS
            await trio.sleep(SAMPLE_SECONDS if is_busy else IDLE_SAMPLE_SECONDS)

    async def _wait_converged(self, seconds: float, text: str) -> bool:
        began = self._driver.now()
        with trio.move_on_after(seconds):
            while True:
                statuses = await self._statuses()
                if is_converged(statuses) and self._are_linked(statuses):
                    self._say(text)
                    self._is_calm = not self._parted
                    return True
                # As exact as the figure needs: an hour is not told to a twentieth of a second.
                await trio.sleep(max(SAMPLE_SECONDS / 5, min(1.0, (self._driver.now() - began) / 100)))
        self._say(f"not in sync after {seconds:g} s")
        return False

    def _are_linked(self, statuses: Statuses) -> bool:
        """Whether every node that runs has somebody to be in sync with, where there is more than one."""
        return len(statuses) < 2 or all(
            collection["peers"] for status in statuses.values() for collection in status["collections"]
        )

    async def _take_stock(self) -> None:
        self.record.note(self._driver.now(), await self._statuses(), self._blind())
        for node in self._driver.nodes.values():
            if node.is_running:
                try:
                    keys = {one["name"] for one in (await node.status())["collections"]}
                    self.record.held[node.name] = {name: await node.ids(name) for name in sorted(keys)}
                except LabError as error:
                    self._say(f"{node.name} cannot be asked what it holds: {error}")
        self._note_ended()


async def _all_at_once(order: Callable[[str], Awaitable[None]], links: Iterable[str]) -> None:
    """Give the same order to several links, side by side: one may take a part of a second."""
    async with trio.open_nursery() as nursery:
        for link in links:
            nursery.start_soon(order, link)


def pairs_over(lab: Lab, link: LinkSpec) -> frozenset[frozenset[str]]:
    """The pairs of nodes that may talk to each other over a link: at its ends, or beyond switches and routers."""
    near, far = (_beyond(lab, end.node, link) for end in (link.a, link.b))
    return frozenset(frozenset((a, b)) for a in near for b in far if a != b)


def _beyond(lab: Lab, start: str, without: LinkSpec) -> set[str]:
    """The first nodes of meshsync on every way that begins at a node and does not use a link."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        here = waiting.pop()
        if here in lab.scenario.nodes:
            found.add(here)
        elif here not in seen:
            seen.add(here)
            waiting += [
                link.b.node if link.a.node == here else link.a.node
                for link in lab.topology.links
                if here in link and link != without
            ]
    return found
