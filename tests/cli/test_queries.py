"""Queries and indexes from the command line."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import PATIENCE_SECONDS, RunningNode, running

COUNT = 600


def fill(node: RunningNode) -> None:
    """Documents in 60 teams."""
    documents = [
        {"id": f"t{n:03}", "team": f"team{n % 60}", "n": n, "at": {"lat": n / 10, "lon": 179.5 + n % 2 * -359}}
        for n in range(COUNT)
    ]
    node.out("load", "tracks", "--batch", "50", text="\n".join(map(json.dumps, documents)))


def wait_ready(node: RunningNode) -> list[dict[str, Any]]:
    """Wait until all indexes serve queries."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        indexes: list[dict[str, Any]] = node.json("index", "ls", "tracks")["indexes"]
        if all(one["ready"] for one in indexes):
            return indexes
    raise AssertionError("the indexes were not built")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with running(tmp_path_factory.mktemp("queries") / "n", "--collection", "tracks") as node:
        fill(node)
        yield node


def ids(node: RunningNode, *arguments: str) -> list[str]:
    return node.out("ls", "tracks", "--ids", *arguments).splitlines()


def test_an_index_serves_and_explain_says_so(node: RunningNode) -> None:
    """One could not tell why a query is slow, nor do anything about it."""
    text = node.out("ls", "tracks", "--where", "team=team7", "--explain")
    assert text.startswith("no index served: 600 of 600 documents looked at, 10 matched; ")
    assert node.out("index", "ls", "tracks") == "no indexes; meshsync index add COLLECTION FIELD\n"
    assert node.out("index", "add", "tracks", "team") == ""
    added = node.json("index", "add", "tracks", "at.lat")
    assert [one["field"] for one in added["indexes"]] == ["team", "at.lat"]
    assert wait_ready(node) == [{"field": field, "ready": True, "documents": COUNT} for field in ("team", "at.lat")]
    assert "at.lat  ready  600" in " ".join(node.out("index", "ls", "tracks").split("\n")).replace("   ", "  ")
    text = node.out("ls", "tracks", "--where", "team=team7", "--explain")
    assert text.startswith("found by the index of team: 10 keys and 10 of 600 documents looked at, 10 matched; ")
    told = node.json("ls", "tracks", "--where", "at within_radius(lat=5, lon=-180, radius_m=60000)", "--explain")
    assert (told["index"], told["way"]) == ("at.lat", "keys")
    assert 0 < told["matched"] <= told["documents_read"] < 20
    text = node.out("ls", "tracks", "--where", "id~t01", "--order", "n", "--explain")
    assert text.startswith("found by id: ")
    assert " 10 matched and were sorted by n; " in text
    assert ids(node, "--where", "team=team7") == [f"t{n:03}" for n in range(7, 600, 60)]
    assert node.json("index", "rm", "tracks", "at.lat")["indexes"][0]["field"] == "team"
    done = node.run("index", "rm", "tracks", "at.lat")
    assert (done.returncode, done.stdout) == (1, "")
    assert "tracks has no index of at.lat; it has: team" in done.stderr


