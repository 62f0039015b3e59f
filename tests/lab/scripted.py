"""A driver without nodes: what they say is scripted, and may be wrong in one way or another."""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from meshsync.lab.drivers.base import Lab, LabError, Seen
from meshsync.lab.impairments import LinkImpairment


@dataclass(frozen=True)
class Faults:
    """What is wrong with these nodes."""

    lies: bool = False
    """They say that they are synced, whatever their roots are."""
    two_connections: bool = False
    """Each keeps the connection that it dialled itself."""
    loses: frozenset[str] = frozenset()
    """Documents that reach nobody, though the write was acknowledged."""
    arrival_seconds: float = 0.1
    """How long a document is on the way."""
    bytes_sent: int = 1000
    """Per node and peer."""
    ends: Mapping[str, float] = field(default_factory=dict)
    """When processes end by themselves, in seconds from the beginning."""
    order_seconds: float = 0.0
    """How long an order to a link or a node takes."""
    never_returns: bool = False
    """A node that is restarted does not come up."""


class ScriptedNode:
    """See `meshsync.lab.drivers.base.LabNode`."""

    def __init__(self, name: str, driver: ScriptedDriver) -> None:
        self.name = name
        self.held: set[str] = set()
        self.is_up = True
        self._driver = driver
        self._listeners: list[trio.MemorySendChannel[Seen]] = []

    @property
    def is_running(self) -> bool:
        return self.is_up and self._driver.now() < self._driver.faults.ends.get(self.name, math.inf)

    def last_words(self) -> str:
        return "`out of memory`"

    async def _alive(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.is_running:
            raise LabError(f"{self.name} does not run")

    async def put(self, collection: str, id: str, body: Mapping[str, Any]) -> None:
        assert collection == "notes"
        assert body["by"] == self.name
        await self._alive()
        self.store(id)
        if id not in self._driver.faults.loses:
            for node in self._driver.nodes.values():
                self._driver.nursery.start_soon(node.hear, id)

    async def hear(self, id: str) -> None:
        """A document of another node arrives after a while."""
        await trio.sleep(self._driver.faults.arrival_seconds)
        if self.is_running:
            self.store(id)

    def store(self, id: str) -> None:
        """A document is here from now on."""
        if id not in self.held:
            self.held.add(id)
            for listener in self._listeners:
                listener.send_nowait(Seen(id, self._driver.now()))

    @property
    def root(self) -> str:
        return hashlib.sha256(" ".join(sorted(self.held)).encode()).hexdigest()

    async def status(self) -> Mapping[str, Any]:
        await self._alive()
        faults = self._driver.faults
        others = [node for node in self._driver.nodes.values() if node is not self and node.is_running]
        states = ["synced" if faults.lies or node.root == self.root else "syncing" for node in others]
        return {
            "id": self.name * 64,
            "store": {"entries": len(self.held)},
            "peers": [
                {
                    "id": node.name * 64,
                    "name": node.name,
                    "state": "connected",
                    "since": 1.0,
                    "bytes_sent": faults.bytes_sent,
                    "origin": "dialled" if faults.two_connections or self.name < node.name else "accepted",
                }
                for node in others
            ],
            "collections": [
                {
                    "name": "notes",
                    "id": "c",
                    "root": self.root,
                    "peers": [
                        {"id": node.name * 64, "state": state} for node, state in zip(others, states, strict=True)
                    ],
                }
            ],
        }

    async def ids(self, collection: str) -> set[str]:
        await self._alive()
        assert collection == "notes"
        return set(self.held)

    @asynccontextmanager
    async def changes(self, collection: str) -> AsyncIterator[AsyncIterator[Seen]]:
        assert collection == "notes"
        await self._alive()
        send, receive = trio.open_memory_channel[Seen](math.inf)
        self._listeners.append(send)
        yield receive


class ScriptedDriver:
    """See `meshsync.lab.drivers.base.Driver`; links do nothing, their orders are kept."""

    def __init__(self, lab: Lab, faults: Faults, nursery: trio.Nursery) -> None:
        self.faults = faults
        self.nursery = nursery
        self.nodes = {name: ScriptedNode(name, self) for name in lab.scenario.nodes}
        self.orders: list[tuple[str, str]] = []
        self._began = trio.current_time()

    cables = None

    def now(self) -> float:
        return trio.current_time() - self._began

    async def impair(self, link: str, impairment: LinkImpairment) -> None:
        await self._note("slow" if impairment.forward.delay_seconds else "impair", link)

    async def cut(self, link: str) -> None:
        await self._note("cut", link)

    async def unplug(self, link: str) -> None:
        await self._note("unplug", link)

    async def heal(self, link: str) -> None:
        await self._note("heal", link)

    async def kill(self, node: str) -> None:
        self.nodes[node].is_up = False
        await self._note("kill", node)

    async def restart(self, node: str, clock_offset_seconds: float | None = None) -> None:
        await self._note(f"restart {clock_offset_seconds}", node)
        if self.faults.never_returns:
            raise LabError(f"{node} ended instead of coming up; its last words: `disk full`")
        self.nodes[node].is_up = True
        for id in sorted(set().union(*(other.held for other in self.nodes.values()))):
            self.nursery.start_soon(self.nodes[node].hear, id)

    async def _note(self, order: str, target: str) -> None:
        await trio.sleep(self.faults.order_seconds)
        self.orders.append((order, target))
