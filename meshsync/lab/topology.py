"""A containerlab topology file: nodes, links, addresses, and what neither the schema nor containerlab checks.

Understood is what a lab of linux nodes, bridges and veth links needs: kinds `linux` and `bridge`, defaults and kinds
merged into nodes as containerlab does it, links in the brief and in the extended form.  Other keys are containerlab's
own affair.  Addresses are those that `exec` gives, because containerlab sets none on linux nodes.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from meshsync.config.problems import Location
from meshsync.errors import ConfigError
from meshsync.lab.files import LabFile

INTERFACE_CHARACTERS_MAX = 15
"""IFNAMSIZ - 1 of Linux."""
SUFFIX = ".clab.yml"

_LAB_NAME_CHARACTERS_MAX = 63
"""With the name of a node, itself a DNS label, it makes that of a namespace: a file's, of at most 255 bytes."""
LAB_NAME_FORM = f"at most {_LAB_NAME_CHARACTERS_MAX} letters, digits, '-', '_' and '.', the first a letter or digit"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_SPECIAL = frozenset({"host", "mgmt-net", "macvlan", "vxlan", "dummy"})
_KINDS = frozenset({"linux", "bridge"})

IpInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True)
class NodeSpec:
    """A node with its defaults merged in."""

    name: str
    kind: str
    image: str = ""
    cmd: str = ""
    exec: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    network_mode: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    waits_for: tuple[str, ...] = ()

    @property
    def is_bridge(self) -> bool:
        """Whether it is a switch and no machine."""
        return self.kind == "bridge"

    @property
    def bridge(self) -> tuple[str, str]:
        """Of a bridge its interface's name, and the node in whose namespace it is; "" for the host's."""
        name, _, inside = self.name.partition("|")
        return name, inside

    @cached_property
    def addresses(self) -> tuple[tuple[str, IpInterface], ...]:
        """The interfaces and addresses that `exec` gives, in order."""
        return tuple(found for line in self.exec if (found := _address_of(line)) is not None)


@dataclass(frozen=True)
class End:
    """One end of a link."""

    node: str
    interface: str

    def __str__(self) -> str:
        return f"{self.node}:{self.interface}"


def _plain(node: str) -> str:
    return node.partition("|")[2] or node


@dataclass(frozen=True)
class LinkSpec:
    """A link between two interfaces."""

    a: End
    b: End
    mtu: int | None = None

    @property
    def name(self) -> str:
        """How a scenario names it: the two nodes, in the file's order; a bridge inside a node is that node."""
        return f"{_plain(self.a.node)}-{_plain(self.b.node)}"

    @property
    def turned_name(self) -> str:
        """The same, from the other end."""
        return f"{_plain(self.b.node)}-{_plain(self.a.node)}"

    def __contains__(self, node: str) -> bool:
        return node in (self.a.node, self.b.node)


@dataclass(frozen=True)
class Topology:
    """A whole topology, sound in itself."""

    path: Path
    name: str
    nodes: Mapping[str, NodeSpec]
    links: tuple[LinkSpec, ...]

    @property
    def machines(self) -> tuple[NodeSpec, ...]:
        """The nodes that are no bridges."""
        return tuple(node for node in self.nodes.values() if not node.is_bridge)

    def links_named(self, name: str) -> tuple[LinkSpec, ...]:
        """The links between the two nodes of `a-b`, in either order; () where there is none."""
        return tuple(link for link in self.links if name in (link.name, link.turned_name, str(link.a), str(link.b)))

    def segment(self, end: End) -> tuple[End, ...]:
        """All ends, this one included, that are on one broadcast segment with it: across bridges."""
        seen: dict[End, None] = {}
        waiting = [end]
        while waiting:
            here = waiting.pop()
            if here in seen:
                continue
            seen[here] = None
            waiting += [link.b if link.a == here else link.a for link in self.links if here in (link.a, link.b)]
            if self.nodes[here.node].is_bridge:
                waiting += [one for link in self.links for one in (link.a, link.b) if one.node == here.node]
        return tuple(one for one in seen if not self.nodes[one.node].is_bridge)

    def addresses_towards(self, target: str, source: str) -> tuple[IpInterface, ...]:
        """Where `source` reaches `target` directly: its addresses on a segment of both; () where there is none."""
        ends = [one for link in self.links for one in (link.a, link.b) if one.node == target]
        near = [one.interface for one in ends if any(other.node == source for other in self.segment(one))]
        return tuple(address for interface, address in self.nodes[target].addresses if interface in near)


