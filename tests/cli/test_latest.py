"""`collections join --history` and `history:`: nodes that fetch what documents are made of, and not their past."""

from __future__ import annotations

from pathlib import Path

from tests.cli.processes import RunningNode, running


def level(*nodes: RunningNode) -> None:
    """Wait for each in turn: whoever wrote last comes first."""
    for node in nodes:
        node.out("wait", "synced", "--timeout", "50s")


def superseded(node: RunningNode) -> int:
    """How many payloads of the past are not here."""
    count: int = node.json("status")["collections"][0]["superseded"]
    return count


def test_the_latest_is_listed_and_the_past_comes_when_it_is_asked_for(tmp_path: Path) -> None:
    """Otherwise a history is accepted at the door and forgotten inside, or after a restart."""
    config = tmp_path / "c.yaml"
    with running(tmp_path / "a", "--trust", "open") as a:
        config.write_text(f'peers: ["{a.peer}"]\ncollections:\n  - {{name: notes, history: latest}}\n')
        for number in range(5):
            a.out("put", "notes", "d", f'{{"n":{number}}}')
        with (
            running(tmp_path / "b", "--peer", a.peer, collections=()) as b,
            running(tmp_path / "c", "--config", config, collections=()) as c,
        ):
            b.out("collections", "join", "notes", "--history", "latest")
            level(b, c)
            assert [superseded(node) for node in (a, b, c)] == [0, 4, 4]
            assert b.out("get", "notes", "d") == c.out("get", "notes", "d") == a.out("get", "notes", "d")
            assert b.out("collections").splitlines()[0].split()[-2:] == ["HISTORY", "WHERE"]
            assert b.out("collections").splitlines()[1].split()[-1] == "latest"
            assert "HISTORY" not in a.out("collections")
            assert "1, without their past" in b.out("status")
            assert "  not fetched, with what was written before and is not listed\n" in b.out("history", "notes", "d")
            assert "until 20" in (error := b.run("why", "notes", "d").stderr)
            assert "was not all fetched, so it is not shown" in error
            a.out("put", "notes", "d", '{"n":5}')
            level(a, b, c)
            assert b.out("get", "notes", "d") == '{"n":5}\n'
        with running(tmp_path / "b", "--peer", a.peer, "--trust", "open", collections=()) as b:
            level(b)
            assert b.json("status")["collections"][0]["history"] == "latest"
            with running(tmp_path / "d", "--peer", b.peer) as d:
                level(d, b)
                assert "notes lacks 4 payloads of its past, which no connected peer has" in d.out("status")
            b.out("collections", "join", "notes", "--history", "full")
            level(b)
            assert superseded(b) == 0
            assert "without their past" not in b.out("status")
