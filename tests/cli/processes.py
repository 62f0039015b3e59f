"""Real processes of the command, as people start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.netns import Machine

COMMAND = [sys.executable, "-m", "meshsync"]
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60
"""Nothing here waits so long; a test that hangs says so instead of ending the whole run."""


def environment(**variables: str) -> dict[str, str]:
    """The environment without what would configure the command, and with `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESHSYNC_", "NOTIFY_"))}
    # Otherwise the nodes of all tests that run on this machine would meet.
    return {**kept, "PYTHONPATH": str(ROOT), "MESHSYNC_MDNS": "false", **variables}


def meshsync(*arguments: object, text: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env=environment(**variables),
        check=False,
    )


@dataclass
class RunningNode:
    """A node's process, ready."""

    process: subprocess.Popen[str]
    data_dir: Path
    ready: dict[str, Any]

    @property
    def id(self) -> str:
        """Its endpoint id."""
        return str(self.ready["id"])

    @property
    def peer(self) -> str:
        """What another node's --peer takes."""
        return f"{self.id}@{self.ready['listen'][0]}"

    def run(self, *arguments: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command against this node."""
        return meshsync(*arguments, "--data-dir", self.data_dir, text=text)

    def out(self, *arguments: object, text: str | None = None) -> str:
        """The output of a command that must succeed."""
        done = self.run(*arguments, text=text)
        assert (done.returncode, done.stderr) == (0, ""), f"{arguments}: {done.returncode} {done.stderr}"
        return done.stdout

    def json(self, *arguments: object) -> Any:
        """The JSON object that a command prints."""
        return json.loads(self.out(*arguments, "--json"))

    @contextmanager
    def streaming(self, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on; it is ended with SIGINT."""
        command = [*COMMAND, *map(str, arguments), "--data-dir", str(self.data_dir)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGINT)
                assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGINT

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the process and return its exit code."""
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_SECONDS)


@contextmanager
def running(
    data_dir: Path,
    *arguments: object,
    collections: tuple[str, ...] = ("notes",),
    listen: str | None = "127.0.0.1:0",
    on: Machine | None = None,
    clock_offset_s: int = 0,
) -> Iterator[RunningNode]:
    """Start a node, on loopback of this machine unless said otherwise, and wait until it is ready."""
    command = [*COMMAND, "node", "--data-dir", str(data_dir), "--log-format", "json"]
    if on is not None:
        command = on.command(*command)
    if listen is not None:
        # Those on loopback are linked with whom the test names.
        command += ["--listen", listen, "--no-exchange"]
    for name in collections:
        command += ["--collection", name]
    log = data_dir.with_suffix(".log")
    with (
        log.open("a") as errors,
        subprocess.Popen(
            [*command, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(MESHSYNC_CLOCK_OFFSET=str(clock_offset_s)),
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"the node ended: {log.read_text()}"
            yield RunningNode(process, data_dir, json.loads(line))
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(PATIENCE_SECONDS)
                finally:
                    process.kill()
