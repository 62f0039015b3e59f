"""What was seen while a scenario ran: writes, arrivals, and samples of what the nodes say of themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Statuses = Mapping[str, Mapping[str, Any]]
"""Per running node what `meshsync status --json` prints, all asked for at one time."""


@dataclass
class Written:
    """A write that a node acknowledged."""

    node: str
    collection: str
    id: str
    began: float
    is_calm: bool
    """All nodes ran, were connected as the topology says and in sync when it began."""


@dataclass(frozen=True)
class Waited:
    """A step `wait`."""

    seconds: float | None
    """How long it took; None: it was not so in the time that was given."""
    bytes_sent: int
    """Of UDP payload that all nodes had sent when it ended."""


@dataclass
class Record:
    """One run.  Times are the driver's seconds."""

    nodes: tuple[str, ...]
    cables: str | None = None
    """What impaired the links; see `Driver.cables`."""
    writes: dict[str, Written] = field(default_factory=dict)
    """By the document's id."""
    refused: int = 0
    """Writes that failed, because the node did not run."""
    seen: dict[str, dict[str, float]] = field(default_factory=dict)
    """Per document, when each node first told of it."""
    sent: dict[tuple[str, str, float], int] = field(default_factory=dict)
    """UDP payload sent, per node, peer and the time since when they are connected."""
    waits: list[Waited] = field(default_factory=list)
    violations: dict[str, str] = field(default_factory=dict)
    """What must never be and was, by kind: the first of each, in words."""
    ended: dict[str, str] = field(default_factory=dict)
    """The nodes whose processes ended by themselves: when, and their last words."""
    statuses: Statuses = field(default_factory=dict)
    """What each node said last of itself."""
    converged_after: float | None = None
    """Seconds after the last step."""
    held: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    """At the end, per node that runs and collection, the ids of all documents."""
    patience_seconds: float = 2.0
    """How long news may be on the way: so long a node is not to blame for what it does not know."""
    _suspected: dict[tuple[str, str], float] = field(default_factory=dict)
    """What is so at present and must not stay so, by kind and in words, and since when."""

    def note_seen(self, node: str, id: str, at: float) -> None:
        """A node told of a document."""
        self.seen.setdefault(id, {}).setdefault(node, at)

    def note(self, now: float, statuses: Statuses, blind: frozenset[frozenset[str]] = frozenset()) -> None:
        """Take a sample.  What must never be counts once it was so for `patience_seconds`, with nothing changed.

        `blind` are the pairs of nodes that cannot know of each other at present: a node whose cable was cut a moment
        ago believes what it heard last, and does not know which connection the other one has closed.
        """
        self.statuses = {**self.statuses, **statuses}
        self.note_sent(statuses)
        suspicions = {("synced", text) for pair, text in _false_synced(statuses) if pair not in blind}
        suspicions |= {("connections", text) for pair, text in _two_connections(statuses) if pair not in blind}
        self._suspected = {one: self._suspected.get(one, now) for one in suspicions}
        for (kind, text), since in self._suspected.items():
            if now - since >= self.patience_seconds:
                self.violations.setdefault(kind, text)

    def note_sent(self, statuses: Statuses) -> None:
        """Count what the nodes sent, and look at nothing else."""
        for name, status in statuses.items():
            for peer in status["peers"]:
                if peer["since"] is not None:
                    key = name, peer["id"], peer["since"]
                    self.sent[key] = max(peer["bytes_sent"], self.sent.get(key, 0))

    # Figures

    @property
    def bytes_sent(self) -> int:
        """UDP payload that all nodes sent."""
        return sum(self.sent.values())

    def bytes_sent_by(self, node: str) -> int:
        """UDP payload that one node sent."""
        return sum(count for (name, _, _), count in self.sent.items() if name == node)

    def connections_of(self, node: str) -> int:
        """How many connections one node had, one after the other or at a time."""
        return sum(name == node for name, _, _ in self.sent)

    def latencies(self) -> list[float]:
        """From each calm write to each other node, in ascending order; inf where it never came."""
        found = []
        for id, write in self.writes.items():
            if write.is_calm:
                times = self.seen.get(id, {})
                found += [times.get(node, math.inf) - write.began for node in self.nodes if node != write.node]
        return sorted(found)

    def bytes_per_entry(self) -> float | None:
        """Of UDP payload, for each entry and node that had yet to get it; None where nothing was written."""
        copies = len(self.writes) * (len(self.nodes) - 1)
        return self.bytes_sent / copies if copies else None

    def missing(self) -> Iterator[tuple[str, Written]]:
        """The acknowledged writes that a node lacks in the end, of those that run then and have the collection."""
        for node, collections in self.held.items():
            for write in self.writes.values():
                if write.collection in collections and write.id not in collections[write.collection]:
                    yield node, write

    def delivered(self) -> float:
        """The share of (write, other node) that is there in the end; 1.0 where nothing was written."""
        pairs = sum(
            write.collection in collections and node != write.node
            for node, collections in self.held.items()
            for write in self.writes.values()
        )
        lacking = sum(node != write.node for node, write in self.missing())
        return 1 - lacking / pairs if pairs else 1.0


def percentile(ascending: list[float], percent: float) -> float:
    """The smallest value that so many per cent do not exceed (nearest rank); nan where there are none."""
    if not ascending:
        return math.nan
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def is_converged(statuses: Statuses) -> bool:
    """Whether all nodes have the same roots, and say that they are in sync with whom they are connected."""
    roots: dict[str, set[str]] = {}
    for status in statuses.values():
        for collection in status["collections"]:
            roots.setdefault(collection["name"], set()).add(collection["root"])
            if any(peer["state"] != "synced" for peer in collection["peers"]):
                return False
    return bool(roots) and all(len(found) == 1 for found in roots.values())


def _roots(statuses: Statuses) -> dict[tuple[str, str], str]:
    """By endpoint and collection."""
    return {
        (status["id"], collection["id"]): collection["root"]
        for status in statuses.values()
        for collection in status["collections"]
    }


def _false_synced(statuses: Statuses) -> Iterator[tuple[frozenset[str], str]]:
    """The pairs of nodes and what one says of the other that is not so."""
    roots = _roots(statuses)
    names = {status["id"]: name for name, status in statuses.items()}
    for name, status in statuses.items():
        for collection in status["collections"]:
            for peer in collection["peers"]:
                other = roots.get((peer["id"], collection["id"]))
                if peer["state"] == "synced" and other is not None and other != collection["root"]:
                    text = f"{name} says that {collection['name']} is synced with {names[peer['id']]}"
                    text += f"; their roots are {collection['root'][:8]} and {other[:8]}"
                    yield frozenset((name, names[peer["id"]])), text


def _two_connections(statuses: Statuses) -> Iterator[tuple[frozenset[str], str]]:
    """The pairs of nodes that each use the connection that they dialled, and what is wrong in words."""
    names = {status["id"]: name for name, status in statuses.items()}
    origins = {
        (name, names[peer["id"]]): peer["origin"]
        for name, status in statuses.items()
        for peer in status["peers"]
        if peer["state"] == "connected" and peer["id"] in names
    }
    for (a, b), origin in origins.items():
        if a < b and origins.get((b, a)) == origin:
            yield frozenset((a, b)), f"{a} and {b} each hold a connection that it {origin} itself"
