"""What lazy links tell each other of what they know of the mesh."""

from __future__ import annotations

import math

from meshsync.core.gossip import Gossip, Taken
from meshsync.core.limits import LIMITS
from tests.authors import COLLECTION
from tests.summaries import id_of, summary

FAR = id_of(3)


def two_lazy_ends() -> tuple[Gossip, Gossip]:
    """Two nodes that heard the same of others, and not from each other."""
    ends = Gossip(id_of(1), LIMITS), Gossip(id_of(2), LIMITS)
    for gossip, peer in zip(ends, (id_of(2), id_of(1)), strict=True):
        for one in (peer, FAR):
            gossip.connect(one, b"first", 0)
            gossip.share(one, COLLECTION)
        gossip.set_lazy(peer, COLLECTION, 0, lazy=True)
        for number in (4, 5, 6):
            assert gossip.take(FAR, summary(number), 0, 0) is Taken.NEWS
    return ends


def test_lazy_ends_that_know_the_same_tell_no_more() -> None:
    """Otherwise a full mesh that is at rest carries each summary over every link, for minutes."""
    (a, b), now = two_lazy_ends(), LIMITS.summary_lazy_seconds
    asked = a.next_digest(id_of(2), now)
    assert asked == (COLLECTION, b.digest(COLLECTION))
    b.compared(id_of(1), *asked)
    assert b.ready_at(id_of(1), 1) == 1, "it answers at once"
    answer = b.next_digest(id_of(1), 1)
    assert answer == asked
    a.compared(id_of(2), *answer)
    assert a.next_digest(id_of(2), now) is b.next_digest(id_of(1), now) is None, "all is said"
    assert a.ready_at(id_of(2), now) == b.ready_at(id_of(1), now) == math.inf


def test_lazy_ends_that_know_different_things_tell_them() -> None:
    """Otherwise nobody behind a broken tree hears of the rest of the mesh, or not while that goes on changing."""
    (a, b), now = two_lazy_ends(), LIMITS.summary_lazy_seconds
    a.take(FAR, summary(7), 0, 0)
    for _ in range(10):
        now += LIMITS.summary_lazy_seconds
        for gossip, other, here, there in ((a, b, id_of(1), id_of(2)), (b, a, id_of(2), id_of(1))):
            while (told := gossip.next_digest(there, now)) is not None:
                other.compared(here, *told)
            if (fact := gossip.next_for(there, now)) is not None:
                other.take(here, fact.signed, fact.age(now), now)
        a.take(FAR, summary(8, int(now)), 0, now)
        b.take(FAR, summary(9, int(now)), 0, now)
    assert b.fact(COLLECTION, id_of(7)) is not None
