"""How long what was announced may be late, by how late such things were."""

from __future__ import annotations

import math

from meshsync.core.lateness import Lateness
from meshsync.core.limits import LIMITS
from tests.authors import Author

LOG = Author(1).log
ALWAYS = -math.inf
"""Since when a link of the tree has been eager."""


def late() -> Lateness:
    return Lateness(LIMITS)


def test_the_longest_counts_and_fades() -> None:
    """Otherwise one entry in time has the next one asked for too soon, or one that was late slows all later repairs."""
    lateness = late()
    lateness.told(LOG, 1, 10.0)
    lateness.came({LOG: 1}, ALWAYS, 10.7)
    lateness.told(LOG, 2, 11.0)
    lateness.came({LOG: 2}, ALWAYS, 11.1)
    assert 0.6 < lateness.seconds(11.1) < 0.7
    assert lateness.seconds(11.1 + LIMITS.late_fades_seconds) < 0.35


def test_what_is_told_again_counts_from_when_it_was_told_first() -> None:
    """Otherwise the last of twenty neighbours to announce an entry says that it was hardly late."""
    lateness = late()
    for at in (10.0, 10.4, 10.5):
        lateness.told(LOG, 7, at)
    lateness.came({LOG: 9}, ALWAYS, 10.6)
    assert math.isclose(lateness.seconds(10.6), 0.6)


def test_what_came_because_it_was_asked_for_says_nothing() -> None:
    """Otherwise a broken tree is taken for a slow one, and mended later each time."""
    lateness = late()
    lateness.told(LOG, 1, 10.0)
    lateness.came({LOG: 1}, 10.5, 10.6)
    assert lateness.seconds(10.6) == 0


def test_what_was_asked_for_and_comes_by_the_tree_after_all_was_late() -> None:
    """Otherwise whoever asks too soon never learns that it does."""
    lateness = late()
    lateness.told(LOG, 1, 10.0)
    lateness.came({LOG: 1}, 10.5, 10.6)
    lateness.came({LOG: 1}, ALWAYS, 10.8)
    assert math.isclose(lateness.seconds(10.8), 0.8)


def test_it_has_a_bound() -> None:
    """Otherwise a peer that announces what will be there in an hour keeps a broken tree broken for hours."""
    lateness = late()
    lateness.told(LOG, 1, 10.0)
    lateness.came({LOG: 1}, ALWAYS, 3600.0)
    assert lateness.seconds(3600.0) == LIMITS.graft_late_seconds_max


def test_only_so_much_is_remembered() -> None:
    """Otherwise announcements of logs that nobody has fill the memory."""
    lateness = late()
    for number in range(LIMITS.late_logs_max + 10):
        lateness.told(Author(number).log, 1, 10.0)
    lateness.came({Author(0).log: 1}, ALWAYS, 10.5)
    assert lateness.seconds(10.5) == 0, "the oldest gave way"
    lateness.came({Author(LIMITS.late_logs_max).log: 1}, ALWAYS, 10.5)
    assert lateness.seconds(10.5) == 0.5
