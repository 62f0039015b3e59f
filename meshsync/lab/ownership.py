"""Who works with a lab: one command at a time builds it or takes it down, and a run that was killed can be told."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshsync.lab.drivers.base import LabError
from meshsync.lab.processes import ProcessFile

_RUN = "run.pid"


def mark_of(folder: Path) -> str:
    """What tells the labs of two folders apart, whatever they are called; it stays when the folder is moved."""
    try:
        found = folder.stat()
    except OSError as error:
        raise LabError(f"{folder}: cannot be looked at: {error.strerror}") from None
    return hashlib.sha256(f"{found.st_dev}:{found.st_ino}".encode()).hexdigest()[:6]


def run_of(state: Path) -> ProcessFile:
    """The command `lab run` that built what is up; its file is there only for such a lab."""
    return ProcessFile(state / _RUN)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else builds the lab of a folder or takes it down during the block.  LabError: somebody does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(f"{folder}: another command brings this lab up or takes it down; wait for it") from None
        yield
    finally:
        os.close(descriptor)
