"""What a peer tells of its tips in HAVE, and forks: finding the last common entry of a log of which it holds another
branch.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshsync.core.anchor import Anchor
from meshsync.core.holding import Holding
from meshsync.core.limits import Limits
from meshsync.core.logtable import OwnLogTable, PeerLogTable
from meshsync.core.messages import Have, Locate
from meshsync.core.peerview import PeerView
from meshsync.core.tips import TIP_ID_BYTES
from meshsync.errors import CloseCode, PeerError
from meshsync.ids import LogId

Rows = list[tuple[int, int, bytes]]


class Locator:
    """Asks one peer where logs have forked, and answers when it asks."""

    def __init__(
        self, held: Holding, view: PeerView, own_logs: OwnLogTable, peer_logs: PeerLogTable, limits: Limits
    ) -> None:
        self._held = held
        self._view = view
        self._own_logs = own_logs
        self._peer_logs = peer_logs
        self._limits = limits

    def ask(self, forked: Iterable[LogId]) -> list[Locate]:
        """Of each of these logs, which of our entries the peer holds."""
        questions = []
        for log in forked:
            index = self._own_logs.index(log)
            questions.append(Locate(self._own_logs.take(), index, self._view.samples(log)))
        return questions

    def answer(self, message: Locate) -> Rows:
        """The tips for a HAVE.  The peer holds something of a log that it cannot place among our tips: a fork."""
        if len(message.samples) > self._limits.locate_samples_max:
            raise PeerError(f"a LOCATE of {len(message.samples)} samples", CloseCode.LIMIT)
        log = self._peer_logs[message.log]
        common = [anchor for seq, id in message.samples for anchor in self._held.find(log, seq, id)[:1]]
        self._view.place(log, common)
        index = self._own_logs.index(log)
        rows = [(index, anchor.seq, anchor.id[:TIP_ID_BYTES]) for anchor in common]
        return rows or [(index, 0, bytes(TIP_ID_BYTES))]

    def told(self, message: Have) -> list[LogId]:
        """Take tips that the peer told.  Returns the logs that have forked, to be asked about."""
        located: dict[LogId, list[Anchor]] = {}
        told: list[tuple[LogId, int, bytes]] = []
        for index, seq, id in message.tips:
            log = self._peer_logs[index]
            if log in self._view.locating:
                located.setdefault(log, []).extend(self._held.find(log, seq, id)[:1])
            elif seq:
                told.append((log, seq, id))
        for log, anchors in located.items():
            self._view.place(log, anchors)
        return self._view.told(told) if told else []
