"""`batch`, `--if-entry` and `--if-absent`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.cli.processes import COMMAND, PATIENCE_SECONDS, RunningNode, environment, running


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with running(tmp_path_factory.mktemp("batch") / "n") as node:
        yield node


def test_a_write_on_condition_ends_with_1_where_the_document_has_moved_on(node: RunningNode) -> None:
    """A script tries again on 1, and gives up on everything else."""
    node.out("put", "notes", "c1", '{"n":1}', "--if-absent")
    read = node.json("get", "notes", "c1")
    node.out("patch", "notes", "c1", '{"n":2}', "--if-entry", read["revision"])
    for command in (
        ("put", "notes", "c1", '{"n":9}', "--if-entry", read["revision"]),
        ("patch", "notes", "c1", '{"n":9}', "--if-entry", read["revision"][:8]),
        ("rm", "notes", "c1", "--if-entry", read["revision"]),
        ("put", "notes", "c1", '{"n":9}', "--if-absent"),
    ):
        done = node.run(*command)
        assert (done.returncode, done.stdout) == (1, "")
        assert "nothing was written" in done.stderr
    assert node.run("put", "notes", "c1", "{}", "--if-entry", "").returncode == 2, "an unset variable of a script"
    assert json.loads(node.out("get", "notes", "c1")) == {"n": 2}


def test_a_batch_is_one_entry_from_a_file_or_a_pipe(node: RunningNode, tmp_path: Path) -> None:
    """What belongs together is written together, by scripts too."""
    file = tmp_path / "moves.jsonl"
    file.write_text('{"put": {"id": "b1", "n": 1}}\n{"put": {"id": "b2", "n": 2}}\n')
    text = node.out("batch", "notes", file)
    entry = node.json("get", "notes", "b1")["entry"]
    assert text == f"2 documents written as entry {entry[:8]}\n"
    answer = json.loads(node.out("batch", "notes", "--json", text='{"delete": {"id": "b1"}}\n'))
    assert (answer["v"], answer["collection"], answer["documents"]) == (1, "notes", 1)
    assert node.out("batch", "notes", "-", text="") == "nothing to write\n"

    done = node.run("batch", "notes", text='{"put": {"id": "b3"}}\n{"patch": {"id": "b2"}, "if_absent": true}\n')
    assert (done.returncode, done.stdout) == (1, "")
    done = node.run("batch", "notes", text='{"put": {"id": "b3"}}\n{"pat": {"id": "b2"}}\n')
    assert done.returncode == 2
    assert "line 2" in done.stderr
    assert node.run("get", "notes", "b3").returncode == 1


def test_a_pipe_is_read_to_its_end(node: RunningNode) -> None:
    """A pipe gives what is there at the moment: otherwise the first lines of a slow program are taken for all."""
    command = [*COMMAND, "batch", "notes", "--data-dir", str(node.data_dir)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment()) as process:
        assert process.stdin is not None
        for number in range(2):
            process.stdin.write(f'{{"put": {{"id": "slow{number}", "text": "{"x" * 70_000}"}}}}\n')
            process.stdin.flush()
        written, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert written.startswith("2 documents written")
    much = "".join(f'{{"put": {{"id": "b{number}", "text": "{"x" * 1000}"}}}}\n' for number in range(5000))
    done = node.run("batch", "notes", text=much)
    assert (done.returncode, done.stdout) == (4, "")
    assert "the body has more than 4194304 bytes" in done.stderr
