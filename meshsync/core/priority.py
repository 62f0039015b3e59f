"""How urgent a collection is."""

from __future__ import annotations

import enum


class Priority(enum.IntEnum):
    """How urgent a collection is; the smaller number goes first."""

    CRITICAL = 0
    HIGH = 1
    MEDIUM = 2
    LOW = 3
