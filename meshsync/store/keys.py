"""What a store keeps of declared indexes: which there are, and for each a key of every live document.

The keys are those of `meshsync.core.ordering`; a document without the field has one, too.  So an index that is ready
has as many keys as there are live documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

State = Literal["building", "ready", "dropping"]


class IndexRow(NamedTuple):
    """A declared index."""

    number: int
    path: str
    """The field, as it is typed."""
    state: State
    """Only one that is ready serves queries; one that is building follows all writes already."""
    after: str
    """While it is built: every document up to this id has its key."""


class KeyRow(NamedTuple):
    """A document in an index.  Sorts as the index does."""

    key: bytes
    id: str


class DocumentKeys(Protocol):
    """The indexes of one collection.  What writes runs inside `Store.transaction()`."""

    def rows(self) -> list[IndexRow]:
        """All indexes, by number."""

    def set_row(self, row: IndexRow) -> None:
        """Insert or replace an index."""

    def remove_row(self, number: int) -> None:
        """Remove an index, the keys of which are gone."""

    def put(self, rows: Sequence[tuple[int, str, bytes]]) -> None:
        """Insert or replace keys, as (index, document id, key)."""

    def forget(self, ids: Sequence[bytes]) -> None:
        """Remove documents, by their ids in UTF-8, from all indexes."""

    def clear(self, number: int, limit: int) -> bool:
        """Remove at most `limit` keys of an index; whether it has none left."""

    def count(self, number: int, low: bytes, high: bytes, limit: int) -> int:
        """How many keys from `low` on and below `high` there are; counts no further than `limit`."""

    def page(
        self, number: int, low: bytes, high: bytes, after: KeyRow | None, limit: int, *, reverse: bool = False
    ) -> list[KeyRow]:
        """At most `limit` keys from `low` on and below `high`, behind `after`, by key and id; `reverse`: backwards.

        `after`, where it is given, is not outside of these bounds on the side where the page begins.
        """

    def by_id(self, number: int, after: str, limit: int) -> list[KeyRow]:
        """At most `limit` keys by document id, behind the id `after`."""
