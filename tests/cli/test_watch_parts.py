"""`watch` on a node that holds a part of a collection and is killed again and again."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

from tests.cli.processes import COMMAND, PATIENCE_SECONDS, RunningNode, environment, running

ROUNDS = 2


class Reader:
    """Somebody who watches until the node is gone, and applies what is told."""

    def __init__(self) -> None:
        self.cursor = "0"
        self.has: dict[str, Any] = {}
        self.end = 1
        """What the document `end` holds when all was read."""

    def watch(self, node: RunningNode, enough: threading.Event, count: int) -> None:
        """Read to the end of the feed, and say so when `count` changes were read."""
        arguments = ["watch", "notes", "--where", "n>=0", "--json", "--since", self.cursor]
        command = [*COMMAND, *arguments, "--data-dir", str(node.data_dir)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()
        ) as watch:
            assert watch.stdout is not None
            for number, line in enumerate(watch.stdout, 1):
                change = json.loads(line)
                self.cursor = change["cursor"]
                if change["doc"] is None:
                    self.has.pop(change["id"], None)
                else:
                    self.has[change["id"]] = change["doc"]
                if number >= count or self.has.get("end", {}).get("n") == self.end:
                    enough.set()


def lines(rng: random.Random) -> str:
    """Writes that move documents into the part and out of it."""
    teams = ("blue", "blue", "red")
    documents = [
        {"id": f"d{rng.randrange(40)}", "team": rng.choice(teams), "n": rng.randrange(-3, 9)} for _ in range(1000)
    ]
    return "".join(json.dumps(document) + "\n" for document in documents)


def load(node: RunningNode, text: str) -> None:
    """Write until the node is gone, or all is written."""
    command = [*COMMAND, "load", "notes", "--data-dir", str(node.data_dir)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    ) as process:
        process.communicate(text, PATIENCE_SECONDS)


def test_a_reader_has_what_a_killed_node_shows(tmp_path: Path) -> None:
    """Otherwise after a kill -9 a reader misses what was committed, or keeps what left the part, for ever."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng, reader = random.Random(seed), Reader()
    for _ in range(ROUNDS):
        with running(tmp_path / "n", collections=()) as node:
            node.out("collections", "join", "notes", "--where", rng.choice(("team=blue", "team=red")))
            enough = threading.Event()
            watcher = threading.Thread(target=reader.watch, args=(node, enough, rng.randrange(1, 8)))
            writer = threading.Thread(target=load, args=(node, lines(rng)))
            watcher.start()
            writer.start()
            assert enough.wait(PATIENCE_SECONDS)
            node.stop(signal.SIGKILL)
            watcher.join(PATIENCE_SECONDS)
            writer.join(PATIENCE_SECONDS)
    with running(tmp_path / "n", collections=()) as node:
        node.out("put", "notes", "end", '{"team":"blue","n":1}')
        node.out("collections", "join", "notes", "--where", "team=blue")
        enough = threading.Event()
        watcher = threading.Thread(target=reader.watch, args=(node, enough, 1 << 30))
        watcher.start()
        assert enough.wait(PATIENCE_SECONDS)
        # What the other query made enter and leave was found before anything was told, so this comes behind it.
        enough.clear()
        reader.end = 2
        node.out("patch", "notes", "end", '{"n":2}')
        assert enough.wait(PATIENCE_SECONDS)
        shown = [json.loads(line) for line in node.out("ls", "notes", "--where", "n>=0", "--json").splitlines()]
        node.stop(signal.SIGKILL)
        watcher.join(PATIENCE_SECONDS)
    assert reader.has == {one.pop("id"): one for one in shown}
