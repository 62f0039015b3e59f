"""What a command imports: most of the time of a short command is spent on that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from meshsync.cli.main import _COMMANDS, group
from tests.cli.processes import PATIENCE_SECONDS, environment, running

SLOW = {"trio", "aioquic", "pydantic", "starlette", "hypercorn", "httpx", "rich", "structlog", "yaml", "cryptography"}
SLOW |= {"cbor2", "apsw", "asyncio", "prometheus_client", "zeroconf"}

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


def test_help_imports_no_command() -> None:
    """`meshsync --help` and the completion of a shell would import all commands."""
    code, modules = imported("--help")
    assert code == 0
    assert modules & SLOW == set()


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_of_the_table_is_there(name: str) -> None:
    """The table is what --help shows; a slip in it shows only when that command is typed."""
    command = group.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    assert command.name == name
    assert command.help
