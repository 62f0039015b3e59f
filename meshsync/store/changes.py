"""What a store keeps of the documents of a part of a collection, for those who follow it.

Each change of such a document takes the next number; of each document only the last one counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class ChangeRow(NamedTuple):
    """A document that entered the part, changed in it, or left it, since somebody follows the part."""

    id: str
    number: int
    """Of its last change; 0 where there was none to tell."""
    late: int
    """The number of the last change that a payload made that came after its entry; 0 for none."""
    stays: bytes
    """CBOR: the numbers with which it came into the part and left it, in turns; 0: it was there from the beginning."""


class DocumentChanges(Protocol):
    """The changes of one collection.  What writes runs inside `Store.transaction()`."""

    def last(self) -> int:
        """The number of the last change, 0 for none."""

    def rows(self, ids: Sequence[str]) -> dict[str, ChangeRow]:
        """The rows of those of `ids` that have one."""

    def after(self, number: int, limit: int) -> list[ChangeRow]:
        """At most `limit` rows with greater numbers, by number."""

    def put(self, rows: Sequence[ChangeRow]) -> None:
        """Insert or replace rows."""

    def clear(self) -> None:
        """Remove all rows."""
