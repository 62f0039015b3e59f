"""Histories: how much of the past a subscription brings."""

from __future__ import annotations

from enum import Enum

from meshsync.errors import LocalError


class History(Enum):
    """What a subscription brings: all that was ever written, or what the documents are made of now."""

    FULL = "full"
    """Every payload.  Where one is superseded and a peer let it go, the others are asked for it."""
    LATEST = "latest"
    """Only payloads that contribute to the documents as they stand (`meshsync.store.contributing`), and those that the
    sides of a conflict are made of."""

    @classmethod
    def parse(cls, text: str) -> History:
        """Read its name.  LocalError: there is no such history."""
        try:
            return cls(text)
        except ValueError:
            names = ", ".join(one.value for one in cls)
            raise LocalError(f"there is no history {text!r}; there are {names}") from None
