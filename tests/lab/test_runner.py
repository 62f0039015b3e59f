from __future__ import annotations

import itertools
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.testing

from meshsync.lab.drivers.base import Lab, read_lab
from meshsync.lab.record import Record
from meshsync.lab.report import Report
from meshsync.lab.runner import Runner, pairs_over
from meshsync.lab.verdicts import Verdict, judge
from tests.lab.labs import TOPOLOGIES, write_files
from tests.lab.scripted import Faults, ScriptedDriver

EXPECT = (
    "converged within 20s",
    "no acknowledged entry lost",
    "latency p99 < 1s",
    "bytes per entry < 300",
    "delivered >= 99%",
    "only one connection per pair",
    "never synced while roots differ",
)
SOUND = Faults()
STEPS = "[{at: 0s, write: {node: a, count: 10, rate: 2}}]"


@dataclass
class Run:
    lab: Lab
    driver: ScriptedDriver
    record: Record
    verdicts: dict[str, Verdict]
    progress: list[str]

    @property
    def failed(self) -> dict[str, str]:
        """What did not hold, and why."""
        return {sentence: one.detail for sentence, one in self.verdicts.items() if not one.holds}


def run(
    folder: Path,
    faults: Faults = SOUND,
    steps: str = STEPS,
    expect: tuple[str, ...] = EXPECT,
    link: str = "nominal",
) -> Run:
    """Run a scenario on the pair, with nodes that are wrong in this way."""
    scenario = f"""
    settle: 5s
    defaults: {{collections: [notes], trust: open}}
    links: {{a-b: {link}}}
    steps: {steps}
    expect: {json.dumps(expect)}
    """
    return run_lab(read_lab(write_files(folder, scenario=scenario)), faults)


def run_lab(lab: Lab, faults: Faults) -> Run:
    progress: list[str] = []

    async def main() -> Run:
        async with trio.open_nursery() as nursery:
            driver = ScriptedDriver(lab, faults, nursery)
            runner = Runner(lab, driver, random.Random(1), lambda _at, text: progress.append(text))
            record = await runner.run()
            nursery.cancel_scope.cancel()
        return Run(lab, driver, record, {one.sentence: one for one in judge(lab.scenario, record)}, progress)

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_all_holds_where_nothing_is_wrong(tmp_path: Path) -> None:
    """Otherwise a FAIL of the others below proves nothing."""
    done = run(tmp_path)
    assert done.failed == {}
    assert [one.detail for one in done.verdicts.values()] == [
        "after 0.10 s",
        "10 acknowledged, all on 2 nodes",
        "100.0 ms, of 10 arrivals",
        "200 bytes",
        "100.00% of 10 writes",
        "never seen",
        "never seen",
    ]


@pytest.mark.parametrize(
    ("faults", "failed"),
    [
        pytest.param(
            Faults(two_connections=True),
            {"only one connection per pair": "a and b each hold a connection that it dialled itself"},
            id="two connections in a pair",
        ),
        pytest.param(
            Faults(loses=frozenset({"a-3"})),
            {
                "converged within 20s": "not in that time: roots differ",
                "no acknowledged entry lost": "1 are lacking; b lacks a-3, which a acknowledged",
                "latency p99 < 1s": "some never arrived, of 10 arrivals",
                "delivered >= 99%": "90.00% of 10 writes",
            },
            id="an acknowledged entry is lost",
        ),
        pytest.param(
            Faults(arrival_seconds=1.5),
            {"latency p99 < 1s": "1500.0 ms, of 10 arrivals"},
            id="latency above the bound",
        ),
        pytest.param(
            Faults(bytes_sent=2000),
            {"bytes per entry < 300": "400 bytes"},
            id="bytes above the bound",
        ),
        pytest.param(
            Faults(ends={"b": 2.2}),
            {
                "b runs until it is killed": "ended by itself at 2.2 s; its last words: `out of memory`",
            },
            id="a node ends by itself",
        ),
    ],
)
def test_what_is_violated_fails_and_is_named(tmp_path: Path, faults: Faults, failed: dict[str, str]) -> None:
    """Otherwise PASS means nothing, and FAIL does not say what to look for."""
    done = run(tmp_path, faults)
    assert done.failed.keys() == failed.keys()
    for sentence, detail in failed.items():
        assert detail in done.failed[sentence]


def test_a_node_that_says_synced_while_roots_differ_fails(tmp_path: Path) -> None:
    """The worst that a node can do: its owner walks away, and what was written is on one machine only."""
    steps, expect = "[{at: 0s, write: {node: a, count: 1}}]", EXPECT[-1:]
    done = run(tmp_path, Faults(lies=True, arrival_seconds=4.0), steps, expect)
    assert re.fullmatch(
        r"[ab] says that notes is synced with [ab]; their roots are [0-9a-f]{8} and [0-9a-f]{8}", done.failed[expect[0]]
    )
    assert run(tmp_path, Faults(arrival_seconds=4.0), steps, expect).failed == {}, "it did not say so"


