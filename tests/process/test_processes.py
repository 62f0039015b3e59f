"""Real processes that are killed, started in the wrong order, and started again: nothing acknowledged is lost."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.processes import PATIENCE_SECONDS, RunningNode, meshsync, running

OPEN = ("--trust", "open")


@contextmanager
def api(node: RunningNode) -> Iterator[httpx.Client]:
    """The control API of a node."""
    transport = httpx.HTTPTransport(uds=node.ready["api"])
    with httpx.Client(transport=transport, base_url="http://node/v1", timeout=PATIENCE_SECONDS) as client:
        yield client


def ids(node: RunningNode) -> set[str]:
    """The ids of all documents."""
    with api(node) as client:
        answer = client.get("/collections/notes/documents").raise_for_status()
    return {document["id"] for document in map(json.loads, answer.text.splitlines())}


def collection(node: RunningNode) -> dict[str, Any]:
    """What status says of the collection."""
    with api(node) as client:
        [found] = client.get("/status").json()["collections"]
    assert isinstance(found, dict)
    return found


def put(node: RunningNode, id: str) -> None:
    """Write a document."""
    with api(node) as client:
        client.put(f"/collections/notes/documents/{id}", json={}).raise_for_status()


def settle(*nodes: RunningNode) -> None:
    """Wait until all nodes are in sync, and check that they hold the same."""
    for _ in range(20):
        for node in nodes:
            with api(node) as client:
                assert client.post("/wait", json={"timeout_s": PATIENCE_SECONDS / 2}).json()["synced"]
        if len({collection(node)["root"] for node in nodes}) == 1:
            return
    raise AssertionError("the nodes say that they are in sync, and hold different things")


def free_port() -> int:
    """A UDP port that nobody uses at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Writer(threading.Thread):
    """Writes documents one after the other, and notes those that were acknowledged, until the node is gone."""

    def __init__(self, node: RunningNode) -> None:
        super().__init__()
        self._node = node
        self._more = threading.Condition()
        self.acknowledged: list[str] = []

    def run(self) -> None:
        with api(self._node) as client:
            number = 0
            while True:
                id = f"w{number}"
                number += 1
                try:
                    answer = client.put(f"/collections/notes/documents/{id}", json={"n": number})
                except httpx.TransportError:
                    return
                assert answer.is_success, answer.text
                with self._more:
                    self.acknowledged.append(id)
                    self._more.notify()

    def wait_for(self, count: int) -> None:
        """Wait until so many were acknowledged."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.acknowledged) >= count, PATIENCE_SECONDS)


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
