"""The rows of the benchmark, as JSON lines or as a table for people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True)
class Row:
    """What one run of one workload gave.

    cpu_s and rss_mb are those of the receiving node's process; in a mesh the sum over all nodes, and the largest.
    """

    peer: str = field(default="meshsync", kw_only=True)
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


_DIGITS = {
    "seconds": 4,
    "cpu_s": 3,
    "rss_mb": 1,
    "p50_ms": 3,
    "p99_ms": 3,
    "redundancy": 3,
    "bytes_per_entry": 1,
    "bytes_per_write": 1,
    "delivered": 2,
}
_WIDTHS = {"bytes": 12, "lab": 17, "driver": 20, "bytes_per_entry": 15, "bytes_per_write": 15, "delivered": 9}
_WIDTH = 10
_TEXTS = frozenset({"peer", "workload", "lab", "driver", "notes"})


class AnyRow(Protocol):
    """A dataclass whose fields are the columns, in their order."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def as_json(row: AnyRow) -> str:
    """A row as a line of JSON."""
    values = asdict(row)
    rounded = {key: round(value, _DIGITS[key]) for key, value in values.items() if key in _DIGITS and value is not None}
    return json.dumps(values | rounded)


def heading(kind: type[AnyRow]) -> str:
    """The first line of the table."""
    return _line((one.name, one.name) for one in fields(kind))


def as_text(row: AnyRow) -> str:
    """A row as a line of the table."""
    return _line((key, _cell(key, value)) for key, value in asdict(row).items())


def _cell(key: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.{min(3, _DIGITS.get(key, 1))}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _line(cells: Iterable[tuple[str, str]]) -> str:
    aligned = []
    for key, text in cells:
        width = 0 if key == "notes" else _WIDTHS.get(key, _WIDTH)
        aligned.append(text.ljust(width) if key in _TEXTS else text.rjust(width))
    return "  ".join(aligned).rstrip()
