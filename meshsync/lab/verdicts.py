"""Whether what was expected of a run held, and with which figures."""

from __future__ import annotations

import math
from dataclasses import dataclass

from meshsync.lab.expectations import (
    BytesPerEntry,
    Converged,
    Delivered,
    Expectation,
    Latency,
    NeverFalselySynced,
    NothingLost,
    OneConnection,
)
from meshsync.lab.record import Record, percentile
from meshsync.lab.scenario import Scenario


@dataclass(frozen=True)
class Verdict:
    """One expectation and what became of it."""

    sentence: str
    holds: bool
    detail: str
    """The figure, or what was wrong."""


def judge(scenario: Scenario, record: Record) -> list[Verdict]:
    """A verdict for each expectation, in the order of the file; and one for each node that ended by itself."""
    return [
        Verdict(sentence, *_judge(expected, record))
        for sentence, expected in zip(scenario.sentences, scenario.expect, strict=True)
    ] + [Verdict(f"{node} runs until it is killed", holds=False, detail=how) for node, how in record.ended.items()]


def _judge(expected: Expectation, record: Record) -> tuple[bool, str]:
    match expected:
        case Converged(within_seconds):
            after = record.converged_after
            if after is None:
                return False, "not in that time: roots differ, or a node does not say that it is synced"
            return after <= within_seconds, f"after {after:.2f} s"
        case NothingLost():
            return _nothing_lost(record)
        case Latency(percent, below_seconds):
            latencies = record.latencies()
            if not latencies:
                return False, "nothing was written while all nodes ran and were in sync"
            value = percentile(latencies, percent)
            text = "some never arrived" if math.isinf(value) else f"{value * 1000:.1f} ms"
            return value < below_seconds, f"{text}, of {len(latencies)} arrivals"
        case BytesPerEntry(below):
            each = record.bytes_per_entry()
            if each is None:
                return False, "nothing was written"
            return each < below, f"{each:.0f} bytes"
        case Delivered(at_least):
            share = record.delivered() * 100
            return share >= at_least and bool(record.writes), f"{share:.2f}% of {len(record.writes)} writes"
        case OneConnection():
            return _never(record, "connections")
        case NeverFalselySynced():
            return _never(record, "synced")


def _nothing_lost(record: Record) -> tuple[bool, str]:
    lost = list(record.missing())
    if lost:
        node, write = lost[0]
        return False, f"{len(lost)} are lacking; {node} lacks {write.id}, which {write.node} acknowledged"
    return bool(record.writes), f"{len(record.writes)} acknowledged, all on {len(record.held)} nodes"


def _never(record: Record, kind: str) -> tuple[bool, str]:
    found = record.violations.get(kind)
    return found is None, found or "never seen"
