"""The hybrid logical clock: 48 bits of milliseconds since the Unix epoch, 16 bits of counter.

Kulkarni, Demirbas et al., "Logical Physical Clocks" (2014).  A stamp is one integer, so stamps compare as
integers and the counter overflows into the milliseconds by itself.
"""

from __future__ import annotations

from datetime import UTC, datetime

from meshsync.errors import LocalError

COUNTER_BITS = 16
# Stores keep signed 64-bit integers; this is the year 6429.
HLC_MAX = 2**63 - 1


def next_stamp(wall_ms: int, *seen: int) -> int:
    """Return a stamp greater than all of `seen`, and as near to the wall clock as that allows.

    A wall clock before 1970 counts as 1970: the stamps that were seen carry the clock on.  LocalError: no stamp is
    left, because the clock is thousands of years ahead.
    """
    stamp = max(max(wall_ms, 0) << COUNTER_BITS, max(seen, default=0) + 1)
    if stamp > HLC_MAX:
        raise LocalError("the clock of this machine is thousands of years ahead: set it right")
    return stamp


def milliseconds(stamp: int) -> int:
    """Milliseconds since the Unix epoch of a stamp."""
    return stamp >> COUNTER_BITS


def to_datetime(stamp: int) -> datetime:
    """The time of a stamp, in UTC; the last instant of the calendar for what lies beyond it."""
    try:
        return datetime.fromtimestamp(milliseconds(stamp) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC)
