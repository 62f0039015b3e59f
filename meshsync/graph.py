"""The mesh as one node knows it: who there is, who is connected with whom, what each holds, and how old that news is.

What this node sees itself is of this moment.  The rest is the word of each node about itself (`core.summary`), so two
ends of a link may tell of it differently.  Where the word of one is older, the newer one counts; where each keeps to
its own, nobody decides who is right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from meshsync.core.session_events import SessionState
from meshsync.core.summary import NodeSummary
from meshsync.ids import EndpointId
from meshsync.store.replica import Replica

if TYPE_CHECKING:
    from meshsync.node import Node

SETTLED_SECONDS = 10.0
"""How long after one end told of a change the other may still say what was so before."""

_Pair = tuple[EndpointId, EndpointId]


@dataclass(slots=True)
class _Word:
    """What one node says of its links with those that share a collection."""

    links: Mapping[EndpointId, float | None]
    """Peer to round trip in milliseconds, None where none was measured."""
    is_all: bool
    age: float
    since: float
    """When it began to tell of just these, by trio's clock."""


@dataclass(slots=True)
class _Opinion:
    """That a link is there, or that it is not.  By trio's clock."""

    since: float = -math.inf
    """When an end came to it."""
    at: float = -math.inf
    """When an end last said so."""

    def add(self, since: float, at: float) -> None:
        """An end has it as well."""
        self.since, self.at = max(since, self.since), max(at, self.at)


@dataclass(slots=True)
class _Link:
    """A link, by the words of its two ends."""

    said: dict[EndpointId, tuple[float, float | None]] = field(default_factory=dict)
    """Who says that it is there: age of the word, and round trip."""
    denied: dict[EndpointId, float] = field(default_factory=dict)
    """Who does not know of it: age of the word."""
    up: _Opinion = field(default_factory=_Opinion)
    down: _Opinion = field(default_factory=_Opinion)
    collections: dict[str, None] = field(default_factory=dict)
    state: str = ""
    here: str = ""
    """How this node stands with the other end, where it is not connected with it and might be."""

    def judge(self) -> str:
        """What follows from both opinions: the one that began later counts.

        Only whoever spoke again a while after that, and kept to the earlier one, disputes it: the news of a link that
        comes or goes is one end's alone at first, and the dead keep to their last word.
        """
        later, earlier = (self.up, self.down) if self.up.since >= self.down.since else (self.down, self.up)
        if earlier.at > later.since + SETTLED_SECONDS:
            return "disputed"
        return "connected" if later is self.up else self.here or "down"


@dataclass(slots=True)
class _Member:
    """A node, by whatever is known of it."""

    name: str = ""
    age: float | None = None
    state: str = "unreachable"
    addresses: tuple[str, ...] = ()
    holdings: list[dict[str, Any]] = field(default_factory=list)

    def heard(self, age: float) -> bool:
        """Note a word by it or about it; whether there was no newer one."""
        if self.age is not None and self.age <= age:
            return False
        self.age = age
        return True


