"""What the commands print that deal with the files of a lab; those that run one are in tests/process/test_labs.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from meshsync.identity import load_or_create
from tests.cli.processes import meshsync


def answer(*arguments: object) -> dict[str, Any]:
    """The only line that a command prints."""
    done = meshsync("lab", *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    [line] = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_programs_can_write_check_and_prepare_a_lab(tmp_path: Path) -> None:
    """Otherwise they have to read sentences."""
    folder = tmp_path / "ring"
    nodes = ["n1", "n2", "n3", "n4"]
    assert answer("new", "--shape", "ring", "--nodes", 4, folder) == {"v": 1, "folder": str(folder), "nodes": nodes}
    links = ["n1-n2", "n2-n3", "n3-n4", "n4-n1"]
    assert answer("check", folder) == {"v": 1, "name": "ring", "nodes": nodes, "links": links}
    prepared = answer("prepare", folder)
    assert prepared == {
        "v": 1,
        "name": "ring",
        "topology": str(folder / "ring.clab.yml"),
        "nodes": {name: load_or_create(folder / ".lab" / name).endpoint_id.hex() for name in nodes},
    }
