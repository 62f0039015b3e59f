"""`put`, `patch`, `get`, `rm` and `ls`."""

from __future__ import annotations

import sys
from io import FileIO
from typing import Any, BinaryIO

import click

from meshsync.cli.exits import CommandError, Exit
from meshsync.cli.main import client, client_options
from meshsync.cli.numbers import WholeNumber
from meshsync.cli.output import print_json, printable, to_json, write_line
from meshsync.core.limits import LIMITS
from meshsync.jsonlines import take_expiry

_CHUNK_BYTES = 64 * 1024

where_option = click.option(
    "--where",
    multiple=True,
    metavar="EXPR",
    help="Only documents that match, such as 'team=blue and age>=18'; again for more.",
)

at_option = click.option(
    "--at", metavar="TIME|ENTRY", help="As it was: at a time such as 2026-05-04T12:30:00Z, or at an entry (its id)."
)

expires_option = click.option(
    "--expires",
    metavar="TIME",
    help="When it expires: a time such as 2026-12-01T00:00Z, in how long (30d, 2h), or never.  No node shows it then.",
)
if_entry_option = click.option(
    "--if-entry",
    metavar="ENTRY",
    help="Only if this is the document's revision, as `get --json` tells it; 8 digits are enough.  Else exit with 1.",
)
if_absent_option = click.option(
    "--if-absent", is_flag=True, help="Only if there is no such document.  Else exit with 1."
)


def at_parameters(at: str | None) -> list[tuple[str, str]]:
    """What `--at` asks of the API."""
    return [] if at is None else [("at", at)]


def read_body(source: BinaryIO | FileIO) -> bytes:
    """All that a file or a pipe gives, to its end; where that is more than a node takes, a little more than that."""
    data = bytearray()
    # One read of a pipe gives no more than what is there at the moment.
    while len(data) <= LIMITS.request_bytes_max and (chunk := source.read(_CHUNK_BYTES)):
        data += chunk
    return bytes(data)


def standard_input() -> FileIO:
    """Standard input, not through Python's buffer.  CommandError: it was closed (`<&-`)."""
    if sys.stdin is None:
        raise CommandError(Exit.USAGE, "standard input is closed; name a file, or give it something to read")
    # A thread that waits within the buffer at the end is a fatal error of the interpreter.
    return FileIO(sys.stdin.fileno(), closefd=False)


def _read_json(text: str) -> bytes:
    """The JSON argument, or standard input for `-`.  It is checked by the node, which has to anyway."""
    return read_body(standard_input()) if text == "-" else text.encode(errors="surrogateescape")


@click.command("put")
@client_options
@expires_option
@if_entry_option
@if_absent_option
@click.argument("collection")
@click.argument("id")
@click.argument("document", metavar="JSON")
def put_command(
    *,
    as_json: bool,
    expires: str | None,
    if_entry: str | None,
    if_absent: bool,
    collection: str,
    id: str,
    document: str,
) -> None:
    """Write a document: a JSON object, or - to read it from standard input."""
    parameters = expires_parameters(expires) + _if_parameters(if_entry, if_absent=if_absent)
    _write("PUT", collection, id, _read_json(document), parameters, as_json=as_json)


@click.command("patch")
@client_options
@expires_option
@if_entry_option
@if_absent_option
@click.argument("collection")
@click.argument("id")
@click.argument("fields", metavar="JSON")
def patch_command(
    *,
    as_json: bool,
    expires: str | None,
    if_entry: str | None,
    if_absent: bool,
    collection: str,
    id: str,
    fields: str,
) -> None:
    """Set some fields of a document; null removes one.  - reads the fields from standard input.

    Without --expires, the document expires when it did before.
    """
    parameters = expires_parameters(expires) + _if_parameters(if_entry, if_absent=if_absent)
    _write("PATCH", collection, id, _read_json(fields), parameters, as_json=as_json)


@click.command("rm")
@client_options
@if_entry_option
@click.argument("collection")
@click.argument("id")
def rm_command(*, as_json: bool, if_entry: str | None, collection: str, id: str) -> None:
    """Delete a document.  Exits with 1 where there is none."""
    _write("DELETE", collection, id, None, _if_parameters(if_entry, if_absent=False), as_json=as_json)


def expires_parameters(expires: str | None) -> list[tuple[str, str]]:
    """What `--expires` asks of the API."""
    return [] if expires is None else [("expires", expires)]


