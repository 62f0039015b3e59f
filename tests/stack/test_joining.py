"""Joining a collection again: what a command does not name stays as it is."""

from __future__ import annotations

from typing import Any

import pytest

from meshsync.core.history import History
from meshsync.core.priority import Priority
from meshsync.core.query import Query
from meshsync.core.retention import LATEST
from meshsync.errors import LocalError
from meshsync.node import Node
from tests.stack.world import World, simulate

BLUE, RED = Query.parse("team=blue"), Query.parse("team=red")


def of_status(node: Node, *keys: str) -> list[Any]:
    """What status says of the only collection."""
    (collection,) = node.status()["collections"]
    return [collection[key] for key in keys]


@pytest.mark.parametrize(
    ("terms", "changed"),
    [
        ({"priority": Priority.HIGH}, {"priority": ("low", "high")}),
        ({"history": "full"}, {"history": ("latest", "full")}),
        ({"retain": "12h"}, {"retain": ("30d", "12h")}),
        ({"conflicts": "latest"}, {}),
        ({"query": RED}, {"where": ("team=blue", "team=red")}),
        ({"query": Query()}, {"where": ("team=blue", "")}),
        ({}, {"where": ("team=blue", "")}),
    ],
)
def test_what_is_not_named_stays(terms: dict[str, Any], changed: dict[str, Any]) -> None:
    """Otherwise whoever gives a part another priority fetches the whole collection, without a word."""

    async def scenario(world: World) -> None:
        node = await world.start(1, collections=[])
        first = await node.join("notes", BLUE, priority=Priority.LOW, retain="30d", history="latest")
        assert first == {}
        expected: dict[str, Any] = {
            "query": BLUE.to_json(),
            "priority": "low",
            "retain": "30d",
            "history": "latest",
        }
        keys = list(expected)
        assert of_status(node, *keys) == list(expected.values())
        assert await node.join("notes", **terms) == changed
        for name, (_, after) in changed.items():
            expected["query" if name == "where" else name] = after
        if "where" in changed:
            expected["query"] = None if changed["where"][1] == "" else RED.to_json()
        assert of_status(node, *keys) == list(expected.values())
        assert await node.join("notes", **terms) == {}
        await world.kill(1)
        assert of_status(await world.start(1, collections=[]), *keys) == list(expected.values())

    simulate(scenario)


def test_a_history_that_was_never_named_follows_what_is_kept() -> None:
    """Otherwise who keeps nothing of the past goes on to fetch it, or who keeps it again does not get it."""

    async def scenario(world: World) -> None:
        node = await world.start(1, collections=[])
        await node.join("notes", BLUE)
        changed = {"retain": ("all", "latest"), "history": ("full", "latest")}
        assert await node.join("notes", retain=LATEST) == changed
        assert await node.join("notes", retain="30d") == {"retain": ("latest", "30d"), "history": ("latest", "full")}
        assert await node.join("notes", history=History.FULL) == {}
        assert await node.join("notes", retain="latest") == {"retain": ("30d", "latest")}
        assert of_status(node, "history", "query") == ["full", BLUE.to_json()]

    simulate(scenario)


def test_what_is_refused_changes_nothing() -> None:
    """Otherwise half of a command counts, and its author believes that none does."""

    async def scenario(world: World) -> None:
        node = await world.start(1, collections=[])
        await node.join("notes", BLUE)
        before = of_status(node, "query", "priority", "retain", "history")
        for wrong in ({"conflicts": "least"}, {"history": "some"}, {"retain": "30"}, {"conflicts": "newest"}):
            terms: dict[str, Any] = {"query": RED, "priority": Priority.HIGH, "retain": "1d", "history": "latest"}
            with pytest.raises(LocalError):
                await node.join("notes", **{**terms, **wrong})
        assert of_status(node, "query", "priority", "retain", "history") == before

    simulate(scenario)
