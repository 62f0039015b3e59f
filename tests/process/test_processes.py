"""Real processes that are killed, started in the wrong order, and started again: nothing acknowledged is lost."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.cli.processes import PATIENCE_SECONDS, meshsync, running
from tests.process.support import OPEN, Writer, api, collection, free_port, ids, put, settle


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_a_node_that_is_killed_while_it_writes_keeps_what_it_acknowledged(tmp_path: Path, durability: str) -> None:
    """Otherwise SIGKILL, which is how containers stop, loses data; or each one costs a log."""
    with running(tmp_path / "b", *OPEN) as b:
        acknowledged: set[str] = set()
        for turn in (1, 2):
            with running(tmp_path / "a", *OPEN, "--peer", b.peer, "--durability", durability) as a:
                writer = Writer(a)
                writer.start()
                writer.wait_for(200 * turn)
                assert a.stop(signal.SIGKILL) == -signal.SIGKILL
                writer.join(PATIENCE_SECONDS)
                acknowledged |= set(writer.acknowledged)
        with running(tmp_path / "a", *OPEN, "--peer", b.peer) as a:
            assert acknowledged <= ids(a)
            put(a, "after")
            settle(a, b)
            assert ids(a) == ids(b)
            assert collection(a)["logs"] == collection(b)["logs"] == 1
            assert collection(a)["forks"] == 0
            assert a.run("verify").returncode == 0


def test_a_node_that_is_killed_while_it_receives_goes_on_where_it_was(tmp_path: Path) -> None:
    """Otherwise a crash in the middle of a bootstrap leaves gaps, or a store that does not open."""
    lines = "".join(json.dumps({"id": f"n{number}", "text": "x" * 400}) + "\n" for number in range(6000))
    with running(tmp_path / "a", *OPEN) as a:
        a.out("load", "notes", text=lines)
        for _ in range(2):
            with running(tmp_path / "b", *OPEN, "--peer", a.peer) as b:
                patience = time.monotonic() + PATIENCE_SECONDS
                with api(b) as client:
                    before = client.get("/status").json()["collections"][0]["entries"]
                    while client.get("/status").json()["collections"][0]["entries"] <= min(before, 5000):
                        assert time.monotonic() < patience, "nothing arrives"
                b.stop(signal.SIGKILL)
        with running(tmp_path / "b", *OPEN, "--peer", a.peer) as b:
            settle(a, b)
            assert ids(b) == ids(a)
            assert b.run("verify").returncode == 0


def test_the_one_with_the_higher_id_is_the_only_one_that_dials(tmp_path: Path) -> None:
    """Otherwise a tree in which only the children know their parent falls apart, where ids decide who dials."""
    directories = [tmp_path / "a", tmp_path / "b"]
    low, high = sorted(directories, key=lambda directory: meshsync("id", "--data-dir", directory).stdout)
    with running(low, *OPEN) as parent, running(high, "--peer", parent.peer) as child:
        put(parent, "n1")
        settle(parent, child)
        assert ids(child) == {"n1"}


def test_a_node_may_be_started_before_the_peer_that_it_dials(tmp_path: Path) -> None:
    """Otherwise the order of starting matters."""
    id = meshsync("id", "--data-dir", tmp_path / "a").stdout.strip()
    port = free_port()
    with running(tmp_path / "b", *OPEN, "--peer", f"{id}@127.0.0.1:{port}") as b:
        put(b, "of b")
        [waiting] = b.json("status")["peers"]
        assert waiting["state"] in ("waiting", "dialing")
        assert b.run("status", "--check").returncode == 1
        with running(tmp_path / "a", *OPEN, "--listen", f"127.0.0.1:{port}") as a:
            settle(a, b)
            assert ids(a) == {"of b"}
            assert b.run("status", "--check").returncode == 0


def test_three_in_a_line_agree_and_go_on_without_the_middle(tmp_path: Path) -> None:
    """Otherwise news stops at the first neighbour, or a node that was away is not caught up with."""
    with running(tmp_path / "a", *OPEN) as a:
        port = free_port()
        listen = ("--listen", f"127.0.0.1:{port}")
        with running(tmp_path / "b", *OPEN, *listen, "--peer", a.peer) as b:
            peer = f"{b.id}@127.0.0.1:{port}"
            with running(tmp_path / "c", *OPEN, "--peer", peer) as c:
                put(a, "of a")
                put(c, "of c")
                settle(a, b, c)
                assert ids(a) == ids(b) == ids(c) == {"of a", "of c"}
                assert b.stop() == 0
                put(a, "a alone")
                put(c, "c alone")
                with running(tmp_path / "b", *OPEN, *listen, "--peer", a.peer) as again:
                    assert again.id == b.id
                    settle(a, again, c)
                    assert ids(a) == ids(c) == {"of a", "of c", "a alone", "c alone"}


def test_a_clean_restart_continues_the_same_log(tmp_path: Path) -> None:
    """Otherwise every restart costs a log, and what is sent grows with the number of restarts."""
    for turn in range(3):
        with running(tmp_path / "a", *OPEN) as a:
            put(a, f"n{turn}")
            assert collection(a)["logs"] == 1
            assert a.stop() == 0