def test_pages_of_an_order_fit_together(node: RunningNode) -> None:
    """A program that shows pages would show documents twice, or never."""
    whole = ids(node, "--order", "-team")
    assert len(whole) == COUNT
    found: list[str] = []
    position: list[str] = []
    while page := node.out("ls", "tracks", "--json", "--order", "-team", "--limit", "250", *position).splitlines():
        found += [json.loads(line)["id"] for line in page]
        last = json.loads(page[-1])
        position = ["--after", last["id"], "--after-value", json.dumps(last["team"])]
    assert found == whole
    assert ids(node, "--after", "t597") == ["t598", "t599"]
    assert ids(node, "--order", "missing", "--limit", "1") == ["t000"]
    assert ids(node, "--order", "missing", "--after", "t598") == ["t599"]
    assert ids(node, "--order", "-id", "--after", "t001") == ["t000"]
    assert ids(node, "--order", "-id", "--limit", "1") == ["t599"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["ls", "tracks", "--where", "team=New York"], "column 10: and, or, or the end is expected, not 'York'"),
        (["ls", "tracks", "--where", "(n>1"], "column 5: and, or, or ) is expected"),
        (["ls", "tracks", "--where", "n in [1"], "column 8: , or ] is expected"),
        (["ls", "tracks", "--where", "n<true"], "< orders numbers and strings, and true is neither"),
        (
            ["ls", "tracks", "--where", "at within_radius(lat=91,lon=0,radius_m=1)"],
            "lat must be a number from -90 to 90",
        ),
        (["ls", "tracks", "--where", "not " * 20 + "n=1"], "nested deeper than 16 levels"),
        (["ls", "tracks", "--order", "a b"], "order 'a b': column 2"),
        (["ls", "tracks", "--order", "-"], "a field name is expected"),
        (["ls", "tracks", "--after-value", "1"], "after_value goes with after and order"),
        (["ls", "tracks", "--after", "t1", "--order", "n", "--after-value", "x"], "after_value: not JSON"),
        (
            ["ls", "tracks", "--order", "team", "--after", "t001"],
            "document 't001' has the field by which this is sorted; give its value of the page before as after_value",
        ),
        (
            ["ls", "tracks", "--order", "team", "--after", "t001", "--at", "2999-01-01T00:00Z"],
            "document 't001' has the field by which this is sorted",
        ),
        (["ls", "tracks", "--explain", "--where", "n=="], "column 3"),
        (["index", "add", "tracks", "id"], "documents are found by their id without an index"),
        (["index", "add", "tracks", "a..b"], "column 3: a field name is expected"),
        (["index", "add", "tracks", ""], "column 1: a field name is expected"),
        (["index", "add", "tracks"], "Missing argument 'FIELD'"),
        (["index", "rm", "tracks", "f(x)"], "quote a name with this character"),
    ],
)
def test_a_slip_is_told_with_its_place(node: RunningNode, arguments: list[str], expected: str) -> None:
    """A query that means something else shows the wrong documents, and nobody notices."""
    done = node.run(*arguments)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert expected in done.stderr


def test_an_index_of_a_collection_that_is_not_here_is_refused(node: RunningNode) -> None:
    """A misspelt name would be an index of nothing."""
    done = node.run("index", "add", "trucks", "team")
    assert (done.returncode, done.stdout) == (4, "")
    assert "this node has no collection 'trucks'" in done.stderr


def test_indexes_of_the_configuration_stay_and_are_repaired(tmp_path: Path) -> None:
    """What is declared once must serve after every restart, and must not lie after bits have flipped."""
    config = tmp_path / "meshsync.yaml"
    config.write_text("collections:\n  - {name: tracks, indexes: [team, at.lat]}\n")
    with running(tmp_path / "n", "--config", config, collections=()) as node:
        fill(node)
        assert [one["documents"] for one in wait_ready(node)] == [COUNT, COUNT]
        node.out("rm", "tracks", "t007")
    with closing(sqlite3.connect(tmp_path / "n" / "meshsync.db")) as connection, connection:
        assert connection.execute("DELETE FROM keys_1 WHERE field = 1 AND id = 't067'").rowcount == 1
    with running(tmp_path / "n", "--config", config, collections=()) as node:
        assert [one["documents"] for one in wait_ready(node)] == [COUNT - 2, COUNT - 1]
        assert len(ids(node, "--where", "team=team7")) == 8
        checked = node.run("verify")
        assert (checked.returncode, checked.stdout) == (1, "tracks: the index of team is wrong about document 't067'\n")
        assert "repair: tracks: the declared indexes were made anew" in node.out("verify", "--repair")
        assert len(ids(node, "--where", "team=team7")) == 9
        assert node.out("verify") == "no faults\n"
    bad = tmp_path / "bad.yaml"
    bad.write_text("collections:\n  - {name: tracks, indexes: [a b, id, team, team]}\n")
    done = node.run("node", "--config", bad)
    assert done.returncode == 2
    assert "index 'a b': column 2" in done.stderr
    assert "documents are found by their id" in done.stderr
