"""Process 1 of the container image, as a real process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.lab.labs import TOPOLOGIES, wait_until

SUPERVISE = TOPOLOGIES / "image" / "supervise"
SECONDS_MAX = 30

# Says that it runs, by a line with its pid, and ends when it is told to.
CHILD = 'trap "echo $$ ends >>log; exit 7" TERM; echo $$ ${SPEED:-slow} >>log; while :; do sleep 0.05 & wait; done'


class Supervised:
    """A supervisor, and the child that it has."""

    def __init__(self, directory: Path, command: list[str]) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [SUPERVISE, *command],
            cwd=directory,
            env={**os.environ, "MESHSYNC_DATA_DIR": str(directory)},
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def lines(self) -> list[str]:
        """What its children said so far."""
        log = self.directory / "log"
        return log.read_text().splitlines() if log.exists() else []

    def wait_lines(self, count: int) -> None:
        wait_until(lambda: len(self.lines) >= count)

    def wait_ended(self) -> int:
        return self.process.wait(SECONDS_MAX)


@contextmanager
def supervised(directory: Path, *command: str) -> Iterator[Supervised]:
    """Run a supervisor for a block."""
    one = Supervised(directory, list(command) or ["sh", "-c", CHILD])
    try:
        yield one
    finally:
        with suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGKILL)  # and whatever it started
        one.process.wait()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_term_ends_the_child_first(tmp_path: Path) -> None:
    """Otherwise a node is killed in the middle of a write whenever its container stops, or stops late."""
    with supervised(tmp_path) as one:
        one.wait_lines(1)
        one.process.terminate()
        assert one.wait_ended() == 7
        assert one.lines[1:] == [f"{one.lines[0].split()[0]} ends"]


def test_a_killed_child_comes_back(tmp_path: Path) -> None:
    """Otherwise a node that was killed takes the container with it, and the links of the container are gone."""
    with supervised(tmp_path) as one:
        one.wait_lines(1)
        os.kill(int(one.lines[0].split()[0]), signal.SIGKILL)
        one.wait_lines(2)
        assert one.process.poll() is None
        one.process.terminate()
        assert one.wait_ended() == 7


def test_a_child_that_is_held_stays_dead(tmp_path: Path) -> None:
    """Otherwise a scenario cannot keep a node down while others go on."""
    with supervised(tmp_path) as one:
        one.wait_lines(1)
        pid = int(one.lines[0].split()[0])
        (tmp_path / "hold").touch()
        one.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: not is_running(pid))
        # Whatever was written by now was written before it was dead.
        (tmp_path / "environment").write_text("SPEED=fast\nno line\n")
        (tmp_path / "hold").unlink()
        one.wait_lines(2)
        assert [line.split()[1] for line in one.lines] == ["slow", "fast"]


def test_term_ends_it_while_nothing_runs(tmp_path: Path) -> None:
    """Otherwise taking a lab down waits for every node that a scenario has killed."""
    (tmp_path / "hold").touch()
    with supervised(tmp_path) as one:
        # It heeds signals from the moment that it waits.
        wait_until(lambda: Path(f"/proc/{one.process.pid}/task/{one.process.pid}/children").read_text() != "")
        one.process.terminate()
        assert one.wait_ended() == 0
        assert one.lines == []


@pytest.mark.parametrize("code", [0, 2])
def test_a_child_that_ends_by_itself_ends_the_container(tmp_path: Path, code: int) -> None:
    """`docker run meshsync meshsync version` is to end, and a wrong configuration to be seen, not tried for ever."""
    with supervised(tmp_path, "sh", "-c", f"exit {code}") as one:
        assert one.wait_ended() == code
