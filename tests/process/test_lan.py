"""Three laptops on one LAN: nodes of the command in network namespaces joined by a bridge, and nobody's address."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest

from meshsync.lab.namespaces import is_privileged
from tests.cli.processes import PATIENCE_SECONDS, RunningNode, running
from tests.netns import Port, lan

pytestmark = pytest.mark.skipif(not is_privileged(), reason="network namespaces need root")

NAMES = ("anna", "boris", "clara")


@dataclass
class Laptop:
    """A machine on the LAN, and the node that runs there."""

    node: RunningNode
    port: Port


@contextmanager
def three_laptops(directory: Path, unplugged: str = "") -> Iterator[list[Laptop]]:
    """Anna's, Boris's and Clara's; one of them may be off the network at first."""
    key = directory / "mesh.key"
    key.touch(0o600)
    key.write_text(secrets.token_hex(32))
    member = ("--mdns", "--trust", "mesh-key", "--mesh-key-file", key)
    with lan(*NAMES) as machines, ExitStack() as stack:
        for machine in machines:
            if machine.name == unplugged:
                machine.ports[0].unplug()
        laptops = []
        for machine in machines:
            node = running(directory / machine.name, *member, "--name", machine.name, listen=None, on=machine)
            laptops.append(Laptop(stack.enter_context(node), machine.ports[0]))
        yield laptops


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask, each time by a command, until it is so."""
    patience = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < patience, "it never came to be"


def connected(node: RunningNode) -> set[str]:
    """The names of the peers that a node is connected with."""
    return {peer["name"] for peer in node.json("peers")["peers"] if peer["state"] == "connected"}


def links(node: RunningNode) -> set[frozenset[str]]:
    """Who is connected with whom, as one node tells it."""
    graph = node.json("graph")
    names = {one["id"]: one["name"] for one in graph["nodes"]}
    return {frozenset((names[one["a"]], names[one["b"]])) for one in graph["links"] if one["state"] == "connected"}


def root(node: RunningNode) -> str:
    """The digest of what a node holds."""
    [collection] = node.json("status")["collections"]
    return str(collection["root"])


def settle(*laptops: Laptop) -> None:
    """Wait until all are in sync, as a person would, and check that it is true."""
    for one in laptops:
        one.node.out("wait", "synced", "--timeout", "60s")
    roots = {root(one.node) for one in laptops}
    assert len(roots) == 1


def test_three_laptops_find_each_other_and_heal(tmp_path: Path) -> None:
    """It is what the whole is for: no server, no address, a cable that is pulled, and nothing is lost."""
    with three_laptops(tmp_path) as (anna, boris, clara):
        with boris.node.streaming("watch", "notes", "--since", "0", "--json") as watch:
            anna.node.out("put", "notes", "n1", '{"title":"hello"}')
            assert watch.stdout is not None
            change = json.loads(watch.stdout.readline())
            assert (change["id"], change["doc"], change["author"]) == ("n1", {"title": "hello"}, anna.node.id)
        wait_until(lambda: links(clara.node) == {frozenset(pair) for pair in combinations(NAMES, 2)})
        settle(clara, boris, anna)

        clara.port.unplug()
        anna.node.out("put", "notes", "of-anna", "{}")
        boris.node.out("patch", "notes", "n1", '{"seen_by":"boris"}')
        clara.node.out("patch", "notes", "n1", '{"done":true}')
        assert clara.node.run("wait", "synced", "--timeout", "1s").returncode == 1
        boris.node.out("wait", "synced", "--peer", anna.node.id, "--timeout", "60s")
        assert root(anna.node) == root(boris.node) != root(clara.node)

        clara.port.plug()
        settle(clara, boris, anna)
        for one in (anna, boris, clara):
            merged = {"title": "hello", "seen_by": "boris", "done": True}
            assert json.loads(one.node.out("get", "notes", "n1")) == merged
            assert one.node.out("ls", "notes", "--ids").split() == ["n1", "of-anna"]


def test_a_laptop_that_was_started_without_a_network_is_found_later(tmp_path: Path) -> None:
    """A node is often up before its network is; it must not have to be started again."""
    with three_laptops(tmp_path, unplugged="clara") as (anna, boris, clara):
        clara.node.out("put", "notes", "n1", "{}")
        wait_until(lambda: connected(anna.node) == {"boris"})
        assert clara.node.json("peers")["peers"] == []
        clara.port.plug()
        wait_until(lambda: connected(clara.node) == {"anna", "boris"})
        settle(clara, boris, anna)
        assert anna.node.out("ls", "notes", "--ids").split() == ["n1"]


@pytest.mark.slow
def test_a_laptop_that_everyone_has_given_up_comes_back(tmp_path: Path) -> None:
    """After half a minute there is no connection left that could go on: it has to be found, and dialled, anew."""
    with three_laptops(tmp_path) as (anna, boris, clara):
        wait_until(lambda: connected(clara.node) == {"anna", "boris"})
        clara.port.unplug()
        for one in (anna, boris, clara):
            one.node.out("put", "notes", f"of-{one.node.ready['id'][:8]}", "{}")
        wait_until(lambda: connected(clara.node) == set())
        wait_until(lambda: connected(anna.node) == {"boris"})
        clara.port.plug()
        wait_until(lambda: connected(clara.node) == {"anna", "boris"})
        settle(clara, boris, anna)
        assert len(clara.node.out("ls", "notes", "--ids").split()) == 3
