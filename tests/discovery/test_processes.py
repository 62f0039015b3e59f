"""Real processes of the command that nobody told an address."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from tests.cli.processes import RunningNode, running


def mesh_key(directory: Path) -> Path:
    """A new mesh's key."""
    path = directory / f"{secrets.token_hex(4)}.key"
    path.touch(0o600)
    path.write_text(secrets.token_hex(32))
    return path


def options(key: Path) -> tuple[str, ...]:
    return ("--mdns", "--trust", "mesh-key", "--mesh-key-file", str(key))


def connected_with(node: RunningNode) -> set[str]:
    """Whom a node is connected with, when it is with anybody."""
    with node.streaming("events", "--since", "1", "--type", "connected", "--json") as events:
        assert events.stdout is not None
        return {json.loads(events.stdout.readline())["peer"]}


def test_two_nodes_find_each_other_and_synchronise(tmp_path: Path) -> None:
    """Nobody types addresses: this is what the local network is for."""
    key = mesh_key(tmp_path)
    with running(tmp_path / "a", *options(key), "--name", "anna") as a, running(tmp_path / "b", *options(key)) as b:
        assert connected_with(b) == {a.id}
        a.out("put", "notes", "n1", '{"title":"hello"}')
        a.out("wait", "synced", "--timeout", "30s")
        assert json.loads(b.out("get", "notes", "n1")) == {"title": "hello"}
        [there], [here] = a.json("status")["peers"], b.json("status")["peers"]
        assert (here["id"], here["name"], here["state"]) == (a.id, "anna", "connected")
        # Whoever dialled has seen the other; the other may have been faster to accept than to look.
        assert "mdns" in {here["via"], there["via"]}


def test_another_mesh_on_the_same_network_is_left_alone(tmp_path: Path) -> None:
    """Two fleets in one hall would otherwise knock at each other's doors for ever."""
    one, other = mesh_key(tmp_path), mesh_key(tmp_path)
    with (
        running(tmp_path / "a", *options(one)) as a,
        running(tmp_path / "b", *options(other)) as b,
        running(tmp_path / "c", *options(one)) as c,
        running(tmp_path / "d", *options(other)) as d,
    ):
        for node, partner in ((a, c), (b, d), (c, a), (d, b)):
            assert connected_with(node) == {partner.id}
        for node, partner in ((a, c), (b, d), (c, a), (d, b)):
            assert [peer["id"] for peer in node.json("status")["peers"]] == [partner.id]
            assert node.json("peers", "pending")["peers"] == []
