"""How much of its past a collection keeps at a node.

    all             everything; the default
    30d, 12h, …     superseded payloads that were written within this time
    10000 entries   superseded payloads of the entries that arrived last
    latest          none

Payloads that the documents are made of are always kept, and so are all headers.  Where a collection has several
wishes, a payload stays that any of them wants.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from meshsync.errors import LocalError
from meshsync.quantities import parse_duration

_ENTRIES = re.compile(r"([1-9][0-9]{0,14})\s*entries")
_SECONDS_MAX = 10_000 * 365 * 86400
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


class Retention(NamedTuple):
    """What of the superseded payloads stays: the young ones, and those that arrived last."""

    seconds: float
    """Since a payload was written; infinite where all stay."""
    entries: int
    """How many of the last arrivals."""

    @classmethod
    def of(cls, retention: Retention | str) -> Retention:
        """A retention as callers give it: as such, or as people type it.  LocalError: it says nothing of the kind."""
        if isinstance(retention, cls):
            return retention
        return cls.parse(retention if isinstance(retention, str) else repr(retention))

    @classmethod
    def parse(cls, text: str) -> Retention:
        """Read it as people type it.  LocalError: it is none of the forms above."""
        word = text.strip()
        if word in _WORDS:
            return _WORDS[word]
        if found := _ENTRIES.fullmatch(word):
            return cls(0, int(found[1]))
        try:
            seconds = parse_duration(word)
        except LocalError:
            seconds = -1
        # A bare number may be meant as days, seconds or entries; rounded to nothing it would drop all.
        if word[-1:].isdigit() or not 1 <= seconds <= _SECONDS_MAX or seconds % 1:
            raise LocalError(f"{text!r:.40} does not say what to keep; expected all, latest, 30d, 12h or 10000 entries")
        return cls(seconds, 0)

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever dropped."""
        return self.seconds == math.inf

    def or_else(self, other: Retention) -> Retention:
        """What keeps all that either keeps."""
        if self.keeps_all or other.keeps_all:
            return ALL
        return Retention(max(self.seconds, other.seconds), max(self.entries, other.entries))

    def __str__(self) -> str:
        """As `parse` reads it, where one wish made it."""
        for word, value in _WORDS.items():
            if self == value:
                return word
        parts = [f"{self.entries} entries"] if self.entries else []
        if self.seconds:
            unit, size = next((unit, size) for unit, size in _UNITS if not self.seconds % size)
            parts.insert(0, f"{int(self.seconds) // size}{unit}")
        return " or ".join(parts)


ALL = Retention(math.inf, 0)
LATEST = Retention(0, 0)
_WORDS = {"all": ALL, "latest": LATEST}
