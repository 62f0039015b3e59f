from __future__ import annotations

from pathlib import Path

import pytest

from meshsync.errors import ConfigError, LocalError
from meshsync.lab.drivers.base import read_lab
from meshsync.lab.expectations import FORMS, Converged, Latency, read_expectation
from meshsync.lab.impairments import PERFECT, PROFILES
from meshsync.lab.prepare import configuration, prepare
from meshsync.lab.scenario import Cut, Heal, Impair, Wait, Write
from tests.lab.labs import SCENARIO, write_files

FULL = """
settle: 5s
defaults: {collections: [notes, {name: alarms, priority: high}], trust: mesh-key, discovery: {mdns: false}}
nodes:
  b: {peers: [a], collections: [alarms]}
links:
  b-a: {forward: satcom-low}
steps:
  - {at: 9s, heal: all}
  - {at: 500ms, write: {node: a, count: 10, rate: 5}}
  - {at: 2s, cut: [a-b]}
  - {at: 10s, impair: {all: jtrs}}
  - {at: 11s, wait: 5m}
expect: [converged within 60s, "latency p99 < 1.5s"]
"""


def test_a_scenario_is_read(tmp_path: Path) -> None:
    """Steps in the order of their times; links turned where they are named from the other end."""
    scenario = read_lab(write_files(tmp_path / "pair", scenario=FULL)).scenario
    assert scenario.settle_seconds == 5
    assert scenario.links["a-b"].backward == PROFILES["satcom-low"].forward
    assert scenario.links["a-b"].forward == PERFECT
    assert [(step.at_seconds, step.action) for step in scenario.steps] == [
        (0.5, Write("a", "notes", 10, 5.0, 150)),
        (2.0, Cut(("a-b",))),
        (9.0, Heal(("a-b",))),
        (10.0, Impair({"a-b": PROFILES["jtrs"]})),
        (11.0, Wait(300.0)),
    ]
    assert scenario.expect == (Converged(60.0), Latency(99.0, 1.5))
    assert scenario.collections == ("notes", "alarms")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("peers: [a]", "peers: [c]"), "'c' is no node of the topology; expected one of a, b"),
        (("peers: [a]", "peers: [b]"), "is the node itself"),
        (("b-a:", "a-c:"), "'a-c' is no link of the topology; expected all, or one of a-b"),
        (("satcom-low", "satcom"), "'satcom' is no profile"),
        (("cut: [a-b]", "cut: [a-b], heal: all"), "2 actions"),
        (("cut: [a-b]", "slice: [a-b]"), "unknown action; expected one of cut"),
        (("cut: [a-b]", "cut: []"), "names no link"),
        (("node: a, count: 10", "node: c, count: 10"), "'c' runs no node of meshsync"),
        (("count: 10", "count: 0"), "more than 0"),
        (("node: a, count: 10", "node: b, collection: notes, count: 10"), "b does not replicate 'notes'"),
        (("at: 2s", "at: later"), "no duration"),
        (("converged within 60s", "all is well"), "'all is well' is no expectation; expected one like"),
        (("settle: 5s", "setle: 5s"), "unknown key"),
        (("trust: mesh-key", "name: x"), "unknown key; expected one of collections"),
        (("nodes:\n  b:", "bystanders: [b]\nnodes:\n  b:"), "is a bystander, too"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    """Otherwise a scenario passes because it does not say what was meant."""
    folder = write_files(tmp_path / "pair", scenario=FULL.replace(*change))
    with pytest.raises(ConfigError, match=rf"scenario\.yml:\d+: .*{message}"):
        read_lab(folder)


def test_a_scenario_without_expectations_is_refused(tmp_path: Path) -> None:
    """Otherwise PASS says nothing."""
    with pytest.raises(ConfigError, match="expect: is empty"):
        read_lab(write_files(tmp_path / "pair", scenario="defaults: {collections: [notes]}\n"))


@pytest.mark.parametrize("sentence", FORMS)
def test_the_forms_of_expectations_that_errors_show_are_understood(sentence: str) -> None:
    """Otherwise the advice in an error leads to the next error."""
    read_expectation(sentence)


@pytest.mark.parametrize("sentence", ["latency p0 < 1s", "latency p101 < 1s", "delivered >= 101%", "converged in 5s"])
def test_other_sentences_are_refused(sentence: str) -> None:
    """Otherwise an expectation is read and never judged."""
    with pytest.raises(LocalError):
        read_expectation(sentence)


def test_keys_are_made_once_and_each_node_has_its_own(tmp_path: Path) -> None:
    """A key that two nodes share, or that anyone could work out, is none."""
    lab = read_lab(write_files(tmp_path / "pair", scenario=FULL))
    first, again = prepare(lab), prepare(lab)
    assert first["a"].identity.endpoint_id == again["a"].identity.endpoint_id
    assert first["a"].identity.endpoint_id != first["b"].identity.endpoint_id
    other = prepare(read_lab(write_files(tmp_path / "other", scenario=FULL)))
    assert other["a"].identity.endpoint_id != first["a"].identity.endpoint_id
    assert (first["a"].directory / "mesh.key").stat().st_mode & 0o777 == 0o600


def test_a_node_dials_its_peers_at_the_addresses_of_the_topology(tmp_path: Path) -> None:
    """Otherwise nobody ever connects."""
    lab = read_lab(write_files(tmp_path / "pair", scenario=SCENARIO))
    nodes = prepare(lab)
    ids = {name: node.identity for name, node in nodes.items()}
    assert configuration(lab, "a", ids)["peers"] == [
        {"id": ids["b"].endpoint_id.hex(), "name": "b", "addresses": ["10.0.0.2:4433"]}
    ]
    assert "peers" not in configuration(lab, "b", ids)
