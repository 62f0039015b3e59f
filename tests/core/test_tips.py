"""Tips and the root."""

from __future__ import annotations

import hashlib
import random

from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.tips import Root, Tip, root_of
from meshsync.ids import CollectionId, LogId
from tests.authors import Author

COLLECTION = CollectionId.of_name("notes")
AUTHORS = [Author(number) for number in range(1, 6)]

tips = st.builds(
    lambda author, incarnation, seq, id: Tip(LogId(author.log.author, incarnation), seq, id),
    st.sampled_from(AUTHORS),
    st.binary(min_size=8, max_size=8),
    st.integers(1, 2**53),
    st.binary(min_size=32, max_size=32),
)


@given(st.lists(tips, max_size=20, unique=True), st.randoms(use_true_random=False))
def test_the_root_knows_no_order(held: list[Tip], rng: random.Random) -> None:
    """Otherwise two nodes that hold the same and learnt it in another order never say that they are in sync."""
    shuffled = held.copy()
    rng.shuffle(shuffled)
    assert root_of(COLLECTION, shuffled) == root_of(COLLECTION, held)


@given(st.lists(tips, min_size=1, max_size=20, unique=True), st.integers(0, 100))
def test_each_tip_counts(held: list[Tip], at: int) -> None:
    """Otherwise nodes say that they are in sync, and are not."""
    one = held[at % len(held)]
    rest = [tip for tip in held if tip is not one]
    other = one._replace(id=hashlib.sha256(one.id).digest())
    roots = {root_of(COLLECTION, held), root_of(COLLECTION, rest), root_of(COLLECTION, [*rest, other])}
    roots.add(root_of(COLLECTION, [*rest, one._replace(seq=one.seq + 1)]))
    roots.add(root_of(CollectionId.of_name("other"), held))
    assert len(roots) == 5


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9)), max_size=30))
def test_a_root_that_follows_changes_is_that_of_the_end(moves: list[tuple[int, int]]) -> None:
    """Otherwise the root of a node depends on when it was last asked for it."""
    root = Root(COLLECTION)
    now: dict[int, Tip] = {}
    for number, seq in moves:
        now[number] = Tip(AUTHORS[number].log, seq, bytes([seq]) * 32)
        root.set(number, now[number])
        assert root.digest() == root_of(COLLECTION, now.values())
