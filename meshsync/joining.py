"""Which collections are joined, and on what terms: what a command said is remembered, what the configuration says wins.

Both say what they say and no more: a collection that the configuration only names is joined on the terms of the last
commands, and where neither says something the default counts.  A key that is taken out of the configuration leaves
nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from meshsync.config.models import CollectionConfig
from meshsync.core import cbor
from meshsync.core.history import History
from meshsync.core.policy import Policy
from meshsync.core.priority import Priority
from meshsync.core.query import Query
from meshsync.core.retention import Retention
from meshsync.store.base import Store

_JOINED = "joined"
"""Under this name the store keeps what was joined by commands: CBOR [[name, priority, policy, query, retention,
history, whether it is joined though no configuration names it], …], null for what was not said."""


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
        query: Query | str | None,
        priority: Priority | str | None,
        conflicts: Policy | str | None,
        retain: Retention | str | None,
        history: History | str | None,
    ) -> Terms:
        """Take them as callers give them.  LocalError: one of them is not what it should be."""
        return cls(
            None if query is None else Query.of(query),
            None if priority is None else Priority.of(priority),
            None if conflicts is None else Policy.of(conflicts),
            None if retain is None else Retention.of(retain),
            None if history is None else History.of(history),
        )

    @property
    def say_nothing(self) -> bool:
        """Whether none of them was said."""
        return all(one is None for one in self)

    @classmethod
    def of_config(cls, one: CollectionConfig) -> Terms:
        """What the configuration says of a collection.  What it leaves to the defaults it does not say."""
        said = {key: getattr(one, key) for key in one.model_fields_set & {"conflicts", "retain", "history"}}
        query = Query.parse(one.where) if "where" in one.model_fields_set else None
        priority = one.priority if "priority" in one.model_fields_set else None
        return cls.read(query, priority, **{"conflicts": None, "retain": None, "history": None, **said})

    @classmethod
    def decode_trusted(cls, row: list[Any]) -> Terms:
        """Read what `encode` wrote, here or in an earlier version, which knew fewer of them."""
        whole: list[Any] = [*row, *[None] * (5 - len(row))]
        priority, conflicts, query, retain, history = whole
        wanted = None if query is None else Query.from_json(query)
        return cls.read(wanted, None if priority is None else Priority(priority), conflicts, retain, history)

    def encode(self) -> list[Any]:
        """As the store keeps them."""
        return [
            None if self.priority is None else int(self.priority),
            None if self.conflicts is None else self.conflicts.value,
            None if self.query is None else self.query.to_json(),
            None if self.retain is None else str(self.retain),
            None if self.history is None else self.history.value,
        ]

    def over(self, other: Terms) -> Terms:
        """What these say, and where they say nothing what the others say."""
        return Terms._make(theirs if own is None else own for own, theirs in zip(self, other, strict=True))


class Remembered:
    """What is joined from one start to the next."""

    def __init__(self, store: Store, configured: Iterable[CollectionConfig]) -> None:
        self._store = store
        self._configured = {one.name: Terms.of_config(one) for one in configured}
        self._said: dict[str, Terms] = {}
        self._by_command: set[str] = set()
        """What is joined whatever the configuration names."""
        stored = store.meta(_JOINED)
        for name, *row in cbor.decode_trusted(stored) if stored else ():
            self._said[name] = Terms.decode_trusted(row[:5])
            if all(row[5:]):  # earlier versions remembered nothing else
                self._by_command.add(name)

    def joined(self) -> dict[str, Terms]:
        """What is to be joined at the start, and how: first what the configuration names."""
        others = self._by_command - self._configured.keys()
        names = [*self._configured, *(name for name in self._said if name in others)]
        return {name: self._configured.get(name, Terms()).over(self._said.get(name, Terms())) for name in names}

    def note(self, name: str, terms: Terms) -> None:
        """A command joined a collection, or changed on what terms."""
        if name not in self._configured:
            self._by_command.add(name)
        self._said[name] = terms.over(self._said.get(name, Terms()))
        self._write()

    def forget(self, name: str) -> None:
        """A command left a collection."""
        self._by_command.discard(name)
        self._said.pop(name, None)
        self._write()

    def _write(self) -> None:
        kept = self._by_command | self._configured.keys()
        rows = [[name, *terms.encode(), name in self._by_command] for name, terms in self._said.items() if name in kept]
        with self._store.transaction():
            self._store.set_meta(_JOINED, cbor.encode(rows))
