"""Which of two connections survives, when to try again, and whom to keep out."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from meshsync.core.dialing import Allowance, Aside, Backoff, Paths, Penalties, replaces
from meshsync.core.limits import LIMITS
from tests.stack.world import IDENTITIES

LOW, HIGH = (identity.endpoint_id for identity in IDENTITIES[:2])


@pytest.mark.parametrize("first", [LOW, HIGH])
@pytest.mark.parametrize("second", [LOW, HIGH])
def test_both_ends_decide_alike(first: object, second: object) -> None:
    """Otherwise each end keeps another connection."""
    at_low = replaces(LOW, HIGH, existing_dialed=first is LOW, new_dialed=second is LOW)
    at_high = replaces(HIGH, LOW, existing_dialed=first is HIGH, new_dialed=second is HIGH)
    assert at_low == at_high == (first is second or second is LOW)


def test_pauses_are_jittered_bounded_and_reset() -> None:
    """Otherwise a fleet dials in step, or a peer is forgotten for hours."""
    one, two = (Backoff(random.Random(seed)) for seed in (1, 2))
    bounds = [min(0.5 * 2**number, 60.0) for number in range(20)]
    pauses = [one.next_delay() for _ in bounds]
    assert all(0 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))
    assert pauses != [two.next_delay() for _ in bounds]
    one.reset()
    assert one.next_delay() <= 0.5


def test_penalties_grow_end_and_are_forgiven() -> None:
    """Otherwise a peer that breaks the protocol is let in at once, or never again."""
    penalties = Penalties(random.Random(1))
    assert penalties.remaining(LOW, 100.0) == 0
    waits = [penalties.punish(LOW, 100.0) for _ in range(12)]
    assert waits[0] <= 1
    assert 30 <= waits[-1] <= 60
    assert penalties.remaining(LOW, 100.0) == pytest.approx(waits[-1])
    assert penalties.remaining(LOW, 161.0) == 0
    assert penalties.remaining(HIGH, 100.0) == 0
    penalties.forgive(LOW)
    assert penalties.punish(LOW, 200.0) <= 1


def test_penalties_are_bounded() -> None:
    """Otherwise whoever makes keys fills the memory."""
    penalties = Penalties(random.Random(1), replace(LIMITS, connections_max=3))
    for number, identity in enumerate(IDENTITIES[:9]):
        penalties.punish(identity.endpoint_id, 100.0 * number)
    assert penalties.remaining(IDENTITIES[8].endpoint_id, 800.0) > 0
    assert len(penalties._ends) == 3


def test_an_allowance_is_a_burst_and_then_a_rate() -> None:
    """Otherwise a peer that reconnects after a bad hour is punished, or one that does nothing else is not."""
    allowance = Allowance(3, 5.0)
    assert [allowance.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not allowance.take(104.9)
    assert allowance.take(105.0)
    assert not allowance.take(105.0)
    assert [allowance.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_the_address_that_worked_comes_first_and_one_that_failed_rests() -> None:
    """Otherwise a peer with one good address among many is searched anew each time it is lost."""
    paths = Paths(random.Random(1))
    bad, good, other = (("10.0.0.1", 1), ("10.0.0.2", 1), ("10.0.0.3", 1))
    assert paths.first([bad, good, other]) == bad
    paths.failed(bad, 100.0)
    paths.worked(good)
    assert paths.first([bad, other, good]) == good
    assert paths.first([bad, other]) == bad, "the order says it"
    rests = []
    for _ in range(12):
        paths.failed(bad, 100.0)
        rests.append(next(seconds for seconds in range(100) if not paths.is_resting(bad, 100.0 + seconds)))
    assert rests[0] <= 2
    assert max(rests) > 20
    assert max(rests) <= LIMITS.backoff_last_seconds
    assert not paths.is_resting(other, 100.0)
    paths.reset()
    assert not paths.is_resting(bad, 100.0)


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    """Otherwise a peer that is seen at ever new addresses fills the memory."""
    paths = Paths(random.Random(1), replace(LIMITS, paths_max=5))
    for port in range(1, 50):
        paths.failed(("10.0.0.1", port), 100.0)
    assert len(paths._rests) == 5


def test_who_is_put_aside_stays_there_longer_each_time() -> None:
    """Otherwise a record that leads nowhere comes back before others had their turn."""
    aside = Aside(random.Random(1))
    pauses = [aside.next_delay() for _ in range(10)]
    bounds = [min(LIMITS.aside_first_seconds * 2**number, LIMITS.aside_last_seconds) for number in range(10)]
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))