def read_topology(path: Path) -> Topology:
    """Read NAME.clab.yml.  ConfigError: a line for each thing that is wrong, with file, line and key."""
    file = LabFile(path)
    name = file.text(file.values.get("name"), ("name",))
    if not is_lab_name(name):
        file.wrong(("name",), f"{name!r} is no name of a lab; expected {LAB_NAME_FORM}")
    topology = file.mapping(file.values.get("topology"), ("topology",), "nodes and links")
    if not topology:
        file.wrong(("topology",), "is missing; expected nodes and links")
    nodes = _nodes(file, topology)
    links = tuple(_links(file, topology, nodes))
    _check_waits(file, nodes)
    file.close()
    return Topology(path, name, nodes, links)


def is_lab_name(name: str) -> bool:
    """Whether a lab may be called so."""
    return _NAME.fullmatch(name) is not None and len(name) <= _LAB_NAME_CHARACTERS_MAX


def find_topology(folder: Path) -> Path:
    """The topology file of a lab's folder.  ConfigError: there is none, or several."""
    found = sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
    if len(found) != 1:
        why = "is no folder" if not folder.is_dir() else f"has {len(found) or 'no'} files *{SUFFIX}"
        raise ConfigError(f"{folder}: {why}; expected the folder of a lab, with one {folder.name}{SUFFIX}")
    return found[0]


# Nodes


def _nodes(file: LabFile, topology: Mapping[str, object]) -> dict[str, NodeSpec]:
    at: Location = ("topology", "nodes")
    defaults = file.mapping(topology.get("defaults"), ("topology", "defaults"))
    kinds = file.mapping(topology.get("kinds"), ("topology", "kinds"))
    found: dict[str, NodeSpec] = {}
    for name, value in file.mapping(topology.get("nodes"), at, "nodes by name").items():
        here = (*at, name)
        own = file.mapping(value, here, "keys such as kind and exec")
        kind = file.text(own.get("kind") or defaults.get("kind"), (*here, "kind"))
        if kind not in _KINDS:
            file.wrong((*here, "kind"), f"kind {kind!r}; expected one of {', '.join(sorted(_KINDS))}")
        plain = name.partition("|")[0] if kind == "bridge" else name
        if not _NAME.fullmatch(plain) or len(plain) > (INTERFACE_CHARACTERS_MAX if kind == "bridge" else 63):
            file.wrong(here, f"{name!r} is no name of a node; expected a DNS label, for a bridge at most 15 characters")
        layers = [
            (defaults, ("topology", "defaults")),
            (file.mapping(kinds.get(kind), ("topology", "kinds", kind)), ("topology", "kinds", kind)),
            (own, here),
        ]
        found[name] = _node(file, name, kind, layers)
    if not found:
        file.wrong(at, "there are no nodes; expected at least one")
    for name, node in found.items():
        if node.is_bridge and (inside := node.bridge[1]) and inside not in found:
            file.wrong((*at, name), f"the bridge is to be inside {inside!r}, which is no node")
    return found


def _node(file: LabFile, name: str, kind: str, layers: list[tuple[Mapping[str, object], Location]]) -> NodeSpec:
    def last(key: str) -> str:
        texts = [file.text(layer.get(key), (*at, key)) for layer, at in layers]
        return next((text for text in reversed(texts) if text), "")

    def joined(key: str) -> tuple[str, ...]:
        return tuple(text for layer, at in layers for text in file.texts(layer.get(key), (*at, key)))

    def merged(key: str) -> dict[str, str]:
        return {
            name: file.text(value, (*at, key, name))
            for layer, at in layers
            for name, value in file.mapping(layer.get(key), (*at, key)).items()
        }

    return NodeSpec(
        name,
        kind,
        last("image"),
        last("cmd"),
        joined("exec"),
        merged("env"),
        last("network-mode"),
        merged("sysctls"),
        tuple(_waits_for(file, layers)),
    )


def _waits_for(file: LabFile, layers: list[tuple[Mapping[str, object], Location]]) -> Iterator[str]:
    for layer, at in layers:
        for stage, value in file.mapping(layer.get("stages"), (*at, "stages")).items():
            here = (*at, "stages", stage, "wait-for")
            for number, item in enumerate(file.items(file.mapping(value, here[:-1]).get("wait-for"), here)):
                yield file.text(file.mapping(item, (*here, number)).get("node"), (*here, number, "node"))


