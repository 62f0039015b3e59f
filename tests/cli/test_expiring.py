"""Documents that expire, with the commands of real processes and by the clock of the machine."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

from tests.cli.processes import PATIENCE_SECONDS, running

DAYS = 86_400


def test_documents_expire_by_the_clock_also_while_the_node_is_off(tmp_path: Path) -> None:
    """The whole way: written with a time, shown with it, gone when it has passed, and told to whoever watches."""
    with running(tmp_path / "n") as node:
        node.out("put", "notes", "n1", '{"n":1}', "--expires", "30d")
        node.out("put", "notes", "n2", '{"n":2}', "--expires", "2100-06-01T08:00Z")
        node.out("patch", "notes", "n2", '{"m":2}')
        node.out("load", "notes", "--expires", "2d", text='{"id":"l1"}\n{"id":"l2"}\n')
        expires = node.json("get", "notes", "n1")["expires"]
        assert node.json("get", "notes", "n2")["expires"] == "2100-06-01T08:00:00.000Z"
        entry = node.json("get", "notes", "n1")["entry"][:8]
        assert node.out("why", "notes", "n1").startswith(f"expires {expires}  {entry}  ")
        assert node.out("history", "notes", "n1").endswith(f'  put  {{"n":1}}  expires {expires}\n')
        done = node.run("put", "notes", "n3", "{}", "--expires", "2020-01-01T00:00Z")
        assert done.returncode == 2
        assert "expires: 2020-01-01T00:00Z is not to come, because here it is 20" in done.stderr
        with node.streaming("watch", "notes", "--since", "0", "--json") as watch:
            assert watch.stdout is not None
            changes = [json.loads(watch.stdout.readline()) for _ in range(5)]
        assert [(one["kind"], one["id"]) for one in changes] == [
            ("put", "n1"),
            ("put", "n2"),
            ("patch", "n2"),
            ("put", "l1"),
            ("put", "l2"),
        ]
    with running(tmp_path / "n", clock_offset_s=31 * DAYS) as node:
        assert node.out("ls", "notes", "--ids") == "n2\n"
        assert node.json("status")["collections"][0]["documents"] == 1
        done = node.run("get", "notes", "n1")
        assert (done.returncode, done.stdout) == (1, "")
        assert f"document 'n1' in notes expired at {expires}" in done.stderr
        assert node.out("get", "notes", "n1", "--at", entry) == '{"n":1}\n'
        assert node.out("why", "notes", "n1").startswith(f"expired {expires}  {entry}  ")
        with node.streaming("watch", "notes", "--since", changes[-1]["cursor"], "--json") as watch:
            assert watch.stdout is not None
            gone = [json.loads(watch.stdout.readline()) for _ in range(3)]
        assert [(one["kind"], one["id"], one["doc"]) for one in gone] == [
            ("removed", "l1", None),
            ("removed", "l2", None),
            ("removed", "n1", None),
        ]
        node.out("patch", "notes", "n1", '{"new":1}')
        assert node.json("get", "notes", "n1")["doc"] == {"new": 1}
        node.out("restore", "notes", "n1", "--at", entry)
        assert node.json("get", "notes", "n1")["expires"] is None


def test_a_document_is_gone_though_nobody_writes(tmp_path: Path) -> None:
    """Otherwise the node only notices when somebody writes or it is started again."""
    with running(tmp_path / "n") as node:
        node.out("put", "notes", "n1", "{}", "--expires", "1s")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while node.json("status")["collections"][0]["documents"]:
            assert time.monotonic() < deadline
        assert node.out("ls", "notes") == ""


def test_a_dump_brings_back_when_documents_expire(tmp_path: Path) -> None:
    """A backup must come back as it was, on another node and by way of a pipe, with what it says of the time."""
    rng, lines = random.Random(7), []
    for number in range(40):
        line = {"id": f"d{number:02}", "n": rng.choice([None, 1, "ä😀", [1, {"x": 2}]])}
        if rng.random() < 0.3:
            line["$expires"] = [None, rng.choice(["never", 3, None])]
        elif rng.random() < 0.6:
            line["$expires"] = f"{rng.randrange(2100, 2200)}-06-01T08:00:00.{rng.randrange(1000):03}Z"
        lines.append(line)
    with running(tmp_path / "a") as a, running(tmp_path / "b") as b:
        assert a.out("load", "notes", text="\n".join(map(json.dumps, lines))) == "40 documents stored\n"
        a.out("put", "notes", "d00", '{"$expires":1}', "--expires", "30d")
        a.out("patch", "notes", "d01", '{"n":2}', "--expires", "2d")
        a.out("rm", "notes", "d02")
        dumped = a.out("dump", "notes")
        assert b.out("load", "notes", "--batch", "7", text=dumped) == "39 documents stored\n"
        for arguments in (("dump", "notes"), ("ls", "notes", "--json"), ("ls", "notes")):
            assert b.out(*arguments) == a.out(*arguments)
        for id in ("d00", "d01", "d03"):
            there, back = a.json("get", "notes", id), b.json("get", "notes", id)
            assert (back["doc"], back["expires"]) == (there["doc"], there["expires"])
        expires = b.json("get", "notes", "d00")["expires"]
        assert b.out("ls", "notes", "--limit", "1") == f'd00  {{"$expires":1}}  expires {expires}\n'
    with running(tmp_path / "c", clock_offset_s=31 * DAYS) as c:
        done = c.out("load", "notes", text=dumped)
        assert done == "37 documents stored\n2 documents left out, expired; --expires never loads them, too\n"
        assert c.run("get", "notes", "d00").returncode == 1
        assert c.run("load", "notes", text='{"id":"d00","$expires":1}').returncode == 2
