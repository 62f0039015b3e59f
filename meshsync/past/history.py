"""The history of a document: what was written, by whom, and what of it is still to be seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from meshsync.core import cbor
from meshsync.past.facts import WriteInfo
from meshsync.store.past import Past


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
    visible: bool
    """Whether the document still shows some of it: a field that it set or removed, or that it is deleted."""
    changes: list[FieldChange] | None
    """What it changed in the document as the writes before it made it, where that was asked for."""


def history(past: Past, id: str, *, diff: bool = False) -> Iterator[PastWrite]:
    """Every write to a document in the order that decides what it shows; nothing where it was never written.

    Read one by one, so it costs no memory however long it is; cheap to abandon.  DamagedError: one cannot be read.
    """
    row = past.row(id)
    if row is None:
        return
    present = past.state(row)
    state = past.new_state()
    before: dict[str, Any] = {}
    for write in past.writes(row):
        changes = None
        if diff:
            past.apply(state, write)
            after = state.visible() or {}
            changes = list(_changes(before, after))
            before = after
        yield PastWrite(WriteInfo.of(write), write.body, present.shows(write.kind, write.stamp), changes)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[FieldChange]:
    for field in sorted(before.keys() | after.keys()):
        was_there, is_there = field in before, field in after
        old, new = before.get(field), after.get(field)
        # 1, 1.0 and True are equal in Python, and different documents.
        if was_there != is_there or cbor.encode(old) != cbor.encode(new):
            yield FieldChange(field, was_there, old, is_there, new)
