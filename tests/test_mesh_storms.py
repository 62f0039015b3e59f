"""Ring 1: storms of random events, a dozen in every run and some thousands in the slow one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache

import pytest

from tests.storm import run_storm

SEEDS = (*range(20), 464)
"""In 464 a link turns while a message that introduces a log has yet to be sent."""
MANY_SEEDS = range(100, 3100)
CHUNK = 50

run_once = cache(run_storm)


def run_seeds(seeds: Iterable[int]) -> Counter[str]:
    total: Counter[str] = Counter()
    for seed in seeds:
        try:
            total += run_once(seed)
        except BaseException as error:
            error.add_note(f"replay: python -c 'from tests.storm import run_storm; run_storm({seed})'")
            raise
    return total


@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm_ends_with_equal_nodes(seed: int) -> None:
    """Otherwise some order of writes, cuts, crashes, forks and full disks leaves nodes apart, or loses entries."""
    run_seeds(range(seed, seed + 1))


def test_the_storms_are_not_empty() -> None:
    """Otherwise the tests above pass because nothing happens in them."""
    total = run_seeds(SEEDS)
    least = {
        "writes": 400,
        "entries applied": 1000,
        "links": 60,
        "cuts": 30,
        "crashes": 10,
        "entries lost in crashes": 5,
        "kills": 5,
        "forks found": 5,
        "Locate": 1,
        "restores": 2,
        "clones": 2,
        "resyncs": 10,
        "batches not stored": 10,
    }
    assert {name: total[name] for name in least if total[name] < least[name]} == {}


@pytest.mark.slow
@pytest.mark.parametrize("first", MANY_SEEDS[::CHUNK])
def test_many_storms_end_with_equal_nodes(first: int) -> None:
    """Otherwise a rarer order of events leaves nodes apart, or loses entries."""
    run_seeds(range(first, first + CHUNK))
