"""Entries of peers that wait: their clock is ahead, or their author has forked too often."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshsync.core.rebuild import Skip
from meshsync.events import EventLog
from meshsync.ids import CollectionId, LogId
from meshsync.store.replica import Replica

_WAITING = frozenset({Skip.CLOCK, Skip.QUOTA})
"""The others mend themselves within a round trip."""


class Holds:
    """The logs whose next entries wait, and why.

    A hold is noted before any seal was verified, so a peer can make them up: there is a bound, and no log named
    in a hold is taken for one that exists.
    """

    def __init__(self, events: EventLog, logs_max: int) -> None:
        self._events = events
        self._logs_max = logs_max
        self._reasons: dict[tuple[CollectionId, LogId], Skip] = {}

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def note(self, replica: Replica, skipped: Mapping[LogId, Skip]) -> None:
        """Some logs' parts of a batch were left out."""
        for log, why in skipped.items():
            key = replica.id, log
            known = self._reasons.get(key)
            if why in _WAITING and known is not why and (known is not None or len(self._reasons) < self._logs_max):
                self._reasons[key] = why
                self._events.emit("held", collection=replica.name, author=log.author, reason=why.value)

    def release(self, replica: Replica, branches: Iterable[int]) -> None:
        """These branches grew."""
        for number in branches:
            log = replica.branches[number].log
            if self._reasons.pop((replica.id, log), None) is not None:
                self._events.emit("released", collection=replica.name, author=log.author)

    def forget(self, replica: Replica) -> None:
        """The collection is no longer replicated."""
        for key in [key for key in self._reasons if key[0] == replica.id]:
            del self._reasons[key]

    def of(self, replica: Replica) -> dict[LogId, Skip]:
        """The logs of one collection."""
        return {log: why for (collection, log), why in self._reasons.items() if collection == replica.id}
