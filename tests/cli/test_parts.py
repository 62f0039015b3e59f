"""`collections join --where` and `where:`: nodes that replicate a part of a collection."""

from __future__ import annotations

from pathlib import Path

from tests.cli.processes import RunningNode, running


def level(*nodes: RunningNode) -> None:
    """Wait for each in turn: whoever wrote last comes first."""
    for node in nodes:
        node.out("wait", "synced", "--timeout", "50s")


def test_each_part_is_listed_and_moves_live(tmp_path: Path) -> None:
    """Otherwise a query is accepted at the door and forgotten inside, or after a restart."""
    config = tmp_path / "c.yaml"
    with running(tmp_path / "a", "--trust", "open") as a:
        config.write_text(f'peers: ["{a.peer}"]\ncollections:\n  - {{name: notes, where: ["team=red"]}}\n')
        a.out("put", "notes", "b1", '{"team":"blue"}')
        a.out("put", "notes", "r1", '{"team":"red"}')
        a.out("put", "notes", "g1", '{"team":"green"}')
        with (
            running(tmp_path / "b", "--peer", a.peer, collections=()) as b,
            running(tmp_path / "c", "--config", config, collections=()) as c,
        ):
            b.out("collections", "join", "notes", "--where", "team=blue")
            level(a, b, c)
            assert (b.out("ls", "notes", "--ids"), c.out("ls", "notes", "--ids")) == ("b1\n", "r1\n")
            c.out("patch", "notes", "r1", '{"team":"blue"}')
            level(c, a, b)
            assert (b.out("ls", "notes", "--ids"), c.out("ls", "notes", "--ids")) == ("b1\nr1\n", "")
            assert b.out("collections").splitlines()[1].split()[-1] == "team=blue"
            assert "2 where team=blue" in b.out("status")
            assert b.json("status")["collections"][0]["query"] == {"field": "team", "=": "blue"}
            assert b.json("status")["collections"][0]["where"] == "team=blue"
            for command in ("get", "rm"):
                refused = b.run(command, "notes", "g1")
                assert refused.returncode == 1
                assert "holds the part of notes where team=blue" in refused.stderr
                assert "1 write to it is known, 1 by header only" in refused.stderr
            assert "no connected peer has all of it" not in b.out("status")
            assert "1 by header only" in b.run("put", "notes", "g1", "{}", "--if-absent").stderr
        with running(tmp_path / "b", "--peer", a.peer, collections=("notes",)) as b:
            assert b.json("status")["collections"][0]["query"] == {"field": "team", "=": "blue"}
            assert b.out("collections", "join", "notes", "--priority", "high") == "priority: high, before: medium\n"
            assert b.json("status")["collections"][0]["query"] == {"field": "team", "=": "blue"}
            assert b.out("collections", "join", "notes") == "where: all documents, before: team=blue\n"
            level(b)
            assert b.out("ls", "notes", "--ids") == "b1\ng1\nr1\n"


def test_a_dump_says_when_it_is_not_all(tmp_path: Path) -> None:
    """Otherwise a backup lacks documents that the node knows to exist, and nobody notices before it is needed."""
    with (
        running(tmp_path / "b", "--trust", "open", collections=()) as b,
        running(tmp_path / "c", "--peer", b.peer, collections=()) as c,
    ):
        with running(tmp_path / "a", "--peer", b.peer) as a:
            b.out("collections", "join", "notes", "--where", "team=blue")
            a.out("put", "notes", "b1", '{"team":"blue"}')
            a.out("put", "notes", "r1", '{"team":"red"}')
            level(a, b)
            assert a.run("dump", "notes").stderr == ""
        c.out("collections", "join", "notes")
        with c.streaming("watch", "notes", "--since", "0", "--json") as changes:
            assert changes.stdout is not None
            assert '"b1"' in changes.stdout.readline()  # by now, what came with it is here as well
        dump = c.run("dump", "notes")
        assert (dump.returncode, dump.stdout) == (1, '{"team":"blue","id":"b1"}\n')
        assert "notes lacks 1 payload of what was written, so this is not all" in dump.stderr
        assert "notes lacks 1 payload of what was written" in c.out("status")
        assert b.run("dump", "notes").returncode == 0
