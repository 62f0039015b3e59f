"""The history of a document: what was written, by whom, and what of it is still to be seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from meshsync.core import cbor
from meshsync.core.entry import NEVER, PATCH
from meshsync.core.hlc import to_datetime
from meshsync.core.siblings import SiblingState
from meshsync.ids import EndpointId, EntryId
from meshsync.moments import time_of
from meshsync.past.facts import WriteInfo
from meshsync.store.past import Gone, Past, Write


@dataclass(frozen=True, slots=True)
class FieldChange:
    """What a write did to one field of the document as it stood."""

    field: str
    was_there: bool
    before: Any
    is_there: bool
    after: Any


@dataclass(frozen=True, slots=True)
class PastWrite:
    """One entry that touched a document."""

    write: WriteInfo
    body: Mapping[str, Any] | None
    """What it set: all fields for a put, some for a patch (None removes one), None for a delete."""
    expires: datetime | Literal["never"] | None
    """What it said of when the document expires; None: nothing, which in a put means never."""
    visible: bool
    """Whether the document still shows some of it: a field that it set or removed, when it expires, or that it is
    deleted."""
    changes: list[FieldChange] | None
    """What it changed in the document as the writes before it made it, where that was asked for and is known."""
    gone: Literal["let_go", "not_fetched"] | None = None
    """Why what it wrote is not here: it was let go, or it never came, because peers called it superseded.  Earlier
    writes that are not told went before it, in either way."""


def history(past: Past, id: str, *, diff: bool = False) -> Iterator[PastWrite]:
    """Every write to a document in the order that decides what it shows; nothing where it was never written.

    Read one by one, so it costs no memory however long it is; cheap to abandon.  DamagedError: one cannot be read.
    """
    row = past.row(id)
    if row is None:
        return
    present, has_expired = past.state(row), past.has_expired(row)
    state = past.new_state()
    before: dict[str, Any] = {}
    gone = past.gone_write(id)
    is_known, is_told = gone is None, gone is None
    for write in past.writes(row):
        if gone is not None and not is_told and write.stamp > gone.stamp:
            yield _not_here(gone)
            is_told = True
        changes = None
        if diff:
            past.apply(state, write)
            after = state.visible() or {}
            changes = list(_changes(before, after)) if is_known else None
            before = after
            # A put or a delete behind all that is gone says all of the document, where the latest counts.
            is_known = is_known or (is_told and write.kind != PATCH and not isinstance(state, SiblingState))
        is_visible = not has_expired and present.shows(write.kind, write.stamp)
        yield PastWrite(WriteInfo.of(write), write.body, _expires(write), is_visible, changes)


def _not_here(gone: Gone) -> PastWrite:
    (hlc, author, entry), not_fetched = gone
    write = WriteInfo(EntryId(entry), EndpointId(author), to_datetime(hlc), "not fetched" if not_fetched else "let go")
    return PastWrite(write, None, None, visible=False, changes=None, gone="not_fetched" if not_fetched else "let_go")


def _expires(write: Write) -> datetime | Literal["never"] | None:
    if write.expires_ms == NEVER:
        return "never"
    return None if write.expires_ms is None else time_of(write.expires_ms)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[FieldChange]:
    for field in sorted(before.keys() | after.keys()):
        was_there, is_there = field in before, field in after
        old, new = before.get(field), after.get(field)
        # 1, 1.0 and True are equal in Python, and different documents.
        if was_there != is_there or cbor.encode(old) != cbor.encode(new):
            yield FieldChange(field, was_there, old, is_there, new)
