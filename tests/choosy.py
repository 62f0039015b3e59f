"""A mesh in which some nodes subscribe to a part only, under random events that are all drawn from one seed.

What must hold at the end, once everything works again: each node shows its query applied to the full state, which is
what all writes that any node holds come to.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import chain, combinations
from typing import Any

from meshsync.core import cbor
from meshsync.core.bare import is_marked
from meshsync.core.entry import DELETE, NEVER, PATCH, PUT, Operation, document_tag
from meshsync.core.history import History
from meshsync.core.query import Query
from meshsync.core.session_events import SessionState
from meshsync.errors import StoreError
from meshsync.store.contributing import contributing
from meshsync.store.listing import Listing
from meshsync.store.replica import Replica
from meshsync.store.rows import DocumentRow
from meshsync.store.wholeness import bare_entries
from tests.meshoracle import Write, document_of
from tests.simmesh import SimMesh
from tests.simnode import Node
from tests.store.rows import scan_documents
from tests.storm import SMALL

QUERIES = ["team=blue", "team=red", "n>5", "team=blue n>5", "team?", "team!=blue", "at~x", "id=doc1", "team=green"]
HEAL_SECONDS_MAX = 200.0


def random_query(rng: random.Random) -> Query:
    if rng.random() < 0.2:  # what is near a centre that moves
        radius_m = rng.choice((1e5, 2.5e5))
        return Query.field("pos").within_radius(lat=0.0, lon=rng.randrange(-3, 4), radius_m=radius_m)
    return Query.parse(rng.choice(QUERIES).split(" "))


def random_operations(rng: random.Random, now_ms: int) -> list[Operation]:
    """One entry's worth, mostly of one operation, on documents that wander between the parts and may expire."""
    operations = {one.id: one for one in (_random_operation(rng, now_ms) for _ in range(rng.choice((1, 1, 1, 3))))}
    return list(operations.values())


def _random_operation(rng: random.Random, now_ms: int) -> Operation:
    id = f"doc{rng.randrange(20)}"
    kind = rng.choice((PUT, PATCH, PATCH, PATCH, DELETE))
    if kind == DELETE:
        return Operation(DELETE, id)
    values = {
        "team": rng.choice(("blue", "red", "green", None)),
        "n": rng.randrange(10),
        "at": rng.choice("xyz") + "." * 40,
        "pos": {"lat": 0.5, "lon": rng.randrange(-3, 4)},
    }
    names = rng.sample(sorted(values), rng.randrange(1, 3))
    expires_ms = rng.choice((None, None, NEVER, now_ms + rng.randrange(1, 200_000)))
    return Operation(kind, id, {name: values[name] for name in names}, expires_ms)


def full_state(mesh: SimMesh) -> dict[str, dict[str, Any]]:
    """Every document as all writes that are anywhere make it, as long as it has not expired by the time of all."""
    writes: dict[str, list[Write]] = {}
    said: dict[str, list[tuple[Any, ...]]] = {}
    seen: set[bytes] = set()
    for node in mesh.nodes:
        for row in node.replica.scan_entries():
            if row.payload is not None and row.id not in seen:
                seen.add(row.id)
                author = bytes(node.replica.branches[row.branch].log.author)
                for kind, id, *content in cbor.decode_trusted(row.payload):
                    stamp = (row.hlc, author, row.id)
                    writes.setdefault(id, []).append((stamp, kind, content[0] if content else None))
                    if kind != PATCH or len(content) > 1:
                        said.setdefault(id, []).append((stamp, content[1] if len(content) > 1 else None))
    (present_ms,) = {node.replica.expiries.present_ms(node.wall_ms) for node in mesh.nodes}
    expired = {id for id, found in said.items() if (expires_ms := max(found)[1]) and expires_ms <= present_ms}
    mesh.stats["expired"] += len(expired)
    documents = {id: document_of(found) for id, found in writes.items()}
    return {id: body for id, body in documents.items() if body is not None and id not in expired}


