"""The labs that ship, in network namespaces: real processes of the installed command, real links."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from meshsync.lab.drivers.base import read_lab
from meshsync.lab.drivers.namespaces import NamespaceLab
from meshsync.lab.ownership import alone
from meshsync.lab.processes import started_at
from tests.lab.labs import PAIR, SCENARIO, TOPOLOGIES, needs_namespaces, wait_until, write_files

pytestmark = needs_namespaces

_MESHSYNC = (sys.executable, "-P", "-m", "meshsync")
_SECONDS_MAX = 180
_ENVIRON = {**os.environ, "MESHSYNC_LAB_DRIVER": "namespaces"}
SHIPPED = ("pair", "tree", "lan-mdns", "island-hop", "split-heal", "nat")


def lab(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `meshsync lab …`."""
    command = [*_MESHSYNC, "lab", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False, env=_ENVIRON)


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Path]:
    """The folder of a small lab, taken down in the end."""
    folder = write_files(tmp_path / "pair")
    yield folder
    lab("down", folder)


def run_shipped(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    shutil.copytree(TOPOLOGIES / name, folder, ignore=shutil.ignore_patterns(".lab"))
    return lab("run", folder, "--json")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """The labs that ship, two at a time: most of the time they wait."""
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(run_shipped, name, tmp_path_factory.mktemp("labs") / name) for name in SHIPPED}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_lab_that_ships_passes(name: str, shipped: dict[str, Future[subprocess.CompletedProcess[str]]]) -> None:
    """They are the first that a newcomer runs, and what they promise is what the mesh is for."""
    if name == "nat" and shutil.which("nft") is None:
        pytest.skip("the lab nat needs nftables")
    done = shipped[name].result()
    assert done.returncode == 0, done.stdout + done.stderr
    found = lines(done)
    assert all(line["holds"] for line in found if "expect" in line)
    assert found[-1]["pass"] is True
    assert found[-1]["figures"]["writes"] > 0
    assert not NamespaceLab(read_lab(Path(found[-1]["folder"]))).is_up, "it is taken down"


def test_a_lab_that_fails_says_so(tmp_path: Path) -> None:
    """Otherwise PASS means nothing."""
    scenario = """
    settle: 3s
    defaults: {collections: [notes], trust: open, discovery: {mdns: false}}
    nodes: {a: {peers: [b]}}
    links: {a-b: {down: true}}
    steps: [{at: 0s, write: {node: a, count: 3}}]
    expect: [converged within 2s, no acknowledged entry lost]
    """
    done = lab("run", write_files(tmp_path / "pair", scenario=scenario))
    assert done.returncode == 1
    assert "FAIL  converged within 2s: not in that time" in done.stdout
    assert "links impaired by: " in done.stdout
    assert "FAIL  no acknowledged entry lost: 3 are lacking; b lacks" in done.stdout


def test_a_lab_stays_up_between_commands(pair: Path) -> None:
    """`up`, look into it, kill nothing by mistake, `down`: nothing is left."""
    named = PAIR.replace("b: {kind: linux,", "b: {kind: linux, env: {FLEET: blue},")
    write_files(pair, named, SCENARIO + "links: {a-b: nominal}\n")
    [up] = lines(lab("up", "--cable", "user-space", pair, "--json"))
    assert up == {"v": 1, "name": "pair", "driver": "namespaces", "cables": "user-space", "nodes": ["a", "b"]}
    assert "up already" in lab("up", pair).stderr
    put = lab("exec", pair, "a", "--", "put", "notes", "n1", '{"x": 1}')
    assert put.returncode == 0, put.stderr
    assert lab("exec", pair, "b", "--", "wait", "synced", "--timeout", "20s").returncode == 0
    assert lab("exec", pair, "b", "--", "get", "notes", "n1").stdout.strip() == '{"x":1}'
    pid = (pair / ".lab/b/node.pid").read_text().split()[0]
    assert b"FLEET=blue" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert "10.0.0.2" in lab("exec", pair, "b", "--", "ip", "address").stdout
    status = lines(lab("status", pair, "--json"))[0]
    assert status["cables"] == "user-space"
    rows = status["nodes"]
    assert [(row["name"], row["synced"], row["connected"]) for row in rows] == [("a", True, ["b"]), ("b", True, ["a"])]
    assert lab("exec", pair, "c", "--", "status").returncode == 2
    assert lines(lab("down", pair, "--json")) == [{"v": 1, "name": "pair", "was": "up"}]
    assert not (pair / ".lab").exists()
    assert lab("status", pair).returncode == 3


def test_a_command_that_the_topology_gives_and_that_fails_is_named(tmp_path: Path) -> None:
    """Containerlab says nothing of it; a lab that came up without its addresses explains nothing."""
    folder = write_files(tmp_path / "pair")
    path = folder / "pair.clab.yml"
    path.write_text(path.read_text().replace("10.0.0.2/30 dev eth1", "10.0.0.2/30 dev eth7"))
    done = lab("run", folder)
    assert done.returncode == 4
    assert "node b, exec: `ip netns exec" in done.stderr
    assert "eth7" in done.stderr


