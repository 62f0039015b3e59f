"""`batch`, `load` and `dump`: many documents as JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from meshsync.cli.documents import (
    at_option,
    at_parameters,
    expires_option,
    expires_parameters,
    read_body,
    standard_input,
)
from meshsync.cli.exits import CommandError, Exit, exit_of_api_code
from meshsync.cli.main import client, client_options, complain
from meshsync.cli.numbers import WholeNumber
from meshsync.cli.output import counted, lacking_text, print_json, to_json, write_bytes, write_line

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK_BYTES = 64 * 1024


@click.command("batch")
@client_options
@click.argument("collection")
@click.argument("file", required=False, type=click.Path(path_type=Path, allow_dash=True))
def batch_command(*, as_json: bool, collection: str, file: Path | None) -> None:
    """Write several documents as one entry: all of them or, where anything is wrong, none, on every node.

    FILE or standard input has a line each: {"put": {"id": "n1", …}}, {"patch": {"id": "n1", …}} or
    {"delete": {"id": "n1"}}; beside it may stand "expires": TIME, "if_entry": ENTRY or "if_absent": true, as the
    options of put.
    At most 256 documents and 256 KiB.  Exits with 1 where something that a line expects is not so.
    """
    with _open(file) as (source, _):
        data = read_body(source)
    answer = client().request("POST", "v1", "collections", collection, "batch", body=data)
    if as_json:
        print_json(answer)
    elif answer["entry"] is None:
        write_line("nothing to write")
    else:
        write_line(f"{counted(answer['documents'], 'document')} written as entry {answer['entry'][:8]}")


@click.command("load")
@client_options
@click.option(
    "--batch",
    type=WholeNumber("how many documents go into an entry: 1 to 256", 1, 256),
    metavar="N",
    help="N documents an entry: many times faster.  [1]",
)
@expires_option
@click.option("--skip-bad", is_flag=True, help="Go on after a bad line, and list the bad lines in the end.")
@click.argument("collection")
@click.argument("file", required=False, type=click.Path(path_type=Path, allow_dash=True))
def load_command(
    *, as_json: bool, batch: int | None, expires: str | None, skip_bad: bool, collection: str, file: Path | None
) -> None:
    """Write many documents from JSON lines, in FILE or on standard input: {"id": "…", …} each.

    It stops at the first bad line and names it; what comes before is stored.  Loading the same lines again is
    harmless.  A line may say when its document expires, {"id": "…", "$expires": TIME, …}; with --expires it is that
    time for all.  What has expired is left out and counted.
    """
    parameters = [("progress", "true"), *expires_parameters(expires)]
    if skip_bad:
        parameters.append(("skip_bad", "true"))
    if batch is not None:
        parameters.append(("batch", str(batch)))
    with ExitStack() as cleanup:
        source, total = cleanup.enter_context(_open(file))
        advance, show = cleanup.enter_context(_progress(total))
        reports = cleanup.enter_context(
            client().upload(
                "v1", "collections", collection, "load", parameters=parameters, body=_chunks(source, advance)
            )
        )
        result: dict[str, Any] = {}
        for result in reports:
            show(result)
    if not result.pop("done", False):
        raise CommandError(Exit.NO_NODE, "the node ended before it had stored everything; load the same lines again")
    _finish(result, "standard input" if file is None or str(file) == "-" else str(file), as_json=as_json)


def _finish(result: dict[str, Any], source: str, *, as_json: bool) -> None:
    error = result.get("error")
    if as_json:
        print_json(result)
    else:
        for bad in result["bad_lines"]:
            complain(f"{source}: {bad['message']}")
        if len(result["bad_lines"]) < result["bad"]:
            complain(f"{source}: and {result['bad'] - len(result['bad_lines'])} more bad lines")
        if error is not None:
            complain("; ".join(part for part in (f"{source}: {error['message']}", error["hint"]) if part))
    if error is not None:
        raise CommandError(
            exit_of_api_code(error["code"]),
            f"{counted(result['stored'], 'document')} stored before it; go on with line {error['line']}, or"
            " with --skip-bad",
            error,
        )
    if not as_json:
        write_line(f"{counted(result['stored'], 'document')} stored")
        if result["expired"]:
            write_line(f"{counted(result['expired'], 'document')} left out, expired; --expires never loads them, too")
    if result["bad"]:
        raise CommandError(Exit.NOT_SO, f"{counted(result['bad'], 'bad line')} left out")


@contextmanager
def _open(file: Path | None) -> Iterator[tuple[BinaryIO | FileIO, int | None]]:
    if file is None or str(file) == "-":
        with standard_input() as source:
            yield source, None
        return
    try:
        opened = file.open("rb")
    except OSError as error:
        raise CommandError(Exit.USAGE, f"{file}: {error.strerror}; name a file that can be read") from None
    with opened:
        yield opened, file.stat().st_size


def _chunks(source: BinaryIO | FileIO, advance: Callable[[int], None]) -> Iterator[bytes]:
    # read1 gives what is there: lines from a pipe are stored as they come, and not when 64 kB are full.
    read = getattr(source, "read1", source.read)
    while chunk := read(_CHUNK_BYTES):
        yield chunk
        advance(len(chunk))


@contextmanager
def _progress(total: int | None) -> Iterator[tuple[Callable[[int], None], Callable[[dict[str, Any]], None]]]:
    """What to call with the bytes sent, and what with the node's reports: a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield _ignore, _ignore
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.percentage:3.0f}%"), TextColumn("{task.fields[stored]} documents"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, stored=0)
        yield (
            lambda count: progress.advance(task, count),
            lambda report: progress.update(task, stored=report.get("stored", 0)),
        )


def _ignore(_fact: object) -> None:
    """Nobody looks."""


@click.command("dump")
@client_options
@at_option
@click.argument("collection")
def dump_command(*, as_json: bool, at: str | None, collection: str) -> None:  # noqa: ARG001  JSON lines are its only form
    """Print all documents as JSON lines, as load reads them.

    Where writes are known whose payloads are not here yet, it prints all the same what is here, says so, and exits with
    1; so it does with --at, where the past was let go.
    """
    import json

    on_terminal = sys.stdout.isatty()
    with client().raw_lines("v1", "collections", collection, "documents", parameters=at_parameters(at)) as lines:
        for line in lines:
            if on_terminal:
                write_line(to_json(json.loads(line)))
            else:
                write_bytes(line)
    for one in client().get("v1", "collections")["collections"]:
        if one["name"] == collection and (text := lacking_text(one)):
            raise CommandError(Exit.NOT_SO, f"{text}, so this is not all; meshsync wait synced, and dump it again")
