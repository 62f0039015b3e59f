"""What a peer is known to have of a collection, branch by branch, and so what it may lack.

What the peer said (tips), what was sent to it and what came from it all raise what it is `known` to have.  A
branch of which it may lack something is `dirty`.  Two cases need care:

    - The peer tells of an entry that is later than all we hold of a log.  It is *assumed* to have our part, too,
      until its entries arrive: they go on from ours, or prove a fork and the assumption is dropped.
    - The peer tells of an entry that should be here and is not: the log has forked.  Then the log is being
      *located*, and nothing of it counts as dirty until the peer answered.

What the peer told of may come from someone else, too.  Equal roots say that it has everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from meshsync.core.anchor import Anchor
from meshsync.core.holding import Holding
from meshsync.core.limits import LIMITS, Limits
from meshsync.core.tips import TIP_ID_BYTES
from meshsync.errors import CloseCode, DamagedError, PeerError
from meshsync.ids import LogId

SAMPLES_PER_BRANCH = 40


@dataclass(slots=True)
class _Assumption:
    proven: int
    """The seq up to which the peer really is known to have the branch."""
    until: int
    """The seq up to which it is assumed to."""


class PeerView:
    """One peer's copy as seen from here."""

    def __init__(self, held: Holding, limits: Limits = LIMITS) -> None:
        self._held = held
        self._limits = limits
        self.known: dict[int, int] = {}
        """Per branch held here, the seq up to which the peer has it."""
        self.dirty: set[int] = set()
        """The branches of which the peer lacks something, as far as is known."""
        self.assumed: dict[int, _Assumption] = {}
        """By branch, what the peer is taken to have until it shows."""
        self.locating: set[LogId] = set()
        """Forked logs of which the peer has been asked what it holds."""
        self.floor = 0
        """The peer lacks nothing that arrived here before; 0: not worked out."""
        self._tips: dict[LogId, int] = {}
        """The greatest seq of each log that the peer told of."""
        self._ahead: set[LogId] = set()
        """The logs of which the peer had more when it was last looked at."""
        self._strangers: dict[LogId, list[tuple[int, bytes]]] = {}
        """The tips that were not here when the peer told them: what an assumption rests on."""
        self._strangers_count = 0
        """How many these are, or more."""
        self._told: set[int] = set()
        """Branches that the peer said itself to hold something of."""

    # What a status shows

    @property
    def missing(self) -> int:
        """How many entries the peer said to have that are not here."""
        return sum(
            self._tips[log] - self._greatest(log) for log in self._ahead if self._tips[log] > self._greatest(log)
        )

    @property
    def is_ahead(self) -> bool:
        """Whether the peer said to have an entry that is not here."""
        while self._ahead:
            log = self._ahead.pop()
            if self._tips[log] > self._greatest(log):
                self._ahead.add(log)
                return True
        return False

    def _greatest(self, log: LogId) -> int:
        return max((branch.tip.seq for branch in self._held.branches_of(log)), default=0)

    @property
    def unsent(self) -> int:
        """How many entries here the peer is not known to have."""
        return self._held.unsent(self.known, self.dirty)

    # What the peer says

    def opened(self, tips: Iterable[tuple[LogId, int, bytes]]) -> list[LogId]:
        """The peer told its tips: begin anew.  Returns the logs that have forked, to be located."""
        self.known.clear()
        self.assumed.clear()
        self.locating.clear()
        self._told.clear()
        self._strangers.clear()
        self._tips.clear()
        self._ahead.clear()
        self.floor = 0
        self.dirty = self._held.numbers()
        return self.told(tips)

    def told(self, tips: Iterable[tuple[LogId, int, bytes]]) -> list[LogId]:
        """The peer told some of its tips.  Returns the logs that have forked, to be located.

        PeerError LIMIT: it tells of more that is not here than is remembered.
        """
        by_log: dict[LogId, dict[tuple[int, bytes], None]] = {}
        for log, seq, id in tips:
            self.told_of(log, seq)
            by_log.setdefault(log, {})[seq, id] = None
        forked = [log for log, places in by_log.items() if self._compare(log, places)]
        for log in forked:
            self.locating.add(log)
            self._refresh(log)
        return forked

    def told_of(self, log: LogId, seq: int) -> None:
        """The peer has an entry of a log, held here or not."""
        if seq > self._tips.get(log, 0):
            self._tips[log] = seq
            self._ahead.add(log)

    def _compare(self, log: LogId, places: Iterable[tuple[int, bytes]]) -> bool:
        """Place the peer's tips of one log among the branches held here; True when they prove a fork."""
        branches = self._held.branches_of(log)
        strangers: list[tuple[int, bytes]] = []
        placed: set[int] = set()
        for seq, id in places:
            try:
                found = self._held.find(log, seq, id)
            except DamagedError:
                # It cannot be told whether the peer means what stood here.  Nothing behind it can be sent anyway.
                for branch in branches:
                    self._set(branch.number, max(seq, self.known.get(branch.number, 0)))
                continue
            if found:
                self.has(found[0].branch, seq)
                placed.add(found[0].branch)
            else:
                strangers.append((seq, id))
        self._told |= placed
        if not strangers:
            return False
        if any(branch.tip.seq >= seq for branch in branches for seq, _ in strangers):
            return True
        self._remember(log, strangers)
        # The peer is ahead.  Should it not hold what is here, it may see that in our tips and send LOCATE.
        for branch in branches:
            if branch.number not in placed:
                self._assume(branch.number, branch.tip.seq)
        return False

    def _remember(self, log: LogId, strangers: list[tuple[int, bytes]]) -> None:
        self._strangers[log] = strangers
        self._strangers_count += len(strangers)
        strangers_max = 2 * self._limits.logs_max  # some logs may have forked
        if self._strangers_count > strangers_max:
            self._strangers_count = sum(map(len, self._strangers.values()))
            if self._strangers_count > strangers_max:
                raise PeerError("a peer tells of more branches than may be", CloseCode.LIMIT)

    def _assume(self, number: int, seq: int) -> None:
        """Take it that the peer has a branch up to `seq`, until it shows."""
        if seq > self.known.get(number, 0):
            proven = self.assumed[number].proven if number in self.assumed else self.known.get(number, 0)
            self.assumed[number] = _Assumption(proven, seq)
            self._set(number, seq)

    # What is to come

    def lacking(self) -> dict[LogId, int]:
        """The logs of which the peer told more than is here, and up to which entry."""
        return {log: self._tips[log] for log in self._ahead if self._tips[log] > self._greatest(log)}

    def lacks(self, places: Mapping[LogId, int]) -> int:
        """How many entries up to these places are not here."""
        return sum(max(0, seq - self._greatest(log)) for log, seq in places.items())

    # What the peer has

    def _set(self, number: int, seq: int) -> None:
        self.known[number] = seq
        if seq >= self._held.branch(number).tip.seq:
            self.dirty.discard(number)

    def has(self, number: int, seq: int) -> None:
        """The peer has the entry `seq` of a branch, hence all before it, also on the branches it forked from."""
        while True:
            assumption = self.assumed.get(number)
            if assumption is None and seq <= self.known.get(number, 0):
                return
            if assumption is not None:
                assumption.proven = max(seq, assumption.proven)
                if seq >= assumption.until:
                    del self.assumed[number]
            if seq > self.known.get(number, 0):
                self._set(number, seq)
            branch = self._held.branch(number)
            if branch.first_seq == 1:
                return
            try:
                base = self._held.anchor(number, branch.first_seq - 1)
            except DamagedError:
                return  # nothing behind it can be sent anyway
            number, seq = base.branch, base.seq

    def reached(self, reached: Mapping[int, int]) -> None:
        """The peer sent the entries of these branches up to a seq."""
        for number, seq in reached.items():
            is_new = number not in self.known
            self.has(number, seq)
            if self.assumed:
                self._judge(self._held.branch(number).log, is_new=is_new)

    def _judge(self, log: LogId, *, is_new: bool) -> None:
        """Entries of a log came.  Drop what was assumed of it where they do not go on from there."""
        if not any(branch.number in self.assumed for branch in self._held.branches_of(log)):
            return
        left = [place for place in self._strangers.get(log, ()) if not self._is_here(log, *place)]
        self._strangers[log] = left
        # A branch of its own may be what the peer is ahead by; and once all that it told of came, nothing is to follow.
        if is_new or not left:
            self._doubt(log)

    def _is_here(self, log: LogId, seq: int, id: bytes) -> bool:
        """Whether an entry is here that the peer told of; False where that cannot be read."""
        with suppress(DamagedError):
            return bool(self._held.find(log, seq, id))
        return False

    def _doubt(self, log: LogId) -> None:
        for branch in self._held.branches_of(log):
            assumption = self.assumed.pop(branch.number, None)
            if assumption is not None:
                self.known[branch.number] = assumption.proven
        self._refresh(log)

    def _refresh(self, log: LogId) -> None:
        """Work out anew which branches of a log are dirty."""
        for branch in self._held.branches_of(log):
            if log not in self.locating and branch.tip.seq > self.known.get(branch.number, 0):
                self.dirty.add(branch.number)
                self.floor = 0
            else:
                self.dirty.discard(branch.number)

    # What happens here

    def grew(self, tips: Mapping[int, int]) -> None:
        """These branches grew here."""
        for number, seq in tips.items():
            if seq <= self.known.get(number, 0):
                continue
            log = self._held.branch(number).log
            if log in self._strangers:
                self._came(log, number, seq)
            if seq > self.known.get(number, 0) and log not in self.locating:
                self.dirty.add(number)

    def _came(self, log: LogId, number: int, seq: int) -> None:
        """A branch grew of which the peer had told something that was not here.  It need not be sent what it has."""
        left = [place for place in self._strangers[log] if place[0] > seq]
        for place in self._strangers[log]:
            if place[0] <= seq:
                with suppress(DamagedError):
                    for anchor in self._held.find(log, *place)[:1]:
                        self.has(anchor.branch, anchor.seq)
                        self._told.add(anchor.branch)
        if left:
            self._strangers[log] = left
            if len(self._held.branches_of(log)) == 1:
                self._assume(number, seq)
        else:
            del self._strangers[log]
            self._doubt(log)

    def level(self) -> None:
        """The roots are equal: the peer has everything that is held here, and nothing else."""
        for number in self.dirty | self.assumed.keys():
            self.known[number] = self._held.branch(number).tip.seq
        self.dirty.clear()
        self.assumed.clear()
        self._strangers.clear()
        self._ahead.clear()

    def sent(self, number: int, seq: int) -> None:
        """An entry goes out to the peer now."""
        self._set(number, seq)

    # Forks

    def samples(self, log: LogId) -> list[tuple[int, bytes]]:
        """Of each branch of a log the tip, tip-1, -2, -4, … and 1, greatest seq first."""
        samples: dict[int, set[bytes]] = {}
        for branch in self._held.branches_of(log):
            tip = branch.tip.seq
            steps = [tip, *(tip - (1 << k) for k in range(SAMPLES_PER_BRANCH)), 1]
            for seq in {step for step in steps if step >= 1}:
                with suppress(DamagedError):
                    samples.setdefault(seq, set()).add(self._held.anchor(branch.number, seq).id[:TIP_ID_BYTES])
        return [(seq, id) for seq in sorted(samples, reverse=True) for id in sorted(samples[seq])]

    def place(self, log: LogId, common: Sequence[Anchor]) -> None:
        """Of each branch of a forked log the peer has what `common` says, and what it told of; the rest is dirty."""
        self.locating.discard(log)
        for branch in self._held.branches_of(log):
            assumption = self.assumed.pop(branch.number, None)
            if branch.number not in self._told:
                self.known[branch.number] = 0
            elif assumption is not None:
                self.known[branch.number] = assumption.proven
        for anchor in common:
            self.has(anchor.branch, anchor.seq)
        self._refresh(log)
