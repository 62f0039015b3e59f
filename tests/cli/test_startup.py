"""What a command imports: most of the time of a short command is spent on that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from meshsync.cli.lazy import LazyGroup
from meshsync.cli.main import group
from meshsync.lab.commands.group import lab_command
from tests.cli.processes import PATIENCE_SECONDS, environment, running

SLOW = {"trio", "aioquic", "pydantic", "starlette", "hypercorn", "httpx", "rich", "structlog", "yaml", "cryptography"}
SLOW |= {"cbor2", "apsw", "asyncio", "prometheus_client", "zeroconf"}

CONTEXT = click.Context(group)

SCRIPT = """
import sys
from meshsync.cli.main import run
try:
    run(sys.argv[1:])
finally:
    print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


def imported(*arguments: str) -> tuple[int, set[str]]:
    """Exit code of a command, and the top-level modules that its process had imported in the end."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env=environment(),
        check=False,
    )
    return done.returncode, set(done.stderr.splitlines()[-1].split())


def test_commands_of_a_client_import_nothing_slow(tmp_path: Path) -> None:
    """`meshsync get` in a loop of a script would take a second each."""
    with running(tmp_path / "n") as node:
        for arguments in (
            ["put", "notes", "n1", "{}"],
            ["get", "notes", "n1"],
            ["ls", "notes"],
            ["load", "notes", str(tmp_path / "empty")],
            ["status", "--json"],
            ["status"],
            ["peers"],
            ["version"],
        ):
            (tmp_path / "empty").touch()
            code, modules = imported(
                *arguments, *([] if arguments == ["version"] else ["--data-dir", str(node.data_dir)])
            )
            assert code == 0
            assert modules & SLOW == set(), arguments


@pytest.mark.parametrize("arguments", [["--help"], ["lab", "--help"]])
def test_help_imports_no_command(arguments: list[str]) -> None:
    """`meshsync --help` and the completion of a shell would import all commands."""
    code, modules = imported(*arguments)
    assert code == 0
    assert modules & SLOW == set()


@pytest.mark.parametrize(
    ("table", "name"), [(table, name) for table in (group, lab_command) for name in table.list_commands(CONTEXT)]
)
def test_every_command_of_the_table_is_there(table: LazyGroup, name: str) -> None:
    """The table is what --help shows; a slip in it shows only when that command is typed."""
    command = table.get_command(CONTEXT, name)
    assert command is not None
    assert command.name == name
    assert command.help


@pytest.mark.parametrize("name", lab_command.list_commands(CONTEXT))
def test_help_of_labs_says_what_is_needed_and_shows_it(name: str) -> None:
    """Whoever lacks root or Docker learns it from an error, and whoever has both guesses at the arguments."""
    command = lab_command.get_command(CONTEXT, name)
    assert command is not None
    assert "Needs " in " ".join((command.help or "").split())
    shown = [line.strip() for line in (command.epilog or "").splitlines()]
    assert any(line.removeprefix("sudo ").startswith(f"meshsync lab {name} ") for line in shown)
