"""What comes in on a session: batches, what of them was left out, and when to ask for it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meshsync.core.holding import Holding
from meshsync.core.limits import Limits
from meshsync.core.logtable import PeerLogTable
from meshsync.core.messages import Batch
from meshsync.core.pacing import MISFITS_MAX, RESYNC_HELD_SECONDS, Resync
from meshsync.core.peerview import PeerView
from meshsync.core.rebuild import Skip
from meshsync.core.session_events import Arrived, Confirm, Effect, Stored, WakeAt
from meshsync.errors import PeerError
from meshsync.ids import EndpointId, LogId

_PATIENCE = frozenset({Skip.CLOCK, Skip.QUOTA, Skip.DAMAGED})
"""Only time or the owner can mend these."""


@dataclass(slots=True)
class Pulled:
    """What came, in sums."""

    entries: int = 0
    """That were not here."""
    conflicts: int = 0
    payload_bytes: int = 0
    """Of all entries that came."""
    payload_bytes_new: int = 0
    """Of those that were not here."""


class Puller:
    """Takes the batches of one peer."""

    def __init__(
        self, held: Holding, view: PeerView, peer_logs: PeerLogTable, peer: EndpointId, limits: Limits
    ) -> None:
        self._limits = limits
        self._held = held
        self._view = view
        self._peer_logs = peer_logs
        self._peer = peer
        self.pulled = Pulled()
        self.round = 0
        """Rises with each OPEN of this side."""
        self.left_out = False
        """Something of this round was left out, so no later cursor may be confirmed in it."""
        self.stall: str | None = None
        """Why something of the last batch was left out, for people."""
        self.met_fork = False
        self.resync = Resync()
        self._misfits = 0
        """In so many rounds running something did not fit, and nothing came."""

    def begin_round(self) -> None:
        """The peer is to compare anew."""
        self.round += 1
        self.left_out = False

    def take(self, message: Batch, epoch: bytes, now: float, wall_ms: int) -> list[Effect]:
        """Store a batch.  `epoch`: of the peer's store.  PeerError: it is no good.  StoreError: the disk."""
        if message.round > self.round:
            raise PeerError("a batch answers an OPEN that was never sent")
        self.note(message)
        pulled = self.pulled
        pulled.payload_bytes += sum([len(payload) for payload in message.payloads if payload is not None])
        if self._held.full:
            # The peer is told, or was: it sends no more, and all of this again once there is room.
            self.stall, self.left_out = self._held.full, True
            return []
        self.stall = None
        is_current = message.round == self.round
        counts = is_current and not self.left_out
        applied = self._held.receive(message, self._peer_logs.logs, self._peer, epoch if counts else None, wall_ms)
        pulled.entries += applied.count
        pulled.conflicts += applied.conflicts
        pulled.payload_bytes_new += applied.payload_bytes
        self._view.reached(applied.reached)
        effects: list[Effect] = [Stored(applied)] if applied.count or applied.skipped or applied.filled else []
        if applied.count:
            self._misfits = 0
        if not applied.skipped:
            new, repeated = applied.count, len(message.hlcs) - applied.count
            repeats = {number: seq for number, seq in applied.reached.items() if number not in applied.tips}
            effects.append(Arrived(new, repeated, self._places(new, applied.tips), self._places(repeated, repeats)))
            if counts:
                effects.append(Confirm(message.cursor))
        elif is_current:  # otherwise it was under way when we asked to be compared anew
            effects += self._skipped(applied.skipped, now)
        return effects

    def _places(self, count: int, reached: Mapping[int, int]) -> dict[LogId, int]:
        """Branches and how far they go, by log, unless they are of a great deal."""
        few = reached if count < self._limits.bulk_entries else {}
        return {self._held.branch(number).log: seq for number, seq in few.items()}

    def has_all_until(self, message: Batch) -> bool:
        """Whether nothing was left out since the peer was told the tips that this batch builds on."""
        return message.round == self.round and not self.left_out

    def repeats(self, message: Batch) -> bool:
        """Whether an entry of a batch is here already, or another one in its place."""
        return any(
            branch.tip.seq >= first
            for index, first, _, _ in message.runs
            for branch in self._held.branches_of(self._peer_logs[index])
        )

    def note(self, message: Batch) -> None:
        """Whatever becomes of a batch, the peer has these entries."""
        for index, first, count, _ in message.runs:
            self._view.told_of(self._peer_logs[index], first + count - 1)

    def not_stored(self, now: float) -> list[Effect]:
        """The disk did not take what came."""
        self.left_out = True
        return [WakeAt(self.resync.plan(now))]

    def _skipped(self, skipped: Mapping[LogId, Skip], now: float) -> list[Effect]:
        """Some logs' parts were left out: they have to be sent again."""
        is_news = not self.left_out
        self.left_out = True
        self.stall = "; ".join(sorted(f"{log.author.short}: {reason.value}" for log, reason in skipped.items())[:3])
        reasons = set(skipped.values())
        self.met_fork |= Skip.FORK in reasons
        if is_news and not reasons & _PATIENCE:
            self._misfits += 1
            if self._misfits > MISFITS_MAX:
                raise PeerError("batch after batch builds on entries that are not here")
        # Only time or the owner can mend these; asking often would have them sent again and again.
        delay_min = RESYNC_HELD_SECONDS if reasons & _PATIENCE else 0.0
        return [WakeAt(self.resync.plan(now, delay_min))]
