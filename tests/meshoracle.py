"""What must hold of a replica at every moment, worked out the slow and obvious way."""

from __future__ import annotations

import hashlib
from typing import Any

from meshsync.core import cbor
from meshsync.core.anchor import PARENT
from meshsync.core.entry import DELETE, PUT, verify_seal
from meshsync.core.session_events import SessionState
from meshsync.store.headers import header_of
from meshsync.store.replica import Replica
from meshsync.store.rows import EntryRow
from tests.simmesh import SimMesh
from tests.simnode import Node

_ENTRY_DOMAIN = b"meshsync/entry/1\0"

Write = tuple[tuple[int, bytes, bytes], int, Any]
"""(stamp, kind, body)."""


def document_of(writes: list[Write]) -> dict[str, Any] | None:
    """Replay all writes to one document in the order of their stamps."""
    document: dict[str, Any] | None = None
    for _, kind, body in sorted(writes, key=lambda write: write[0]):
        if kind == DELETE:
            document = None
        elif kind == PUT:
            document = dict(body)
        else:
            kept = {name: value for name, value in (document or {}).items() if name not in body}
            document = kept | {name: value for name, value in body.items() if value is not None}
    return document


class Oracle:
    """Follows one node and checks each entry once, when it arrives, and whatever it changed."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._replica: Replica | None = None
        self._root = b""

    def check(self, roots: dict[bytes, int], sets: dict[int, bytes]) -> None:
        """Check everything that may have changed since the last call.

        `roots` and `sets` map each root ever seen to a digest of the set it stood for, and back.
        """
        replica = self.node.replica
        if replica is not self._replica:
            self._begin(replica)
        if replica.root() == self._root:
            return
        self._root = replica.root()
        changed: set[str] = set()
        for row in replica.scan_entries(self._next):
            changed |= self._take(replica, row)
        assert self._next == replica.tables.next_arrival()
        self._check_tips(replica)
        for id in changed:
            self._check_document(replica, id)
        live = sum(document_of(writes) is not None for writes in self.writes.values())
        assert replica.tables.counts() == (self._next - 1, live, 0)
        assert roots.setdefault(self._root, self._digest) == self._digest, "one root, two sets"
        assert sets.setdefault(self._digest, self._root) == self._root, "one set, two roots"

    def _begin(self, replica: Replica) -> None:
        self._replica = replica
        self._root = b""
        self._next = 1
        self._digest = 0
        self.arrivals: dict[bytes, int] = {}
        self.ancestors: dict[bytes, int] = {}
        """For each id a bit set of the arrival numbers of its ancestors."""
        self.writes: dict[str, list[Write]] = {}
        self._tips: dict[int, tuple[int, bytes]] = {}

    def _take(self, replica: Replica, row: EntryRow) -> set[str]:
        """Check an entry against its ancestors, all of which must have arrived before it."""
        assert row.arrival == self._next
        self._next += 1
        branch = replica.branches[row.branch]
        before = self._tips.get(row.branch)
        if before is not None:
            assert row.seq == before[0] + 1, "a gap in a branch"
        else:
            assert row.seq == branch.first_seq
        prev = replica.anchor(row.branch, row.seq - 1) if row.seq > 1 else None
        parents = [replica.anchor(*place) for place in PARENT.iter_unpack(row.parents or b"")]
        above = [*([prev] if prev is not None else []), *parents]
        seen = 0
        for anchor in above:
            assert anchor.id in self.arrivals, "an entry arrived before one that it builds upon"
            assert anchor.hlc < row.hlc
            seen |= self.ancestors[anchor.id] | 1 << self.arrivals[anchor.id]
        assert row.height == 1 + max((anchor.height for anchor in above), default=0)
        assert hashlib.sha256(_ENTRY_DOMAIN + header_of(replica, row)).digest() == row.id
        self._tips[row.branch] = (row.seq, row.id)
        assert row.id not in self.arrivals, "an entry is stored twice"
        self.arrivals[row.id] = row.arrival
        self.ancestors[row.id] = seen
        self._digest = (self._digest + int.from_bytes(row.id, "big")) % 2**256
        stamp = (row.hlc, bytes(branch.log.author), row.id)
        touched = set()
        for kind, id, *body in cbor.decode_trusted(row.payload or b"\x80"):
            self.writes.setdefault(id, []).append((stamp, kind, body[0] if body else None))
            touched.add(id)
        return touched

    def _check_tips(self, replica: Replica) -> None:
        """What is in memory is what a restart would read, and what the entries say."""
        ours = {(tip.log, tip.seq, tip.id) for tip in replica.tips()}
        assert ours == {(replica.branches[number].log, *tip) for number, tip in self._tips.items()}
        again = Replica(replica.store, replica.tables, replica.key, replica.limits)
        assert {branch.number for branch in again.branches.values()} == set(replica.branches)
        assert set(again.tips()) == set(replica.tips())
        assert set(again.heads()) == set(replica.heads())
        assert again.latest == replica.latest
        # A head is an entry that is nobody's ancestor.
        union = 0
        for _, id in self._tips.values():
            union |= self.ancestors[id]
        heads = {id for _, id in self._tips.values() if not union >> self.arrivals[id] & 1}
        assert {head.id for head in replica.heads()} == heads

    def _check_document(self, replica: Replica, id: str) -> None:
        writes = self.writes[id]
        row = replica.tables.documents([id])[id]
        merged = replica.merger.read(row)
        assert merged.body == document_of(writes)
        assert row.live == (merged.body is not None)
        entries = {stamp[2] for stamp, _, _ in writes}
        union = 0
        for entry in entries:
            union |= self.ancestors[entry]
        frontier = [entry for entry in entries if not union >> self.arrivals[entry] & 1]
        assert row.conflict == (len(frontier) > 1), "a conflict is hidden, or none is shown"


class Oracles:
    """All nodes of a mesh."""

    def __init__(self, mesh: SimMesh) -> None:
        self._mesh = mesh
        self._of: dict[int, Oracle] = {}
        self._roots: dict[bytes, int] = {}
        self._sets: dict[int, bytes] = {}

    def check(self) -> None:
        """Every invariant, of every node and session."""
        for node in self._mesh.nodes:
            self._of.setdefault(node.number, Oracle(node)).check(self._roots, self._sets)
        for link in self._mesh.links:
            for end in link.ends:
                if end.session.state is SessionState.SYNCED:
                    assert end.peer_root == end.node.replica.root(), f"{end} says synced and is not"

    def check_seals(self) -> None:
        """Every branch ends in an entry whose seal verifies, or in one of the node's own."""
        for node in self._mesh.nodes:
            for branch in node.replica.branches.values():
                if branch.tip.seq:
                    row = node.replica.tables.entry(branch.tip_arrival)
                    assert row is not None
                    seal = node.replica.seal_of(row)
                    assert seal is not None, "a branch ends in an entry without a seal"
                    assert verify_seal(branch.log.author, row.id, seal)

    def check_nothing_lost(self) -> None:
        """What a node acknowledged is at every node, once the mesh has healed."""
        for node in self._mesh.nodes:
            for other in self._mesh.nodes:
                held = self._of[other.number].arrivals
                assert all(id in held for id in node.acknowledged), f"{other} lacks what {node} acknowledged"