def shown(node: Node) -> dict[str, dict[str, Any]]:
    """What a node shows."""
    merger, interest = node.replica.merger, node.replica.interest
    documents = {row.id: merger.body(row, payload) for row, payload in scan_documents(node.replica.tables)}
    return {id: body for id, body in documents.items() if body is not None and (interest is None or id in interest)}


def payloads(node: Node) -> dict[bytes, bytes]:
    """The payloads that a node holds, by entry."""
    return {row.id: row.payload for row in node.replica.scan_entries() if row.payload is not None}


def check_looked_through(mesh: SimMesh) -> None:
    """What a node shows, and says, while it looks through its documents for those that it wants now."""
    for node in mesh.nodes:
        merger, interest = node.replica.merger, node.replica.interest
        if interest is None or interest.is_settled:
            continue
        mesh.stats["looks in between"] += 1
        documents = scan_documents(node.replica.tables)
        bodies = {row.id: merger.body(row, payload) for row, payload in documents}
        matching = {id for id, body in bodies.items() if body is not None and interest.query.matches(body, id)}
        listed = {one.document.row.id for one in Listing(node.replica, Query())}
        assert listed <= matching
        whole = (id for id, row in node.replica.tables.documents(list(matching)).items() if is_whole(node.replica, row))
        # What was in doubt a moment ago is looked at once more when all documents were looked at.
        assert listed >= {id for id in whole if not interest.is_held(id)}
        for end in node.ends:
            assert end.session.state is not SessionState.SYNCED, end


def is_whole(replica: Replica, row: DocumentRow) -> bool:
    """Whether nothing of a document is lacking, or in doubt."""
    tag = document_tag(replica.id, row.id)
    return next(chain(bare_entries(replica, tag), replica.superseded.entries_in_doubt(tag)), None) is None


class Entrances:
    """Watches what enters the views."""

    def __init__(self, mesh: SimMesh) -> None:
        self._mesh = mesh
        self._payloads: dict[bytes, bytes] = {}
        self._seen: dict[int, tuple[Replica, int, set[str]]] = {}
        """By node: what it showed, and its next arrival number."""

    def check(self) -> None:
        """What was not shown a moment ago is what all entries make it of which the node has the headers."""
        for node in self._mesh.nodes:
            interest, arrival = node.replica.interest, node.replica.tables.next_arrival()
            now = set() if interest is None else set(interest)
            is_settled = interest is None or interest.is_settled
            replica, since, before = self._seen.get(node.number, (None, 1, set[str]()))
            if replica is node.replica:
                if news := now - before:
                    self._check(node, news, since)
                self._seen[node.number] = replica, arrival, now if is_settled else before | now
            elif is_settled:  # what it showed before its process ended is not written down
                self._seen[node.number] = node.replica, arrival, now

    def _check(self, node: Node, news: set[str], since: int) -> None:
        """Documents entered at one of the moments since an arrival number was the next."""
        for other in self._mesh.nodes:
            self._payloads |= payloads(other)
        bodies = shown(node)
        self._mesh.stats["entrances"] += len(news)
        moments = [self._documents(node, news, end) for end in range(since, node.replica.tables.next_arrival() + 1)]
        for id in news & bodies.keys():
            assert bodies[id] in [documents[id] for documents in moments], f"{node} shows {id} with fields missing"

    def _documents(self, node: Node, ids: set[str], end: int) -> dict[str, dict[str, Any] | None]:
        """Documents as all entries make them before an arrival number, with the payloads that are here of later ones.

        Who wants the whole history asks everybody for what has a mark, and what supersedes that may be still to come.
        """
        writes: dict[str, list[Write]] = {id: [] for id in ids}
        for row in node.replica.scan_entries():
            counts = node.history is History.LATEST or not is_marked(row.bare)
            if row.payload is not None or (row.arrival < end and counts):
                author = bytes(node.replica.branches[row.branch].log.author)
                for kind, id, *content in cbor.decode_trusted(self._payloads[row.id]):
                    if id in ids:
                        writes[id].append(((row.hlc, author, row.id), kind, content[0] if content else None))
        return {id: document_of(found) for id, found in writes.items()}


