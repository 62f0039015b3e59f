"""The hybrid logical clock."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core import hlc
from meshsync.errors import LocalError

stamps = st.integers(0, hlc.HLC_MAX - 1)
wall_clocks = st.integers(-(10**15), (hlc.HLC_MAX >> 16) - 1)


@given(wall_clocks, st.lists(stamps, max_size=5))
def test_a_stamp_is_later_than_all_that_was_seen(wall_ms: int, seen: list[int]) -> None:
    """Otherwise an answer can look older than what it answers."""
    stamp = hlc.next_stamp(wall_ms, *seen)
    assert stamp > max(seen, default=0)
    assert 1 <= stamp <= hlc.HLC_MAX


@given(wall_clocks, st.lists(stamps, max_size=5))
def test_a_stamp_is_near_the_wall_clock(wall_ms: int, seen: list[int]) -> None:
    """Otherwise stamps drift away from the time that people see."""
    stamp = hlc.next_stamp(wall_ms, *seen)
    assert hlc.milliseconds(stamp) >= wall_ms
    assert stamp == max(max(wall_ms, 0) << 16, max(seen, default=0) + 1)


def test_the_counter_overflows_into_the_milliseconds() -> None:
    """Otherwise the 65,537th write of one millisecond is not later than the one before."""
    stamp = hlc.next_stamp(1000)
    for _ in range(2**16):
        stamp = hlc.next_stamp(1000, stamp)
    assert hlc.milliseconds(stamp) == 1001


def test_a_clock_before_1970_counts_as_1970() -> None:
    """Otherwise a device that boots without a clock writes negative stamps."""
    assert hlc.next_stamp(-5) == 1
    assert hlc.next_stamp(-5, 7) == 8


@pytest.mark.parametrize(("wall_ms", "seen"), [((hlc.HLC_MAX >> 16) + 1, 0), (0, hlc.HLC_MAX), (2**60, 5)])
def test_the_end_of_the_clock_is_the_callers_fault(wall_ms: int, seen: int) -> None:
    """Otherwise a machine with an absurd clock writes entries that no store can hold and every peer refuses."""
    with pytest.raises(LocalError, match="clock"):
        hlc.next_stamp(wall_ms, seen)


def test_stamps_are_shown_as_times() -> None:
    """Otherwise a stamp from the far future breaks a listing."""
    assert hlc.to_datetime(1_800_000_000_000 << 16) == datetime(2027, 1, 15, 8, tzinfo=UTC)
    assert hlc.to_datetime(2**64 - 1) <= datetime.max.replace(tzinfo=UTC)
    assert hlc.to_datetime(hlc.HLC_MAX).year > 6000
