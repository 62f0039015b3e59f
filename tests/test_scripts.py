"""scripts/demo and scripts/bench do what they say, and leave nothing behind.

They run here without the shell around them, which only makes the environment that the tests are in already.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from meshsync.core.entry import PUT, Operation, encode_operations
from meshsync.lab.namespaces import is_privileged
from tests.test_readme import BLOCK, README, shape_of

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "scripts" / "lib"
SECONDS_MAX = 400
"""Of patience; the slowest takes a minute on a machine with nothing else to do."""
KEYS = ["peer", "workload", "n", "seconds", "bytes", "cpu_s", "rss_mb", "p50_ms", "p99_ms", "redundancy", "notes"]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where the scripts put what they need; the path is short, because the path of a Unix socket has to be."""
    with tempfile.TemporaryDirectory(prefix="t") as directory:
        yield Path(directory)


def environment(temporary: Path, *first: Path) -> dict[str, str]:
    """The environment of a script: its library on the path, after `first`."""
    path = [*map(str, first), str(ROOT), str(LIBRARY), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path)), "TMPDIR": str(temporary)}


def run(temporary: Path, *arguments: str, first: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a module of the library to its end, without a terminal."""
    return subprocess.run(
        [sys.executable, "-P", "-m", *arguments],
        env=environment(temporary, *first),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


def rows_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_demo_ends_with_three_equal_roots(temporary: Path) -> None:
    """It is the first thing that a newcomer runs, and its exit code is what a build server believes."""
    done = run(temporary, "demo", "ship")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    roots = re.findall(r"root ([0-9a-f]{64})$", done.stdout, re.MULTILINE)
    assert len(roots) == 6
    assert len(set(roots[:3])) == 2, "the ship must be cut off while the others go on"
    assert len(set(roots[3:])) == 1
    assert list(temporary.iterdir()) == []


def test_demo_of_a_mesh_ends_with_three_equal_roots(temporary: Path) -> None:
    """It is what this system is picked for; and a demonstration that fails is worse than none."""
    done = run(temporary, "demo", "mesh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert re.search(r"^\d\d:\d\d:\d\d  put +n1 ", done.stdout, re.MULTILINE), "Boris's watch shows Anna's write"
    assert "not synced after 1" in done.stdout, "Clara must be off the network"
    roots = re.findall(r"3 documents  root ([0-9a-f]{64})$", done.stdout, re.MULTILINE)
    assert (len(roots), len(set(roots))) == (3, 1)
    assert list(temporary.iterdir()) == []


def test_demo_of_parts_shows_what_crossed(temporary: Path) -> None:
    """Whoever pays for each byte believes a capture, and no promise."""
    done = run(temporary, "demo", "parts")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    printed = iter(shape_of(re.sub(r"[\d,]+ bytes", "SIZE", done.stdout)))
    [readme] = [text for kind, text in BLOCK.findall(README) if kind == "text"]
    lines = shape_of(re.sub(r"[\d,]+ bytes", "SIZE", readme))
    assert [line for line in lines if line not in printed] == [], "the README shows all that in this order"
    documents = re.findall(r"^\w+ +([0-9,]+) documents  root ", done.stdout, re.MULTILINE)
    assert documents == ["34,006", "170", "318"]
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not is_privileged() or shutil.which("setpriv") is None, reason="nothing to give up, or no setpriv")
def test_demo_of_a_mesh_needs_no_privileges(temporary: Path) -> None:
    """Most newcomers are not root."""
    without = ["setpriv", "--bounding-set=-sys_admin,-net_admin", "--inh-caps=-sys_admin,-net_admin"]
    done = subprocess.run(
        [*without, sys.executable, "-P", "-m", "demo", "mesh"],
        env=environment(temporary),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "three directories on this machine" in done.stdout


@pytest.mark.parametrize(("story", "last"), [("ship", "node ship"), ("mesh", "node clara"), ("parts", "node alps")])
def test_demo_cleans_up_when_it_is_stopped(temporary: Path, story: str, last: str) -> None:
    """Otherwise nodes of a demo that someone lost patience with run on for ever."""
    command = [sys.executable, "-P", "-m", "demo", story]
    demo = subprocess.Popen(
        command, env=environment(temporary), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with demo:
        assert demo.stdout is not None
        assert any(last in line for line in demo.stdout)
        demo.send_signal(signal.SIGTERM)
        _, errors = demo.communicate(timeout=SECONDS_MAX)
    assert (demo.returncode, errors) == (1, "scripts/demo: interrupted by SIGTERM\n")
    # The nodes keep their directory locked and in use, so nothing but their end lets it go.
    assert list(temporary.iterdir()) == []


def test_bench_prints_a_line_for_each_run(temporary: Path) -> None:
    """Its lines stand beside those of other systems, so they have the same keys."""
    done = run(temporary, "bench", "--workload", "w1,W5", "--n", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = rows_of(done.stdout)
    assert [(row["workload"], row["n"]) for row in rows] == [("W1", 20), ("W5", 20)]
    for row in rows:
        assert list(row) == KEYS
        assert row["peer"] == "meshsync"
        assert row["seconds"] > 0
        assert row["bytes"] > 1000
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_bench_measures_latency_and_reconciliation(temporary: Path) -> None:
    """The percentiles and the round trips come from code of their own."""
    done = run(temporary, "bench", "--workload", "W2,W6", "--n", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    latency, reconciliation = rows_of(done.stdout)
    assert 0 < latency["p50_ms"] <= latency["p99_ms"]
    trips = re.search(r"bytes beyond the payloads, .*; ([\d.]+) round trips", reconciliation["notes"])
    assert trips is not None
    assert float(trips[1]) > 2, "the handshake alone takes them: it went past the cable"


@pytest.mark.slow
def test_bench_measures_what_a_mesh_costs(temporary: Path) -> None:
    """A mesh is started, linked, read and compared by code of its own."""
    done = run(temporary, "bench", "--workload", "M1,M2", "--n", "4", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    *spread, cost = rows_of(done.stdout)
    assert [row["notes"].partition(":")[0] for row in spread] == ["line", "star", "full"]
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in spread)
    assert all(row["redundancy"] >= 1 and row["bytes"] > 1000 for row in (*spread, cost))
    assert re.search(r"[1-9]\d* control bytes a node and entry; idle: \d+ bytes a link", cost["notes"])
    assert "40 entries, links no longer turning after " in cost["notes"], "among so few none turns"
    assert "writing 40 entries, 4 a second" in done.stderr
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_bench_measures_meshes_that_come_together(temporary: Path) -> None:
    """The cables are cut and mended, and the links begun all at once, by code of its own."""
    done = run(temporary, "bench", "--workload", "M3,M4", "--n", "20", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = rows_of(done.stdout)
    assert [row["workload"] for row in rows] == ["M3", "M4"]
    assert all(row["seconds"] > 0 and row["redundancy"] >= 1 for row in rows)
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_bench_measures_what_is_urgent(temporary: Path) -> None:
    """The narrow cable is code of its own, and so is what is read before the nodes are equal."""
    done = run(temporary, "bench", "--workload", "P", "--n", "200", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = rows_of(done.stdout)
    assert 25 < row["p50_ms"] <= row["p99_ms"]
    assert re.search(r"round trips of the empty link; .* the link was [1-9]\d+% full", row["notes"])
    assert list(temporary.iterdir()) == []


def test_bench_measures_a_part_beside_the_whole(temporary: Path) -> None:
    """What a part saves could not be measured again, nor that what is not wanted stays away."""
    done = run(temporary, "bench", "--workload", "Q1", "--n", "1000")
    assert done.returncode == 0, done.stdout + done.stderr
    part, indexed, whole = rows_of(done.stdout)
    for row, what in ((part, "a part: 10"), (indexed, "a part, by an index: 10"), (whole, "all: 1,000")):
        assert row["n"] == 1000
        assert row["notes"].startswith(f"{what} wanted; ")
    assert max(part["bytes"], indexed["bytes"]) < whole["bytes"] / 8, "payloads that nobody wants went along"
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_bench_measures_the_latest_beside_the_history(temporary: Path) -> None:
    """What it saves to leave the past out could not be measured again."""
    done = run(temporary, "bench", "--workload", "Q2", "--n", "50", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    latest, full = rows_of(done.stdout)
    assert latest["notes"].startswith("latest, 10 updates each; ")
    assert full["notes"].startswith("full, 10 updates each; ")
    assert latest["bytes"] < full["bytes"] * 2 / 3, "superseded payloads went along"
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_bench_measures_a_live_query(temporary: Path) -> None:
    """Who follows a query is told by one way from all documents, and by another one from a part of them."""
    done = run(temporary, "bench", "--workload", "Q4", "--n", "50")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = rows_of(done.stdout)
    assert [row["notes"].partition(";")[0] for row in rows] == ["B has all", "B has a part"]
    assert all(re.search(r"documents [\d,]+ put a second and [\d,]+ moved a second$", row["notes"]) for row in rows)
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_bench_measures_queries(temporary: Path) -> None:
    """What is said of queries with and without an index could not be measured again."""
    done = run(temporary, "bench", "--workload", "Q3", "--n", "20000", "--quick")
    assert done.returncode == 0, done.stderr
    rows = rows_of(done.stdout)
    assert [(row["workload"], row["n"]) for row in rows] == [("Q3", 2000)] * 7
    assert [note for row in rows if "no index" in (note := row["notes"])] == [row["notes"] for row in rows[:2]]


def test_bench_measures_labs(temporary: Path) -> None:
    """The README's table of bad links comes from these rows, and whoever repeats one by its seed must get it again."""
    done = run(temporary, "bench", "--lab", "jtrs,one-way,busy-radio-10", "--n", "50")
    assert done.returncode == 0, done.stdout + done.stderr
    jtrs, one_way, busy = rows_of(done.stdout)
    assert (jtrs["n"], jtrs["driver"], jtrs["delivered"]) == (50, "simulated, seed 1", 100.0)
    assert jtrs["seconds"] > 2, "the handshake alone takes two round trips of a second"
    assert 500 < jtrs["p50_ms"] <= jtrs["p99_ms"]
    assert jtrs["bytes_per_entry"] > 150
    assert 150 < jtrs["bytes_per_write"] < 600
    assert one_way["seconds"] is None
    assert "never in sync" in one_way["notes"]
    assert (busy["n"], busy["hz"], busy["delivered"]) == (600, 10, 100.0)
    assert 100 < busy["p99_ms"] < 1000
    assert rows_of(run(temporary, "bench", "--lab", "jtrs", "--n", "50").stdout) == [jtrs]
    assert list(temporary.iterdir()) == []


def test_bench_refuses_an_unknown_lab(temporary: Path) -> None:
    """Otherwise a typing error looks like a link that carries nothing."""
    done = run(temporary, "bench", "--lab", "nominal,moon")
    assert done.returncode == 2
    assert "no such lab: moon; there are nominal, " in done.stderr


def test_bench_tells_of_a_failure(temporary: Path) -> None:
    """A node that dies must be a failed row and a failed run, and no figure."""
    broken = temporary / "broken"
    broken.mkdir()
    (broken / "meshsync.py").write_text("raise SystemExit('broken on purpose')\n")
    done = run(temporary, "bench", "--workload", "W1", "--n", "20", first=(broken,))
    assert done.returncode == 1
    [row] = rows_of(done.stdout)
    assert row["seconds"] is None
    assert row["notes"].startswith("FAILED: ")
    assert list(temporary.iterdir()) == [broken]


def test_bench_tells_what_it_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a mesh that does not come together is a silence of minutes, and then a failure without a reason."""
    monkeypatch.syspath_prepend(str(LIBRARY))
    main, stages = (importlib.import_module(name) for name in ("bench.__main__", "bench.stage"))

    async def stuck(stage: Any, n: int) -> list[Any]:
        stage.progress.begin(f"waiting for {n} nodes")
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setitem(main.WORKLOADS, "M2", replace(main.WORKLOADS["M2"], run=stuck))
    [row], went_well = trio.run(main._run, "M2", 20, stages.Stage(), clock=trio.testing.MockClock(autojump_threshold=0))
    assert not went_well
    assert row.notes == "FAILED: not done after 420 s, but still waiting for 20 nodes"


def test_bench_refuses_an_unknown_workload(temporary: Path) -> None:
    """Otherwise a typing error looks like a benchmark without results."""
    done = run(temporary, "bench", "--workload", "W1,W99")
    assert done.returncode == 2
    assert "no such workload: W99" in done.stderr


def test_documents_of_the_benchmark_have_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures per byte are of documents of about 200 bytes, and of payloads of exactly 1,000."""
    monkeypatch.syspath_prepend(str(LIBRARY))
    documents = importlib.import_module("bench.documents")
    for number in (0, 7, 99_999):
        id = documents.document_id(number)
        assert documents.document(number) == documents.document(number)
        assert documents.document(number) != documents.document(number, 1)
        assert 180 <= len(json.dumps({"id": id} | documents.document(number), separators=(",", ":"))) <= 230
        assert len(encode_operations([Operation(PUT, id, documents.message(number))])) == documents.MESSAGE_BYTES
