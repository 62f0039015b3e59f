"""Histories: how much of the past a subscription brings."""

from __future__ import annotations

from enum import Enum

from meshsync.core.naming import named_choice


class History(Enum):
    """What a subscription brings: all that was ever written, or what the documents are made of now."""

    FULL = "full"
    """Every payload.  Where one is superseded and a peer let it go, the others are asked for it."""
    LATEST = "latest"
    """Only payloads that contribute to the documents as they stand (`meshsync.store.contributing`), and those that the
    sides of a conflict are made of."""

    @classmethod
    def of(cls, history: History | str) -> History:
        """A history as callers give it: as such, or its name.  LocalError: there is none such."""
        return named_choice(cls, history, "history")
