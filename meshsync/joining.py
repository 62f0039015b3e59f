"""On what terms a collection is joined, as far as somebody said so."""

from __future__ import annotations

from typing import NamedTuple

from meshsync.core.history import History
from meshsync.core.policy import Policy
from meshsync.core.priority import Priority
from meshsync.core.query import Query
from meshsync.core.retention import Retention


class Terms(NamedTuple):
    """How a collection is to be replicated; None of what was not said."""

    query: Query | None = None
    priority: Priority | None = None
    conflicts: Policy | None = None
    retain: Retention | None = None
    history: History | None = None

    @classmethod
    def read(
        cls,
        query: Query | None,
        priority: Priority | None,
        conflicts: Policy | str | None,
        retain: Retention | str | None,
        history: History | str | None,
    ) -> Terms:
        """Take them as callers give them.  LocalError: there is no such policy, retention or history."""
        return cls(
            query,
            priority if priority is None else Priority(priority),
            Policy.parse(conflicts) if isinstance(conflicts, str) else conflicts,
            Retention.parse(retain) if isinstance(retain, str) else retain,
            History.parse(history) if isinstance(history, str) else history,
        )

    @property
    def say_nothing(self) -> bool:
        """Whether none of them was said."""
        return all(one is None for one in self)
