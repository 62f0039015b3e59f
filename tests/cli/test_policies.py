"""Policies for conflicts, as people meet them."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.cli.processes import PATIENCE_SECONDS, running


def test_two_who_wrote_apart_decide_by_hand(tmp_path: Path) -> None:
    """Under `manual` nothing is lost and nothing is hidden until a person has decided."""
    with running(tmp_path / "b", collections=()) as b:
        b.out("collections", "join", "notes", "--conflicts", "manual")
        b.out("put", "notes", "n1", '{"title":"theirs","n":1,"for":"b"}')
    with running(tmp_path / "a", collections=()) as a:
        a.out("collections", "join", "notes", "--conflicts", "manual")
        a.out("put", "notes", "n1", '{"title":"mine","n":1,"for":"a"}')
        a.out("peers", "accept", b.id)
        with running(tmp_path / "b", "--peer", a.peer, collections=()) as b:
            a.out("wait", "synced", "--peer", b.id, "--timeout", "30s")
            b.out("wait", "synced", "--timeout", "30s")
            for node in (a, b):
                assert json.loads(node.out("get", "notes", "n1")) == {
                    "title": {"$conflict": ["mine", "theirs"]},
                    "n": 1,
                    "for": {"$conflict": ["a", "b"]},
                }
            told = b.json("conflicts")
            assert [(one["field"], one["winner"]) for one in told["fields"]] == [("for", None), ("title", None)]
            assert [one["value"] for one in told["fields"][1]["losers"]] == ["mine", "theirs"]
            text = b.out("conflicts")
            assert text.startswith("notes n1: 2 writes that did not know of each other\n")
            assert "  title: to be decided\n" in text
            assert '    "theirs"  ' in text
            assert '    undecided beside "theirs"  ' in b.out("why", "notes", "n1", "title")
            b.out("patch", "notes", "n1", '{"for":null}')
            text = b.out("conflicts")
            assert text.startswith("notes n1: not wholly decided yet\n"), text
            assert "  for: " not in text
            b.out("patch", "notes", "n1", '{"title":"ours"}')
            b.out("wait", "synced", "--timeout", "30s")
            a.out("wait", "synced", "--timeout", "30s")
            assert a.out("conflicts") == ""
            assert a.json("get", "notes", "n1")["doc"] == {"title": "ours", "n": 1}
            assert a.json("collections")["collections"][0]["conflicts"] == "manual"


def test_a_peer_with_another_policy_is_named(tmp_path: Path) -> None:
    """Whoever mistyped a configuration must not look for the fault in the network."""
    with running(tmp_path / "a", "--trust", "open", collections=()) as a:
        a.out("collections", "join", "notes", "--conflicts", "least")
        with running(tmp_path / "b", "--trust", "open", "--peer", a.peer) as b:
            began = time.monotonic()
            while "decides" not in (done := b.run("wait", "synced", "--timeout", "1s")).stderr:
                assert time.monotonic() < began + PATIENCE_SECONDS, done.stderr
            assert done.returncode == 1
            assert "notes decides conflicts by `latest` here and by `least` at" in done.stderr
            assert "so they are two collections; dump one, leave it, join as the other, and load" in b.out("status")
            assert b.run("status", "--check").returncode == 1
            assert b.run("collections", "join", "notes", "--conflicts", "least").returncode == 2
            b.out("collections", "leave", "notes")
            b.out("collections", "join", "notes", "--conflicts", "least")
            b.out("wait", "synced", "--timeout", "30s")
