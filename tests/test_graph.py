"""Lag: by how many entries a node is behind this one, as far as its summary tells."""

from __future__ import annotations

import heapq

from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.entry import PUT, Operation
from meshsync.core.limits import SUMMARY_MARKS_MAX
from meshsync.core.summary import Mark, NodeSummary
from meshsync.graph import lag
from meshsync.store.replica import Replica
from tests.authors import START_MS, Author, Made, batch_of
from tests.replicas import new_replica
from tests.summaries import summary


def replica_of(logs: dict[int, int], *, order: list[int] | None = None) -> Replica:
    """A replica that holds so many entries of each author, the authors in this order."""
    replica = new_replica()
    for number in order or sorted(logs):
        author, entries = Author(number), list[Made]()
        for count in range(logs[number]):
            entries.append(author.write([Operation(PUT, f"{number}-{count}", {})]))
        if entries:
            batch, _ = batch_of(entries)
            replica.apply(batch, batch.logs, None, START_MS)
    return replica


def summary_of(replica: Replica) -> NodeSummary:
    """What a node with this replica says."""
    newest = heapq.nlargest(SUMMARY_MARKS_MAX, replica.branches.values(), key=lambda branch: branch.tip_arrival)
    marks = tuple(Mark(branch.log.incarnation, branch.tip.seq) for branch in newest)
    return summary(2, entries=replica.entry_count(), root=replica.root(), marks=marks).summary


holdings = st.dictionaries(st.integers(1, 6), st.integers(0, 4), max_size=6)


@given(holdings, holdings)
def test_lag_is_exact_where_all_logs_are_told(mine: dict[int, int], theirs: dict[int, int]) -> None:
    """Otherwise the figure that an operator acts on is a guess."""
    expected = (
        sum(max(0, count - theirs.get(number, 0)) for number, count in mine.items()),
        sum(max(0, count - mine.get(number, 0)) for number, count in theirs.items()),
        True,
    )
    assert lag(replica_of(mine), summary_of(replica_of(theirs))) == expected


def test_lag_is_the_least_that_can_be_where_not_all_logs_fit() -> None:
    """Otherwise a figure is shown as exact that is not, or as zero beside another root."""
    logs = dict.fromkeys(range(1, SUMMARY_MARKS_MAX + 9), 1)
    mine = replica_of({**logs, 1: 4, 40: 3})
    # Author 1 grew last there, so it is told of; the others stand for what is not.
    theirs = summary_of(replica_of({**logs, 1: 2}, order=[*range(2, SUMMARY_MARKS_MAX + 9), 1]))
    assert not theirs.tells_all_logs
    assert lag(mine, theirs) == (5, 0, False)
    assert lag(replica_of({1: 1}), theirs)[2] is False
    behind, ahead, _ = lag(replica_of(logs | {50: 1, 51: 1}), theirs)
    assert (behind, ahead) == (2, 1)


def test_forks_make_it_inexact() -> None:
    """A log with two branches has no one number that says how much of it is held."""
    replica = new_replica()
    one, other = Author(1), Author(1)
    for author, id in ((one, "x"), (other, "y")):
        batch, _ = batch_of([author.write([Operation(PUT, id, {})])])
        replica.apply(batch, batch.logs, None, START_MS)
    assert replica.has_forks()
    assert lag(replica, summary_of(replica_of({1: 1, 2: 1})))[2] is False