def merged(node: Node) -> dict[str, dict[str, Any] | None]:
    """The documents as their writes make them, also where they have expired."""
    rows = node.replica.tables.document_rows("", 1000)
    return {row.id: body for row in rows if (body := node.replica.merger.state(row).visible()) is not None}


def check_agreement(mesh: SimMesh) -> None:
    """Two that want all documents, and say that they are in sync, have the same ones, whatever their clocks say."""
    for link in mesh.links:
        if all(end.session.state is SessionState.SYNCED and end.node.query is None for end in link.ends):
            one, other = (end.node for end in link.ends)
            if one.replica.root() == other.replica.root():
                mesh.stats["agreements"] += 1
                assert merged(one) == merged(other), f"{one}, {one.history}, and {other}, {other.history}"


def check_views(mesh: SimMesh) -> None:
    """The oracle.  The clocks must say the same."""
    state = full_state(mesh)
    for node in mesh.nodes:
        wanted = {id: body for id, body in state.items() if node.query is None or node.query.matches(body, id)}
        assert shown(node) == wanted, f"{node} with {node.query}, {node.history}"


def check_histories(mesh: SimMesh) -> None:
    """Who wants the whole history has what anyone has; nobody calls superseded what a document is made of."""
    everything = {id: payload for node in mesh.nodes for id, payload in payloads(node).items()}
    whole = next((node for node in mesh.nodes if len(payloads(node)) == len(everything)), None)
    for node in mesh.nodes:
        if node.query is None and node.history is History.FULL:
            assert payloads(node) == everything, f"{node} lacks of the past"
        if whole is not None:
            rows = {row.id: row for row in whole.replica.scan_entries()}
            marked = [rows[row.id] for row in node.replica.tables.marked_entries(1, len(rows))]
            assert contributing(whole.replica, marked) == set(), f"{node} has marks that are wrong"


def declare_indexes(node: Node) -> None:
    """Have what is sent to peers chosen by indexes where they serve."""
    for field in ("team", "n"):
        node.replica.indexes.add(field)
    while not node.replica.indexes.step():
        pass


