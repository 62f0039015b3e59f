"""Eight real processes that load documents while some of them are killed and started again."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.cli.processes import COMMAND, PATIENCE_SECONDS, RunningNode, environment, meshsync, running
from tests.process.support import OPEN, Writer, collection, free_port, ids

COUNT = 8
VICTIMS = range(4, COUNT)
"""Those that are killed, now and then; the others live through it all."""
KILLS = 5
LOADED = 400
PUTS_MAX = 200
WARM = "x" * 100_000
LOOKS = 10
LOOK_SECONDS = 0.1


class Fleet:
    """Nodes at fixed addresses, in a ring with chords."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directories = [directory / f"n{number}" for number in range(COUNT)]
        self._stack = stack
        self._lives = [ExitStack() for _ in range(COUNT)]
        for life in self._lives:
            stack.enter_context(life)
        with ThreadPoolExecutor() as pool:
            made = pool.map(lambda path: meshsync("id", "--data-dir", path).stdout.strip(), self._directories)
        self._places = [f"127.0.0.1:{free_port()}" for _ in range(COUNT)]
        self._peers = [f"{id}@{place}" for id, place in zip(made, self._places, strict=True)]
        with ThreadPoolExecutor() as pool:
            self.nodes = list(pool.map(self._start, range(COUNT)))

    def _start(self, number: int) -> RunningNode:
        peers = [self._peers[(number + step) % COUNT] for step in (1, COUNT // 2)]
        arguments = [*OPEN, "--listen", self._places[number]]
        for peer in peers:
            arguments += ["--peer", peer]
        return self._lives[number].enter_context(running(self._directories[number], *arguments))

    def kill_and_restart(self, number: int) -> None:
        """SIGKILL, and the same command again."""
        assert self.nodes[number].stop(signal.SIGKILL) == -signal.SIGKILL
        self._lives[number].close()
        self.nodes[number] = self._start(number)

    def wait_synced(self) -> None:
        """Have each node say that it is in sync, until all hold the same."""
        for _ in range(20):
            with ThreadPoolExecutor() as pool:
                told = list(pool.map(lambda node: node.run("wait", "synced", "--timeout", "30s"), self.nodes))
            assert [(one.returncode, one.stderr) for one in told] == [(0, "")] * COUNT
            if len({collection(node)["root"] for node in self.nodes}) == 1:
                return
        raise AssertionError("the nodes say that they are in sync, and hold different things")


@contextmanager
def loading(node: RunningNode, prefix: str, count: int, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """`meshsync load` of so many documents, each an entry."""
    lines = directory / f"{prefix}.jsonl"
    lines.write_text("".join(f'{{"id": "{prefix}{number}", "n": {number}}}\n' for number in range(count)))
    command = [*COMMAND, "load", "notes", str(lines), "--data-dir", str(node.data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            yield process
        finally:
            process.kill()


def burden(node: RunningNode) -> Counter[str]:
    """How many descriptors and threads a process has: the least of some looks, because commands come and go."""
    proc = Path(f"/proc/{node.process.pid}")
    looks = []
    for _ in range(LOOKS):
        looks.append({kind: len(list((proc / kind).iterdir())) for kind in ("fd", "task")})
        with pytest.raises(subprocess.TimeoutExpired):
            node.process.wait(LOOK_SECONDS)
    return Counter({kind: min(look[kind] for look in looks) for kind in looks[0]})


def assert_no_more(nodes: list[RunningNode], before: list[Counter[str]]) -> None:
    """Wait until no process has more than before: idle threads, and connections to those that died, take a while."""
    patience = time.monotonic() + PATIENCE_SECONDS
    while more := [left for node, had in zip(nodes, before, strict=True) if (left := burden(node) - had)]:
        assert time.monotonic() < patience, f"left behind: {more}"


@pytest.mark.parametrize("seed", [1])
def test_processes_that_are_killed_under_load_lose_nothing(tmp_path: Path, seed: int) -> None:
    """Otherwise a fleet under load that loses machines and gets them back falls apart, or fills up."""
    rng = random.Random(seed)
    acknowledged: set[str] = set()
    with ExitStack() as stack:
        fleet = Fleet(tmp_path, stack)
        survivors = [node for number, node in enumerate(fleet.nodes) if number not in VICTIMS]
        # So much that every store has begun to work on its log beside: from then on it has one thread more.
        survivors[0].out("load", "notes", text="".join(f'{{"id": "w{n}", "text": "{WARM}"}}\n' for n in range(60)))
        fleet.wait_synced()
        before = [burden(node) for node in survivors]
        loads = [
            stack.enter_context(loading(survivors[number], f"load{number}-", LOADED, tmp_path)) for number in (0, 2)
        ]
        for turn in range(KILLS):
            number = rng.choice(VICTIMS)
            writer = Writer(fleet.nodes[number], f"put{turn}-", PUTS_MAX)
            writer.start()
            writer.wait_for(rng.randrange(1, PUTS_MAX))
            fleet.kill_and_restart(number)
            writer.join(PATIENCE_SECONDS)
            acknowledged |= set(writer.acknowledged)
            assert fleet.nodes[1].run("put", "notes", f"by hand {turn}", "{}").returncode == 0
            acknowledged.add(f"by hand {turn}")
        for load, prefix in zip(loads, ("load0-", "load2-"), strict=True):
            assert load.wait(PATIENCE_SECONDS) == 0
            acknowledged |= {f"{prefix}{number}" for number in range(LOADED)}
        fleet.wait_synced()
        for node in fleet.nodes:
            assert acknowledged <= ids(node)
            assert collection(node)["forks"] == 0
        assert len(acknowledged) > 2 * LOADED + KILLS
        assert_no_more(survivors, before)
        for node in fleet.nodes:
            assert node.stop() == 0