def test_what_is_so_for_a_moment_is_no_violation(tmp_path: Path) -> None:
    """Statuses of several nodes are not of one instant: news that are on the way would be a fault of the nodes."""
    assert run(tmp_path, Faults(lies=True, arrival_seconds=0.9)).failed == {}


@pytest.mark.parametrize("link", ["contested-heavy", "contested-light", "flap", "{profile: degraded, burst: 4}"])
def test_news_that_the_link_keeps_away_are_no_violation(tmp_path: Path, link: str) -> None:
    """A node would be blamed for what nobody could tell it: what is lost ten times in a row comes ten round trips late.

    On a link that loses nothing the same is a lie.
    """
    steps, expect, faults = "[{at: 0s, write: {node: a, count: 1}}]", EXPECT[-1:], Faults(lies=True, arrival_seconds=10)
    assert run(tmp_path / "bad", faults, steps, expect, link).failed == {}
    assert run(tmp_path / "good", faults, steps, expect).failed.keys() == {*expect}


def test_a_lie_on_a_bad_link_is_found_in_the_end(tmp_path: Path) -> None:
    """Otherwise labs on bad links prove nothing."""
    steps, expect = "[{at: 0s, write: {node: a, count: 1}}]", ("converged within 300s", EXPECT[-1])
    done = run(tmp_path, Faults(lies=True, arrival_seconds=200), steps, expect, "contested-heavy")
    assert done.failed.keys() == {EXPECT[-1]}


@pytest.mark.parametrize("step", ["cut: [a-b]", "kill: b"])
def test_nodes_that_are_parted_may_each_hold_a_connection(tmp_path: Path, step: str) -> None:
    """Which of them the other end has closed, they hear when they meet again."""
    back = "restart: b" if "kill" in step else "heal: [a-b]"
    faults, expect = Faults(two_connections=True), (EXPECT[-2],)
    steps = f"[{{at: 0s, {step}}}, {{at: 9s, {back}}}, {{at: %s, write: {{node: a, count: 1}}}}]"
    assert run(tmp_path / "parted", faults, steps % "20s", expect).failed == {}
    assert run(tmp_path / "met", faults, steps % "60s", expect).failed.keys() == {*expect}


def test_nothing_written_is_no_success(tmp_path: Path) -> None:
    """A scenario whose writes all failed would pass."""
    done = run(tmp_path, steps="[{at: 0s, kill: [a]}, {at: 1s, write: {node: a, count: 3}}]")
    assert done.record.refused == 3
    assert done.failed.keys() == {
        "no acknowledged entry lost",
        "latency p99 < 1s",
        "bytes per entry < 300",
        "delivered >= 99%",
    }


def test_steps_are_carried_out_in_order(tmp_path: Path) -> None:
    """Each kind of step reaches the driver; the clock's offset with it."""
    steps = """
      - {at: 1s, impair: {a-b: jtrs}}
      - {at: 2s, cut: [a-b]}
      - {at: 3s, heal: all}
      - {at: 4s, unplug: a-b}
      - {at: 5s, heal: [a-b]}
      - {at: 6s, kill: b}
      - {at: 7s, write: {node: a, count: 2}}
      - {at: 8s, restart: b}
      - {at: 9s, wait: 5s}
      - {at: 10s, clock: {node: b, offset: -90s}}
      - {at: 11s, write: {node: b, count: 1}}
    """
    done = run(tmp_path, steps=json.dumps(_yaml(steps)), expect=("converged within 20s", "no acknowledged entry lost"))
    assert done.failed == {}
    assert done.driver.orders == [
        ("slow", "a-b"),
        ("cut", "a-b"),
        ("heal", "a-b"),
        ("unplug", "a-b"),
        ("heal", "a-b"),
        ("kill", "b"),
        ("restart None", "b"),
        ("restart -90.0", "b"),
    ]
    assert len(done.record.writes) == 3
    assert len(done.record.waits) == 1
    assert done.record.waits[0].seconds is not None


def test_steps_that_are_late_are_told_of(tmp_path: Path) -> None:
    """Otherwise whoever reads that a link was healed after a second takes what a slow machine did for the mesh's."""
    steps = "[{at: 1s, cut: [a-b]}, {at: 2s, heal: all}, {at: 30s, write: {node: a, count: 10, rate: 2}}]"
    done = run(tmp_path, Faults(order_seconds=5), steps)
    told = [text for text in done.progress if "late" in text]
    assert told == ["4.0 s late: the steps before took longer than the scenario gives them"]
    assert done.failed == {}


