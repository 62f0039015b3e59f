"""When small batches go, on a clock that the test moves."""

from __future__ import annotations

from meshsync.core.limits import LIMITS
from meshsync.core.pacing import Pacer


def push(entries_per_second: float, seconds: float) -> list[int]:
    """The sizes of the batches in which a steady stream of writes leaves."""
    pacer, sizes, sent, now = Pacer(LIMITS), [], 0, 0.0
    while now < seconds:
        unsent = int(now * entries_per_second) - sent
        if unsent:
            wait = pacer.wait(now, unsent)
            if not wait:
                sizes.append(unsent)
                sent += unsent
            now += wait
        now += 0.0001
    return sizes


def test_a_burst_goes_at_once() -> None:
    """Otherwise a single write waits for company."""
    pacer = Pacer(LIMITS)
    assert [pacer.wait(0.0, 1) for _ in range(LIMITS.push_burst)] == [0] * LIMITS.push_burst
    assert 0 < pacer.wait(0.0, 1) <= LIMITS.push_interval_seconds


def test_a_steady_writer_never_waits_long() -> None:
    """Otherwise a sensor with a few hundred readings a second is as late as a flood."""
    assert max(push(300, 2)[LIMITS.push_burst :]) <= 2


def test_a_flood_shares_batches() -> None:
    """Otherwise each batch brings a few entries and costs as much as a dozen."""
    sizes = push(10_000, 2)
    assert len(sizes) < LIMITS.push_burst + 2.5 / LIMITS.push_interval_seconds_max
    assert max(sizes) < 10_000 * LIMITS.push_interval_seconds_max * 2


def test_after_a_flood_the_next_write_goes_soon() -> None:
    """Otherwise a flood makes the link slow for what comes after it."""
    pacer, now = Pacer(LIMITS), 0.0
    for _ in range(100):
        now += pacer.wait(now, 500)
    assert pacer.wait(now + LIMITS.push_interval_seconds_max, 1) == 0
    assert pacer.wait(now + LIMITS.push_interval_seconds_max, 1) <= LIMITS.push_interval_seconds