def _check_waits(file: LabFile, nodes: Mapping[str, NodeSpec]) -> None:
    at: Location = ("topology", "nodes")
    for name, node in nodes.items():
        for other in node.waits_for:
            if other not in nodes:
                file.wrong((*at, name, "stages"), f"waits for {other!r}, which is no node")
    done: set[str] = set()
    for name in nodes:
        if (cycle := _cycle(name, nodes, done)) is not None:
            file.wrong((*at, name, "stages"), f"waits for itself: {' -> '.join(cycle)}; nothing would ever start")


def _cycle(start: str, nodes: Mapping[str, NodeSpec], done: set[str]) -> list[str] | None:
    """A way along `wait-for` that comes back to where it began; `done` are the nodes that have none."""
    way: list[str] = []
    waiting = [(start, 0)]
    while waiting:
        name, depth = waiting.pop()
        del way[depth:]
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            continue
        way.append(name)
        nexts = [other for other in nodes[name].waits_for if other in nodes]
        if not nexts:
            done.add(name)
        waiting += [(other, depth + 1) for other in nexts]
    done.add(start)
    return None


# Links


def _links(file: LabFile, topology: Mapping[str, object], nodes: Mapping[str, NodeSpec]) -> Iterator[LinkSpec]:
    at: Location = ("topology", "links")
    used: dict[End, int] = {}
    for number, value in enumerate(file.items(topology.get("links"), at, "a list of links")):
        here = (*at, number)
        link = file.mapping(value, here, "keys such as endpoints")
        if (kind := file.text(link.get("type"), (*here, "type"))) not in {"", "veth"}:
            file.wrong((*here, "type"), f"{kind!r} is not supported; expected veth, or no type")
            continue
        items = file.items(link.get("endpoints"), (*here, "endpoints"), "two ends, such as ['a:eth1', 'b:eth1']")
        ends = [_end(file, item, (*here, "endpoints", position)) for position, item in enumerate(items)]
        if len(items) != 2:
            file.wrong((*here, "endpoints"), f"{len(items)} ends; expected two, such as ['a:eth1', 'b:eth1']")
        for position, end in enumerate(ends):
            if end is None:
                continue
            place = (*here, "endpoints", position)
            _check_end(file, place, end, nodes)
            if end in used:
                file.wrong(place, f"{end} is used by links[{used[end]}] already; expected another interface")
            used.setdefault(end, number)
        mtu = file.text(link.get("mtu"), (*here, "mtu"))
        if mtu and not (mtu.isascii() and mtu.isdigit() and 1280 <= int(mtu) <= 65_535):
            file.wrong((*here, "mtu"), f"{mtu!r} is no MTU; expected a number from 1280 to 65535")
            mtu = ""
        if len(ends) == 2 and ends[0] is not None and ends[1] is not None:
            yield LinkSpec(ends[0], ends[1], int(mtu) if mtu else None)


def _end(file: LabFile, value: object, location: Location) -> End | None:
    """One end, from `node:interface` or {node: …, interface: …}."""
    if isinstance(value, str):
        node, colon, interface = value.rpartition(":")
        if colon:
            return End(node, interface)
    elif isinstance(value, dict):
        node = file.text(value.get("node"), (*location, "node"))
        interface = file.text(value.get("interface"), (*location, "interface"))
        if node and interface:
            return End(node, interface)
    file.wrong(location, f"{value!r} is no end of a link; expected NODE:INTERFACE")
    return None


def _check_end(file: LabFile, location: Location, end: End, nodes: Mapping[str, NodeSpec]) -> None:
    if end.node in _SPECIAL and end.node not in nodes:
        file.wrong(location, f"links to {end.node} leave the lab; expected a node of this file")
    elif end.node not in nodes:
        file.wrong(location, f"{end.node!r} is no node of this file; expected one of {', '.join(nodes)}")
    elif not _INTERFACE.fullmatch(end.interface):
        file.wrong(location, f"{end.interface!r} is no name of an interface; expected at most 15 letters and digits")
    elif end.interface in {"lo", "all"} or (end.interface == "eth0" and nodes[end.node].network_mode != "none"):
        file.wrong(location, f"{end.interface} is taken; eth0 is containerlab's own, expected eth1 and so on")


# Addresses


def _address_of(line: str) -> tuple[str, IpInterface] | None:
    """The interface and address of `ip address add ADDRESS dev INTERFACE`; None for any other command."""
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    words = [word for word in words if word not in {"-4", "-6"}]
    if len(words) < 6 or words[0] != "ip" or not "address".startswith(words[1]) or words[2] not in {"add", "replace"}:
        return None
    try:
        return words[words.index("dev") + 1], ipaddress.ip_interface(words[3])
    except (ValueError, IndexError):
        return None
