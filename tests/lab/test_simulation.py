from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from meshsync.lab.generate import write_lab
from meshsync.lab.impairments import PROFILES
from meshsync.lab.shapes import make_shape
from tests.lab.labs import TOPOLOGIES, write_files

_SECONDS_MAX = 240


def simulate(folder: Path, seed: int = 1) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, lines and standard error of `meshsync lab run --sim`, in a process: the order of tasks is global."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "meshsync",
        "lab",
        "run",
        "--sim",
        "--seed",
        str(seed),
        str(folder),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize("name", ["pair", "island-hop", "lan-mdns", "tree"])
def test_a_lab_that_ships_passes(name: str) -> None:
    """The same files, the same verdict, without root and without waiting."""
    code, found, errors = simulate(TOPOLOGIES / name)
    assert code == 0, (found, errors)
    assert found[-1]["pass"] is True


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_generated_passes_on_every_kind_of_link(tmp_path: Path, profile: str) -> None:
    """Otherwise the first lab that somebody makes fails, and nothing is wrong with it."""
    write_lab(tmp_path / "pair", "pair", make_shape("pair", 2), profile)
    code, found, errors = simulate(tmp_path / "pair", seed=3)
    assert code == 0, (found, errors)


def test_a_seed_repeats_a_run_and_another_one_does_not(tmp_path: Path) -> None:
    """Otherwise a failure that was seen once is never seen again."""
    scenario = """
    defaults: {collections: [notes], trust: open, discovery: {mdns: false}}
    nodes: {a: {peers: [b]}}
    links: {a-b: {profile: degraded, jitter: 50ms}}
    steps:
      - {at: 0s, write: {node: a, count: 50, rate: 10}}
      - {at: 2s, write: {node: b, count: 50, rate: 10}}
      - {at: 3s, kill: [b]}
      - {at: 5s, restart: [b]}
    expect: [converged within 120s, no acknowledged entry lost, only one connection per pair]
    """
    folder = write_files(tmp_path / "pair", scenario=scenario)
    code, first, errors = simulate(folder, seed=3)
    assert code == 0, (first, errors)
    assert simulate(folder, seed=3)[1] == first
    assert simulate(folder, seed=4)[1] != first
    assert first[-1]["figures"]["writes_refused"] > 0, "what a dead node was to write was not written"


def test_a_failure_says_how_to_see_it_again(tmp_path: Path) -> None:
    """A seed that is not told is lost."""
    scenario = """
    settle: 1s
    defaults: {collections: [notes], trust: open, discovery: {mdns: false}}
    nodes: {a: {peers: [b]}}
    links: {a-b: one-way}
    steps: [{at: 0s, write: {node: a, count: 1}}]
    expect: [converged within 10s]
    """
    folder = write_files(tmp_path / "pair", scenario=scenario)
    code, found, errors = simulate(folder, seed=9)
    assert code == 1
    assert found[-1]["pass"] is False
    assert f"meshsync lab run --sim --seed 9 {folder}" in errors


def test_hours_pass_in_seconds(tmp_path: Path) -> None:
    """A clock that is wrong, an hour apart, and slow radios: nobody waits for that."""
    scenario = """
    defaults: {collections: [notes], trust: open, discovery: {mdns: false}}
    nodes: {a: {peers: [b]}}
    links: {a-b: jtrs}
    steps:
      - {at: 0s, write: {node: a, count: 20, rate: 1}}
      - {at: 60s, clock: {node: b, offset: -2h}}
      - {at: 5m, cut: [a-b]}
      - {at: 10m, write: {node: b, count: 20}}
      - {at: 1h, heal: [a-b]}
    expect: [converged within 180s, no acknowledged entry lost, never synced while roots differ]
    """
    code, found, errors = simulate(write_files(tmp_path / "pair", scenario=scenario))
    assert code == 0, (found, errors)


def test_steps_after_a_wait_are_later_by_what_it_took(tmp_path: Path) -> None:
    """What happens once all are in sync cannot be said by the clock: how long that takes is what is to be found out."""
    scenario = """
    defaults: {collections: [notes], trust: open, discovery: {mdns: false}}
    nodes: {a: {peers: [b]}}
    links: {a-b: {delay: 1s}}
    steps:
      - {at: 0s, write: {node: a, count: 11, rate: 1}}
      - {at: 1s, wait: 60s}
      - {at: 2s, cut: [a-b]}
      - {at: 2s, write: {node: b, count: 1}}
      - {at: 2s, wait: 10s}
      - {at: 3s, heal: [a-b]}
    expect: [converged within 60s, no acknowledged entry lost]
    """
    code, found, errors = simulate(write_files(tmp_path / "pair", scenario=scenario))
    assert code == 0, (found, errors)
    times = {line["text"]: line["at_s"] for line in found if line.get("event") == "progress"}
    assert 11 < times["all nodes are in sync"] < 15, "ten seconds of writing, and a second on the way"
    assert times["cut a-b"] == pytest.approx(times["all nodes are in sync"] + 1)
    assert times["heal a-b"] == pytest.approx(times["cut a-b"] + 11), "it was not so in the time that was given"


def test_routers_are_not_simulated() -> None:
    """Otherwise a lab fails, and nobody knows why."""
    code, _, errors = simulate(TOPOLOGIES / "nat")
    assert code != 0
    assert "is a router" in errors
    assert "without --sim" in errors
