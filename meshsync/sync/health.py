"""Whether the store takes what peers send and what is written here."""

from __future__ import annotations

from meshsync.errors import StoreError
from meshsync.events import EventLog
from meshsync.store.base import Store


class StoreHealth:
    """The last refusal of the store, until it takes something again."""

    def __init__(self, store: Store, events: EventLog) -> None:
        self._store = store
        self._events = events
        self._refusal: str | None = None
        self.failures = 0
        """How often the store did not take something."""

    def failed(self, error: StoreError) -> None:
        """The store did not take something."""
        self.failures += 1
        if self._refusal is None:
            self._events.emit("store_failed", reason=str(error))
        self._refusal = str(error)

    def worked(self) -> None:
        """The store took something.  Costs nothing while all is well."""
        if self._refusal is not None and not self._store.low_space():
            self._refusal = None
            self._events.emit("store_recovered")

    def fault(self) -> str | None:
        """Why the store takes nothing at present; None where all is well."""
        return self._refusal or self._store.trouble() or None
