"""What the commands print that deal with the files of a lab; those that run one are in tests/process/test_labs.py."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from meshsync.cli.exits import CommandError
from meshsync.identity import load_or_create
from meshsync.lab.commands.upkeep import _row
from meshsync.lab.drivers.base import read_lab
from meshsync.lab.drivers.namespaces import NamespaceLab
from tests.cli.processes import meshsync
from tests.lab.labs import write_files


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


def test_who_may_not_ask_a_node_is_not_told_that_it_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever forgets sudo would look for a fault in a lab that is well."""
    built = NamespaceLab(read_lab(write_files(tmp_path / "pair")))
    built.processes["a"].path.parent.mkdir(parents=True)
    built.processes["a"].note(os.getpid())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert not _row(built, "a")["running"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CommandError, match="a answers root only: sudo meshsync lab status"):
        _row(built, "a")
    assert not _row(built, "b")["running"], "it was never started"
