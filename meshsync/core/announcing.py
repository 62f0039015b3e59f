"""What a lazy link carries in the place of entries: which branches changed, told now and then.

News that the peer lacks goes out soon, so that it can ask for it should it come by no other way.  What the peer has,
too, is told later, and many changes together: it learns that it need not send them.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshsync.core.holding import Holding
from meshsync.core.limits import Limits
from meshsync.core.logtable import OwnLogTable
from meshsync.core.messages import Have
from meshsync.core.peerview import PeerView
from meshsync.core.tips import TIP_ID_BYTES


class Announcer:
    """What changed here and was not told to one peer."""

    def __init__(self, held: Holding, view: PeerView, own_logs: OwnLogTable, limits: Limits) -> None:
        self._held = held
        self._view = view
        self._own_logs = own_logs
        self._limits = limits
        self._news: dict[int, float] = {}
        """By branch, when it changed last."""
        self._since = 0.0
        """When the first of it changed."""

    def note(self, branches: Iterable[int], now: float) -> None:
        """These branches changed."""
        if not self._news:
            self._since = now
        self._news.update(dict.fromkeys(branches, now))

    def clear(self) -> None:
        """The peer knows, or is sent it all."""
        self._news.clear()

    def due(self) -> float | None:
        """When there is something to tell; None where there is nothing."""
        if not self._news:
            return None
        limits = self._limits
        is_new_there = not self._view.dirty.isdisjoint(self._news)
        return self._since + (limits.announce_seconds if is_new_there else limits.confirm_seconds)

    def take(self, now: float, root: bytes) -> Have | None:
        """Tell it now, and the root with it, as much as one message holds; None where there is nothing."""
        if not self._news:
            return None
        # What the peer lacks first, and of that what has been here longest.
        dirty, news = self._view.dirty, self._news
        ordered = sorted(news, key=lambda number: (number not in dirty, news[number], number))
        rows, age_ms = [], None
        for number in ordered[: self._limits.announce_tips_max]:
            changed, branch = news.pop(number), self._held.branch(number)
            if branch.tip.seq:
                rows.append((self._own_logs.index(branch.log), branch.tip.seq, branch.tip.id[:TIP_ID_BYTES]))
                age_ms = age_ms if age_ms is not None else round((now - changed) * 1000)
        self._since = now
        return Have(None, root, self._own_logs.take(), rows, age_ms)
