"""The group of commands, what all of them share, and how they end."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from meshsync.cli.exits import CommandError, Exit, exit_of
from meshsync.cli.lazy import LazyGroup
from meshsync.errors import MeshsyncError

if TYPE_CHECKING:
    from meshsync.cli.client import Client
    from meshsync.datadir import DataDir

F = TypeVar("F", bound=Callable[..., Any])

_COMMANDS = {
    "id": ("identity", "Print the endpoint id of this node."),
    "node": ("node", "Run a node until SIGINT or SIGTERM."),
    "put": ("documents", "Write a document."),
    "patch": ("documents", "Set some fields of a document; null removes one."),
    "get": ("documents", "Print a document."),
    "rm": ("documents", "Delete a document."),
    "ls": ("documents", "List documents."),
    "history": ("past", "Show every write to a document."),
    "why": ("past", "Show which write gave each field its value, and what lost."),
    "conflicts": ("past", "Show what was written by people who did not know of each other."),
    "restore": ("past", "Write a document as it was."),
    "batch": ("bulk", "Write several documents as one entry, all or nothing."),
    "load": ("bulk", "Write many documents from JSON lines."),
    "dump": ("bulk", "Print all documents as JSON lines."),
    "watch": ("feeds", "Print changes as they happen."),
    "status": ("status", "Show whether this node is in sync, with whom, since when."),
    "wait": ("status", "Wait until this node is in sync."),
    "peers": ("peers", "List, accept, forget and ban peers."),
    "connect": ("peers", "Connect to a peer now."),
    "sync": ("peers", "Force a round of synchronisation now."),
    "collections": ("collections", "List, join and leave collections."),
    "index": ("indexes", "List, add and remove indexes, by which queries find documents at once."),
    "graph": ("graph", "Show the whole mesh as this node knows it."),
    "events": ("feeds", "Print events of the node as they happen."),
    "log": ("collections", "Print the entries of a collection."),
    "verify": ("collections", "Check the store of the node."),
    "lab": ("meshsync.lab.commands.group", "Run emulated networks of nodes, with impairments and verdicts."),
    "version": ("identity", "Print the version."),
}
COMMAND_NAMES = frozenset(_COMMANDS)


def _keep_data_dir(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    """The option is taken before and after the command's name; the later one counts."""
    if value == "":
        # As a path it would be the working directory, and with it another node.
        raise click.BadParameter("an empty argument names nothing; is a variable of a script not set?")
    if value is not None:
        context.ensure_object(dict)["data_dir"] = Path(value)


data_dir_option = click.option(
    "--data-dir",
    expose_value=False,
    is_eager=True,
    callback=_keep_data_dir,
    metavar="DIR",
    help="The data directory of the node.  [env: MESHSYNC_DATA_DIR; default: the platform's]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs, errors too.")


def client_options(function: F) -> F:
    """The options of every command that talks to a node."""
    return data_dir_option(json_option(function))


def data_dir() -> DataDir:
    """The data directory that the command line, or the environment, names."""
    from meshsync.datadir import resolve_data_dir

    return resolve_data_dir(click.get_current_context().ensure_object(dict).get("data_dir"), os.environ)


def client() -> Client:
    """A client of the node of the data directory."""
    from meshsync.cli.client import Client

    return Client(data_dir())


@click.group(
    cls=LazyGroup,
    package="meshsync.cli",
    places=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@data_dir_option
@click.version_option(package_name="meshsync", message="%(version)s", help="Print the version and exit.")
def group() -> None:
    """Offline-first documents for a mesh of peers.

    Start a node with `meshsync node`; the other commands talk to the running node of the data directory.
    Exit codes: 0 done; 1 not in the state asked for; 2 usage or configuration; 3 no node is running there;
    4 refused; 5 the network failed.
    """


def run(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with the code of the interface."""
    if sys.stdout is None:  # it was closed (`>&-`), and whoever did so wants to hear nothing
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # until the process ends
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    # As typed, because what is wrong may be the command line.
    given = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in itertools.takewhile(lambda argument: argument != "--", given)
    try:
        group.main(arguments, prog_name="meshsync", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return Exit.USAGE
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "meshsync"
        return _end(Exit.USAGE, f"{error.format_message().rstrip('.')}; see {command} --help", as_json=as_json)
    except CommandError as error:
        return _end(error.code, str(error), error.told, as_json=as_json)
    except MeshsyncError as error:
        return _end(exit_of(error), str(error), as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        # As a shell reports a process that SIGINT ended.
        return 128 + signal.SIGINT
    return Exit.DONE


def _end(code: Exit, message: str, told: Mapping[str, Any] | None = None, *, as_json: bool) -> Exit:
    """Say on standard error why a command ends: as JSON to programs, in the form in which the API tells errors."""
    from meshsync.cli.output import to_json

    if as_json and message:
        what, _, hint = message.partition("; ")
        error = told or {"code": code.name.lower(), "message": what, "hint": hint}
        print(to_json({"v": 1, "error": error}), file=sys.stderr)
    elif message:
        complain(message)
    return code


def complain(message: str) -> None:
    """One line on standard error for each line of a message: what is wrong, and what to do."""
    from meshsync.cli.output import printable

    for line in message.splitlines():
        print(f"meshsync: {printable(line, characters_max=2000)}", file=sys.stderr)
