"""All workloads, by the names that people ask for them with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench import joining, meshes, pairs, parts, priorities, queries
from bench.report import Row
from bench.stage import Stage


@dataclass(frozen=True)
class Workload:
    """One workload, the sizes that it runs with when none is asked for, and how long one run may take."""

    run: Callable[[Stage, int], Awaitable[list[Row]]]
    sizes: tuple[int, ...]
    seconds_max: float = 180.0


WORKLOADS = {
    "W1": Workload(pairs.bootstrap, (1_000, 10_000, 100_000)),
    "W2": Workload(pairs.latency, (1_000,)),
    "W3": Workload(pairs.live, (5_000,)),
    "W4": Workload(pairs.diverge, (10_000,)),
    "W5": Workload(pairs.increment, (1_000, 10_000, 100_000)),
    "W6": Workload(pairs.reconcile, (1, 10, 100, 1_000)),
    "M1": Workload(meshes.spread, (10,), 300.0),
    "M2": Workload(meshes.cost, (5, 10, 20), 420.0),
    "M3": Workload(joining.heal, (1_000,), 360.0),
    "M4": Workload(joining.join, (10_000,), 300.0),
    "P1": Workload(priorities.alarms, (1_000,), 90.0),
    "Q1": Workload(parts.bootstrap, (100_000,), 600.0),
    "Q2": Workload(parts.histories, (1_000,), 600.0),
    "Q3": Workload(queries.listings, (1_000_000,), 1_800.0),
    "Q4": Workload(parts.live, (5_000,)),
    "MEM": Workload(pairs.memory, (1_000_000,), 1_200.0),
}
