"""The rows of the benchmark, as JSON lines or as a table for people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """What one run of one workload gave.

    cpu_s and rss_mb are those of the receiving node's process; in a mesh the sum over all nodes, and the largest.
    """

    workload: str
    n: int
    seconds: float | None = None
    bytes: int | None = None
    """UDP payload, both ways; in a mesh over all links."""
    cpu_s: float | None = None
    rss_mb: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    redundancy: float | None = None
    """In a mesh: payloads of entries that were received over those that were new."""
    notes: str = ""
    peer: str = "meshsync"


_KEYS = ("peer", "workload", "n", "seconds", "bytes", "cpu_s", "rss_mb", "p50_ms", "p99_ms", "redundancy", "notes")
_DIGITS = {"seconds": 4, "cpu_s": 3, "rss_mb": 1, "p50_ms": 3, "p99_ms": 3, "redundancy": 3}
_WIDTHS = {
    "peer": 10,
    "workload": 8,
    "n": 9,
    "seconds": 9,
    "bytes": 12,
    "cpu_s": 8,
    "rss_mb": 7,
    "p50_ms": 8,
    "p99_ms": 8,
    "redundancy": 10,
}


def as_json(row: Row) -> str:
    """A row as a line of JSON."""
    values = asdict(row)
    rounded = {key: round(values[key], digits) for key, digits in _DIGITS.items() if values[key] is not None}
    return json.dumps({key: (values | rounded)[key] for key in _KEYS})


def heading() -> str:
    """The first line of the table."""
    return _line((key, key) for key in _KEYS)


def as_text(row: Row) -> str:
    """A row as a line of the table."""
    values = asdict(row)
    return _line((key, _cell(key, values[key])) for key in _KEYS)


def _cell(key: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.{1 if key == 'rss_mb' else 3}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _line(cells: Iterable[tuple[str, str]]) -> str:
    aligned = [
        text
        if key == "notes"
        else text.ljust(_WIDTHS[key])
        if key in {"peer", "workload"}
        else text.rjust(_WIDTHS[key])
        for key, text in cells
    ]
    return "  ".join(aligned).rstrip()
