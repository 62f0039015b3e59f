"""The work on replicas beside everything else."""

from __future__ import annotations

import trio
import trio.testing

from meshsync.core.limits import LIMITS
from meshsync.errors import StoreError
from meshsync.store.replica import Replica
from meshsync.upkeep import Upkeep
from tests.replicas import new_replica


async def test_one_replica_that_fails_does_not_keep_others_waiting(autojump_clock: trio.testing.MockClock) -> None:
    """Otherwise one damaged collection keeps all others from expiring, and no index is ever built."""
    del autojump_clock
    bad, good = new_replica(1), new_replica(2)
    steps: list[Replica] = []
    failures: list[StoreError] = []
    upkeep = Upkeep(lambda: [bad, good], failures.append, LIMITS)

    def step(replica: Replica) -> bool:
        if replica is bad:
            raise StoreError("the disk is full")
        steps.append(replica)
        return len(steps) < 3

    began = trio.current_time()
    assert not await upkeep.work_through(step)
    assert steps == [good] * 3
    assert len(failures) == 1
    assert trio.current_time() - began == LIMITS.upkeep_retry_seconds


async def test_a_replica_that_is_gone_is_left_alone() -> None:
    """Otherwise a worker writes into the tables of a collection that were dropped."""
    replicas = [new_replica(1), new_replica(2)]
    gone, other = replicas
    steps: list[Replica] = []

    def step(replica: Replica) -> bool:
        steps.append(replica)
        if replica is gone:
            replicas.remove(gone)
        return replica is gone

    assert await Upkeep(lambda: list(replicas), lambda error: None, LIMITS).work_through(step)  # noqa: ARG005
    assert steps == [gone, other]
