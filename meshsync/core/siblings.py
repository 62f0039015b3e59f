"""Documents under the policies that keep all that was written unseen (see meshsync.core.policy).

Where the default compares stamps, here it counts what the author of a write had seen.  A write overrides what it had
seen and nothing else: a put or a delete all of the document, a patch the fields that it names.  What was said of a
field and not overridden are its *sides*; the policy chooses among their values.  A value outlives a removal or a delete
that did not know of it, and a document exists as long as one of the writes that nobody has seen wrote it.

All of that is said of the set of writes and of who had seen whom, so order, grouping and repetition do not matter.
There are at most as many sides as logs.

When a document expires has sides like a field.  A put that names no time says never, and of several sides the one that
keeps the document longest counts, under every policy: nobody loses a document that one of its writers wants to keep,
and there is no list of times that could be shown until someone decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from meshsync.core import cbor
from meshsync.core.anchor import Place
from meshsync.core.document import REMOVED, Stamp
from meshsync.core.entry import DELETE, NEVER, PATCH, PUT
from meshsync.core.policy import Policy

Unseen = Callable[[Place, Iterable[Place]], list[Place]]
"""Those of some entries that are not ancestors of one."""


class Mark(NamedTuple):
    """A write: when, by whom and in which entry, where that stands, and what it did."""

    stamp: Stamp
    place: Place
    kind: int


class Side(NamedTuple):
    """What one write made of a field."""

    value: Any
    """REMOVED where it removed it."""
    mark: Mark


class SiblingState:
    """The merged state of one document."""

    __slots__ = ("_clears", "_ends", "_expiries", "_policy", "_sides")

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._ends: list[Mark] = []
        """The writes that no other write to the document has seen."""
        self._clears: list[Mark] = []
        """The puts and deletes that no other put or delete has seen."""
        self._sides: dict[str, list[Side]] = {}
        self._expiries: list[Side] = []
        """What was said of when it expires and not overridden, in milliseconds or NEVER."""

    @property
    def frontier(self) -> list[Place]:
        """Where the writes stand that no other one has seen: more than one is a conflict."""
        return [mark.place for mark in self._ends]

    @property
    def ends(self) -> list[Mark]:
        """The same writes."""
        return list(self._ends)

    @property
    def clears(self) -> list[Mark]:
        """The puts and deletes that no other put or delete has seen."""
        return list(self._clears)

    @property
    def is_contested(self) -> bool:
        """Whether someone should look at it: writes unseen by a later one, or a field that nobody has decided."""
        return len(self._ends) > 1 or (self._policy is Policy.MANUAL and any(map(self.is_undecided, self._sides)))

    @property
    def exists(self) -> bool:
        """Whether there is the document: all that is not among the ends was seen by one of them."""
        return any(mark.kind != DELETE for mark in self._ends)

    @property
    def expiries(self) -> list[Side]:
        """What was said of when it expires and not overridden, the one that counts first."""
        return sorted(self._expiries, key=_how_long, reverse=True)

    @property
    def expires_ms(self) -> int | None:
        """From when on it is not shown, in milliseconds since the Unix epoch; None: it is for ever."""
        return (self.expiries[0].value or None) if self._expiries and self.exists else None

    def apply(
        self,
        mark: Mark,
        body: Mapping[str, Any] | None,
        unseen: Unseen,
        expires_ms: int | None = None,
        *,
        late: bool = True,
    ) -> None:
        """Merge one operation; `expires_ms` as in `Operation`.

        `late` False: nothing that has seen it was merged before, which saves asking.
        """
        kind, place = mark.kind, mark.place
        places = {one.place for one in self._marks()}
        if place in places:
            return
        left = set(unseen(place, places))
        overriding = {other for other in left if late and not unseen(other, [place])}
        self._ends = [one for one in self._ends if one.place in left]
        if not any(one.place in overriding for one in self._ends):
            self._ends.append(mark)
        if kind != PATCH:
            self._clears = [one for one in self._clears if one.place in left]
        is_cleared = any(one.place in overriding for one in self._clears)
        if kind != PATCH and not is_cleared:
            self._clears.append(mark)
        for name in list(self._sides) if kind != PATCH else body or {}:
            self._sides[name] = [side for side in self._sides.get(name, ()) if side.mark.place in left]
        for name, value in (body or {}).items():
            sides = self._sides.setdefault(name, [])
            if not is_cleared and not any(side.mark.place in overriding for side in sides):
                sides.append(Side(REMOVED if kind == PATCH and value is None else value, mark))
        self._sides = {name: sides for name, sides in self._sides.items() if sides}
        if kind != PATCH or expires_ms is not None:
            self._expiries = [side for side in self._expiries if side.mark.place in left]
            is_overridden = is_cleared or any(side.mark.place in overriding for side in self._expiries)
            if kind != DELETE and not is_overridden:
                self._expiries.append(Side(expires_ms or NEVER, mark))

    def _marks(self) -> Iterator[Mark]:
        yield from self._ends
        yield from self._clears
        for sides in self._sides.values():
            for side in sides:
                yield side.mark
        for side in self._expiries:
            yield side.mark

    def stamps(self) -> set[Stamp]:
        """The stamps of the writes that say what the document is."""
        return {mark.stamp for mark in self._marks()}

    def names(self) -> list[str]:
        """The fields of which something was said that was not overridden."""
        return sorted(self._sides)

    def sides(self, name: str) -> list[Side]:
        """What was said of a field and not overridden, the latest first."""
        return sorted(self._sides.get(name, ()), key=lambda side: side.mark.stamp, reverse=True)

    def is_undecided(self, name: str) -> bool:
        """Whether a field has several values until someone decides."""
        return self._policy is Policy.MANUAL and len({cbor.encode(value) for value in self._values(name)}) > 1

    def giver(self, name: str) -> Side | None:
        """The side that a field shows, or the latest where it shows several or is not there; None: nothing was said."""
        values, sides = self._values(name), self.sides(name)
        if values and not self.is_undecided(name):
            shown = cbor.encode(self._policy.choose(values))
            sides = [side for side in sides if side.value is not REMOVED and cbor.encode(side.value) == shown]
        elif values:
            sides = [side for side in sides if side.value is not REMOVED]
        return sides[0] if sides else None

    def _values(self, name: str) -> list[Any]:
        return [side.value for side in self._sides.get(name, ()) if side.value is not REMOVED]

    def visible(self) -> dict[str, Any] | None:
        """The document, expired or not, or None where it does not exist."""
        if not self.exists:
            return None
        return {name: self._policy.choose(values) for name in sorted(self._sides) if (values := self._values(name))}

    def last(self) -> Stamp:
        """The greatest stamp that contributes: who wrote last, and when."""
        living = [mark.stamp for mark in self._ends if mark.kind != DELETE]
        return max(living or [mark.stamp for mark in self._ends])

    def shows(self, kind: int, stamp: Stamp) -> bool:
        """Whether the document is, in part, what the write of this stamp said."""
        if not self.exists:
            return kind == DELETE and any(mark.stamp == stamp for mark in self._clears)
        if self._expiries and self.expires_ms is not None and self.expiries[0].mark.stamp == stamp:
            return True
        if not self._sides:
            return any(mark.stamp == stamp and mark.kind != DELETE for mark in self._ends)
        return any(self._shows_of(name, stamp) for name in self._sides)

    def _shows_of(self, name: str, stamp: Stamp) -> bool:
        if self.is_undecided(name):
            return any(side.mark.stamp == stamp and side.value is not REMOVED for side in self._sides[name])
        giver = self.giver(name)
        return giver is not None and giver.mark.stamp == stamp

    def encode(self) -> bytes:
        """CBOR [marks, ends, clears, {field: [[mark index, value] or [mark index], …]}], and [[mark index, time], …]
        where more was said of its expiry than that puts did not name any.
        """
        index: dict[Mark, int] = {}

        def number(mark: Mark) -> int:
            return index.setdefault(mark, len(index))

        ends, clears = [number(mark) for mark in self._ends], [number(mark) for mark in self._clears]
        sides = {
            name: [[number(mark)] if value is REMOVED else [number(mark), value] for value, mark in of_one]
            for name, of_one in sorted(self._sides.items())
        }
        said = [] if set(self._expiries) == set(self._unnamed()) else [[[number(m), ms] for ms, m in self._expiries]]
        return cbor.encode([[[*mark.stamp, *mark.place, mark.kind] for mark in index], ends, clears, sides, *said])

    def _unnamed(self) -> list[Side]:
        """What puts say of the expiry that name no time, as long as no patch says anything of it."""
        return [Side(NEVER, mark) for mark in self._clears if mark.kind == PUT]

    @classmethod
    def decode(cls, data: bytes, policy: Policy) -> SiblingState:
        """Read what `encode` wrote."""
        rows, ends, clears, sides, *said = cbor.decode_trusted(data)
        marks = [Mark(Stamp(*row[:3]), Place(*row[3:6]), row[6]) for row in rows]
        state = cls(policy)
        state._ends = [marks[number] for number in ends]
        state._clears = [marks[number] for number in clears]
        state._sides = {
            name: [Side(item[1] if len(item) == 2 else REMOVED, marks[item[0]]) for item in of_one]
            for name, of_one in sides.items()
        }
        state._expiries = [Side(ms, marks[number]) for number, ms in said[0]] if said else state._unnamed()
        return state


def _how_long(side: Side) -> tuple[bool, int, Stamp]:
    return side.value == NEVER, side.value, side.mark.stamp
