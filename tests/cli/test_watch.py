"""`watch --where`: the documents that match, as they come, change and go."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.processes import running


def test_a_document_that_stops_matching_is_told_as_removed_also_after_a_restart(tmp_path: Path) -> None:
    """Otherwise whoever watches one team goes on to believe that a document is in it."""
    with running(tmp_path / "n") as node:
        node.out("put", "notes", "n1", '{"team":"blue"}')
        node.out("put", "notes", "n2", '{"team":"red"}')
        node.out("patch", "notes", "n1", '{"n":1}')
        with node.streaming("watch", "notes", "--where", "team=blue", "--since", "0", "--json") as watch:
            assert watch.stdout is not None
            first = [json.loads(watch.stdout.readline()) for _ in range(2)]
        node.out("patch", "notes", "n1", '{"team":"red"}')
    with running(tmp_path / "n") as node:
        node.out("patch", "notes", "n2", '{"team":"blue"}')
        with node.streaming("watch", "notes", "--where", "team=blue", "--since", first[-1]["cursor"]) as watch:
            assert watch.stdout is not None
            second = [watch.stdout.readline() for _ in range(2)]
    assert [(one["kind"], one["doc"]) for one in first] == [
        ("put", {"team": "blue"}),
        ("patch", {"n": 1, "team": "blue"}),
    ]
    assert [line.split()[1:] for line in second] == [["removed", "n1"], ["patch", "n2", '{"team":"blue"}']]
    assert second[0].index("n1") == second[1].index("n2"), "the ids stand below each other"
