"""How urgent a collection is."""

from __future__ import annotations

import enum

from meshsync.core.naming import named_choice


class Priority(enum.IntEnum):
    """How urgent a collection is; the smaller number goes first."""

    CRITICAL = 0
    HIGH = 1
    MEDIUM = 2
    LOW = 3

    @classmethod
    def of(cls, priority: Priority | str) -> Priority:
        """A priority as callers give it: as such, or its name in small letters.  LocalError: there is none such."""
        return named_choice(cls, priority, "priority")
