"""The commands of containerlab and Docker, and the topology that a lab with impaired links is deployed from."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from meshsync.lab.drivers.base import Lab, LabError
from meshsync.lab.drivers.cables import CABLES, SOCKET, Cables, cable_ends
from meshsync.lab.namespaces import CommandFailedError, run
from meshsync.lab.prepare import CONFIG, STATE
from meshsync.lab.topology import LinkSpec

INSIDE = "/var/lib/meshsync"
"""Where a container has its node's directory."""
_INSIDE_CABLES = "/run/cables"
_OTHER = "or run it in network namespaces: --driver namespaces"


def is_installed() -> bool:
    """Whether there is a containerlab on PATH."""
    return shutil.which("containerlab") is not None


def require(images: Iterable[str]) -> None:
    """LabError: containerlab, the engine, the right to use them or an image is missing; what helps."""
    if not is_installed():
        raise LabError(f"containerlab is not installed, see containerlab.dev/install; {_OTHER}")
    if shutil.which("docker") is None:
        raise LabError(f"containerlab needs Docker, and there is no command `docker` (Debian: docker.io); {_OTHER}")
    if os.geteuid() != 0:
        # The nodes' sockets and keys are root's, as root is who they run as.
        raise LabError("labs in containers need root: sudo meshsync lab …, or meshsync lab run --sim for a simulation")
    try:
        run(["docker", "version", "--format", "{{.Server.Version}}"])
    except CommandFailedError as error:
        raise LabError(f"Docker does not answer; start it: sudo systemctl start docker ({error})") from None
    for image in sorted(set(images)):
        if not image:
            raise LabError("a node of the topology has no image; expected `image: meshsync:latest`")
        try:
            run(["docker", "image", "inspect", "--format", "ok", image])
        except CommandFailedError:
            helps = "scripts/image" if image.partition(":")[0] == "meshsync" else f"docker pull {image}"
            raise LabError(f"there is no image {image}; make it: {helps}") from None


def of_lab(name: str) -> list[str]:
    """The ids of all containers of a lab, whoever deployed it, from whichever folder.  CommandFailedError."""
    return _ps(f"label=containerlab={name}")


def of_topology(path: Path) -> list[str]:
    """The ids of the containers that were deployed from a topology file; none where no engine answers."""
    if shutil.which("docker") is None:
        return []
    try:
        return _ps(f"label=clab-topo-file={path}")
    except CommandFailedError:
        return []


def _ps(wanted: str) -> list[str]:
    return run(["docker", "ps", "--all", "--quiet", "--filter", wanted]).split()


def container(lab: str, node: str) -> str:
    """The name of a node's container."""
    return f"clab-{lab}-{node}"


def is_running(lab: str, node: str) -> bool:
    """Whether a node's container runs.  CommandFailedError: there is none, or no engine answers."""
    return run(["docker", "inspect", "--format", "{{.State.Running}}", container(lab, node)]).strip() == "true"


def inside(lab: str, node: str, *command: str, has_terminal: bool = False) -> list[str]:
    """The arguments of a process that runs a command in a node's container.

    `has_terminal`: the process will have a terminal for input and output, and so has the command.
    """
    terminal = ["--tty"] if has_terminal else []
    return ["docker", "exec", "--interactive", *terminal, container(lab, node), *command]


# The derived topology


def derive(lab: Lab, cables: Cables) -> dict[str, Any]:
    """A lab's topology, for a file in another folder, with its cabled links through one more node.

    The nodes' output goes into their directories, to outlive the containers; and none comes back by itself, because it
    would come back without its links.
    """
    folder = lab.folder.resolve()
    found: dict[str, Any] = yaml.safe_load(lab.topology.path.read_text(encoding="utf-8"))
    found.pop("prefix", None)
    topology = found["topology"]
    kinds, nodes = topology.get("kinds") or {}, topology["nodes"]
    for name in nodes:
        nodes[name] = nodes[name] or {}
    for layer in (topology.get("defaults"), *kinds.values(), *nodes.values()):
        if layer and layer.get("binds"):
            layer["binds"] = [_from(folder, one) for one in layer["binds"]]
    for name in lab.scenario.nodes:
        nodes[name]["restart-policy"] = "no"
        if not lab.topology.nodes[name].cmd:
            node = ("meshsync", "node", "--config", f"{INSIDE}/{CONFIG}", "--log-format", "json")
            nodes[name]["cmd"] = _logging(node, f"{INSIDE}/node.log")
    if cables.links:
        nodes[CABLES] = _cables(lab, folder, cables)
        topology["links"] = list(_links(lab, cables.links, topology["links"]))
    return found


def _from(folder: Path, bind: str) -> str:
    """A bind whose source is relative to a folder, made absolute."""
    source, colon, rest = bind.partition(":")
    return f"{folder / source}{colon}{rest}" if not source.startswith(("/", "~")) else bind


def _cables(lab: Lab, folder: Path, cables: Cables) -> Mapping[str, Any]:
    command = ("meshsync", *cables.command(Path(_INSIDE_CABLES, SOCKET)))
    return {
        "kind": "linux",
        "image": lab.topology.nodes[next(iter(lab.scenario.nodes))].image,
        "network-mode": "none",
        "privileged": False,
        "user": "root",
        "cap-add": ["NET_ADMIN"],
        "restart-policy": "no",
        "cmd": _logging(command, f"{_INSIDE_CABLES}/cables.log"),
        "binds": [f"{folder / STATE / CABLES}:{_INSIDE_CABLES}"],
    }


def _logging(command: Iterable[str], log: str) -> str:
    """A command whose output is appended to a file."""
    return shlex.join(["sh", "-c", f"exec {shlex.join(command)} >>{log} 2>&1"])


def _links(lab: Lab, cabled: tuple[LinkSpec, ...], links: Iterable[Any]) -> Iterable[Any]:
    for link, raw in zip(lab.topology.links, links, strict=True):
        if link not in cabled:
            yield raw
            continue
        mtu = {} if link.mtu is None else {"mtu": link.mtu}
        for end, cable in zip((link.a, link.b), cable_ends(lab, link), strict=True):
            yield {"endpoints": [str(end), f"{CABLES}:{cable}"], **mtu}
