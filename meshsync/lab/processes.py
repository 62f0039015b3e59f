"""Processes that outlive the command that started them: told apart by pid and time of start, so none is mistaken."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from meshsync.lab.drivers.base import LabError
from meshsync.lab.waiting import wait_for

_END_SECONDS = 10.0


class ProcessFile:
    """A process that is noted in a file, `PID START`: it can be found again by whoever has the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, command: Sequence[str], log: Path, environ: Mapping[str, str] | None = None) -> None:
        """Start a process in a session of its own; its output is appended to `log`.

        LabError: it cannot be started, or not be noted; then it does not run.
        """
        # Not `subprocess`: its objects are meant to be waited for, and this process may outlive us.
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        variables = {**os.environ, **(environ or {})}
        try:
            pid = os.posix_spawnp(command[0], list(command), variables, file_actions=actions, setsid=True)
        except OSError as error:
            raise LabError(f"{command[0]} cannot be started: {error}") from error
        try:
            self.note(pid)
        except OSError as error:
            # Nobody would find it again.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise LabError(f"{self.path}: {error.strerror}; the folder of a lab must be writable") from error

    def note(self, pid: int) -> None:
        """Note a process that runs already.  OSError."""
        self.path.write_text(f"{pid} {started_at(pid)}", encoding="ascii")

    def forget(self) -> None:
        """Note no process any more."""
        self.path.unlink(missing_ok=True)

    @property
    def is_noted(self) -> bool:
        """Whether a process was noted, whatever became of it."""
        return self.path.exists()

    @property
    def pid(self) -> int | None:
        """Of the process; None where it has ended."""
        try:
            pid, started = map(int, self.path.read_text(encoding="ascii").split())
        except (FileNotFoundError, ValueError):
            return None
        # 0 was noted where it had ended already.
        return pid if started_at(pid) == started != 0 else None

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.pid is not None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing where it has ended."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self) -> None:
        """End it as its owner would, and at once where that takes long; blocks until it has ended.  LabError."""
        self.signal(signal.SIGTERM)
        if not wait_for(self._has_ended, _END_SECONDS):
            self.kill()

    def kill(self) -> None:
        """End it at once (SIGKILL); blocks until it has ended.  LabError: it does not end."""
        self.signal(signal.SIGKILL)
        if not wait_for(self._has_ended, _END_SECONDS):
            raise LabError(f"process {self.pid} does not end")

    def _has_ended(self) -> bool:
        return self.pid is None


def started_at(pid: int) -> int:
    """When a process began, in ticks since boot; 0: it has ended.  Pids come again, pairs of both do not."""
    try:
        # proc_pid_stat(5): the command's name, in brackets, may hold anything; these are fields 3 and 22.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    if fields[0] == "Z":
        # A child of ours that nobody has waited for.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return 0
    return int(fields[19])
