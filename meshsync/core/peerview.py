"""What a peer is known to have of a collection, branch by branch, and so what it may lack.

What the peer said (tips), what was sent to it and what came from it all raise what it is `known` to have.  A
branch of which it may lack something is `dirty`.  A log whose fork point is being looked for is neither: nothing
of it is sent until the peer answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from meshsync.core.anchor import Anchor
from meshsync.core.holding import Holding
from meshsync.core.tips import TIP_ID_BYTES
from meshsync.ids import LogId

SAMPLES_PER_BRANCH = 40


class PeerView:
    """One peer's copy as seen from here."""

    def __init__(self, held: Holding) -> None:
        self._held = held
        self.known: dict[int, int] = {}
        """Per branch held here, the seq up to which the peer has it."""
        self.dirty: set[int] = set()
        """Branches of which the peer may lack something."""
        self.locating: set[LogId] = set()
        """Forked logs of which the peer has been asked what it holds."""
        self._tips: dict[LogId, int] = {}
        """The greatest seq of each log that the peer told of."""
        self._told: set[int] = set()
        """Branches that the peer said itself to hold something of."""

    @property
    def missing(self) -> int:
        """How many entries the peer said to have that are not here."""
        return sum(
            max(0, seq - max((branch.tip.seq for branch in self._held.branches_of(log)), default=0))
            for log, seq in self._tips.items()
        )

    @property
    def unsent(self) -> int:
        """How many entries here the peer is not known to have."""
        return self._held.unsent(self.known, self.dirty)

    def opened(self, tips: Iterable[tuple[LogId, int, bytes]]) -> list[LogId]:
        """The peer told all of its tips: begin anew.  Returns the logs that have forked, to be located."""
        self.known.clear()
        self._told.clear()
        self.locating.clear()
        self._tips = {}
        by_log: dict[LogId, list[tuple[int, bytes]]] = {}
        for log, seq, id in tips:
            self.told_of(log, seq)
            by_log.setdefault(log, []).append((seq, id))
        self.locating.update(log for log, places in by_log.items() if self._compare(log, places))
        self.dirty = {
            branch.number
            for log in {tip.log for tip in self._held.tips()} - self.locating
            for branch in self._held.branches_of(log)
            if branch.tip.seq > self.known.get(branch.number, 0)
        }
        return list(self.locating)

    def _compare(self, log: LogId, places: list[tuple[int, bytes]]) -> bool:
        """Place the peer's tips of one log among the branches held here; True when they prove a fork."""
        branches = self._held.branches_of(log)
        strangers: list[int] = []
        for seq, id in places:
            if found := self._held.find(log, seq, id):
                self.has(found[0].branch, seq)
                self._told.add(found[0].branch)
            else:
                strangers.append(seq)
        if not strangers or not branches:
            return False
        if any(branch.tip.seq >= seq for branch in branches for seq in strangers):
            return True
        # The peer is ahead; should it not hold what is here, it sees that in our tips and sends LOCATE.
        for branch in branches:
            self.known[branch.number] = branch.tip.seq
        return False

    def told_of(self, log: LogId, seq: int) -> None:
        """The peer has an entry of a log, held here or not."""
        self._tips[log] = max(seq, self._tips.get(log, 0))

    def has(self, number: int, seq: int) -> None:
        """The peer has the entry `seq` of a branch, hence all before it, also on the branches it forked from."""
        if seq > self.known.get(number, 0):
            self.known[number] = seq
        branch = self._held.branch(number)
        while branch.first_seq > 1:
            base = self._held.anchor(branch.number, branch.first_seq - 1)
            if self.known.get(base.branch, 0) >= base.seq:
                return
            self.known[base.branch] = base.seq
            branch = self._held.branch(base.branch)

    def reached(self, reached: Mapping[int, int]) -> None:
        """The peer sent the entries of these branches up to a seq."""
        for number, seq in reached.items():
            self.has(number, seq)
        self.dirty -= {number for number in reached if self.is_level(number)}

    def grew(self, tips: Mapping[int, int]) -> None:
        """These branches grew here."""
        self.dirty.update(number for number, seq in tips.items() if self.known.get(number, 0) < seq)

    def sent(self, number: int, seq: int) -> None:
        """An entry goes out to the peer now."""
        self.known[number] = seq

    def is_level(self, number: int) -> bool:
        """Whether nothing of a branch is to be sent now."""
        branch = self._held.branch(number)
        return self.known.get(number, 0) >= branch.tip.seq or branch.log in self.locating

    def sweep(self) -> bool:
        """Forget the branches that are level; whether any are left."""
        self.dirty = {number for number in self.dirty if not self.is_level(number)}
        return bool(self.dirty)

    # Forks

    def samples(self, log: LogId) -> list[tuple[int, bytes]]:
        """Of each branch of a log the tip, tip-1, -2, -4, … and 1, greatest seq first."""
        samples: dict[int, set[bytes]] = {}
        for branch in self._held.branches_of(log):
            tip = branch.tip.seq
            steps = [tip, *(tip - (1 << k) for k in range(SAMPLES_PER_BRANCH)), 1]
            for seq in {step for step in steps if step >= 1}:
                samples.setdefault(seq, set()).add(self._held.anchor(branch.number, seq).id[:TIP_ID_BYTES])
        return [(seq, id) for seq in sorted(samples, reverse=True) for id in sorted(samples[seq])]

    def place(self, log: LogId, common: Sequence[Anchor]) -> None:
        """Of each branch of a forked log the peer has what `common` says; the rest is to be sent."""
        self.locating.discard(log)
        for branch in self._held.branches_of(log):
            if branch.number not in self._told:
                self.known[branch.number] = 0
        for anchor in common:
            self.has(anchor.branch, anchor.seq)
        for branch in self._held.branches_of(log):
            if branch.tip.seq > self.known.get(branch.number, 0):
                self.dirty.add(branch.number)
