"""Letting the past go, as people do it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cli.processes import RunningNode, running


def collection(node: RunningNode) -> Any:
    return node.json("status")["collections"][0]


def wait_let_go(node: RunningNode, count: int) -> Any:
    """Wait until a node has dropped so many payloads."""
    went = 0
    with node.streaming("events", "--since", "1", "--type", "payloads_dropped", "--json") as events:
        assert events.stdout is not None
        while went < count:
            went += json.loads(events.stdout.readline())["entries"]
    return collection(node)["let_go"]


def test_the_past_is_let_go_once_a_peer_has_it(tmp_path: Path) -> None:
    """An owner sees what is kept, what went and what waits, and nobody has to restart anything."""
    at = tmp_path / "small"
    with running(tmp_path / "whole") as whole, running(at, "--peer", whole.peer, collections=()) as small:
        assert small.run("collections", "join", "notes", "--retain", "30").returncode == 2
        small.out("collections", "join", "notes", "--retain", "latest")
        for number in range(5):
            small.out("put", "notes", "d", f'{{"n":{number}}}')
        assert "notes keeps nothing of what was overwritten" in small.out("status")
        whole.out("peers", "accept", small.id)
        small.out("wait", "synced", "--timeout", "60s")
        went = wait_let_go(small, 4)
        assert went["waiting"] == 0
        assert went["bytes"] > 0
        assert f"; 4 payloads let go, {went['bytes']} B" in small.out("status")
        assert "RETAIN" in small.out("collections")
        assert "RETAIN" not in whole.out("collections")
        assert whole.out("status", "--check")
        assert small.out("status", "--check")
        assert small.json("get", "notes", "d")["doc"] == {"n": 4}
        assert small.out("verify") == "no faults\n"
        # What is not known any more is not made up.
        writes = [json.loads(line) for line in whole.out("history", "notes", "d", "--json").splitlines()]
        early = writes[1]["entry"]
        assert whole.json("get", "notes", "d", "--at", early)["doc"] == {"n": 1}
        for done in (small.run("get", "notes", "d", "--at", early), small.run("dump", "notes", "--at", early)):
            assert done.returncode == 1
            assert "not all that was written to document 'd' until" in done.stderr
        small.out("put", "notes", "e", "{}")
        now = small.json("get", "notes", "e")["time"]
        assert len(small.out("dump", "notes", "--at", now).splitlines()) == 2
        before = writes[0]["time"]
        done = small.run("ls", "notes", "--at", before, "--json")
        assert (done.returncode, done.stdout) == (1, "")
        error = json.loads(done.stderr)["error"]
        assert (error["code"], error["missing"]) == ("let_go", 1)
        assert error["message"].startswith("1 document is missing: not all that was written to document 'd'")
        done = small.run("restore", "notes", "d", "--at", early)
        assert done.returncode == 1
        assert done.stderr.endswith("is kept here; ask for a later time, or a node that retains all\n")
        text = small.out("history", "notes", "d")
        assert "let go, with what was written before and is not listed" in text
        assert len(text.splitlines()) == 2
        assert "is not all kept here" in small.run("why", "notes", "d", "n").stderr
        assert small.stop() == 0
    with running(at, collections=()) as small:
        assert collection(small)["retain"] == "latest"
        assert collection(small)["let_go"] == went
        small.out("collections", "join", "notes", "--retain", "all")
        assert "keeps" not in small.out("status")