# What becomes of a lab that is ended half-way

BUSY = """
settle: 20s
defaults: {collections: [notes], trust: open, discovery: {mdns: false}}
nodes: {a: {peers: [b]}}
links: {a-b: nominal}
steps: [{at: 0s, write: {node: a, count: COUNT, rate: 10}}]
expect: [converged within 3s]
"""


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """`meshsync lab …`, under way."""
    command = [*_MESHSYNC, "lab", *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_ENVIRON
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Read what a process prints until it prints this."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return
    raise AssertionError("".join(lines))


def busy(folder: Path, count: int = 600) -> NamespaceLab:
    """A lab whose run takes a minute, with 600 writes."""
    return NamespaceLab(read_lab(write_files(folder, scenario=BUSY.replace("COUNT", str(count)))))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_ended_takes_its_lab_down(tmp_path: Path, number: signal.Signals) -> None:
    """Otherwise every run that somebody stops leaves processes behind."""
    built = busy(tmp_path / "pair")
    with started("run", built.lab.folder) as process:
        read_until(process, "a writes 600 documents")
        process.send_signal(number)
        assert process.wait(_SECONDS_MAX) == 128 + number
    assert not built.is_up
    assert [one.pid for one in (*built.processes.values(), built.cable_process)] == [None] * 3


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_up_that_is_ended_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Half a lab is of use to nobody."""
    built = busy(tmp_path / "pair")
    with started("up", built.lab.folder) as process:
        wait_until(lambda: built.is_up)
        process.send_signal(number)
        assert process.wait(_SECONDS_MAX) == 128 + number
    assert not built.is_up
    assert [one.pid for one in (*built.processes.values(), built.cable_process)] == [None] * 3


@pytest.mark.parametrize("next_command", ["down", "run"])
def test_what_a_killed_run_left_is_removed_by_the_next_command(tmp_path: Path, next_command: str) -> None:
    """Nobody can tidy up after SIGKILL but who comes next."""
    built = busy(tmp_path / "pair")
    with started("run", built.lab.folder) as process:
        read_until(process, "a writes 600 documents")
        process.kill()
    pids = [pid for one in built.processes.values() if (pid := one.pid) is not None]
    assert len(pids) == 2
    write_files(built.lab.folder)
    done = lab(next_command, built.lab.folder)
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout + done.stderr
    assert "that was killed" in done.stdout + done.stderr
    assert not built.is_up
    assert not any(map(started_at, pids))


def test_a_node_that_ends_by_itself_is_a_failure(tmp_path: Path) -> None:
    """Otherwise a crash is a node that is late."""
    built = busy(tmp_path / "pair", count=50)
    with started("run", built.lab.folder, "--json") as process:
        read_until(process, "a writes 50 documents")
        built.processes["b"].signal(signal.SIGABRT)
        read_until(process, "b ended by itself")
        output, _ = process.communicate(timeout=_SECONDS_MAX)
        assert process.returncode == 1
    verdicts = [json.loads(line) for line in output.splitlines() if '"expect"' in line]
    assert [(one["expect"], one["holds"]) for one in verdicts][-1] == ("b runs until it is killed", False)
    assert "its last words" in verdicts[-1]["detail"]


def test_a_node_whose_configuration_is_refused_says_why(tmp_path: Path) -> None:
    """Otherwise the reason is in a log that nobody knows of."""
    scenario = "defaults: {collections: [notes], trust: maybe}\nexpect: [converged within 1s]\n"
    folder = write_files(tmp_path / "pair", scenario=scenario)
    for command in ("run", "up"):
        done = lab(command, folder)
        assert done.returncode == 4, done.stderr
        assert "meshsync: a ended instead of coming up; its last words: `" in done.stderr
        assert "maybe" in done.stderr
        assert not NamespaceLab(read_lab(folder)).is_up


def test_two_commands_do_not_build_one_lab(pair: Path) -> None:
    """The second would take the first one's namespaces away."""
    with alone(pair):
        for command in ("up", "down"):
            done = lab(command, pair)
            assert done.returncode == 4
            assert "another command brings this lab up or takes it down" in done.stderr


def test_a_folder_may_be_moved_while_its_lab_is_up(tmp_path: Path) -> None:
    """Otherwise nobody ever finds its processes again.  Its name may have dots, and its nodes' names, too."""
    topology = PAIR.replace("name: pair", "name: v1.2").replace("    a:", "    a.x:").replace("a:eth1", "a.x:eth1")
    scenario = "defaults: {collections: [notes], trust: open}\nexpect: [converged within 60s]\n"
    folder = write_files(tmp_path / "v1.2", topology=topology, scenario=scenario)
    copy = shutil.copytree(folder, tmp_path / "copy")
    try:
        assert lab("up", folder).returncode == 0
        moved = folder.rename(tmp_path / "elsewhere")
        assert lab("exec", moved, "a.x", "--", "status").returncode in {0, 1}
        assert lab("status", copy).returncode == 3, "a copy is another lab"
    finally:
        done = lab("down", tmp_path / "elsewhere")
    assert done.stdout == "v1.2 is down; it was up\n"
