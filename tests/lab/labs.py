"""Labs written by tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from meshsync.lab import namespaces

TOPOLOGIES = Path(__file__).parents[2] / "topologies"

needs_namespaces = pytest.mark.skipif(
    not (Path("/proc/self/ns/net").exists() and namespaces.is_privileged()),
    reason="network namespaces need Linux and root",
)

_WAIT_SECONDS_MAX = 30

PAIR = """
name: pair
topology:
  kinds:
    linux: {network-mode: none}
  nodes:
    a: {kind: linux, exec: [ip address add 10.0.0.1/30 dev eth1]}
    b: {kind: linux, exec: [ip address add 10.0.0.2/30 dev eth1]}
  links:
    - endpoints: ["a:eth1", "b:eth1"]
"""
SCENARIO = """
defaults: {collections: [notes], trust: open, discovery: {mdns: false}}
nodes:
  a: {peers: [b]}
expect: [converged within 60s]
"""


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until something is so that another process brings about."""
    end = time.monotonic() + _WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


def write_files(folder: Path, topology: str = PAIR, scenario: str = SCENARIO) -> Path:
    """A lab in a folder of its own."""
    folder.mkdir(exist_ok=True)
    (folder / f"{folder.name}.clab.yml").write_text(dedent(topology), encoding="utf-8")
    (folder / "scenario.yml").write_text(dedent(scenario), encoding="utf-8")
    return folder
