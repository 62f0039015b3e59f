"""Figures from labs: two nodes on each kind of bad link, simulated in virtual time or in network namespaces."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from meshsync.lab.drivers.base import Lab, read_lab
from meshsync.lab.expectations import Converged
from meshsync.lab.impairments import DOWN, PROFILES, LinkImpairment
from meshsync.lab.record import Record, percentile
from meshsync.lab.running import run_lab
from meshsync.lab.scenario import Kill, Restart, Step, Wait, Write

BEHIND = 1_000
_LIVE = 100
_LIVE_PER_SECOND_MAX = 10.0
_LIVE_BITS = 8 * 1_000
"""A write is to have so much of a slow link: twice to four times what it takes."""
_DOCUMENT_BYTES = 150
_BUSY = "busy-radio"
_BUSY_SECONDS = 30
_BUSY_ASKED = {1: "99.5", 10: "99", 25: "95"}
"""Writes a second, and how many per cent of them peat-mesh 0.9.0-rc.26 asks for."""
_LONG = frozenset({"contested-heavy", "floor", "one-way", "satcom-low"})
_CATCH_UP_SECONDS_MAX = 3600.0
_TOPOLOGIES = Path(__file__).parents[3] / "topologies"
_COLLECTION = "notes"

_Run = Callable[[Lab], Record]


@dataclass(frozen=True)
class LabRow:
    """What one lab gave.  Bytes are UDP payload, both ways, handshake and acknowledgements included."""

    lab: str
    driver: str
    n: int
    """Documents that one node was behind by, or all."""
    seconds: float | None = None
    """Until both were in sync, since the one that was behind came up, or since the last write."""
    bytes_per_entry: float | None = None
    hz: float | None = None
    """Live writes a second, of each node that writes; the columns that follow are theirs."""
    p50_ms: float | None = None
    """From a write to its sight in the other node's changes."""
    p99_ms: float | None = None
    bytes_per_write: float | None = None
    delivered: float | None = None
    """Per cent."""
    notes: str = ""


def names() -> list[str]:
    """What can be asked for: the profiles, and the busy radio at several rates."""
    return [*PROFILES, *(f"{_BUSY}-{hz}" for hz in _BUSY_ASKED)]


def is_short(name: str) -> bool:
    """Whether a lab ends within two minutes of real time."""
    return name not in _LONG


def run_one(name: str, n: int, seed: int, *, is_simulated: bool) -> tuple[LabRow, bool]:
    """Run one lab; its figures, and whether it went as it must.  LabError: it cannot come up here."""
    with tempfile.TemporaryDirectory(prefix="meshsync-bench-", ignore_cleanup_errors=True) as folder:

        def run(lab: Lab) -> Record:
            return run_lab(replace(lab, folder=Path(folder)), seed, _say_nothing, is_simulated=is_simulated)

        row = LabRow(name, f"simulated, seed {seed}" if is_simulated else "namespaces", n)
        return _catch_up(row, run) if name in PROFILES else _busy(row, run)


def _say_nothing(_at: float, _text: str) -> None:
    """Its figures say it all."""


def _catch_up(row: LabRow, run: _Run) -> tuple[LabRow, bool]:
    """One node is behind by n documents, and then the other one writes now and then."""
    link = PROFILES[row.lab]
    rate = _live_rate(link)
    lab = read_lab(_TOPOLOGIES / "pair")
    keys: Mapping[str, object] = {"collections": [_COLLECTION], "trust": "open", "discovery": {"mdns": False}}
    steps = (
        Step(0, Kill(("a",))),
        Step(0, Write("b", _COLLECTION, row.n, None, _DOCUMENT_BYTES)),
        Step(0, Wait(_CATCH_UP_SECONDS_MAX)),
        Step(1, Restart(("a",))),
        Step(1, Wait(120.0 if link.backward == DOWN else _CATCH_UP_SECONDS_MAX)),
        Step(2, Write("b", _COLLECTION, _LIVE, rate, _DOCUMENT_BYTES)),
    )
    scenario = replace(
        lab.scenario,
        nodes={"a": {**keys, "peers": ["b"]}, "b": keys},
        links={"a-b": link},
        settle_seconds=0.0,
        steps=steps[:-1] if link.backward == DOWN else steps,
        expect=(Converged(0.0 if link.backward == DOWN else _CATCH_UP_SECONDS_MAX),),
    )
    record = run(replace(lab, scenario=scenario))
    written, caught_up = record.waits
    if link.backward == DOWN:
        is_right = caught_up.seconds is None and not record.violations
        notes = "nothing comes back: never in sync, and nobody says so" if is_right else f"FAILED: {record.violations}"
        return replace(row, notes=notes), is_right
    if caught_up.seconds is None:
        return replace(row, notes="FAILED: not in sync after an hour"), False
    behind = (caught_up.bytes_sent - written.bytes_sent) / row.n
    row = replace(row, hz=rate, seconds=caught_up.seconds, bytes_per_entry=behind)
    return _live(row, record, _LIVE, caught_up.bytes_sent)


def _live_rate(link: LinkImpairment) -> float:
    """Writes a second for which a link has room.

    The rate of a link that loses much is what its senders believe in: they take loss for a queue that overflows.
    """
    if link.forward.flap_seconds is not None:
        return _LIVE / (2 * sum(link.forward.flap_seconds))  # so that they meet what it does
    slowest = min(link.forward.rate_bits_per_second, link.backward.rate_bits_per_second)
    arriving = (1 - link.forward.loss) * (1 - link.backward.loss)
    return round(min(_LIVE_PER_SECOND_MAX, slowest / _LIVE_BITS) * arriving**2, 1)


def _busy(row: LabRow, run: _Run) -> tuple[LabRow, bool]:
    """The lab of that name, at one of the rates."""
    hz = int(row.lab.rpartition("-")[2])
    lab = read_lab(_TOPOLOGIES / _BUSY)
    steps = tuple(
        replace(step, action=replace(step.action, count=hz * _BUSY_SECONDS, rate=float(hz)))
        for step in lab.scenario.steps
        if isinstance(step.action, Write)
    )
    steps = (Step(0, Wait(lab.scenario.settle_seconds)), *steps)
    record = run(replace(lab, scenario=replace(lab.scenario, steps=steps)))
    n = len(record.writes)
    row = replace(row, n=n, hz=hz, seconds=record.converged_after)
    row, is_right = _live(row, record, n, record.waits[0].bytes_sent)
    p99 = row.p99_ms or 0.0
    notes = f"peat-mesh asks for {_BUSY_ASKED[hz]} % in 10 s"
    if p99 >= 1000:
        notes = f"FAILED: p99 of {p99:.0f} ms"
    return replace(row, notes=row.notes or notes), is_right and p99 < 1000


def _live(row: LabRow, record: Record, count: int, bytes_before: int) -> tuple[LabRow, bool]:
    latencies = record.latencies()
    is_right = record.converged_after is not None and record.delivered() == 1 and len(latencies) == count
    return (
        replace(
            row,
            p50_ms=percentile(latencies, 50) * 1000,
            p99_ms=percentile(latencies, 99) * 1000,
            bytes_per_write=(record.bytes_sent - bytes_before) / count,
            delivered=record.delivered() * 100,
            notes="" if is_right else f"FAILED: {len(latencies)} of {count} writes found both in sync",
        ),
        is_right,
    )