class ChoosyMesh:
    """Each seed has a taste of its own."""

    def __init__(self, seed: int) -> None:
        self.mesh = SimMesh(seed, 0, SMALL)
        self.rng = rng = self.mesh.rng
        self.mesh.limits = replace(
            SMALL,
            eager_subscribers_max=rng.choice((0, 0, 2, 8)),
            bulk_entries=rng.choice((4, 64, 64)),
            part_slice_documents=rng.choice((1, 3, 256)),
            unwanted_seconds=rng.choice((1.0, 5.0)),
            receipt_seconds=rng.choice((2.0, 10.0)),
        )
        self.mesh.latency_seconds = rng.choice((0.001, 0.02, 0.4))
        self.full = rng.choice((1, 1, 2, 2, 9))
        """So many nodes want all documents: in some runs every one, and what differs is only how much of the past."""
        for number in range(min(self.full, 2) + rng.randrange(1, 5)):
            node = self.mesh.add_node()
            node.choose(random_query(rng) if number >= self.full else None, self._random_history())
            node.skew_ms = rng.choice((0, 0, -40_000, 40_000))
            if number % 2 == 0:
                declare_indexes(node)
        self.readers = {node.number for node in self.mesh.nodes[self.full :] if rng.random() < 0.5}
        """Parts that never write: what a node wrote ties what it may not drop."""
        self._weights = {
            self._write: 12,
            self._connect: 7,
            self._choose: rng.choice((1, 2, 4)),
            self._cut: rng.choice((0, 2, 6)),
            self._kill: rng.choice((0, 1)),
            self._crash: rng.choice((0, 1)),
            self._fill_disk: rng.choice((0, 0, 1)),
            self._wait: 6,
        }

        self.mesh.after(rng.random(), self._tidy)

    def _tidy(self) -> None:
        """Each node drops what it does not want, a little at a time."""
        for node in self.mesh.nodes:
            unwanted = node.replica.unwanted
            if node.running:
                with suppress(StoreError):
                    self.mesh.stats["payloads dropped"] += unwanted.step(self.mesh.now).entries
            if unwanted.is_waiting:
                for end in node.ends:
                    end.give_ready()
        self.mesh.after(self.rng.choice((0.1, 1.0)), self._tidy)

    def step(self) -> None:
        """One event, and a moment."""
        (action,) = self.rng.choices(list(self._weights), list(self._weights.values()))
        action(self.rng.choice(self.mesh.nodes))
        if self.rng.random() < 0.3:
            self._look_at_clock(self.rng.choice(self.mesh.nodes))
        self.mesh.run(self.rng.choice((0.0, 0.005, 0.02)))

    def _write(self, node: Node) -> None:
        if node.number in self.readers:
            return
        for _ in range(self.rng.choice((1, 1, 2, 10))):
            node.write(random_operations(self.rng, node.wall_ms))

    def _connect(self, node: Node) -> None:
        other = self.rng.choice(self.mesh.nodes)
        if other is not node:
            self.mesh.link(node, other)

    def _choose(self, node: Node) -> None:
        history = self._random_history()
        self.mesh.stats["histories"] += history is not node.history
        node.choose(random_query(self.rng) if node.number >= self.full else None, history)
        self.mesh.stats["choices"] += 1

    def _random_history(self) -> History:
        return self.rng.choice((History.FULL, History.LATEST))

    def _cut(self, _: Node) -> None:
        if self.mesh.links:
            self.mesh.cut(self.rng.choice(self.mesh.links))

    def _look_at_clock(self, node: Node) -> None:
        with suppress(StoreError):
            while node.replica.expiries.step(node.wall_ms):
                self.mesh.stats["looks at the clock"] += 1
                for end in node.ends:
                    end.give_ready()

    def _kill(self, node: Node) -> None:
        self.mesh.kill(node)

    def _crash(self, node: Node) -> None:
        self.mesh.crash(node)

    def _fill_disk(self, node: Node) -> None:
        node.store.broken = "" if node.store.broken else "disk full"

    def _wait(self, _: Node) -> None:
        self.mesh.run(self.rng.choice((0.01, 0.05, 0.3, 1.0, 60.0)))

    def heal(self) -> None:
        """Everything works again, and each node is connected with all: payloads pass one link only."""
        for node in self.mesh.nodes:
            node.mend_disk()
            node.skew_ms = 40_000
        for a, b in combinations(self.mesh.nodes, 2):
            self.mesh.link(a, b)
        level = self.mesh.run(HEAL_SECONDS_MAX, self.mesh.is_level)
        ends = [(end, end.session.state, end.session.stall) for link in self.mesh.links for end in link.ends]
        assert level, [one for one in ends if one[1] != "synced"]

    def look_at_clocks(self) -> None:
        """All of them, which show the same time."""
        for node in self.mesh.nodes:
            self._look_at_clock(node)


def run_choosy(seed: int, steps: int = 60) -> Counter[str]:
    """A whole run."""
    choosy = ChoosyMesh(seed)
    choosy.mesh.watch = Entrances(choosy.mesh).check
    for _ in range(steps):
        choosy.step()
        check_looked_through(choosy.mesh)
        check_agreement(choosy.mesh)
    choosy.heal()
    for _ in range(2):
        choosy.mesh.run(20.0)
        assert choosy.mesh.is_level()
        choosy.look_at_clocks()
        check_views(choosy.mesh)
        check_histories(choosy.mesh)
    mesh = choosy.mesh
    mesh.run(20.0)
    before = mesh.stats["Want"], mesh.stats["payloads dropped"]
    mesh.run(40.0)
    assert (mesh.stats["Want"], mesh.stats["payloads dropped"]) == before, "nodes fetch and drop in turns"
    mesh.stats["payloads that stayed away"] += sum(node.replica.tables.counts()[2] for node in mesh.nodes)
    mesh.stats["superseded"] += sum(node.replica.tables.marked() for node in mesh.nodes)
    return mesh.stats
