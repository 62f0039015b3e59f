"""What entries touch that lack their payloads, on its way into the index.

The tags of documents are hashes.  So what a batch of headers touches lies anywhere in the index: written with the
batch, it would dirty most pages of a large one each time.  It waits here instead.  When enough waits, one slice of all
tags after the other is written, and where a batch has a row for a page, a slice has many.

Nothing is lost with the process, because the entries say the same: the store keeps from where on to read them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from meshsync.store.rows import Touch

_SHIFT = 2
_SLICES = 256 >> _SHIFT
"""The first bits of a tag say in which slice it is."""

TagTouch = tuple[bytes, int, int]
"""(tag, hlc, arrival)."""


class LateTouches:
    """Of one collection."""

    def __init__(self, found: Sequence[TagTouch] = ()) -> None:
        """`found`: what may have waited when the process ended, by arrival."""
        self.count = 0
        """How many rows wait."""
        self._slices: list[dict[bytes, TagTouch]] = [{} for _ in range(_SLICES)]
        """By tag.  One of each waits: those that follow find its page dirty, or will."""
        self._turn = 0
        """How many slices were written so far, one after the other and around again."""
        self._firsts: deque[tuple[int, int]] = deque()
        """The turn in which entries came, and the first arrival among them, for the turns of which anything waits."""
        self._more: dict[bytes, list[TagTouch]] = {}
        """By tag, what was `found` besides, until something is written."""
        for one in self._wait(found):
            self._more.setdefault(one[0], []).append(one)

    @property
    def first(self) -> int | None:
        """Nothing waits of the entries before this arrival; None: nothing at all."""
        return self._firsts[0][1] if self._firsts else None

    def add(self, touches: Sequence[TagTouch]) -> list[TagTouch]:
        """Let these wait, by arrival and later than all before; what has to be written now."""
        due = [one for found in self._more.values() for one in found]
        self._more.clear()
        return due + self._wait(touches)

    def next_slice(self) -> list[TagTouch]:
        """What is to be written next."""
        number = self._turn % _SLICES
        due = sorted(self._slices[number].values())
        self.count -= len(due)
        self._slices[number] = {}
        self._turn += 1
        while self._firsts and (self._firsts[0][0] + _SLICES <= self._turn or not (self.count or self._more)):
            self._firsts.popleft()
        return due

    def _wait(self, touches: Sequence[TagTouch]) -> list[TagTouch]:
        """Let these wait; those that find their tag waiting."""
        if touches and (not self._firsts or self._firsts[-1][0] != self._turn):
            self._firsts.append((self._turn, touches[0][2]))
        slices = self._slices
        others = [one for one in touches if slices[one[0][0] >> _SHIFT].setdefault(one[0], one) is not one]
        self.count += len(touches) - len(others)
        return others

    def forget(self, touches: Sequence[TagTouch]) -> None:
        """These are not to be written any more."""
        gone = set(touches)
        for tag in {tag for tag, _, _ in touches}:
            waiting = self._slices[tag[0] >> _SHIFT]
            if waiting.get(tag) in gone:
                del waiting[tag]
                self.count -= 1
            if tag in self._more:
                self._more[tag] = [one for one in self._more[tag] if one not in gone]

    def of(self, tag: bytes) -> list[Touch]:
        """What waits for a tag."""
        waiting = self._slices[tag[0] >> _SHIFT].get(tag)
        found = [] if waiting is None else [Touch(*waiting[1:])]
        return found + [Touch(*one[1:]) for one in self._more.get(tag, ())]
