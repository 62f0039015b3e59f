"""Labs in containers: what is deployed, which driver is taken, what is missing; and the real thing."""

from __future__ import annotations

import json
import os
import pty
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml

from meshsync.lab import containers
from meshsync.lab.drivers.base import LabError, read_lab
from meshsync.lab.drivers.cables import CABLES, Cables, cabled
from meshsync.lab.drivers.choose import chosen, found
from meshsync.lab.drivers.containers import ContainedProcess, ContainerLab
from meshsync.lab.drivers.lifecycle import BuiltDriver
from meshsync.lab.drivers.namespaces import NamespaceLab
from meshsync.lab.topology import read_topology
from tests.lab.engines import built_image, docker, needs_containerlab
from tests.lab.labs import PAIR, SCENARIO, TOPOLOGIES, wait_until, write_files
from tests.lab.test_topology import SCHEMA, SHIPPED

_SECONDS_MAX = 300


def derived(folder: Path) -> dict[str, Any]:
    lab = read_lab(folder)
    return containers.derive(lab, ContainerLab(lab).cables)


def test_an_impaired_link_runs_through_the_cables(tmp_path: Path) -> None:
    """Otherwise a scenario's impairments do nothing, and it passes."""
    text = PAIR.replace('"b:eth1"]', '"b:eth1"]\n      mtu: 1500').replace(
        "linux: {", "linux: {image: meshsync:latest, "
    )
    folder = write_files(tmp_path / "pair", text, SCENARIO + "links: {a-b: jtrs}\n")
    topology = derived(folder)["topology"]
    assert topology["links"] == [
        {"endpoints": ["a:eth1", "cables:l0a"], "mtu": 1500},
        {"endpoints": ["b:eth1", "cables:l0b"], "mtu": 1500},
    ]
    assert topology["nodes"]["cables"]["binds"] == [f"{folder}/.lab/cables:/run/cables"]
    assert topology["nodes"]["cables"]["image"] == "meshsync:latest"


def test_a_link_that_nothing_is_done_to_is_left_as_it_is(tmp_path: Path) -> None:
    """A cable in user space costs what a scenario may be about to measure."""
    topology = derived(write_files(tmp_path / "pair"))["topology"]
    assert [link["endpoints"] for link in topology["links"]] == [["a:eth1", "b:eth1"]]
    assert set(topology["nodes"]) == {"a", "b"}


def test_binds_mean_the_same_from_another_folder(tmp_path: Path) -> None:
    """Containerlab takes a relative source from the file's folder, and the derived file is in another one."""
    text = PAIR.replace("b: {kind: linux", 'b: {kind: linux, binds: [".lab/b:/var/lib/meshsync", "/x:/y:ro"]')
    folder = write_files(tmp_path / "pair", text)
    assert derived(folder)["topology"]["nodes"]["b"]["binds"] == [f"{folder}/.lab/b:/var/lib/meshsync", "/x:/y:ro"]


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_what_is_derived_from_the_topologies_that_ship_is_right(tmp_path: Path, folder: Path) -> None:
    """Otherwise they deploy as they are, and not when a scenario is run."""
    lab = read_lab(folder)
    content = derived(folder)
    path = tmp_path / f"{lab.name}.clab.yml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    topology = read_topology(path)
    assert len(topology.links) == len(lab.topology.links) + len(cabled(lab))
    assert {name for name, node in topology.nodes.items() if "meshsync node --config" in node.cmd} == set(
        lab.scenario.nodes
    )
    if SCHEMA.is_file():
        import jsonschema

        schema = json.loads(SCHEMA.read_text(encoding="utf-8").replace(r"[\\p{N}\\p{L}]", r"\\w"))
        jsonschema.validate(content, schema)


_HOLDER = """
import pathlib, sys
from meshsync.datadir import DataDir
with DataDir(pathlib.Path(sys.argv[1])).lock():
    print("locked", flush=True)
    sys.stdin.read()
"""


# Which driver, and what is missing


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH; it is empty."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def install(path: Path, name: str, script: str = "exit 0") -> None:
    (path / name).write_text(f"#!/bin/sh\n{script}\n")
    (path / name).chmod(0o755)


def test_auto_takes_containerlab_where_it_is_installed(path: Path) -> None:
    """Who has installed it means it; who has not needs nothing but the kernel."""
    lab = read_lab(TOPOLOGIES / "pair")
    assert isinstance(chosen("auto")(lab), NamespaceLab)
    install(path, "containerlab")
    assert isinstance(chosen("auto")(lab), ContainerLab)
    assert isinstance(chosen("namespaces")(lab), NamespaceLab)


def test_cables_are_of_the_kind_that_was_asked_for(tmp_path: Path) -> None:
    """Otherwise who doubts one kind compares it with itself."""
    lab = read_lab(write_files(tmp_path / "pair", scenario=SCENARIO + "links: {all: jtrs}\n"))
    built = chosen("containerlab", "user-space")(lab)
    cables = containers.derive(lab, built.cables)["topology"]["nodes"]["cables"]
    assert "meshsync lab cable --with user-space --control" in cables["cmd"]


