"""Ring 1: fifty nodes that come and go for an hour; a dozen seeds in every run and some hundreds in the slow one."""

from __future__ import annotations

import os
from collections import Counter
from functools import cache

import pytest

from tests.churn import run_churn, run_many

SEEDS = range(12)
MANY_SEEDS = range(1000, 1000 + int(os.environ.get("CHURNS", "200")))
CHUNK = 4

run_once = cache(run_churn)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_hour_of_churn_ends_with_equal_nodes(seed: int) -> None:
    """Otherwise nodes and links that come and go leave a mesh apart, or lose what was acknowledged."""
    run_once(seed)


def test_the_hours_are_not_empty() -> None:
    """Otherwise the test above passes because nothing happens in it."""
    total: Counter[str] = sum(map(run_once, SEEDS), Counter())
    least = {
        "writes": 1500,
        "writers": 300,
        "entries applied": 60_000,
        "logs relayed": 20_000,
        "links": 5000,
        "cuts": 4000,
        "kills": 150,
        "crashes": 150,
        "entries lost in crashes": 20,
        "absences": 300,
        "partitions": 30,
        "silences": 100,
        "grafts": 2000,
        "prunes": 2000,
        "changes of mind": 30,
    }
    assert {name: total[name] for name in least if total[name] < least[name]} == {}


@pytest.mark.slow
@pytest.mark.parametrize("first", MANY_SEEDS[::CHUNK])
def test_many_hours_of_churn_end_with_equal_nodes(first: int) -> None:
    """Otherwise a rarer order of events leaves nodes apart, or loses entries.  CHURNS=N says how many hours."""
    run_many(MANY_SEEDS[MANY_SEEDS.index(first) :][:CHUNK])
