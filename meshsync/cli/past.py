"""`history`: who wrote what, and what of it is still to be seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from meshsync.cli.main import client, client_options
from meshsync.cli.output import colour, print_json, printable, to_json, write_line

_ID_DIGITS = 8


@click.command("history")
@client_options
@click.option("--diff", is_flag=True, help="With what each write changed in the document.")
@click.argument("collection")
@click.argument("id")
def history_command(*, as_json: bool, diff: bool, collection: str, id: str) -> None:
    """Show every write to a document, oldest first; a * marks those of which the document still shows something.

    --json prints a line a write.  Exits with 1 where the document was never written.
    """
    parameters = [("diff", "true")] if diff else []
    with client().lines("v1", "collections", collection, "documents", id, "history", parameters=parameters) as lines:
        for write in lines:
            if as_json:
                print_json(write)
            else:
                _print_past_write(write, diff=diff)


def _print_past_write(write: Mapping[str, Any], *, diff: bool) -> None:
    mark = "*" if write["visible"] else " "
    content = "" if diff or write["set"] is None else f"  {to_json(write['set'])}"
    write_line(f"{mark} {_origin(write)}{content}")
    for change in write.get("changes", ()):
        for sign, key, name in (("-", "before", "red"), ("+", "after", "green")):
            if key in change:
                field = printable(change["field"], characters_max=1000)
                write_line(colour(f"    {sign} {field}: {to_json(change[key])}", name))


def _origin(write: Mapping[str, Any]) -> str:
    """Entry, time, author and kind of a write."""
    entry, author = write["entry"][:_ID_DIGITS], write["author"][:_ID_DIGITS]
    return f"{entry}  {write['time']}  {author}  {write['kind']}"
