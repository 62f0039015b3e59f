"""Writes the files of a new lab, readable by people and by containerlab."""

from __future__ import annotations

from pathlib import Path

from meshsync.errors import ConfigError, LocalError
from meshsync.lab.impairments import PROFILES, LinkImpairment
from meshsync.lab.scenario import FILE_NAME
from meshsync.lab.shapes import SWITCH, Shape, drawing
from meshsync.lab.topology import LAB_NAME_FORM, SUFFIX, is_lab_name

_HEAD = """\
# {comment}
name: {name}
topology:
  kinds:
    linux:
      image: meshsync:latest
      network-mode: none          # only lo and the links below: nothing leaks around a partition
      privileged: false
      user: root                  # of the container: it gives the addresses below
      cap-add: [NET_ADMIN]
  nodes:
"""
_NODE = """\
    {name}:
      kind: linux
      binds: [".lab/{name}:/var/lib/meshsync"]
      exec:
{exec}"""
_SWITCH = f"""\
    {SWITCH}: {{kind: linux, cmd: sleep infinity}}
    "br0|{SWITCH}": {{kind: bridge, network-mode: "container:{SWITCH}"}}   # a bridge inside a node: the host needs none
"""
_SCENARIO = """\
# {comment}
defaults:
  collections: [notes]
  trust: mesh-key                 # the key is made when the lab comes up
  discovery: {{mdns: {mdns}}}
{nodes}{links}{bystanders}steps:
{steps}expect:
{arrives}  - only one connection per pair
  - never synced while roots differ
"""


_ARRIVES = """\
  - converged within {within}s
  - no acknowledged entry lost
  - latency p99 < {latency}s
"""


def topology_text(name: str, shape: Shape, comment: str) -> str:
    """NAME.clab.yml."""
    text = _HEAD.format(name=name, comment=comment)
    lines: dict[str, list[str]] = {node: [] for node in shape.nodes}
    links: list[str] = []
    used = dict.fromkeys(shape.nodes, 0)
    if shape.is_lan:
        for number, node in enumerate(shape.nodes, 1):
            lines[node].append(f"ip address add 10.0.{number // 250}.{number % 250}/16 dev eth1")
            lines[node].append("ip route add 224.0.0.0/4 dev eth1")
            links.append(f'    - endpoints: ["{node}:eth1", "br0|{SWITCH}:p{number}"]')
    for number, (a, b) in enumerate(shape.links):
        ends = []
        for host, node in enumerate((a, b), 1):
            used[node] += 1
            address = f"10.{number // 16384}.{number // 64 % 256}.{number % 64 * 4 + host}"
            lines[node].append(f"ip address add {address}/30 dev eth{used[node]}")
            ends.append(f'"{node}:eth{used[node]}"')
        links.append(f"    - endpoints: [{', '.join(ends)}]")
    for node in shape.nodes:
        text += _NODE.format(name=node, exec="".join(f"        - {line}\n" for line in lines[node]))
    return text + (_SWITCH if shape.is_lan else "") + "  links:\n" + "\n".join(links) + "\n"


def scenario_text(shape: Shape, profile: str, comment: str) -> str:
    """scenario.yml: writes at several nodes, one part cut off and joined again."""
    if profile not in PROFILES:
        raise LocalError(f"{profile!r} is no profile; expected one of {', '.join(PROFILES)}")
    nodes = "".join(f"  {node}: {{peers: [{', '.join(peers)}]}}\n" for node, peers in shape.dials.items() if peers)
    first, last = shape.nodes[0], shape.nodes[-1]
    steps = "".join(
        f"  - {{at: 0s, write: {{node: {node}, count: 20, rate: 5}}}}\n" for node in dict.fromkeys((first, last))
    )
    name = f"{last}-{SWITCH}" if shape.is_lan else "-".join(shape.links[-1])
    steps += f"  - {{at: 5s, unplug: [{name}]}}\n"
    steps += "".join(f"  - {{at: 6s, write: {{node: {node}, count: 50}}}}\n" for node in dict.fromkeys((first, last)))
    steps += f"  - {{at: 9s, heal: [{name}]}}\n"
    return _SCENARIO.format(
        comment=comment,
        mdns="true" if shape.is_lan else "false",
        nodes=f"nodes:\n{nodes}" if nodes else "",
        links="" if profile == "nominal" and shape.is_lan else f"links:\n  all: {profile}\n",
        bystanders=f"bystanders: [{SWITCH}]\n" if shape.is_lan else "",
        steps=steps,
        arrives=_arrives(PROFILES[profile], len(shape.nodes)),
    )


def _arrives(link: LinkImpairment, nodes: int) -> str:
    """What to expect of writes; nothing where a link has one direction only, because a connection needs both."""
    ways = link.forward, link.backward
    if any(way.down for way in ways):
        return ""
    hops = nodes * max(way.delay_seconds for way in ways) * 4
    # What is sent counts only with its acknowledgement: so often it is sent, on average.
    tries = 1 / ((1 - link.forward.loss) * (1 - link.backward.loss))
    return _ARRIVES.format(within=int((60 + 10 * hops) * tries), latency=int((2 + 5 * hops) * tries))


def readme_text(name: str, kind: str, shape: Shape, profile: str) -> str:
    """README.md: a drawing, what happens, and how to run it."""
    cut = f"the cable of {shape.nodes[-1]}" if shape.is_lan else f"the link {'-'.join(shape.links[-1])}"
    ends = " and ".join(dict.fromkeys((shape.nodes[0], shape.nodes[-1])))
    picture = "".join(f"    {line}\n" for line in drawing(kind, shape).splitlines())
    return (
        f"# {name}: {len(shape.nodes)} nodes, {kind}\n\n{picture}\n"
        f"Every link: {profile}. {ends} write; {cut} is unplugged for four seconds, and they go on writing.\n\n"
        f"    sudo meshsync lab run {name}\n"
        f"    meshsync lab run --sim {name}\n"
    )


def write_lab(folder: Path, kind: str, shape: Shape, profile: str) -> None:
    """Write the files of a new lab into a new folder.  ConfigError: it is there, or cannot be written."""
    name = folder.resolve().name
    comment = f"{len(shape.nodes)} nodes: {kind}, {profile} links."
    texts = {
        f"{name}{SUFFIX}": topology_text(name, shape, comment),
        FILE_NAME: scenario_text(shape, profile, comment),
        "README.md": readme_text(name, kind, shape, profile),
        ".gitignore": "# Keys and stores\n/.lab/\n/clab-*/\n",
    }
    if not is_lab_name(name):
        raise ConfigError(f"{folder}: {name!r} is no name of a lab; expected {LAB_NAME_FORM}")
    try:
        folder.mkdir(parents=True)
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise ConfigError(f"{folder}: is there already; name a new folder") from None
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error
