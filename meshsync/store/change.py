"""What one transaction of a replica does: in memory it follows once the transaction is committed, and not before."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from meshsync.store.applied import Applied
from meshsync.store.branches import Branch
from meshsync.store.rows import EntryRow


@dataclass(slots=True)
class Inserted:
    """Entries that are new here, or stand again where only a damaged one was left."""

    rows: Sequence[EntryRow]
    operations: list[Any]
    lacking: Iterable[tuple[bytes, int, int]]
    """What those touch that lack their payloads; as `touches_of`."""
    covered: dict[int, int]
    """By branch, up to which entry others name it as a parent now."""
    restored: Collection[int]
    """The arrivals of those that stand again."""
    applied: Applied
    """Where the tips are told, and what was mended."""


@dataclass(slots=True)
class Change:
    """One transaction, as far as it has come."""

    opened: list[Branch] = field(default_factory=list)
    inserted: Inserted | None = None
    rewritten: list[tuple[EntryRow, Any]] = field(default_factory=list)
    """Entries that are whole now, and what their payloads say."""
    needless: list[EntryRow] = field(default_factory=list)
    """Entries that turned out not to need their payloads."""
