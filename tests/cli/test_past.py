"""The commands that look into documents."""

from __future__ import annotations

import json
from collections.abc import Iterator

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
