"""scenario.yml: how the nodes of a topology are configured, what befalls them and their links, and what must hold.

    defaults: {collections: [notes], trust: closed}      # keys of a node's configuration, for all nodes
    nodes:
      a: {peers: [b]}                                    # over the defaults; peers by the names of the topology
    links:
      a-b: tactical-radio                                # a profile, or keys; see meshsync.lab.impairments
    settle: 30s                                         # at most so long until all are in sync, before the first step
    steps:                                              # in the order of their times
      - {at: 0s, write: {node: a, collection: notes, count: 100, rate: 10}}
      - {at: 10s, cut: [a-b]}
      - {at: 20s, heal: [a-b]}                           # or `heal: all`
      - {at: 20s, wait: 60s}                             # at most so long until all are in sync; the rest is later
    expect:
      - converged within 60s

Whoever is named under `nodes` of the topology and neither there nor in `bystanders` runs a node of meshsync.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from meshsync.config.problems import Location, shown
from meshsync.errors import LocalError
from meshsync.lab.expectations import Expectation, read_expectation
from meshsync.lab.files import LabFile
from meshsync.lab.impairments import LinkImpairment, read_link_impairment
from meshsync.lab.topology import LinkSpec, Topology
from meshsync.quantities import parse_duration

FILE_NAME = "scenario.yml"
WRITES_MAX = 1_000_000
SETTLE_SECONDS = 30.0

NODE_KEYS = frozenset({"collections", "discovery", "durability", "interfaces", "limits", "listen", "peers", "trust"})
"""Of a node's configuration; names, keys and directories are the lab's."""


@dataclass(frozen=True)
class Cut:
    """Whatever these links carry is lost, in both directions; the interfaces stay up."""

    links: tuple[str, ...]


@dataclass(frozen=True)
class Unplug:
    """These links lose their carrier, as when a cable is pulled."""

    links: tuple[str, ...]


@dataclass(frozen=True)
class Heal:
    """These links carry again as they did before they were cut or unplugged; all where none is named."""

    links: tuple[str, ...]


@dataclass(frozen=True)
class Impair:
    """From now on these links do this to what they carry."""

    links: Mapping[str, LinkImpairment]


@dataclass(frozen=True)
class Kill:
    """The processes of these nodes end at once (SIGKILL)."""

    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Restart:
    """These nodes start again with the disk that they had; one that runs is killed first."""

    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Write:
    """A node writes so many documents, so many a second; as fast as it can where no rate is given."""

    node: str
    collection: str
    count: int
    rate: float | None
    size_bytes: int


@dataclass(frozen=True)
class Clock:
    """The wall clock of a node is off by so much from now on; it starts again with it."""

    node: str
    offset_seconds: float


@dataclass(frozen=True)
class Wait:
    """Until all writes are made and all nodes that run are in sync; the times of later steps count from its end on."""

    within_seconds: float


Action = Cut | Unplug | Heal | Impair | Kill | Restart | Write | Clock | Wait


@dataclass(frozen=True)
class Step:
    """One thing that happens, so many seconds after all nodes were ready."""

    at_seconds: float
    action: Action


@dataclass(frozen=True)
class Scenario:
    """A whole scenario, sound together with its topology."""

    path: Path
    nodes: Mapping[str, Mapping[str, object]]
    """Per node of meshsync the keys of its configuration; `peers` are names."""
    links: Mapping[str, LinkImpairment]
    """Per link, by its name in the topology; a link that is not named is perfect."""
    settle_seconds: float
    """So long the nodes have, at most, to find each other before the first step."""
    steps: tuple[Step, ...]
    expect: tuple[Expectation, ...]
    sentences: tuple[str, ...] = field(default=())
    """The expectations as they were written."""

    @property
    def collections(self) -> tuple[str, ...]:
        """All that any node replicates."""
        found = (name for keys in self.nodes.values() for name in _names(keys.get("collections")))
        return tuple(dict.fromkeys(found))


def read_scenario(path: Path, topology: Topology) -> Scenario:
    """Read a scenario for a topology.  ConfigError: a line for each thing that is wrong, with file, line and key."""
    file = LabFile(path)
    file.known(file.values, (), frozenset({"bystanders", "defaults", "expect", "links", "nodes", "settle", "steps"}))
    reader = _Reader(file, topology)
    scenario = Scenario(
        path,
        nodes := reader.nodes(),
        reader.links(file.values.get("links"), ("links",)),
        reader.settle(),
        reader.steps(nodes),
        *reader.expectations(),
    )
    file.close()
    return scenario


class _Reader:
    def __init__(self, file: LabFile, topology: Topology) -> None:
        self._file = file
        self._topology = topology

    def settle(self) -> float:
        value = self._file.values.get("settle")
        return SETTLE_SECONDS if value is None else self._duration(value, ("settle",))

    # Nodes

    def nodes(self) -> dict[str, Mapping[str, object]]:
        file = self._file
        machines = [node.name for node in self._topology.machines]
        bystanders = file.texts(file.values.get("bystanders"), ("bystanders",), "names of nodes")
        for number, name in enumerate(bystanders):
            self._node(name, ("bystanders", number))
        defaults = file.mapping(file.values.get("defaults"), ("defaults",), "keys of a node's configuration")
        file.known(defaults, ("defaults",), NODE_KEYS)
        own = file.mapping(file.values.get("nodes"), ("nodes",), "nodes by name")
        for name in own:
            self._node(name, ("nodes", name))
            if name in bystanders:
                file.wrong(("nodes", name), "is a bystander, too; expected one of the two")
        found: dict[str, Mapping[str, object]] = {}
        for name in machines:
            if name in bystanders:
                continue
            keys = file.mapping(own.get(name), ("nodes", name), "keys of a node's configuration")
            file.known(keys, ("nodes", name), NODE_KEYS)
            found[name] = MappingProxyType({**defaults, **keys})
            at: Location = ("nodes", name, "peers") if "peers" in keys else ("defaults", "peers")
            for number, peer in enumerate(file.texts(found[name].get("peers"), at, "names of nodes")):
                self._peer(peer, name, (*at, number))
        for name, keys in found.items():
            for peer in _names(keys.get("peers")):
                if peer in self._topology.nodes and peer not in found:
                    file.wrong(("nodes", name, "peers"), f"{peer!r} runs no node of meshsync")
        return found

    def _peer(self, peer: str, of: str, location: Location) -> None:
        if self._node(peer, location) and peer == of:
            self._file.wrong(location, f"{peer!r} is the node itself")

    def _node(self, name: str, location: Location) -> bool:
        machines = [node.name for node in self._topology.machines]
        if name not in machines:
            self._file.wrong(location, f"{name!r} is no node of the topology; expected one of {', '.join(machines)}")
        return name in machines

    # Links

    def links(self, value: object, location: Location) -> dict[str, LinkImpairment]:
        found: dict[str, LinkImpairment] = {}
        for name, item in self._file.mapping(value, location, "impairments by link").items():
            here = (*location, name)
            try:
                impairment = read_link_impairment(item)
            except LocalError as error:
                self._file.wrong(here, str(error))
                continue
            for link in self._link_names(name, here):
                turned = name == link.turned_name != link.name
                found[link.name] = LinkImpairment(impairment.backward, impairment.forward) if turned else impairment
        return found

    def _link_names(self, name: str, location: Location) -> tuple[LinkSpec, ...]:
        links = self._topology.links if name == "all" else self._topology.links_named(name)
        if not links:
            known = ", ".join(dict.fromkeys(link.name for link in self._topology.links))
            self._file.wrong(
                location, f"{name!r} is no link of the topology; expected all, or one of {known or 'none'}"
            )
        return links

    def _chosen(self, value: object, location: Location) -> tuple[str, ...]:
        names = (value,) if isinstance(value, str) else self._file.texts(value, location, "names of links, or all")
        if not names:
            self._file.wrong(location, "names no link; expected all, or links such as [a-b]")
        return tuple(dict.fromkeys(link.name for name in names for link in self._link_names(name, location)))

    # Steps

    def steps(self, nodes: Mapping[str, Mapping[str, object]]) -> tuple[Step, ...]:
        file, found = self._file, []
        for number, value in enumerate(file.items(file.values.get("steps"), ("steps",), "a list of steps")):
            here: Location = ("steps", number)
            keys = file.mapping(value, here, "a time and an action, such as {at: 10s, cut: [a-b]}")
            at = self._duration(keys.get("at"), (*here, "at"))
            actions = sorted(keys.keys() - {"at"})
            if len(actions) != 1:
                file.wrong(here, f"{len(actions)} actions; expected one of {', '.join(_ACTIONS)}")
                continue
            kind = actions[0]
            action = self._action(kind, keys[kind], (*here, kind), nodes)
            if action is not None:
                found.append(Step(at, action))
        return tuple(sorted(found, key=lambda step: step.at_seconds))

    def _action(
        self, kind: str, value: object, at: Location, nodes: Mapping[str, Mapping[str, object]]
    ) -> Action | None:
        match kind:
            case "cut":
                return Cut(self._chosen(value, at))
            case "unplug":
                return Unplug(self._chosen(value, at))
            case "heal":
                return Heal(self._chosen(value, at))
            case "impair":
                return Impair(self.links(value, at))
            case "kill" | "restart":
                names = (value,) if isinstance(value, str) else self._file.texts(value, at, "names of nodes")
                for name in names:
                    self._runs(name, at, nodes)
                return Kill(names) if kind == "kill" else Restart(names)
            case "write":
                return self._write(self._file.mapping(value, at, "node and count"), at, nodes)
            case "clock":
                keys = self._file.mapping(value, at, "node and offset")
                self._file.known(keys, at, frozenset({"node", "offset"}))
                name = self._file.text(keys.get("node"), (*at, "node"))
                self._runs(name, (*at, "node"), nodes)
                text = self._file.text(keys.get("offset"), (*at, "offset"))
                sign = -1 if text.startswith("-") else 1
                return Clock(name, sign * self._duration(text.removeprefix("-"), (*at, "offset")))
            case "wait":
                return Wait(self._duration(value, at))
            case _:
                self._file.wrong(at, f"unknown action; expected one of {', '.join(_ACTIONS)}")
                return None

    def _write(self, keys: Mapping[str, object], at: Location, nodes: Mapping[str, Mapping[str, object]]) -> Write:
        file = self._file
        file.known(keys, at, frozenset({"collection", "count", "node", "rate", "size"}))
        node = file.text(keys.get("node"), (*at, "node"))
        self._runs(node, (*at, "node"), nodes)
        known = _names(nodes.get(node, {}).get("collections"))
        collection = file.text(keys.get("collection"), (*at, "collection")) or (known[0] if known else "")
        if node in nodes and collection not in known:
            file.wrong(
                (*at, "collection"), f"{node} does not replicate {collection!r}; expected one of its collections"
            )
        rate = keys.get("rate")
        return Write(
            node,
            collection,
            int(self._number(keys.get("count"), (*at, "count"), WRITES_MAX)),
            None if rate is None else self._number(rate, (*at, "rate"), 100_000),
            int(self._number(keys.get("size", "150"), (*at, "size"), 200_000)),
        )

    def _runs(self, name: str, at: Location, nodes: Mapping[str, Mapping[str, object]]) -> None:
        if name not in nodes:
            self._file.wrong(at, f"{name!r} runs no node of meshsync; expected one of {', '.join(nodes)}")

    def _duration(self, value: object, at: Location) -> float:
        try:
            return parse_duration(self._file.text(value, at, "a time, such as 10s") or "missing")
        except LocalError as error:
            self._file.wrong(at, str(error))
            return 0.0

    def _number(self, value: object, at: Location, most: float) -> float:
        try:
            number = float(str(value))
        except ValueError:
            number = -1.0
        if not 0 < number <= most:
            self._file.wrong(at, f"{shown(value)} is no such number; expected more than 0 and at most {most:g}")
            return 1.0
        return number

    # Expectations

    def expectations(self) -> tuple[tuple[Expectation, ...], tuple[str, ...]]:
        found: list[Expectation] = []
        sentences = self._file.texts(self._file.values.get("expect"), ("expect",), "sentences")
        for number, sentence in enumerate(sentences):
            try:
                found.append(read_expectation(sentence))
            except LocalError as error:
                self._file.wrong(("expect", number), str(error))
        if not sentences:
            self._file.wrong(("expect",), "is empty; expected what must hold, such as `converged within 60s`")
        return tuple(found), sentences


_ACTIONS = ("cut", "unplug", "heal", "impair", "kill", "restart", "write", "clock", "wait")


def _names(value: object) -> tuple[str, ...]:
    """The names in a list of names, or of mappings with a name."""
    items = value if isinstance(value, list) else []
    return tuple(str(item.get("name", "")) if isinstance(item, dict) else str(item) for item in items)
