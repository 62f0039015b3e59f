"""`meshsync verify [--repair]` with real nodes whose databases rotted while they were stopped."""

# ruff: noqa: S608 -- the statements are those of this very file.

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.processes import RunningNode, running

DOCUMENTS = 40


def write(node: RunningNode) -> None:
    """Forty documents, one of them patched, so that it has a merged state."""
    lines = [json.dumps({"id": f"d{number}", "text": f"text of document {number}"}) for number in range(1, DOCUMENTS)]
    node.out("load", "notes", text="\n".join(lines))
    node.out("put", "notes", "merged", '{"one": 1}')
    node.out("patch", "notes", "merged", '{"two": 2}')


def damage(data_dir: Path, *statements: str) -> None:
    """Run statements on a stopped node's database, each of which changes one row."""
    with closing(sqlite3.connect(data_dir / "meshsync.db")) as connection, connection:
        for statement in statements:
            assert connection.execute(statement).rowcount == 1, statement


def flip(data_dir: Path, text: bytes) -> None:
    """Flip a bit of a text wherever it stands in a stopped node's database: not even SQLite's pages tell of it."""
    path = data_dir / "meshsync.db"
    data = path.read_bytes()
    assert text in data
    path.write_bytes(data.replace(text, bytes((text[0] ^ 4,)) + text[1:]))


def overwritten(column: str) -> str:
    """An expression for a column with its first byte replaced."""
    return f"{column} = CAST(x'00' || substr({column}, 2) AS BLOB)"


def test_all_that_rotted_is_named_and_restored_from_a_peer(tmp_path: Path) -> None:
    """The promise of `verify --repair`, with nothing simulated."""
    with running(tmp_path / "a", "--trust", "open") as a:
        write(a)
        with running(tmp_path / "b", "--trust", "open", "--peer", a.peer) as b:
            b.out("wait", "synced", "--timeout", "30s")
        damage(
            tmp_path / "b",
            f"UPDATE entries_1 SET {overwritten('payload')} WHERE arrival = 3",
            f"UPDATE entries_1 SET {overwritten('id')} WHERE arrival = 5",
            "UPDATE entries_1 SET hlc = hlc + 1 WHERE arrival = 7",
            "UPDATE entries_1 SET parents = CAST(x'000000010000000000000001' AS BLOB) WHERE arrival = 9",
            f"UPDATE documents_1 SET {overwritten('state')} WHERE id = 'merged'",
        )
        flip(tmp_path / "b", b"text of document 12")
        with running(tmp_path / "b", "--trust", "open", "--peer", a.peer) as b:
            listed = b.run("ls", "notes")
            assert listed.returncode == 1
            assert "meshsync verify --repair" in listed.stderr
            read = b.run("get", "notes", "merged")
            assert read.returncode == 1
            assert "document 'merged' of notes is damaged on the disk; `meshsync verify --repair`" in read.stderr

            checked = b.run("verify")
            assert checked.returncode == 1
            named = [line.split(" (")[0] for line in checked.stdout.splitlines()]
            assert [line for line in named if line.startswith("notes: entry")] == [
                "notes: entry 3",
                "notes: entry 5: it is damaged",
                "notes: entry 7: it is damaged",
                "notes: entry 9: it is damaged",
                "notes: entry 12",
            ]
            assert "notes: document 'merged' is damaged" in named
            assert checked.stderr.endswith("faults; meshsync verify --repair\n")
            assert b.run("status", "--check").returncode == 1

            repaired = b.run("verify", "--repair")
            assert (repaired.returncode, repaired.stderr) == (0, "")
            for arrival in (3, 7, 9, 12):
                assert f"repair: notes: entry {arrival}: restored from peer {a.id[:8]}" in repaired.stdout
            assert "repair: notes: entry 5: what is left of it proves it" in repaired.stdout
            assert repaired.stdout.endswith(" faults, all repaired\n")
            assert b.out("verify") == "no faults\n"
            assert b.out("dump", "notes") == a.out("dump", "notes")
            b.out("wait", "synced", "--timeout", "30s")
            levels = {json.loads(line)["level"] for line in (tmp_path / "a.log").read_text().splitlines()}
            assert levels == {"info"}, "the peer was told something damaged"
        with running(tmp_path / "b", "--trust", "open") as b:
            assert b.out("verify") == "no faults\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_what_no_peer_has_is_said_to_remain(tmp_path: Path, as_json: bool) -> None:
    """A script that repairs must learn that it did not."""
    with running(tmp_path / "a") as a:
        a.out("put", "notes", "n1", '{"title": "one"}')
        a.out("put", "notes", "n2", '{"title": "two"}')
    flip(tmp_path / "a", b"one")
    with running(tmp_path / "a") as a:
        done = a.run("verify", "--repair", *(["--json"] if as_json else []))
        assert done.returncode == 1
        if as_json:
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            assert lines[-1] == {"v": 1, "done": True, "faults": 1, "found": 1}
            assert [line["remains"] for line in lines if "remains" in line] == [lines[0]["fault"]]
        else:
            assert "repair: notes: entry 1: no connected peer has it" in done.stdout
            assert "remains: notes: entry 1" in done.stdout
            assert "move its meshsync.db" in done.stdout
        assert a.out("get", "notes", "n2") != ""
        assert a.run("get", "notes", "n1").returncode == 1
