"""What a change of a replica did: for the sessions, the watchers and the owner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from meshsync.core.rebuild import Skip
from meshsync.ids import LogId
from meshsync.store.rows import CursorRow


class Cursor(NamedTuple):
    """What a batch confirms: the peer, and its row to keep in the same transaction."""

    peer: bytes
    row: CursorRow


@dataclass(slots=True)
class Applied:
    """What a batch or a local write changed."""

    count: int = 0
    tips: dict[int, int] = field(default_factory=dict)
    """The branches that grew, and their tip's seq."""
    payload_bytes: int = 0
    """Of the entries that a batch brought."""
    conflicts: int = 0
    skipped: dict[LogId, Skip] = field(default_factory=dict)
    forked: list[LogId] = field(default_factory=list)
    """Logs that were not known to have forked before."""
    reached: dict[int, int] = field(default_factory=dict)
    """How far the batch followed each branch, held before or not."""
    seals_checked: int = 0
    filled: list[int] = field(default_factory=list)
    """The entries (arrivals) that got a payload which had stayed away, or was damaged, or turned out to need none."""
    mended: list[int] = field(default_factory=list)
    """The entries (arrivals) that were damaged and are not any more."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """How many payloads were dropped, and what they took."""

    entries: int = 0
    bytes: int = 0

    def __add__(self, other: Dropped) -> Dropped:
        return Dropped(self.entries + other.entries, self.bytes + other.bytes)

    def __sub__(self, other: Dropped) -> Dropped:
        return Dropped(self.entries - other.entries, self.bytes - other.bytes)
