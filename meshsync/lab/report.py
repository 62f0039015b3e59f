"""What `meshsync lab run` prints: progress, then a verdict a line, figures, and a table of the nodes."""

from __future__ import annotations

import math
import sys

from meshsync.cli.output import print_json, print_table, printable, write_line
from meshsync.lab.drivers.base import Lab
from meshsync.lab.record import Record, percentile
from meshsync.lab.verdicts import Verdict


class Report:
    """Prints one run, for people or as JSON lines."""

    def __init__(self, lab: Lab, *, as_json: bool, seed: int | None) -> None:
        self._lab = lab
        self._seed = seed
        """Of a simulation."""
        self._as_json = as_json

    def progress(self, at: float, text: str) -> None:
        """Something happened, so many seconds after the beginning."""
        if self._as_json:
            print_json({"v": 1, "event": "progress", "at_s": round(at, 3), "text": text})
        else:
            sys.stderr.write(f"{at:8.2f} s  {printable(text, characters_max=500)}\n")

    def finish(self, record: Record, verdicts: list[Verdict]) -> None:
        """The run is over."""
        figures = _figures(record)
        holds = all(verdict.holds for verdict in verdicts)
        if self._as_json:
            for one in verdicts:
                print_json({"v": 1, "expect": one.sentence, "holds": one.holds, "detail": one.detail})
            lab = self._lab
            print_json(
                {
                    "v": 1,
                    "lab": lab.name,
                    "folder": str(lab.folder),
                    "seed": self._seed,
                    "pass": holds,
                    "cables": record.cables,
                    "figures": figures,
                    "nodes": _nodes(record),
                }
            )
            return
        for one in verdicts:
            detail = printable(one.detail, characters_max=500)
            write_line(f"{'PASS' if one.holds else 'FAIL'}  {one.sentence}: {detail}")
        if record.cables is not None:
            write_line(f"      links impaired by: {record.cables}")
        for name, value in figures.items():
            write_line(f"      {name.replace('_', ' ')}: {'-' if value is None else value}")
        rows = [["-" if cell is None else cell for cell in row.values()] for row in _nodes(record)]
        print_table(("node", "documents", "entries", "bytes sent", "connections"), rows)
        write_line(f"{'PASS' if holds else 'FAIL'}  {self._lab.name}")


def _figures(record: Record) -> dict[str, object]:
    latencies = record.latencies()
    each = record.bytes_per_entry()
    return {
        "nodes": len(record.nodes),
        "writes": len(record.writes),
        "writes_refused": record.refused,
        "converged_after_s": None if record.converged_after is None else round(record.converged_after, 3),
        "latency_p50_ms": _milliseconds(percentile(latencies, 50)),
        "latency_p99_ms": _milliseconds(percentile(latencies, 99)),
        "bytes_sent": record.bytes_sent,
        "bytes_per_entry": None if each is None else round(each, 1),
    }


def _nodes(record: Record) -> list[dict[str, object]]:
    """A row for each node; what it held is unknown where it did not run in the end."""
    rows: list[dict[str, object]] = []
    for name in record.nodes:
        held = record.held.get(name)
        rows.append(
            {
                "name": name,
                "documents": None if held is None else sum(map(len, held.values())),
                "entries": record.statuses[name]["store"]["entries"] if name in record.statuses else None,
                "bytes_sent": record.bytes_sent_by(name),
                "connections": record.connections_of(name),
            }
        )
    return rows


def _milliseconds(seconds: float) -> float | None:
    return round(seconds * 1000, 3) if math.isfinite(seconds) else None
