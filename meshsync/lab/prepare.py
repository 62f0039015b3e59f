"""What each node of a lab is given before it starts: a directory with a key of its own and its configuration.

The keys are made here, once per lab and node, and are nobody's to guess; `.lab` is not to be committed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from meshsync.addresses import DEFAULT_PORT, HostPort
from meshsync.errors import ConfigError
from meshsync.identity import Identity, load_or_create
from meshsync.lab.drivers.base import Lab
from meshsync.lab.topology import Topology

STATE = ".lab"
"""The directory in a lab's folder; a topology binds `.lab/NODE` into the container of a node."""
CONFIG = "meshsync.yaml"
MESH_KEY = "mesh.key"


@dataclass(frozen=True)
class PreparedNode:
    """The directory of one node, which is its data directory, too."""

    name: str
    directory: Path
    identity: Identity

    @property
    def config(self) -> Path:
        """Its configuration; paths in it are relative to the file."""
        return self.directory / CONFIG


def prepare(lab: Lab) -> dict[str, PreparedNode]:
    """Make the directories of all nodes that run meshsync; what is there is kept, but for the configuration.

    ConfigError: a file cannot be written or read.
    """
    root = lab.folder / STATE
    found: dict[str, PreparedNode] = {}
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        mesh_key = _mesh_key(root / MESH_KEY)
        for name in lab.scenario.nodes:
            directory = root / name
            found[name] = PreparedNode(name, directory, load_or_create(directory))
        for name, node in found.items():
            text = yaml.safe_dump(configuration(lab, name, {one: found[one].identity for one in found}))
            node.config.write_text(text, encoding="utf-8")
            if lab.scenario.nodes[name].get("trust") == "mesh-key":
                _write_private(node.directory / MESH_KEY, mesh_key)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; the folder of a lab must be writable") from error
    return found


def configuration(lab: Lab, name: str, identities: Mapping[str, Identity]) -> dict[str, Any]:
    """The keys of a node's configuration: those of the scenario, with the ids and addresses of its peers."""
    keys = dict(lab.scenario.nodes[name])
    peers = keys.pop("peers", [])
    assert isinstance(peers, list)
    keys |= {"name": name, "data_dir": "."}
    if keys.get("trust") == "mesh-key":
        keys["mesh_key_file"] = MESH_KEY
    if peers:
        keys["peers"] = [
            {
                "id": identities[peer].endpoint_id.hex(),
                "name": peer,
                "addresses": [str(address) for address in addresses_of(lab.topology, peer, name)],
            }
            for peer in peers
        ]
    return keys


def addresses_of(topology: Topology, peer: str, source: str) -> list[HostPort]:
    """Where one node dials another: on a segment that they share, else wherever the other one has an address."""
    found = topology.addresses_towards(peer, source) or tuple(one for _, one in topology.nodes[peer].addresses)
    return [HostPort(str(address.ip), DEFAULT_PORT) for address in found]


def _mesh_key(path: Path) -> str:
    if not path.exists():
        _write_private(path, secrets.token_hex(32) + "\n")
    return path.read_text(encoding="ascii")


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
