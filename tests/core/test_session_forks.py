"""The session: logs whose key signed twice at one place."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.entry import PUT, Operation
from meshsync.core.session_events import Changed
from meshsync.store.replica import Replica
from tests.authors import Author, Made
from tests.duo import BOTH_SYNCED, Duo
from tests.replicas import give, held, new_replica, put, store_of


def write(author: Author, number: int, after: Made | None = None) -> Made:
    return author.write([Operation(PUT, "x", {"n": number})], after=after)


def branches(author: Author, shared: int, *lengths: int) -> tuple[list[Made], list[list[Made]]]:
    """A common beginning of a log, and branches of some lengths that go on from its end."""
    author.last = None
    common = [write(author, number) for number in range(shared)]
    result = []
    for branch, length in enumerate(lengths, 1):
        author.last = common[-1] if common else None
        result.append([write(author, 1000 * branch + number) for number in range(length)])
    return common, result


def level(*parts: Sequence[Sequence[Made]]) -> Duo:
    """Two replicas with these chains each, run until they say nothing more."""
    a, b = new_replica(11), new_replica(12)
    for replica, chains in zip((a, b), parts, strict=True):
        for chain in chains:
            if chain:
                give(replica, *chain)
    duo = Duo(a, b)
    duo.run(5)
    assert duo.states == BOTH_SYNCED
    assert a.root() == b.root()
    assert held(a) == held(b) == {entry.id for chains in parts for chain in chains for entry in chain}
    return duo


@pytest.mark.parametrize("shared", [0, 1, 2, 3, 50, 513])
@pytest.mark.parametrize(("left", "right"), [(1, 1), (3, 1), (1, 3), (40, 40), (600, 2)])
def test_both_branches_reach_both_sides(shared: int, left: int, right: int) -> None:
    """Otherwise nodes that met different branches first stay apart for ever."""
    common, (one, two) = branches(Author(1), shared, left, right)
    duo = level([[*common, *one]], [[*common, *two]])
    assert duo.transcript.count("a Locate") + duo.transcript.count("b Locate") >= 1
    assert duo.transcript.count("a Open") + duo.transcript.count("b Open") == 2, "it took a resync"


@given(st.integers(0, 5), st.lists(st.integers(1, 6), min_size=3, max_size=5), st.data())
def test_any_branches_at_each_side(shared: int, lengths: list[int], data: st.DataObject) -> None:
    """Otherwise some combination of branches, each held to some length, leaves nodes apart."""
    common, found = branches(Author(1), shared, *lengths)
    parts = []
    for _ in range(2):
        lengths_here = [data.draw(st.integers(0, len(branch))) for branch in found]
        chains = [[*common, *branch[:length]] for branch, length in zip(found, lengths_here, strict=True)]
        parts.append([common, *chains])
    level(*parts)


def test_a_common_beginning_is_not_sent_again() -> None:
    """Otherwise a fork at the end of a long log costs the whole log."""
    common, (one, two) = branches(Author(1), 2000, 3, 5)
    duo = level([[*common, *one]], [[*common, *two]])
    assert duo.a.session.pushed <= 8
    assert duo.b.session.pushed <= 12


def test_entries_that_build_on_a_fork_arrive_after_it() -> None:
    """Otherwise what others wrote upon a branch is refused, and the honest peer thrown out."""
    author, reader = Author(1), Author(2)
    common, (one, two) = branches(author, 3, 2, 2)
    answers = [reader.write(parents=[one[-1]])]
    answers += [reader.write(parents=[]) for _ in range(3)]
    a, b = new_replica(11), new_replica(12)
    give(a, *common, *one, *answers)
    give(b, *common, *two)
    duo = Duo(a, b)
    duo.run()
    assert duo.states == BOTH_SYNCED
    assert duo.transcript.count("b Open") == 1


def test_a_fork_that_comes_by_another_link_while_a_batch_is_under_way() -> None:
    """Otherwise a parent that is named by its place means another entry at the receiver, which blames its peer."""
    author, reader = Author(1), Author(2)
    common, (one, two) = branches(author, 1, 1, 3)
    a, b = new_replica(11), new_replica(12)
    give(a, *common, *one)
    give(b, *common)
    duo = Duo(a, b)
    duo.receive(duo.a)
    duo.receive(duo.b)
    give(b, *common, *two)
    give(a, reader.write(parents=[one[-1]]))
    for _ in range(3):
        for side in (duo.a, duo.b):
            tips = {number: branch.tip.seq for number, branch in side.replica.branches.items()}
            duo.handle(side, Changed(tips))
        duo.run(5)
    assert duo.states == BOTH_SYNCED
    assert a.root() == b.root()


def test_a_node_that_meets_its_own_later_entries_begins_a_new_log() -> None:
    """Otherwise a restored backup signs twice at one place."""
    a = new_replica(11)

    for number in range(3):
        put(a, f"d{number}")
    backup = store_of(a).copy()
    for number in range(3, 6):
        put(a, f"d{number}")
    b = new_replica(12)
    Duo(a, b).run()

    restored = Replica(backup, backup.collection(a.id, "notes"), a.key)
    duo = Duo(restored, b)
    duo.run()
    assert duo.states == BOTH_SYNCED
    put(restored, "after")
    assert len(restored.by_log) == 2
    assert restored.forks() == []