def _if_parameters(if_entry: str | None, *, if_absent: bool) -> list[tuple[str, str]]:
    """What `--if-entry` and `--if-absent` ask of the API."""
    parameters = [] if if_entry is None else [("if_entry", if_entry)]
    return [*parameters, ("if_absent", "true")] if if_absent else parameters


def _write(
    method: str, collection: str, id: str, body: bytes | None, parameters: list[tuple[str, str]], *, as_json: bool
) -> None:
    path = ("v1", "collections", collection, "documents", id)
    answer = client().request(method, *path, parameters=parameters, body=body)
    if as_json:
        print_json(answer)


@click.command("get")
@client_options
@at_option
@click.argument("collection")
@click.argument("id")
def get_command(*, as_json: bool, at: str | None, collection: str, id: str) -> None:
    """Print a document's fields as JSON.  Exits with 1 where there is none."""
    answer = client().get("v1", "collections", collection, "documents", id, parameters=at_parameters(at))
    if as_json:
        print_json(answer)
    else:
        write_line(to_json(answer["doc"], indent=2 if sys.stdout.isatty() else None))


@click.command("ls")
@client_options
@where_option
@click.option(
    "--order",
    metavar="FIELD",
    help="Sort by a field instead of the id: null, false, true, numbers, strings, arrays, objects.  -FIELD for the"
    " reverse.  Documents without the field come last either way.",
)
@click.option(
    "--limit",
    type=WholeNumber("how many documents to print: 0 or more"),
    metavar="N",
    help="At most so many documents.",
)
@click.option("--after", metavar="ID", help="Go on behind this document, the last one of the page before.")
@click.option("--after-value", metavar="JSON", help="With --order and --after: what the field held there, if it did.")
@click.option("--ids", "ids_only", is_flag=True, help="Print only the ids.")
@at_option
@click.option("--explain", is_flag=True, help="Say how the documents are found instead of printing them.")
@click.argument("collection")
def ls_command(
    *,
    as_json: bool,
    where: tuple[str, ...],
    order: str | None,
    limit: int | None,
    after: str | None,
    after_value: str | None,
    ids_only: bool,
    at: str | None,
    explain: bool,
    collection: str,
) -> None:
    """List documents by id; --json prints a line a document, its fields and its id, as load reads it.

    Where a document expires, "$expires" in its line says when.
    """
    options = {"order": order, "after": after, "after_value": after_value, "limit": limit}
    parameters = [("where", expression) for expression in where]
    parameters += [(name, str(value)) for name, value in options.items() if value is not None]
    if explain:
        if at is not None:
            raise click.UsageError("--explain is about the documents as they are: it does not go with --at")
        answer = client().get("v1", "collections", collection, "explain", parameters=parameters)
        if as_json:
            print_json(answer)
        else:
            write_line(printable(_explanation(answer, order), characters_max=2000))
        return
    if ids_only:
        parameters.append(("ids", "true"))
    parameters += at_parameters(at)
    with client().lines("v1", "collections", collection, "documents", parameters=parameters) as documents:
        for document in documents:
            _print_document(document, as_json=as_json, ids_only=ids_only)


def _explanation(answer: dict[str, Any], order: str | None) -> str:
    index, keys = answer["index"], answer["keys_read"]
    if index == "id":
        text = "found by id: "
    elif index is not None:
        text = f"found by the index of {index}: {keys:,} key{'' if keys == 1 else 's'} and "
    else:
        text = "no index served: "
    text += (
        f"{answer['documents_read']:,} of {answer['documents']:,} documents looked at, {answer['matched']:,} matched"
    )
    if answer["sorted"]:
        text += f" and were sorted by {order}"
    return f"{text}; {answer['ms']:.1f} ms"


def _print_document(document: dict[str, Any], *, as_json: bool, ids_only: bool) -> None:
    if as_json:
        write_line(to_json({"id": document["id"]} if ids_only else document))
    elif ids_only:
        write_line(printable(document["id"], characters_max=1000))
    else:
        expires = take_expiry(document)
        fields = {name: value for name, value in document.items() if name != "id"}
        text = f"{printable(document['id'], characters_max=1000)}  {to_json(fields)}"
        write_line(text if expires is None else f"{text}  expires {expires}")
