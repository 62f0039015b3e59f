"""The branches of one collection in memory: one object a branch, and nothing an entry.

From them follows what a node holds: tips, heads, forks and the root.  While a batch is rebuilt it may propose new
branches; those are seen like any other, and are either opened in the transaction that stores their entries, or
forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshsync.core.anchor import ORIGIN, PARENT, Anchor
from meshsync.core.limits import LIMITS, Limits
from meshsync.core.rebuild import NewEntry
from meshsync.core.tips import Root, Tip
from meshsync.ids import EndpointId, LogId
from meshsync.store.base import CollectionTables
from meshsync.store.damage import Damage
from meshsync.store.rows import BranchRow
from meshsync.store.tails import Tails


@dataclass(slots=True)
class Branch:
    """One chain of a log, in memory."""

    number: int
    log: LogId
    base: int | None
    first_seq: int
    covered_seq: int
    tip: Anchor = ORIGIN
    tip_arrival: int = 0


class Branches:
    """What is held of one collection.  Implements `meshsync.core.rebuild.Held`."""

    def __init__(self, tables: CollectionTables, limits: Limits = LIMITS) -> None:
        self.tables = tables
        self.limits = limits
        self.branches: dict[int, Branch] = {}
        self.by_log: dict[LogId, list[Branch]] = {}
        self.damage = Damage(tables)
        self.tails = Tails(tables)
        self.latest = 0
        """The greatest stamp."""
        self._root = Root(tables.id)
        self._heads: set[int] = set()
        self._forked: set[LogId] = set()
        self._claimed: set[int] = set()
        """Branches whose tip the batch being rebuilt already extends."""
        self._proposed: list[Branch] = []
        """Branches that the batch being rebuilt opens, under numbers that are not final."""
        for row in tables.branches():
            self._add(row)
        for branch in self.branches.values():
            self.tails.load_tip(branch)
            self._settle(branch)

    def _settle(self, branch: Branch) -> None:
        """Note a branch's tip: its stamp, whether it is a head, whether the log has forked."""
        self.latest = max(self.latest, branch.tip.hlc)
        self._root.set(branch.number, Tip(branch.log, branch.tip.seq, branch.tip.id))
        if len(self.by_log[branch.log]) > 1:
            self._forked.add(branch.log)
        if branch.tip.seq > branch.covered_seq:
            self._heads.add(branch.number)
        else:
            self._heads.discard(branch.number)

    def _add(self, row: BranchRow) -> Branch:
        log = LogId(EndpointId(row.author), row.incarnation)
        return self._register(Branch(row.number, log, row.base, row.first_seq, row.covered_seq))

    def _register(self, branch: Branch) -> Branch:
        self.branches[branch.number] = branch
        self.by_log.setdefault(branch.log, []).append(branch)
        return branch

    def _forget(self, branches: Iterable[Branch]) -> None:
        """Take branches out of memory that were registered and not stored."""
        for branch in branches:
            del self.branches[branch.number]
            siblings = self.by_log[branch.log]
            siblings.remove(branch)
            if not siblings:
                del self.by_log[branch.log]

    # What is held

    def tips(self) -> list[Tip]:
        """The last entry of every branch: the exact summary of all that is held."""
        return [Tip(branch.log, branch.tip.seq, branch.tip.id) for branch in self.branches.values() if branch.tip.seq]

    def root(self) -> bytes:
        """The digest of the tips: 32 bytes, equal exactly when the sets are equal."""
        return self._root.digest()

    def numbers(self) -> set[int]:
        """The branches that hold entries."""
        return {number for number, branch in self.branches.items() if branch.tip.seq}

    def branch(self, number: int) -> Branch:
        """A branch by its number."""
        return self.branches[number]

    def branches_of(self, log: LogId) -> list[Branch]:
        """The branches of a log."""
        return self.by_log.get(log, [])

    def forks(self) -> list[LogId]:
        """The logs of which there is more than one branch: their key signed twice at one place."""
        return list(self._forked)

    def is_forked(self, log: LogId) -> bool:
        """Whether a log has more than one branch."""
        return log in self._forked

    def has_forks(self) -> bool:
        """Whether any log has more than one branch."""
        return bool(self._forked)

    def heads(self) -> list[Anchor]:
        """The entries that no other entry names."""
        return [self.branches[number].tip for number in self._heads]

    # meshsync.core.rebuild.Held

    def find(self, log: LogId, seq: int, id: bytes | None) -> list[Anchor]:
        """The entries at this place whose ids begin with `id`."""
        found = []
        for branch in self.by_log.get(log, ()):
            if branch.first_seq <= seq <= branch.tip.seq:
                anchor = self.anchor(branch.number, seq)
                if id is None or anchor.id.startswith(id):
                    found.append(anchor)
        return found

    def tip_seq(self, branch: int) -> int:
        """The seq of the last entry of a branch; 0 before the first."""
        return self.branches[branch].tip.seq if branch else 0

    def extend(self, log: LogId, base: Anchor) -> int | None:
        """The branch for the entry after `base`, while a batch is rebuilt."""
        if base.branch and base.branch not in self._claimed and self.branches[base.branch].tip.seq == base.seq:
            self._claimed.add(base.branch)
            return base.branch
        # One whose first entry is damaged holds nothing, and yet is there.
        for branch in self.by_log.get(log, ()):
            begins_here = (branch.base, branch.first_seq) == (base.branch or None, base.seq + 1)
            if begins_here and not branch.tip.seq and branch.number not in self._claimed:
                self._claimed.add(branch.number)
                return branch.number
        if len(self.by_log.get(log, ())) >= self.limits.branches_per_author_max:
            return None
        number = len(self.branches) + 1
        self._proposed.append(self._register(Branch(number, log, base.branch or None, base.seq + 1, 0)))
        self._claimed.add(number)
        return number

    # Places on branches

    def owner(self, branch: int, seq: int) -> Branch:
        """The branch that holds the entry `seq` of the chain which ends in `branch`."""
        found = self.branches[branch]
        while seq < found.first_seq and found.base is not None:
            found = self.branches[found.base]
        return found

    def anchor(self, branch: int, seq: int) -> Anchor:
        """The entry `seq` of the chain which ends in `branch`; ORIGIN for seq 0."""
        if seq == 0:
            return ORIGIN
        owner = self.owner(branch, seq)
        if owner.tip.seq == seq:
            return owner.tip
        head = self.tables.entry_at(owner.number, seq)
        if head is None:
            raise LookupError(f"no entry {seq} on branch {owner.number}")
        return Anchor(owner.number, seq, head.id, head.hlc, head.height)

    def parent_ids(self, packed: bytes | None) -> list[bytes]:
        """The ids of packed parents, in the order of the header."""
        return [self.anchor(branch, seq).id for branch, seq in PARENT.iter_unpack(packed or b"")]

    # Repair

    def hold_below(self, number: int, seq: int) -> None:
        """Hold nothing of a branch from `seq` on, so that peers send it again.  DamagedError: nor the one before."""
        branch = self.branches[number]
        self.tails.cut(branch, seq)
        self._settle(branch)

    def hold_all(self, number: int) -> None:
        """Hold of a branch all that is on the disk, up to a last entry that is sound."""
        branch = self.branches[number]
        self.tails.load_tip(branch)
        self._settle(branch)


def renumbered(entries: list[NewEntry], numbers: Mapping[int, int]) -> list[NewEntry]:
    """Entries with the final numbers of their branches, which mostly are those that were proposed."""
    if all(proposed == final for proposed, final in numbers.items()):
        return entries
    renumbered = []
    for entry in entries:
        parents = entry.parents
        if parents is not None:
            places = PARENT.iter_unpack(parents)
            parents = b"".join(PARENT.pack(numbers.get(branch, branch), seq) for branch, seq in places)
        renumbered.append(entry._replace(branch=numbers.get(entry.branch, entry.branch), parents=parents))
    return renumbered
