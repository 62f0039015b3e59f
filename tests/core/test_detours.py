"""When a link is found to be a long way round, and when not."""

from __future__ import annotations

import random

from meshsync.core.detours import Detour, Detours
from meshsync.core.limits import LIMITS
from tests.authors import Author

FIRST, SECOND = sorted((Author(1).log, Author(2).log))
RTT = 0.05


def detours() -> Detours[str]:
    return Detours(LIMITS, random.Random(1))


def test_what_came_later_than_it_was_announced_to_be_there_came_a_long_way() -> None:
    """Otherwise a tree stays as long as it happened to grow."""
    seen = detours()
    assert seen.came("a", {FIRST: 1}, 10.3) is None
    assert seen.offered("b", FIRST, 1, 10.1, 10.4) == Detour("a", "b", 10.3 - 10.1)


def test_what_is_announced_before_it_comes_is_compared_when_it_does() -> None:
    """Otherwise the longest ways are the ones that are not found."""
    seen = detours()
    seen.wrote(FIRST.author, 10)
    assert seen.offered("b", FIRST, 1, 10.1, 10.2) is None
    assert seen.offered("c", FIRST, 1, 10.2, 10.25) is None
    assert seen.came("a", {FIRST: 1}, 10.4) == Detour("a", "b", 10.4 - 10.1)
    assert seen.came("a", {FIRST: 2}, 10.5) is None, "the offers are spent"


def test_an_entry_that_is_not_the_last_that_came_proves_nothing() -> None:
    """Otherwise links turn because of what came at another time."""
    seen = detours()
    seen.came("a", {FIRST: 2}, 10.3)
    assert seen.offered("b", FIRST, 1, 9.0, 10.4) is None
    assert seen.offered("a", FIRST, 2, 9.0, 10.4) is None, "the same link"


def test_only_the_first_of_those_who_write_counts() -> None:
    """Otherwise nodes that go by the entries of different authors break the tree together."""
    seen = detours()
    seen.came("a", {FIRST: 1}, 10.0)
    seen.came("a", {SECOND: 1}, 10.1)
    assert seen.offered("b", SECOND, 1, 9.0, 10.2) is None
    later = 10.0 + LIMITS.detour_author_seconds + 1
    seen.came("a", {SECOND: 2}, later)
    assert seen.offered("b", SECOND, 2, later - 1, later) is not None, "the first has not written for a while"
    seen.wrote(FIRST.author, later)
    assert seen.offered("b", SECOND, 2, later - 1, later) is None, "this node itself may be the first"


def test_a_little_is_not_worth_a_change() -> None:
    """Otherwise paths of the same length take turns for ever."""
    seen = detours()
    assert not seen.take(Detour("a", "b", RTT / 2 + 0.001), RTT, 10)
    assert not seen.take(Detour("a", "b", LIMITS.detour_seconds_min), 0.0, 10)
    assert seen.take(Detour("a", "b", RTT), RTT, 10)


def test_changes_become_rare() -> None:
    """Otherwise slow machines, where all paths look long now and then, turn links without end."""
    seen = detours()
    times = [tenth / 10 for tenth in range(6000) if seen.take(Detour("a", "b", 1.0), RTT, tenth / 10)]
    assert len(times) <= 20
    seen.begin_anew()
    assert seen.take(Detour("a", "b", 1.0), RTT, times[-1]), "another tree may be mended at once"


def test_as_many_authors_are_remembered_as_the_bound_says() -> None:
    """Otherwise a peer that invents authors fills the memory."""
    seen = detours()
    for number in range(1, LIMITS.detour_authors_max + 10):
        seen.wrote(Author(number).log.author, 10)
    assert len(seen._wrote) == LIMITS.detour_authors_max


def test_a_link_that_is_gone_is_not_kept() -> None:
    """Otherwise a link that is no more is to be turned."""
    seen = detours()
    seen.wrote(FIRST.author, 10)
    seen.offered("b", FIRST, 1, 10.0, 10.1)
    seen.forget("b")
    assert seen.came("a", {FIRST: 1}, 10.4) is None
    seen.forget("a")
    assert seen.offered("b", FIRST, 1, 10.0, 10.5) is None