def test_a_lab_that_is_not_up_is_not_up_without_an_engine(tmp_path: Path, path: Path) -> None:
    """`lab status` and `lab down` ask every driver, also where containers cannot be."""
    assert not list(path.iterdir())
    assert not found(read_lab(write_files(tmp_path / "pair"))).is_up


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        ({}, "containerlab is not installed.*--driver namespaces"),
        ({"containerlab": "exit 0"}, "needs Docker"),
        ({"containerlab": "exit 0", "docker": "exit 1"}, "Docker does not answer; start it"),
        ({"containerlab": "exit 0", "docker": "[ $1 = version ]"}, "no image meshsync:latest; make it: scripts/image"),
    ],
)
def test_what_is_missing_is_named_with_what_helps(
    path: Path, monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], message: str
) -> None:
    """The first thing that a newcomer sees of containers."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name, script in installed.items():
        install(path, name, script)
    with pytest.raises(LabError, match=message):
        containers.require(["meshsync:latest"])


def test_a_user_without_rights_is_told_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a lab comes up whose nodes cannot be asked."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    install(path, "containerlab")
    install(path, "docker")
    with pytest.raises(LabError, match="need root: sudo"):
        containers.require([])


@pytest.mark.parametrize("driver", ["namespaces", "containerlab"])
def test_a_node_may_not_be_called_as_the_cables_are(tmp_path: Path, path: Path, driver: str) -> None:
    """Otherwise one of the two silently takes the other's place."""
    install(path, "docker")
    text = PAIR.replace("    b: {", "    cables: {").replace('"b:eth1"', '"cables:eth1"')
    folder = write_files(tmp_path / "pair", text, SCENARIO.replace("[b]", "[cables]") + "links: {all: jtrs}\n")
    built = chosen(driver)(read_lab(folder))
    built.state.mkdir()
    with pytest.raises(LabError, match="a node is called cables"):
        built.build()
    assert not built.is_up


def test_a_command_that_failed_fails_the_deployment(tmp_path: Path, path: Path) -> None:
    """Containerlab only logs it: a node would be without its address, and the scenario would say who knows what."""
    install(path, "docker")
    install(path, "containerlab", 'echo "12:00:00 ERRO Failed to execute command command=\\"ip x\\" node=a rc=2" >&2')
    built = ContainerLab(read_lab(write_files(tmp_path / "pair")))
    for process in built.processes:
        (built.state / process).mkdir(parents=True)
    with pytest.raises(LabError, match=r'exec: "ip x" node=a rc=2'):
        built.build()


def test_cables_that_end_are_told_of_at_once_with_their_last_words(tmp_path: Path, path: Path) -> None:
    """Who asks for netem where there is none would wait in vain, and then have to look for the reason in a file."""
    install(path, "docker", '[ "$1" != inspect ] || echo false')
    install(path, "containerlab")
    built = ContainerLab(read_lab(write_files(tmp_path / "pair", scenario=SCENARIO + "links: {all: jtrs}\n")))
    for directory in (*built.processes, CABLES):
        (built.state / directory).mkdir(parents=True)
    built.cables.log.write_text("meshsync: no netem here\n")
    with pytest.raises(LabError, match="the cables do not start; their last words: `meshsync: no netem here`, in /"):
        built.build()


