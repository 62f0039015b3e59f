from __future__ import annotations

import json
import math
import random
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.errors import LocalError
from meshsync.lab.impairments import DOWN, PERFECT, PROFILES, Impairment, LinkImpairment, read_link_impairment
from meshsync.lab.wire import Wire

PACKETS = 20_000


def carried(impairment: Impairment, seed: int = 1, gap: float = 0.01, size: int = 1000) -> list[tuple[float, ...]]:
    """What comes out of a wire for so many datagrams, each a gap after the one before, as delays."""
    wire = Wire(random.Random(seed), impairment)
    return [tuple(due - number * gap for due in wire.carry(size, number * gap)) for number in range(PACKETS)]


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_go_by_their_names(name: str) -> None:
    """Otherwise a scenario that names one means another."""
    assert read_link_impairment(name) is PROFILES[name]


def test_keys_change_a_profile() -> None:
    """Otherwise every variation needs a profile of its own."""
    both = read_link_impairment({"profile": "jtrs", "loss": "0%", "jitter": "50ms"})
    assert both == LinkImpairment.both(Impairment(delay_seconds=0.5, rate_bits_per_second=56e3, jitter_seconds=0.05))


def test_directions_differ() -> None:
    """Otherwise a link that only one side hears cannot be written."""
    both = read_link_impairment({"forward": {"delay": "1s"}, "backward": {"down": "true"}})
    assert both == LinkImpairment(Impairment(delay_seconds=1), DOWN)
    assert read_link_impairment({"forward": "satcom-low"}) == LinkImpairment(PROFILES["satcom-low"].forward, PERFECT)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("lossy", "no profile; expected one of nominal, tactical-radio"),
        ({"los": "5%"}, "unknown key 'los'"),
        ({"loss": "lots"}, "loss: 'lots' is no share"),
        ({"burst": "0.5"}, "no length of a burst"),
        ({"flap": "30s"}, "such as 30s/10s"),
        ({"flap": "30s/0s"}, "both above 0"),
        ({"down": "maybe"}, "not a truth value"),
        ({"forward": {}, "loss": "1%"}, "loss beside forward"),
        ({"forward": {"backward": {}}}, "within a direction"),
        ("", "no profile"),
        (["5%"], "no impairment"),
    ],
)
def test_what_is_no_impairment_is_refused(value: object, message: str) -> None:
    """Otherwise a slip of the pen is a perfect link."""
    with pytest.raises(LocalError, match=message):
        read_link_impairment(value)


@given(
    st.builds(
        Impairment,
        delay_seconds=st.floats(0, 10),
        loss=st.floats(0, 1),
        rate_bits_per_second=st.sampled_from([math.inf, 9600.0]),
        down=st.booleans(),
        flap_seconds=st.none() | st.tuples(st.floats(1, 9), st.floats(1, 9)),
    )
)
def test_an_impairment_goes_through_json(impairment: Impairment) -> None:
    """Otherwise the cable does something else than the scenario says."""
    assert Impairment.from_json(json.loads(json.dumps(impairment.as_json()))) == impairment


# What a wire does


@pytest.mark.parametrize("loss", [0.01, 0.3, 0.5])
@pytest.mark.parametrize("burst", [1, 5])
def test_so_much_is_lost(loss: float, burst: float) -> None:
    """Otherwise a profile claims what it does not do."""
    arrived = [bool(times) for times in carried(Impairment(loss=loss, burst_datagrams=burst))]
    assert 1 - sum(arrived) / PACKETS == pytest.approx(loss, rel=0.2 * burst)
    runs = [sum(1 for _ in run) for lost, run in groupby(arrived, key=lambda one: not one) if lost]
    expected = burst if burst > 1 else 1 / (1 - loss)
    assert sum(runs) / len(runs) == pytest.approx(expected, rel=0.2 * burst**0.5)


def test_a_rate_spreads_what_comes_at_once() -> None:
    """Otherwise a slow link is a fast one with delay."""
    wire = Wire(random.Random(1), Impairment(rate_bits_per_second=80_000, queue_seconds=60))
    assert [wire.carry(1000, 0.0) for _ in range(3)] == [(0.1,), (0.2,), (pytest.approx(0.3),)]
    assert wire.carry(1000, 10.0) == (10.1,)


def test_a_full_queue_loses_what_comes_last() -> None:
    """Otherwise a slow link holds any amount, and nobody ever slows down."""
    wire = Wire(random.Random(1), Impairment(rate_bits_per_second=80_000, queue_seconds=0.5))
    arrived = [bool(wire.carry(1000, 0.0)) for _ in range(20)]
    assert arrived == [True] * 6 + [False] * 14
    assert (wire.carried, wire.lost) == (6, 14)


def test_jitter_stays_within_its_bounds_and_reorders() -> None:
    """Otherwise nothing is ever tried against reordering."""
    delays = [times[0] for times in carried(Impairment(delay_seconds=0.1, jitter_seconds=0.05), gap=0.001)]
    assert min(delays) >= 0.05
    assert max(delays) <= 0.15 + 1e-9
    assert sum(delays) / PACKETS == pytest.approx(0.1, rel=0.02)


def test_duplicates_and_overtakers() -> None:
    """Otherwise those keys are read and do nothing."""
    out = carried(Impairment(delay_seconds=0.1, duplication=0.1, reordering=0.2))
    assert sum(len(times) == 2 for times in out) / PACKETS == pytest.approx(0.1, rel=0.1)
    assert sum(times[0] < 0.05 for times in out) / PACKETS == pytest.approx(0.2, rel=0.1)


def test_a_link_flaps() -> None:
    """Otherwise `flap` is a link that is up."""
    wire = Wire(random.Random(1), PROFILES["flap"].forward)
    assert [bool(wire.carry(100, float(second))) for second in (0, 29, 30, 39, 40, 69, 70)] == [
        *(True, True, False, False, True, True, False)
    ]


def test_one_way_hears_only_one_side() -> None:
    """Otherwise the profile is no asymmetry."""
    both = PROFILES["one-way"]
    assert Wire(random.Random(1), both.forward).carry(100, 1.0) == (1.0,)
    assert Wire(random.Random(1), both.backward).carry(100, 1.0) == ()


def test_a_seed_repeats_a_run() -> None:
    """Otherwise a failure cannot be looked at again."""
    impairment = Impairment(loss=0.3, jitter_seconds=0.1, duplication=0.1, burst_datagrams=3)
    assert carried(impairment, seed=7) == carried(impairment, seed=7)
    assert carried(impairment, seed=7) != carried(impairment, seed=8)
