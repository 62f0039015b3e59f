"""Which of two connections survives, when to try again, and whom to keep out."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from meshsync.core.dialing import Allowance, Backoff, Penalties, replaces
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
