"""Why a field has its value: which write gave it, what that overrode, and whether its author knew."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from meshsync.core.anchor import Place
from meshsync.core.document import REMOVED, Stamp
from meshsync.core.hlc import to_datetime
from meshsync.core.limits import LIMITS
from meshsync.core.siblings import SiblingState
from meshsync.moments import time_of
from meshsync.past.facts import Said, WriteInfo
from meshsync.store.drafts import State
from meshsync.store.past import Past, Write


@dataclass(frozen=True, slots=True)
class Overridden:
    """What one write had made of a field before, or beside, the one that counts."""

    said: Said
    seen: bool
    """Whether whoever overrode it had seen it.  If not, the two wrote without knowing of each other."""


@dataclass(frozen=True, slots=True)
class FieldOrigin:
    """Where the value of one field comes from."""

    field: str
    said: Said
    """What gave it its value, or removed it."""
    beside: list[Said]
    """The other values that it has, the latest first, where the policy is `manual` and nobody has decided yet."""
    overrode: list[Overridden]
    """The latest first: all that its author had not seen, down to what they saw last, and further down what lost on
    the other sides of a conflict.  At most `Limits.overridden_max`."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a document expires."""

    time: datetime
    has_passed: bool
    write: WriteInfo
    """What said so."""


@dataclass(frozen=True, slots=True)
class Why:
    """Where a document comes from."""

    id: str
    deleted: WriteInfo | None
    """What deleted it, where it does not exist."""
    expiry: Expiry | None
    """When it expires, or expired, and what said so; None: it is for ever, or it was deleted."""
    fields: list[FieldOrigin]
    """By name: those that it has, and those that a patch removed; or the one that was asked for, unless
    neither the present document nor what that overrode says anything of it."""
    complete: bool
    """False: it was written so often that not all could be looked at (`Limits.past_writes_max`)."""
    let_go_until: datetime | None
    """Until then what was overwritten is not all kept here, and none of it is told; None: nothing was let go."""
    not_fetched_until: datetime | None
    """The same where the last of it never came here, because peers called it superseded; one of the two at most."""


@dataclass(slots=True)
class _Search:
    """One field, while its writes are read backwards."""

    unsaid: list[Place]
    """The sides of a conflict of which it is not known yet what they say of the field."""
    wanted: Stamp | None = None
    """The stamp of the write that counts; None: the latest does."""
    beside: list[Said] = field(default_factory=list)
    giver: Place | None = None
    said: Said | None = None
    is_named: bool = False
    """Whether the write that counts names the field: one that removed it does, one that wrote others does not."""
    overrode: list[Overridden] = field(default_factory=list)
    has_seen: bool = False
    """Whether a write was met that the author of what counts had seen."""


def why(past: Past, id: str, name: str | None = None) -> Why | None:
    """Where the fields of a document come from, or only the field `name`; None for a document never written.

    DamagedError: a write cannot be read.
    """
    row = past.row(id)
    if row is None:
        return None
    state = past.state(row)
    searches = _searches(state, name)
    open_fields = set(searches)
    deletion, sets_expiry = _deletion(state), _sets_expiry(state)
    asked = {stamp for stamp in (deletion, sets_expiry) if stamp is not None}
    found: dict[Stamp, WriteInfo] = {}
    complete, gone, cut = True, past.gone_write(id), set[str]()
    for count, write in enumerate(past.writes(row, reverse=True)):
        if not open_fields and len(found) == len(asked):
            break
        if count == LIMITS.past_writes_max:
            complete = False
            break
        if write.stamp in asked:
            found[write.stamp] = WriteInfo.of(write)
        if gone is not None and write.stamp.hlc <= gone.stamp.hlc:
            # What these overrode, or what overrode them before, may be among what is gone.
            cut |= {one for one in open_fields if searches[one].giver is not None}
            open_fields -= cut
        for one in [one for one in open_fields if write.touches(one)]:
            if _take(past, searches[one], one, write):
                open_fields.discard(one)
    fields = [
        FieldOrigin(one, search.said, search.beside, search.overrode)
        for one, search in searches.items()
        if search.said is not None and (search.is_named or any(one.said.is_there for one in search.overrode))
    ]
    until = None if gone is None or not (cut | open_fields) else to_datetime(gone.stamp.hlc)
    let_go, not_fetched = (None, until) if gone is not None and gone.not_fetched else (until, None)
    expiry = None
    if row.expires_ms is not None and sets_expiry in found:
        expiry = Expiry(time_of(row.expires_ms), past.has_expired(row), found[sets_expiry])
    return Why(id, None if deletion is None else found.get(deletion), expiry, fields, complete, let_go, not_fetched)


def _searches(state: State, name: str | None) -> dict[str, _Search]:
    """What is looked for: all fields of which something was said, or one."""
    sides = state.frontier if len(state.frontier) > 1 else []
    if not isinstance(state, SiblingState):
        return {one: _Search(sides) for one in ([name] if name is not None else sorted(state.fields))}
    searches = {}
    for one in [name] if name is not None else state.names():
        giver = state.giver(one)
        search = searches[one] = _Search(sides, None if giver is None else giver.mark.stamp)
        if state.is_undecided(one):
            search.beside = [Said.by(side) for side in state.sides(one) if side.value is not REMOVED and side != giver]
    return searches


def _deletion(state: State) -> Stamp | None:
    """The stamp of the write that deleted a document; None where it exists."""
    if not isinstance(state, SiblingState):
        return state.clear if state.exists is None else None
    return None if state.exists else max(mark.stamp for mark in state.ends)


def _sets_expiry(state: State) -> Stamp | None:
    """The stamp of the write that says when a document expires; None where it is for ever, or does not exist."""
    if state.expires_ms is None:
        return None
    if isinstance(state, SiblingState):
        return state.expiries[0].mark.stamp
    return None if state.expiry is None else state.expiry[1]


def _take(past: Past, search: _Search, name: str, write: Write) -> bool:
    """Take the next earlier write to a field; whether no others are wanted."""
    said = Said.of(write, name)
    search.unsaid = [side for side in search.unsaid if side != write.place and not past.had_seen(side, write.place)]
    if search.giver is None and search.wanted in (None, write.stamp):
        search.giver, search.said, search.is_named = write.place, said, name in (write.body or {})
        return False
    # What is later and does not count had not seen what does, or it would.
    seen = search.giver is not None and past.had_seen(search.giver, write.place)
    # That the field was not there is worth a line only where it was overridden unknowingly.
    is_worth = not seen or (said.is_there and not search.has_seen)
    if is_worth and said not in search.beside and len(search.overrode) < LIMITS.overridden_max:
        search.overrode.append(Overridden(said, seen))
    search.has_seen = search.has_seen or seen
    is_full = search.giver is not None and len(search.overrode) == LIMITS.overridden_max
    return is_full or (search.has_seen and not search.unsaid)
