"""What a process printed last, for people who want to know why it ended."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

_LAST_BYTES = 8192
_ROUTINE = frozenset({"v", "event", "level", "logger", "time", "timestamp", "ts"})


def last_words(log: Path) -> str:
    """The last line of a log that is not empty, as text."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    line = next((line for line in reversed(lines) if line.strip()), "")
    with contextlib.suppress(ValueError):
        said = json.loads(line)
        if isinstance(said, dict) and "event" in said:
            details = [f"{key}={value}" for key, value in said.items() if key not in _ROUTINE]
            line = " ".join([str(said["event"]), *details])
    return f"`{line}`, in {log}" if line else f"none, in {log}"
