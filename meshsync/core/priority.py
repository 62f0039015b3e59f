"""How urgent a collection is."""

from __future__ import annotations

import enum

from meshsync.errors import LocalError


class Priority(enum.IntEnum):
    """How urgent a collection is; the smaller number goes first."""

    CRITICAL = 0
    HIGH = 1
    MEDIUM = 2
    LOW = 3

    @classmethod
    def of(cls, priority: Priority | str) -> Priority:
        """A priority as callers give it: as such, or its name in small letters.  LocalError: there is none such."""
        names = {one.name.lower(): one for one in cls}
        if isinstance(priority, str) and priority in names:
            return names[priority]
        if not isinstance(priority, cls):
            raise LocalError(f"there is no priority {priority!r:.40}; there are {', '.join(names)}")
        return priority
