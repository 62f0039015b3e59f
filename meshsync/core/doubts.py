"""Marks in doubt: what a peer called superseded before it had sent what supersedes it.

Where the peer is gone before it has sent all that it held, nobody may ever bring that, and a document here would lack
what it shows elsewhere, with equal roots.  So the word of a peer counts once this side holds all that the peer held
when it gave it.  What is in doubt after its session is asked of any peer with equal roots: that one has the payload,
or says that it is superseded, which counts, too, once the roots are equal after that.

Until then the payload is lacking, for whoever asks here, and for a document that is about to enter the part.  Who wants
the whole history asks every peer for everything, and so has nothing to ask of its doubts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from meshsync.core.comparing import Roots
from meshsync.core.holding import Holding
from meshsync.core.messages import Batch
from meshsync.ids import LogPlace


class Doubts:
    """For one peer: its own word, and what it is asked of the words of others."""

    def __init__(self, held: Holding, roots: Roots) -> None:
        self._held = held
        self._roots = roots
        self._word = object()
        self._others: set[object] = set()
        """Whose words the peer is being asked of."""
        self._next = 0
        """The next entry to ask for, by arrival; 0 where asking has yet to begin."""
        self._said = 0
        """How often anybody had called something superseded when asking began."""
        self._is_unsure = self._is_through = self._is_done = False
        self._is_word = False
        """What it answered counts once this side holds all that the peer held then."""
        self.is_news = False
        """Less is in doubt than when this was last set to False."""

    # The peer's own word

    def said(self, arrival: int) -> None:
        """The peer calls payloads superseded of entries that arrive, or arrived, here from a number on."""
        self._held.superseded.doubt(self._word, arrival)

    def brings(self, message: Batch, arrival: int, *, repeats: bool, is_whole: bool) -> None:
        """A batch is about to be stored, whose new entries arrive from this number on.

        `repeats`: some are here; `is_whole`: nothing was left out since the peer was told the tips.
        """
        if message.superseded and (message.root is None or not is_whole):
            self.said(1 if repeats else arrival)

    def brought(self, message: Batch, *, is_whole: bool) -> None:
        """The batch was stored; `is_whole`: nothing was left out since the peer was told the tips."""
        if message.root is not None and is_whole:
            self.has_sent_all()
        elif message.superseded and message.root is not None:
            self.said(1)

    def has_sent_all(self) -> None:
        """This side holds all that the peer held when it last said something."""
        self._trust({self._word})
        self._is_word = False
        if self._is_through:
            self._conclude()

    def _trust(self, words: Collection[object]) -> None:
        self.is_news |= self._held.superseded.trust(words)

    # The words of others

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to ask the peer of what others said."""
        return self._is_done or self._held.superseded.doubted(self._word) is None

    @property
    def has_more(self) -> bool:
        """Whether `take` may have more to ask for now."""
        return not (self.is_over or self._is_through) and self._roots.are_equal

    def begin_anew(self) -> None:
        """Something else is wanted than before."""
        self._next = 0
        self._is_unsure = self._is_through = self._is_done = self._is_word = False

    def put_off(self) -> None:
        """What came was not stored: the doubts remain."""
        self._is_unsure = True

    def take(self, limit: int) -> list[LogPlace]:
        """The next entries to ask for, at most `limit`; [] where there are none now."""
        superseded = self._held.superseded
        first = superseded.doubted(self._word)
        if first is None or not self.has_more:
            return []
        if not self._next:
            self._next, self._others, self._said = first, superseded.words() - {self._word}, superseded.said
        found, after = superseded.said_from(self._next, limit)
        is_end, self._next = after == self._next, after
        if is_end:
            self._is_through = True
            self._conclude()
        return found

    def _conclude(self) -> None:
        """All was asked for that was in doubt when asking began."""
        if self._is_unsure:
            self._is_done = True
        elif self._held.superseded.said != self._said:
            self.begin_anew()  # of some of it the peer was not asked
        elif not self._is_word:
            self._is_done = True
            self._trust(self._others)

    def answered(self, knows: Iterable[bool], *, is_word: bool) -> None:
        """The peer dealt with some of the entries; whether it had the payload, or called it superseded.

        `is_word`: it called one superseded, which it may be by what it has got since it told its root.  It tells that
        next.
        """
        self._is_unsure |= not all(knows)
        self._is_word |= is_word