def test_links_are_healed_side_by_side(tmp_path: Path) -> None:
    """One after another, the links of a large lab in containers take longer than the scenario has for the step."""
    names = [f"n{number}" for number in range(5)]
    lines = "".join(f"    {name}: {{kind: linux}}\n" for name in names)
    links = "".join(f'    - endpoints: ["{a}:eth2", "{b}:eth1"]\n' for a, b in itertools.pairwise(names))
    topology = f"name: row\ntopology:\n  nodes:\n{lines}  links:\n{links}"
    scenario = """
    defaults: {collections: [notes], trust: open}
    steps: [{at: 0s, cut: [n0-n1, n1-n2, n2-n3, n3-n4]}, {at: 6s, heal: all}, {at: 12s, kill: n0}]
    expect: [converged within 9s]
    """
    lab = read_lab(write_files(tmp_path, topology, scenario))
    done = run_lab(lab, Faults(order_seconds=5))
    assert len(done.driver.orders) == 9
    assert not any("late" in text for text in done.progress), done.progress


def _yaml(text: str) -> object:
    import yaml

    return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  plain texts, as the scenario's own reader has them


def test_a_killed_node_did_not_end_by_itself(tmp_path: Path) -> None:
    """Otherwise every scenario with `kill` fails; and one that does not come back is told."""
    steps = "[{at: 1s, kill: [b]}, {at: 2s, write: {node: a, count: 1}}, {at: 3s, restart: [b]}]"
    expect = ("no acknowledged entry lost",)
    assert run(tmp_path / "back", steps=steps, expect=expect).failed == {}
    done = run(tmp_path / "gone", Faults(never_returns=True), steps=steps, expect=expect)
    assert done.failed == {
        "b runs until it is killed": "restarted at 3.0 s: b ended instead of coming up; its last words: `disk full`"
    }


def test_whoever_is_beyond_a_switch_or_a_router_is_parted_with_its_link() -> None:
    """Otherwise a node on a LAN is blamed for not knowing at once that a cable was pulled."""

    def pairs(name: str, link: str) -> set[str]:
        lab = read_lab(TOPOLOGIES / name)
        return {"-".join(sorted(pair)) for one in lab.topology.links_named(link) for pair in pairs_over(lab, one)}

    assert pairs("pair", "a-b") == {"a-b"}
    assert pairs("lan-mdns", "n2-sw") == {"n1-n2", "n2-n3", "n2-n4", "n2-n5"}
    assert pairs("nat", "b-rb") == {"a-b", "b-p"}


# What is printed


def test_a_report_for_people(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A verdict a line, figures, and a table; what a node said cannot drive the terminal."""
    done = run(tmp_path, Faults(bytes_sent=2000))
    verdicts = [*done.verdicts.values(), Verdict("b runs until it is killed", holds=False, detail="\x1b[2J")]
    report = Report(done.lab, as_json=False, seed=None)
    report.progress(1.5, "a writes\x07")
    report.finish(done.record, verdicts)
    printed = capfd.readouterr()
    assert printed.err == "    1.50 s  a writes\\u0007\n"
    lines = printed.out.splitlines()
    assert lines[:4] == [
        "PASS  converged within 20s: after 0.10 s",
        "PASS  no acknowledged entry lost: 10 acknowledged, all on 2 nodes",
        "PASS  latency p99 < 1s: 100.0 ms, of 10 arrivals",
        "FAIL  bytes per entry < 300: 400 bytes",
    ]
    assert "\x1b" not in printed.out
    assert lines[-4:] == [
        "node  documents  entries  bytes sent  connections",
        "a     10         10       2000        1",
        "b     10         10       2000        1",
        "FAIL  pair",
    ]


def test_a_report_for_programs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A JSON object a line; the last one has all figures."""
    done = run(tmp_path, Faults(ends={"b": 2.2}))
    report = Report(done.lab, as_json=True, seed=7)
    report.progress(1.5, "a writes")
    report.finish(done.record, list(done.verdicts.values()))
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert lines[0] == {"v": 1, "event": "progress", "at_s": 1.5, "text": "a writes"}
    assert [line["expect"] for line in lines[1:-1]] == [*EXPECT, "b runs until it is killed"]
    assert lines[-1]["seed"] == 7
    assert lines[-1]["pass"] is False
    assert lines[-1]["figures"]["writes"] == 10
    assert lines[-1]["figures"]["latency_p99_ms"] == 100.0
    assert lines[-1]["nodes"] == [
        {"name": "a", "documents": 10, "entries": 10, "bytes_sent": 1000, "connections": 1},
        {"name": "b", "documents": None, "entries": 4, "bytes_sent": 1000, "connections": 1},
    ]
