"""Which numbers of a collection still name what they once named: arrival numbers, and those of changes of a part.

They count up, and a power cut takes their end, which other entries then get.  A reader may have been told of the lost
ones, because entries are told when they are committed: a node that syncs seldom, or never, would tell of nothing else.
So whoever names a number says as well in which *life* of the store it was given out (`Store.life`), and of every life
it is written down with which numbers it began, before it gives out the first.  A number of an earlier life holds up to
where the next one began, and what is behind that is lost.

That costs nothing for an entry, where digits of its id in a cursor would not be enough: the last entry before a
position may have come again, at the same place, behind others than before.  It goes by what the store knows of power
cuts; a file that was put back by hand, between two processes of one boot, is not noticed.

Each collection counts by itself.  So what names a life outside of here names the collection as well: with a cursor of
another collection a reader would go on from anywhere, and miss what lies before.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from meshsync.core import cbor
from meshsync.core.limits import CURSOR_LIVES_MAX
from meshsync.errors import StoreError

if TYPE_CHECKING:
    from meshsync.store.replica import Replica


class Life(NamedTuple):
    """With what a life of the store began."""

    tag: bytes
    arrival: int
    """The arrival number of the next entry."""
    change: int | None
    """The number of the last change of the part; None: they were not kept."""


class Lives:
    """The lives of one replica, the oldest first."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._key = f"lives:{replica.id}"
        stored = replica.store.meta(self._key)
        known = [] if stored is None else [Life(*life) for life in cbor.decode_trusted(stored)]
        self._is_kept = bool(known) and known[-1].tag == replica.store.life
        if not self._is_kept:
            known.append(self._end(replica.store.life))
        self._lives = known[-CURSOR_LIVES_MAX:]
        self._encoded = cbor.encode([list(life) for life in self._lives])
        with suppress(StoreError):  # the first number will not be given out either
            self.keep()
            self._is_kept = True

    def keep(self) -> None:
        """Write down that this life began: before a number is given out, or in the same transaction.

        StoreError: the disk.
        """
        store = self._replica.store
        if not self._is_kept and store.meta(self._key) != self._encoded:
            store.set_meta(self._key, self._encoded)

    @property
    def tag(self) -> bytes:
        """The life that numbers are to be named with, and the collection, whose numbers are its own."""
        if not self._is_kept:
            self._is_kept = self._replica.store.meta(self._key) == self._encoded
        # As long as this life gave out no number, what there is was there in the one before.
        return self._masked(self._lives[-1 if self._is_kept or len(self._lives) == 1 else -2].tag)

    def end_of(self, tag: bytes) -> Life | None:
        """Up to where the numbers of a life hold, which is named as `tag` does it.

        None: it is none of this collection in this store, or too long ago.
        """
        following = [self._end(tag), *reversed(self._lives)]
        for end, life in pairwise(following):
            if self._masked(life.tag) == tag:
                return end
        return None

    def _masked(self, tag: bytes) -> bytes:
        return bytes(one ^ other for one, other in zip(tag, self._replica.id, strict=False))

    def _end(self, tag: bytes) -> Life:
        """With what a life would begin now."""
        changes = self._replica.part_changes
        return Life(tag, self._replica.tables.next_arrival(), changes.last() if changes.is_kept else None)
