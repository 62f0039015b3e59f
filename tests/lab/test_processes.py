from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from meshsync.lab.drivers.base import LabError
from meshsync.lab.last_words import last_words
from meshsync.lab.processes import ProcessFile
from tests.lab.labs import wait_until

SLEEP = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(1000)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()",
)


@pytest.fixture
def noted(tmp_path: Path) -> ProcessFile:
    return ProcessFile(tmp_path / "one.pid")


def test_a_process_is_found_again_and_ended(noted: ProcessFile, tmp_path: Path) -> None:
    """Otherwise `down` leaves the nodes that `up` started."""
    noted.start(SLEEP, tmp_path / "log")
    again = ProcessFile(noted.path)
    assert again.pid is not None
    assert os.getsid(again.pid) == again.pid, "what a terminal sends does not reach it"
    again.end()
    assert ProcessFile(noted.path).pid is None


def test_a_process_that_does_not_end_is_killed(
    noted: ProcessFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that hangs must not stay in a lab that is down."""
    monkeypatch.setattr("meshsync.lab.processes._END_SECONDS", 0.1)
    noted.start(STUBBORN, tmp_path / "log")
    wait_until(lambda: (tmp_path / "log").read_text() == "up\n")
    noted.end()
    assert noted.pid is None


def test_another_process_with_the_same_pid_is_not_mistaken(noted: ProcessFile) -> None:
    """Pids come again: `down` would end somebody else's process."""
    noted.path.write_text(f"{os.getpid()} 1")
    assert noted.pid is None
    noted.end()


def test_a_process_that_ended_before_it_was_noted_does_not_run(noted: ProcessFile) -> None:
    """Otherwise a node that ended at once counts as running for ever."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    noted.note(ended.pid)
    assert noted.pid is None


@pytest.mark.parametrize("text", ["", "12", "12 x", "a b c"])
def test_a_note_that_was_not_written_to_its_end_is_none(noted: ProcessFile, text: str) -> None:
    """A full disk leaves such files, and `down` must go on."""
    noted.path.write_text(text)
    assert noted.pid is None


def test_what_cannot_be_started_is_named(noted: ProcessFile, tmp_path: Path) -> None:
    """Otherwise the user sees a traceback."""
    with pytest.raises(LabError, match="no-such-program cannot be started"):
        noted.start(["no-such-program"], tmp_path / "log")
    assert noted.pid is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_process_that_cannot_be_noted_does_not_run(tmp_path: Path) -> None:
    """On a full disk nobody would ever find it, and it would run on."""
    log = tmp_path / "log"
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(1000)"
    noted = ProcessFile(Path("/dev/full"))
    with pytest.raises(LabError, match="No space left"):
        noted.start([sys.executable, "-c", script], log)
    assert not log.read_text() or not Path(f"/proc/{log.read_text().strip()}").exists()


def test_last_words_are_text(tmp_path: Path) -> None:
    """Nodes of a lab log JSON; who reads why one ended is a person."""
    log = tmp_path / "node.log"
    assert last_words(log).startswith("none, in ")
    log.write_text('{"event": "cannot bind", "level": "error", "address": "10.0.0.1:4433", "timestamp": "t"}\n\n')
    assert last_words(log) == f"`cannot bind address=10.0.0.1:4433`, in {log}"
    log.write_text("x" * 20_000 + "\nmeshsync: a.yaml:3: trust: 'maybe' is none of these\n")
    assert last_words(log) == f"`meshsync: a.yaml:3: trust: 'maybe' is none of these`, in {log}"
