"""Moments as people and programs name them, with their zone, and as milliseconds since the Unix epoch.

Light to import: commands do.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import overload

from meshsync.errors import LocalError
from meshsync.quantities import parse_duration

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(r"[0-9.]+\s*[a-z]+")


def milliseconds_of(time: datetime) -> int:
    """Milliseconds since the Unix epoch.  LocalError: the time has no zone, or is none."""
    if not isinstance(time, datetime):
        raise LocalError(f"{time!r:.80} is no time; give a datetime with its zone, or its text")
    if time.tzinfo is None:
        raise LocalError(
            f"{time.isoformat()} names no time zone; write {time.isoformat()}Z, or its offset, such as +02:00"
        )
    return (time - _EPOCH) // timedelta(milliseconds=1)


def time_of(milliseconds: int) -> datetime:
    """The time in UTC of milliseconds since the Unix epoch that a document can have (EXPIRES_MS_MAX)."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


@overload
def moment_text(time: datetime) -> str: ...
@overload
def moment_text(time: datetime | None) -> str | None: ...
def moment_text(time: datetime | None) -> str | None:
    """A time in UTC: RFC 3339, milliseconds; None for none."""
    return None if time is None else time.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def parse_expires(text: str) -> datetime | timedelta:
    """When a document is to expire: in a while (30d, 2h, 90s) or at a time (2026-12-01T00:00Z).

    A bare number is neither: it would be gone before long where days or the seconds of an epoch were meant.
    LocalError: it is neither.
    """
    try:
        if _DURATION.fullmatch(text):
            return timedelta(seconds=parse_duration(text))
        return datetime.fromisoformat(text)
    except (ValueError, OverflowError, LocalError):
        raise LocalError(
            f"{text!r:.80} is no time at which a document can expire; write 2026-12-01T00:00Z, or in how long, such as"
            " 30d or 2h, or never"
        ) from None
