"""The labs that ship, in network namespaces: real processes of the installed command, real links."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from meshsync.lab.command import read_lab
from meshsync.lab.drivers.namespaces import NamespaceLab
from tests.lab.labs import TOPOLOGIES, needs_namespaces, write_files

pytestmark = needs_namespaces

_MESHSYNC = (sys.executable, "-P", "-m", "meshsync")
_SECONDS_MAX = 180
SHIPPED = ("pair", "tree", "lan-mdns", "island-hop", "split-heal", "nat")


def lab(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `meshsync lab …`."""
    command = [*_MESHSYNC, "lab", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False)


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
    assert "FAIL  no acknowledged entry lost: 3 are lacking; b lacks" in done.stdout


def test_a_lab_stays_up_between_commands(pair: Path) -> None:
    """`up`, look into it, kill nothing by mistake, `down`: nothing is left."""
    assert lab("up", pair).returncode == 0
    assert "up already" in lab("up", pair).stderr
    put = lab("exec", pair, "a", "--", "put", "notes", "n1", '{"x": 1}')
    assert put.returncode == 0, put.stderr
    assert lab("exec", pair, "b", "--", "wait", "synced", "--timeout", "20s").returncode == 0
    assert lab("exec", pair, "b", "--", "get", "notes", "n1").stdout.strip() == '{"x":1}'
    assert "10.0.0.2" in lab("exec", pair, "b", "--", "ip", "address").stdout
    rows = lines(lab("status", pair, "--json"))[0]["nodes"]
    assert [(row["name"], row["synced"], row["connected"]) for row in rows] == [("a", True, ["b"]), ("b", True, ["a"])]
    assert lab("exec", pair, "c", "--", "status").returncode == 2
    assert lab("down", pair).returncode == 0
    assert not (pair / ".lab").exists()
    assert lab("status", pair).returncode == 3


def test_a_command_that_the_topology_gives_and_that_fails_is_named(tmp_path: Path) -> None:
    """Containerlab says nothing of it; a lab that came up without its addresses explains nothing."""
    folder = write_files(tmp_path / "pair")
    path = folder / "pair.clab.yml"
    path.write_text(path.read_text().replace("10.0.0.2/30 dev eth1", "10.0.0.2/30 dev eth7"))
    done = lab("run", folder)
    assert done.returncode != 0
    assert "node b, exec: `ip netns exec" in done.stderr
    assert "eth7" in done.stderr
