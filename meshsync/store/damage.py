"""The damage of one collection that is known of, from when a reader met it until it is repaired."""

from __future__ import annotations

from collections.abc import Callable, Collection

from meshsync.errors import DamagedError
from meshsync.store.base import CollectionTables


class Damage:
    """Keeps count for one replica.  Everything that reads the tables reports here."""

    def __init__(self, tables: CollectionTables) -> None:
        self._entries: dict[int, DamagedError] = {}
        self._documents: dict[str, DamagedError] = {}
        self._listener: Callable[[DamagedError], None] = lambda error: None  # noqa: ARG005
        self.lacking: list[int] = []
        """The entries (arrivals) whose payloads the sessions are to ask the peers for."""
        tables.found_damage = self.note

    def __bool__(self) -> bool:
        """Whether entries are damaged, so that not all can be sent."""
        return bool(self._entries)

    def __contains__(self, arrival: int) -> bool:
        return arrival in self._entries

    @property
    def has_documents(self) -> bool:
        """Whether documents are damaged, so that what they hold is not known."""
        return bool(self._documents)

    def note(self, error: DamagedError) -> None:
        """Something was found damaged.  Told to the listener once for each entry and document."""
        if error.arrival is not None:
            is_news = error.arrival not in self._entries
            self._entries[error.arrival] = error
        elif error.document is not None:
            is_news = error.document not in self._documents
            self._documents[error.document] = error
        else:
            is_news = True
        if is_news:
            self._listener(error)

    def listen(self, listener: Callable[[DamagedError], None]) -> None:
        """Tell of what is known already, and of what will be found."""
        self._listener = listener
        for error in self.all():
            listener(error)

    def all(self) -> list[DamagedError]:
        """All that is known, entries first."""
        return [self._entries[arrival] for arrival in sorted(self._entries)] + list(self._documents.values())

    def text(self) -> str | None:
        """All of it in a line for people; None where there is none."""
        known = self.all()
        if not known:
            return None
        return str(known[0]) + (f" (and {len(known) - 1} more)" if len(known) > 1 else "")

    def entry_mended(self, arrival: int) -> bool:
        """An entry was written anew.  Whether it was known to be damaged."""
        if arrival in self.lacking:
            self.lacking.remove(arrival)
        return self._entries.pop(arrival, None) is not None

    def documents_mended(self, damaged: Collection[str] = ()) -> None:
        """No documents are damaged any more but these."""
        self._documents = {id: error for id, error in self._documents.items() if id in damaged}

    def below(self, arrival: int) -> int:
        """`arrival`, or that of the first damaged entry where it is smaller: what lies below can be sent."""
        return min(arrival, *self._entries) if self._entries else arrival