def test_links_are_unplugged_from_a_terminal_too(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker refuses a terminal to a command whose input is none, and what a lab does to its links has no input."""
    install(path, "docker", 'case "$*" in *--tty*) [ -t 0 ] || exit 1;; esac')
    built = ContainerLab(read_lab(write_files(tmp_path / "pair", scenario=SCENARIO + "links: {a-b: jtrs}\n")))
    ours, theirs = pty.openpty()
    with os.fdopen(ours), os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr(sys, "stdout", terminal)
        assert "--tty" in built.inside("a", "sh"), "who opens a shell on a node wants a terminal there"
        for link in built.cables.links:
            built.cables.plug(link, plugged=False)


def test_only_what_was_unplugged_is_plugged(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a command in a container: `heal: all` of a lab with fifty links would take half a minute."""
    said = tmp_path / "said"
    install(path, "docker", f'echo "$*" >>{said}')
    built = ContainerLab(read_lab(write_files(tmp_path / "pair", scenario=SCENARIO + "links: {a-b: jtrs}\n")))
    monkeypatch.setattr(Cables, "impair", lambda *_: None)

    async def main() -> None:
        driver = BuiltDriver(built, {})
        await driver.heal("a-b")
        await driver.cut("a-b")
        await driver.heal("a-b")
        assert not said.exists()
        await driver.unplug("a-b")
        await driver.heal("a-b")
        await driver.heal("a-b")

    trio.run(main)
    down, up = said.read_text().splitlines()
    assert down.endswith("sh -c ip link set l0a down && ip link set l0b down")
    assert up.endswith("sh -c ip link set l0a up && ip link set l0b up")


def test_a_process_that_holds_its_directory_has_not_ended(tmp_path: Path, path: Path) -> None:
    """`kill` has to be over when it returns: what the scenario does next relies on it."""
    install(path, "docker")
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _HOLDER,
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"locked\n"
        process = ContainedProcess("nobody", tmp_path)
        assert not process._has_ended()
        child.kill()
        child.wait()
        process.kill()
        assert process._has_ended()
        assert not process.is_running
        process.start({})
        assert process.is_running


# The real thing


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    yield from built_image(f"meshsync:test-{os.getpid()}")


@pytest.fixture
def labs() -> Iterator[Path]:
    """Where labs are; a short path, because those of sockets have to be."""
    with tempfile.TemporaryDirectory(prefix="l") as directory:
        yield Path(directory)


def lab_of(labs: Path, shipped: str, image: str) -> Path:
    """A topology that ships, under a name of its own and with the image of this checkout."""
    name = f"t{secrets.token_hex(3)}"
    text = (TOPOLOGIES / shipped / f"{shipped}.clab.yml").read_text(encoding="utf-8")
    text = text.replace(f"name: {shipped}", f"name: {name}").replace("meshsync:latest", image)
    return write_files(labs / name, text, (TOPOLOGIES / shipped / "scenario.yml").read_text(encoding="utf-8"))


def meshsync(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "meshsync", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS_MAX,
    )


def is_gone(lab: Path) -> bool:
    return not docker("ps", "--all", "--quiet", "--filter", f"label=containerlab={lab.name}")


@needs_containerlab
@pytest.mark.parametrize("shipped", ["pair", "lan-mdns", "split-heal", "nat"])
def test_a_scenario_runs_in_containers(labs: Path, image: str, shipped: str) -> None:
    """The same files, with the tool that their format is from."""
    lab = lab_of(labs, shipped, image)
    done = meshsync("lab", "run", "--driver", "containerlab", "--json", lab)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    holds = {line["expect"]: line["holds"] for line in lines if "expect" in line}
    # How late entries are depends on the machine and on what else it does.
    assert all(held for sentence, held in holds.items() if "latency" not in sentence), holds
    assert is_gone(lab)


@needs_containerlab
def test_a_killed_node_keeps_its_links(labs: Path, image: str) -> None:
    """With process 1 the links of a container end, and the neighbours' ends of them, too."""
    lab = lab_of(labs, "pair", image)
    scenario = yaml.safe_load((lab / "scenario.yml").read_text())
    scenario["steps"] = [
        {"at": "0s", "kill": ["b"]},
        {"at": "0s", "write": {"node": "a", "count": 20}},
        {"at": "2s", "restart": ["b"]},
        {"at": "3s", "clock": {"node": "a", "offset": "60s"}},
        {"at": "4s", "write": {"node": "b", "count": 20}},
    ]
    scenario["expect"] = ["converged within 60s", "no acknowledged entry lost"]
    (lab / "scenario.yml").write_text(yaml.safe_dump(scenario))
    done = meshsync("lab", "run", "--driver", "containerlab", lab)
    assert done.returncode == 0, done.stdout + done.stderr
    assert is_gone(lab)


@needs_containerlab
def test_a_topology_deploys_without_us_and_is_found_by_us(labs: Path, image: str) -> None:
    """People deploy labs with containerlab itself; `meshsync lab` then looks into them and takes them down."""
    lab = lab_of(labs, "pair", image)
    topology = lab / f"{lab.name}.clab.yml"
    assert meshsync("lab", "prepare", lab).returncode == 0
    containerlab = shutil.which("containerlab")
    assert containerlab is not None
    deploy = [containerlab, "deploy", "--topo", str(topology)]
    # Nor does it then look for a newer one of its own, for some seconds, in which the nodes would begin.
    environ = {**os.environ, "CLAB_VERSION_CHECK": "disable"}
    subprocess.run(deploy, check=True, capture_output=True, timeout=_SECONDS_MAX, env=environ)
    try:
        # `deploy` ends before the nodes have begun.
        wait_until(lambda: "1 connected: b" in meshsync("lab", "status", lab).stdout)
        docker("exec", f"clab-{lab.name}-a", "meshsync", "put", "notes", "n1", "{}")
        docker("exec", f"clab-{lab.name}-a", "meshsync", "wait", "synced", "--timeout", "60s")
        assert meshsync("lab", "exec", lab, "b", "--", "get", "notes", "n1").stdout.strip() == "{}"
    finally:
        done = meshsync("lab", "down", lab)
    assert (done.returncode, is_gone(lab)) == (0, True), done.stderr
