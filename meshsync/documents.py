"""What a program sees of a collection: documents as they stand, and changes as they are told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from meshsync.core.matching import MISSING, getter
from meshsync.core.naming import check_named_document
from meshsync.core.ordering import Order
from meshsync.errors import LocalError
from meshsync.ids import EndpointId, EntryId
from meshsync.store.listing import After


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it stands now, and the write that contributed last."""

    id: str
    body: dict[str, Any]
    author: EndpointId
    time: datetime
    entry: EntryId
    conflict: bool
    """Whether writes that did not know of each other stand side by side, unseen by a later one."""
    revision: EntryId
    """The entry that changed it last at this node, for `if_entry`: another one than `entry` only where an earlier
    write arrived later."""
    expires: datetime | None
    """From when on it is not shown any more; None: it is for ever."""


@dataclass(frozen=True, slots=True)
class Change:
    """One operation that was stored, and the document as it stood after it."""

    cursor: str
    """Where to continue: the next change, never this one."""
    collection: str
    id: str
    document: dict[str, Any] | None
    """None where there is none, or none that matches."""
    author: EndpointId
    time: datetime
    kind: str
    """put, patch or delete; removed: the document does not match the query any more, or it expired."""
    conflict: bool
    """Of the document as it stood when this was read."""


@dataclass(frozen=True, slots=True)
class Index:
    """A declared index of a collection, at this node."""

    field: str
    ready: bool
    """Whether it serves queries; it is being built otherwise."""
    documents: int
    """How many are in it."""


def place_after(after: Document | str | None, order: str | None) -> After | None:
    """Where a page begins that goes on behind a document.  LocalError: with an order its id alone does not say."""
    if isinstance(after, Document):
        return After(after.id, MISSING if order is None else getter(Order.parse(order).path)(after.body))
    if after is None:
        return None
    check_named_document(after)
    if order is not None:
        raise LocalError("with an order, `after` is a document: its id alone does not say where it stands")
    return After(after)