class _Mesh:
    """The picture while it is drawn."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.now = trio.current_time()
        self.members: dict[EndpointId, _Member] = {node.id: _Member(node.name, 0.0, "self", node.listen)}
        self.links: dict[_Pair, _Link] = {}

    def member(self, id: EndpointId) -> _Member:
        return self.members.setdefault(id, _Member())

    def link(self, a: EndpointId, b: EndpointId) -> _Link:
        return self.links.setdefault((min(a, b), max(a, b)), _Link())

    def add_collection(self, replica: Replica) -> None:
        """What is known of one collection."""
        own, summaries = self.node.id, self.node.sync.summaries
        live = {
            peer: _ms(link.connection.rtt_seconds * 1000) for peer, link in summaries.known_links(replica.id).items()
        }
        words = {own: _Word(live, is_all=True, age=0.0, since=self.now)}
        self.members[own].holdings.append(_own_holding(replica))
        for fact in summaries.gossip.facts(replica.id):
            summary, age = fact.signed.summary, fact.age(self.now)
            if summary.author == own:
                continue
            links = {link.peer: _ms(link.rtt_us / 1000) for link in summary.links}
            words[summary.author] = _Word(links, summary.tells_all_links, age, fact.links_at)
            member = self.member(summary.author)
            if member.heard(age):
                member.name = summary.name or member.name
                member.addresses = tuple(str(address) for address in summary.addresses)
            member.holdings.append(self._holding(replica, summary, age))
        self._add_words(replica, words)

    def _since(self, replica: Replica, one: EndpointId, other: EndpointId, word: _Word) -> float:
        """When a node began to say of its link with another what it says now."""
        if one != self.node.id:
            return word.since
        link = self.node.sync.links.get(other)
        if link is not None and replica.id in link.exchanges:
            return link.exchanges[replica.id].began
        told = self.node.sync.summaries.gossip.fact(replica.id, one)
        is_told = told is not None and other not in {link.peer for link in told.signed.summary.links}
        return told.links_at if told is not None and is_told else self.now

    def _add_words(self, replica: Replica, words: Mapping[EndpointId, _Word]) -> None:
        for one, word in words.items():
            for other, rtt in word.links.items():
                if one == other:
                    continue
                link = self.link(one, other)
                link.collections[replica.name] = None
                link.up.add(self._since(replica, one, other, word), self.now - word.age)
                if one not in link.said or word.age < link.said[one][0]:
                    link.said[one] = word.age, rtt
                answer = words.get(other)
                if answer is not None and answer.is_all and one not in answer.links:
                    link.denied[other] = min(answer.age, link.denied.get(other, answer.age))
                    link.down.add(self._since(replica, other, one, answer), self.now - answer.age)

    def _holding(self, replica: Replica, summary: NodeSummary, age: float) -> dict[str, Any]:
        equal, exact = summary.root == replica.root(), True
        behind = ahead = 0
        if self.node.sync.state_of(replica, summary.author).state is SessionState.SYNCED:
            equal, age = True, 0.0
        elif not equal:
            behind, ahead, exact = lag(replica, summary)
        return {
            "collection": replica.name,
            "root": replica.root().hex() if equal else summary.root.hex(),
            "equal": equal,
            "entries": replica.entry_count() if equal else summary.entries,
            "documents": replica.document_count() if equal and replica.interest is None else summary.documents,
            "behind": behind,
            "ahead": ahead,
            "exact": exact,
            "age_s": _seconds(age),
        }

    def add_peers(self) -> None:
        """Whom this node itself is connected with, or tries to be, whatever they share."""
        own = self.node.id
        for id, peer in self.node.peering.peers.items():
            member = self.member(id)
            link = self.link(own, id)
            if peer.is_connected and peer.connection is not None:
                member.heard(0.0)
                member.name = peer.name or member.name
                link.said[own] = 0.0, _ms(peer.connection.rtt_seconds * 1000)
                link.denied.pop(own, None)
            else:
                member.name = member.name or peer.name
                link.denied[own] = 0.0
                link.here = peer.state
                if not link.said:
                    link.state = peer.state

    def judge(self) -> None:
        """From the words of the ends to the state of each link and node."""
        for pair, link in self.links.items():
            for one in link.said:
                link.denied.pop(one, None)
            if link.said and link.denied:
                link.state = link.judge()
            elif link.said:
                link.state = "connected"
            for one in pair:
                for other in link.said.keys() - {one}:
                    self.member(one).heard(link.said[other][0])
        reachable = self._reachable()
        for id, member in self.members.items():
            if id in reachable and id != self.node.id:
                near = self.links.get((min(id, self.node.id), max(id, self.node.id)))
                is_near = near is not None and self.node.id in near.said
                member.state = "connected" if is_near else "reachable"
        for link in self.links.values():
            if link.state in {"connected", "down", "disputed"} and link.said and not reachable & link.said.keys():
                # Whoever said so may have seen the link end since then, and could not tell.
                link.state = link.here or "stale"

    def _reachable(self) -> set[EndpointId]:
        beside: dict[EndpointId, list[EndpointId]] = {}
        for (a, b), link in self.links.items():
            # What this node sees itself is so, whatever the other end says.
            if link.state == "connected" or self.node.id in link.said:
                beside.setdefault(a, []).append(b)
                beside.setdefault(b, []).append(a)
        found, to_visit = {self.node.id}, [self.node.id]
        while to_visit:
            for one in beside.get(to_visit.pop(), ()):
                if one not in found:
                    found.add(one)
                    to_visit.append(one)
        return found


def mesh_graph(node: Node) -> dict[str, Any]:
    """The JSON of `graph --json`; `meshsync.api.openapi` says what each key means."""
    mesh = _Mesh(node)
    for replica in node.sync.subscribed():
        mesh.add_collection(replica)
    mesh.add_peers()
    mesh.judge()
    return {
        "v": 1,
        "self": node.id.hex(),
        "nodes": [_node(id, member) for id, member in mesh.members.items()],
        "links": [_link(pair, link, node.id) for pair, link in sorted(mesh.links.items())],
    }


def lag(replica: Replica, summary: NodeSummary) -> tuple[int, int, bool]:
    """By how many entries a node is behind this one, by how many ahead of it, and whether both are exact.

    They are where it named all of its logs and nothing has forked; else each is the least that can be.
    """
    entries = replica.entry_count()
    mine: dict[bytes, int] = {}
    for log in {mark.incarnation for mark in summary.marks}:
        mine[log] = 0
    for branch in replica.branches.values():
        if branch.log.incarnation in mine:
            mine[branch.log.incarnation] = max(mine[branch.log.incarnation], branch.tip.seq)
    common = sum(min(mark.seq, mine[mark.incarnation]) for mark in summary.marks)
    if summary.tells_all_logs and not replica.has_forks():
        return entries - common, summary.entries - common, True
    told, held = sum(mark.seq for mark in summary.marks), sum(mine.values())
    # Of the logs that are not named only the numbers of entries can be compared.
    rest = (entries - held) - (summary.entries - told)
    return max(0, held - common + max(0, rest)), max(0, told - common + max(0, -rest)), False


def _own_holding(replica: Replica) -> dict[str, Any]:
    return {
        "collection": replica.name,
        "root": replica.root().hex(),
        "equal": True,
        "entries": replica.entry_count(),
        "documents": replica.document_count(),
        "behind": 0,
        "ahead": 0,
        "exact": True,
        "age_s": 0.0,
    }


def _node(id: EndpointId, member: _Member) -> dict[str, Any]:
    return {
        "id": id.hex(),
        "name": member.name,
        "age_s": _seconds(member.age),
        "state": member.state,
        "addresses": list(member.addresses),
        "collections": [holding["collection"] for holding in member.holdings],
        "holdings": member.holdings,
    }


def _link(pair: _Pair, link: _Link, own: EndpointId) -> dict[str, Any]:
    # A link of this node's own is told from here, as it always was.
    a, b = pair if pair[1] != own else (pair[1], pair[0])
    ages = [age for age, _ in link.said.values()] + ([] if link.state == "stale" else list(link.denied.values()))
    measured = sorted((age, rtt) for age, rtt in link.said.values() if rtt is not None)
    return {
        "a": a.hex(),
        "b": b.hex(),
        "state": link.state,
        "rtt_ms": measured[0][1] if measured and not link.here else None,
        "age_s": _seconds(min(ages, default=0.0)),
        "said_by": _ids(link.said),
        "denied_by": _ids(link.denied),
        "collections": list(link.collections),
    }


def _ids(ids: Iterable[EndpointId]) -> list[str]:
    return sorted(id.hex() for id in ids)


def _ms(value: float) -> float | None:
    return round(value, 3) if value else None


def _seconds(age: float | None) -> float | None:
    return None if age is None else round(age, 1)
