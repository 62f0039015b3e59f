"""Joining a collection again, and after a restart: what nobody names stays as it is."""

from __future__ import annotations

import random
from typing import Any

import pytest

from meshsync.core import cbor
from meshsync.core.history import History
from meshsync.core.policy import Policy
from meshsync.core.priority import Priority
from meshsync.core.query import Query
from meshsync.core.retention import ALL, LATEST, Retention
from meshsync.errors import LocalError
from meshsync.joining import Remembered, Terms
from meshsync.node import Node
from meshsync.store.memory import MemoryStore
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


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [RED.to_json(), "high", "12h", "latest"]),
        ({"where": ["team=blue"]}, [BLUE.to_json(), "high", "12h", "latest"]),
        ({"where": []}, [None, "high", "12h", "latest"]),
        ({"priority": "medium", "retain": "all"}, [RED.to_json(), "medium", "all", "latest"]),
        ({"history": "full"}, [RED.to_json(), "high", "12h", "full"]),
    ],
)
def test_what_the_configuration_says_wins_and_of_the_rest_what_was_joined(keys: dict[str, Any], expected: Any) -> None:
    """Otherwise a part becomes whole at a restart, or the configuration is written in vain."""

    async def scenario(world: World) -> None:
        node = await world.start(1, collections=[{"name": "notes", **keys}])
        await node.join("notes", RED, retain="12h", history="latest")
        await node.join("notes", priority=Priority.HIGH)
        said = ["query", "priority", "retain", "history"]
        assert of_status(node, *said) == [RED.to_json(), "high", "12h", "latest"]
        await world.kill(1)
        node = await world.start(1, collections=[{"name": "notes", **keys}])
        assert of_status(node, *said) == expected
        await world.kill(1)
        # Nothing of what the configuration said stays when it says it no more.
        node = await world.start(1)
        assert of_status(node, *said) == [RED.to_json(), "high", "12h", "latest"]
        await node.leave("notes")
        await world.kill(1)
        assert of_status(await world.start(1), *said) == [None, "medium", "all", "full"]

    simulate(scenario)


def test_what_only_the_configuration_joined_goes_with_it() -> None:
    """Otherwise a command about a collection keeps it for ever, or one that joined it lasts no longer than a file."""

    async def scenario(world: World) -> None:
        node = await world.start(1, collections=["notes"])
        await node.join("notes", RED)
        await node.join("own", BLUE)
        await world.kill(1)
        node = await world.start(1, collections=["own"])
        assert of_status(node, "name", "query") == ["own", BLUE.to_json()]
        await node.join("own", RED)
        await world.kill(1)
        node = await world.start(1, collections=[])
        assert of_status(node, "name", "query") == ["own", RED.to_json()]
        await world.kill(1)
        # It was not named when the other was joined, and what was said of it before went then.
        node = await world.start(1, collections=["notes"])
        assert {one["name"]: one["query"] for one in node.status()["collections"]} == {
            "notes": None,
            "own": RED.to_json(),
        }

    simulate(scenario)


def test_what_earlier_versions_joined_is_joined() -> None:
    """Otherwise a node forgets its collections when it is upgraded."""
    store = MemoryStore(random_bytes=random.Random(1).randbytes)
    rows: list[list[Any]] = [
        ["first", 1],
        ["second", 0, "greatest", None],
        ["third", 3, "latest", RED.to_json(), "30d"],
        ["fourth", 2, "latest", {"and": []}, "all", "latest"],
    ]
    with store.transaction():
        store.set_meta("joined", cbor.encode(rows))
    assert Remembered(store, []).joined() == {
        "first": Terms(priority=Priority.HIGH),
        "second": Terms(priority=Priority.CRITICAL, conflicts=Policy.GREATEST),
        "third": Terms(RED, Priority.LOW, Policy.LATEST, Retention.parse("30d")),
        "fourth": Terms(Query(), Priority.MEDIUM, Policy.LATEST, ALL, History.LATEST),
    }


def test_texts_stand_for_queries_and_priorities() -> None:
    """Otherwise what the command takes is in Python an error about something else."""

    async def scenario(world: World) -> None:
        node = await world.start(1, collections=[])
        await node.join("notes", "team=blue", priority="high")
        assert of_status(node, "query", "priority") == [BLUE.to_json(), "high"]
        async with node.sync.subscribe("notes", "team=red", "critical") as handle:
            assert (handle.query, handle.priority) == (RED, Priority.CRITICAL)
            handle.choose("team=blue")
            assert handle.query == BLUE
        wrong: Any
        for wrong in (3, ["team=red"], True):
            with pytest.raises(LocalError, match="is no query"):
                node.sync.subscribe("notes", wrong)
            with pytest.raises(LocalError, match="is no query"):
                await node.join("notes", wrong)
        for wrong in ("urgent", 7):
            with pytest.raises(LocalError, match="there are critical, high, medium, low"):
                node.sync.set_priority("notes", wrong)
        with pytest.raises(LocalError, match="3 is no name of a collection"):
            await node.join(3)  # type: ignore[arg-type]

    simulate(scenario)
