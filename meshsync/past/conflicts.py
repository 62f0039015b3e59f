"""Conflicts: what was written by authors who did not know of each other, and that nobody has seen together since.

The entries on a document that no other entry on it has seen are its *sides*.  Each side shows every field as it would
be without the others; where two sides show something different, and neither had seen what the other one shows, the
field is contested.  The greatest stamp decides what is shown, and the others stand here until someone writes the
document having seen all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from meshsync.core import cbor
from meshsync.core.anchor import Place
from meshsync.core.document import REMOVED
from meshsync.core.entry import NEVER
from meshsync.core.siblings import SiblingState
from meshsync.core.siblings import Side as SiblingSide
from meshsync.moments import moment_text, time_of
from meshsync.past.facts import Said, WriteInfo
from meshsync.store.past import Past, Write
from meshsync.store.rows import DocumentRow
from meshsync.store.sides import read_sides

_EXPIRES = "expires"


@dataclass(frozen=True, slots=True)
class FieldConflict:
    """A field that concurrent writes made different."""

    field: str
    winner: Said | None
    """What the document shows; None where it shows all of them, until someone decides."""
    losers: list[Said]
    """The latest first."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A document with writes that did not know of each other, and that no later one has seen together."""

    id: str
    writes: list[WriteInfo]
    """The last write of each side, the latest first."""
    fields: list[FieldConflict]
    """By name.  None where the sides agree on every field."""
    expires: FieldConflict | None
    """The same of when the document expires; the values are texts, and without one it is to stay."""
    complete: bool
    """False: it was written so often that not all could be looked at (`Limits.past_writes_max`)."""


def conflicts(past: Past) -> Iterator[Conflict]:
    """All documents with conflicts, by id, read in pages.  DamagedError: a document or a write cannot be read."""
    for row in past.rows(contested=True):
        yield _conflict_of(past, row)


def _conflict_of(past: Past, row: DocumentRow) -> Conflict:
    state = past.state(row)
    if isinstance(state, SiblingState):
        return _conflict_of_siblings(past, row.id, state)
    sides, complete = read_sides(past, row, state.frontier)
    stands = {name: [side.shows(name) for side in sides] for name in sorted({n for side in sides for n in side.fields})}
    expiries = [side.expiry or side.floor for side in sides] if any(side.expiry for side in sides) else []
    places = {write.place for found in (*stands.values(), expiries) for write in found if write is not None}
    seen = [past.seen_by(side.place, places) for side in sides]
    expires = _field_conflict(_EXPIRES, expiries, seen, _expiry_by) if expiries else None
    found = [_field_conflict(name, stands[name], seen, partial(Said.of, field=name)) for name in stands]
    last = sorted((side.last for side in sides if side.last is not None), key=attrgetter("stamp"), reverse=True)
    fields = [one for one in found if one is not None]
    return Conflict(row.id, [WriteInfo.of(write) for write in last], fields, expires, complete)


def _conflict_of_siblings(past: Past, id: str, state: SiblingState) -> Conflict:
    """The same under the policies that keep all sides of a field."""
    ends = sorted(state.ends, key=attrgetter("stamp"), reverse=True)
    found = (_sibling_conflict(past, state, name) for name in state.names())
    fields = [one for one in found if one is not None]
    return Conflict(id, [WriteInfo.of(mark) for mark in ends], fields, _sibling_expiry(past, state), complete=True)


def _sibling_expiry(past: Past, state: SiblingState) -> FieldConflict | None:
    sides = state.expiries
    if len({side.value for side in sides}) < 2:
        return None
    winner, *others = sides
    places = {side.mark.place for side in sides}
    seen = [past.seen_by(end, places) for end in state.frontier]
    losers = [
        _said_expiry(side.value, WriteInfo.of(side.mark))
        for side in others
        if side.value != winner.value and not any({side.mark.place, winner.mark.place} <= knows for knows in seen)
    ]
    said = _said_expiry(winner.value, WriteInfo.of(winner.mark))
    return FieldConflict(_EXPIRES, said, losers) if losers else None


def _sibling_conflict(past: Past, state: SiblingState, name: str) -> FieldConflict | None:
    sides = state.sides(name)
    marks = {side.mark for side in sides}
    # A put or delete that does not name the field says that it is not there, to those who had not seen it.
    absent = [SiblingSide(REMOVED, mark) for mark in state.clears if mark not in marks]
    absent = [side for side in absent if any(not past.had_seen(one.place, side.mark.place) for one in marks)]
    candidates = sorted([*sides, *absent], key=lambda side: side.mark.stamp, reverse=True)
    if state.is_undecided(name):
        return FieldConflict(name, None, [Said.by(side) for side in candidates])
    winner = state.giver(name)
    if winner is None:
        return None
    places = {side.mark.place for side in candidates}
    seen = [past.seen_by(end, places) for end in state.frontier]
    losers = [
        Said.by(side)
        for side in candidates
        if not any({side.mark.place, winner.mark.place} <= knows for knows in seen)
        and not _is_same(Said.by(side), Said.by(winner))
    ]
    return FieldConflict(name, Said.by(winner), losers) if losers else None


def _field_conflict(
    name: str, stands: Sequence[Write | None], seen: Sequence[set[Place]], say: Callable[[Write], Said]
) -> FieldConflict | None:
    """What of one field the sides do not know of each other.  `seen`: what each side has seen; `say`: what a write
    made of it.
    """
    candidates = {write.place: write for write in stands if write is not None}
    # Whoever saw it and shows something else has overridden it knowingly.
    contenders = [
        candidate
        for place, candidate in candidates.items()
        if all(
            write is not None and write.place == place
            for write, knows in zip(stands, seen, strict=True)
            if place in knows
        )
    ]
    contenders.sort(key=attrgetter("stamp"), reverse=True)
    if not contenders:
        return None
    winner, *losers = map(say, contenders)
    different = [loser for loser in losers if not _is_same(loser, winner)]
    return FieldConflict(name, winner, different) if different else None


def _expiry_by(write: Write) -> Said:
    return _said_expiry(write.expires_ms or NEVER, WriteInfo.of(write))


def _said_expiry(expires_ms: int, write: WriteInfo) -> Said:
    return Said(expires_ms != NEVER, None if expires_ms == NEVER else moment_text(time_of(expires_ms)), write)


def _is_same(one: Said, other: Said) -> bool:
    # 1, 1.0 and True are equal in Python, and different documents.
    return one.is_there == other.is_there and cbor.encode(one.value) == cbor.encode(other.value)
