"""The commands that look into documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.processes import RunningNode, running


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with running(tmp_path_factory.mktemp("past") / "n") as node:
        yield node


def test_history_is_shown_for_people_and_for_programs(node: RunningNode) -> None:
    """Otherwise one cannot see who changed a document, and how."""
    node.out("put", "notes", "h1", '{"n":1,"m":1}')
    node.out("patch", "notes", "h1", '{"n":2,"m":null}')
    put, patch = map(json.loads, node.out("history", "notes", "h1", "--json").splitlines())
    assert (put["kind"], put["set"], put["visible"]) == ("put", {"n": 1, "m": 1}, False)
    assert (patch["kind"], patch["author"], patch["visible"]) == ("patch", node.id, True)
    author = node.id[:8]
    assert node.out("history", "notes", "h1").splitlines() == [
        f'  {put["entry"][:8]}  {put["time"]}  {author}  put  {{"m":1,"n":1}}',
        f'* {patch["entry"][:8]}  {patch["time"]}  {author}  patch  {{"m":null,"n":2}}',
    ]
    assert node.out("history", "notes", "h1", "--diff").splitlines()[4:] == ["    - m: 1", "    - n: 1", "    + n: 2"]
    done = node.run("history", "notes", "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert "was never written" in done.stderr


def test_two_who_wrote_apart_see_what_lost(tmp_path: Path) -> None:
    """The question of everyone whose value is gone: who, when, and did they know?"""
    with running(tmp_path / "b") as b:
        b.out("put", "notes", "n1", '{"title":"theirs"}')
    with running(tmp_path / "a") as a:
        a.out("put", "notes", "n1", '{"title":"mine"}')
        a.out("peers", "accept", b.id)
        with running(tmp_path / "b", "--peer", a.peer) as b:
            a.out("wait", "synced", "--peer", b.id, "--timeout", "30s")
            conflict = b.json("conflicts")
            assert b.json("conflicts", "notes") == a.json("conflicts") == conflict
            ((title,), winner) = conflict["fields"], conflict["fields"][0]["winner"]
            assert (winner["value"], winner["author"]) == ("mine", a.id)
            assert [(one["value"], one["author"]) for one in title["losers"]] == [("theirs", b.id)]
            text = b.out("conflicts")
            assert text.startswith("notes n1: 2 writes that did not know of each other\n")
            assert f'  title: "mine"  {winner["entry"][:8]}' in text
            assert '    lost: "theirs"  ' in text
            text = a.out("why", "notes", "n1", "title")
            assert text.startswith(f'title: "mine"  {winner["entry"][:8]}  ')
            assert '    overrode unseen "theirs"  ' in text
            assert a.json("why", "notes", "n1")["fields"][0]["overrode"][0]["seen"] is False
            assert a.run("why", "notes", "n1", "nothing").returncode == 1
            a.out("patch", "notes", "n1", '{"title":"ours"}')
            assert a.out("conflicts") == ""
            assert a.out("why", "notes", "n1", "title").count("overrode") == 1, "it had seen what won"


def test_what_was_is_printed_and_restored(node: RunningNode) -> None:
    """The way back from a slip."""
    entry = node.json("put", "notes", "r1", '{"n":1}')["entry"]
    node.out("put", "notes", "r1", '{"n":2}')
    time = json.loads(node.out("history", "notes", "r1", "--json").splitlines()[-1])["time"]
    assert node.out("get", "notes", "r1", "--at", entry) == '{"n":1}\n'
    assert node.out("get", "notes", "r1", "--at", time) == '{"n":2}\n'
    assert '{"n":1,"id":"r1"}\n' in node.out("dump", "notes", "--at", entry)
    assert node.run("get", "notes", "r2", "--at", entry).returncode == 1
    listed = node.out("ls", "notes", "--at", entry, "--order", "-n", "--where", "id=r1", "--limit", "1")
    assert listed == 'r1  {"n":1}\n'
    assert node.run("ls", "notes", "--at", entry, "--explain").returncode == 2
    assert node.json("restore", "notes", "r1", "--at", entry[:10])["id"] == "r1"
    assert node.out("get", "notes", "r1") == '{"n":1}\n'
    done = node.run("restore", "notes", "r1", "--at", "yesterday")
    assert (done.returncode, "neither a time nor an entry" in done.stderr) == (2, True)
