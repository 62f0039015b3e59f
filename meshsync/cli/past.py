"""`history`, `why`, `conflicts` and `restore`: who wrote what, why it counts, and what lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from meshsync.cli.main import client, client_options, complain
from meshsync.cli.output import colour, counted, print_json, printable, to_json, write_line

if TYPE_CHECKING:
    from meshsync.cli.client import Client

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
    if "gone" in write:
        content = ", with what was written before and is not listed"
    elif diff and "changes" not in write:
        content = "  (what it changed is not known here)"
    expires = "" if write["expires"] is None else f"  expires {write['expires']}"
    write_line(f"{mark} {_origin(write)}{content}{expires}")
    for change in write.get("changes", ()):
        for sign, key, name in (("-", "before", "red"), ("+", "after", "green")):
            if key in change:
                field = printable(change["field"], characters_max=1000)
                write_line(colour(f"    {sign} {field}: {to_json(change[key])}", name))


@click.command("why")
@client_options
@click.argument("collection")
@click.argument("id")
@click.argument("field", required=False)
def why_command(*, as_json: bool, collection: str, id: str, field: str | None) -> None:
    """Show which write gave each field (or FIELD) its value, what that overrode, and whether its author knew.

    Exits with 1 where the document was never written, or has no such field.
    """
    parameters = [] if field is None else [("field", field)]
    found = client().get("v1", "collections", collection, "documents", id, "why", parameters=parameters)
    if as_json:
        print_json(found)
        return
    if found["deleted"] is not None:
        write_line(f"deleted  {_origin(found['deleted'])}")
    if (expiry := found["expiry"]) is not None:
        write_line(f"{'expired' if expiry['passed'] else 'expires'} {expiry['expires']}  {_origin(expiry)}")
    for origin in found["fields"]:
        write_line(f"{_field_and_value(origin['field'], origin)}  {_origin(origin)}")
        for one in origin["beside"]:
            write_line(f"    undecided beside {_value(one)}  {_origin(one)}")
        for one in origin["overrode"]:
            how = "overrode" if one["seen"] else "overrode unseen"
            write_line(f"    {how} {_value(one)}  {_origin(one)}")
    _say_if_incomplete(found, collection, id)
    if (until := found["let_go_until"]) is not None:
        complain(f"what was overwritten in {id!r} until {until} is not all kept here, so it is not shown")
    if (until := found["not_fetched_until"]) is not None:
        complain(f"what was overwritten in {id!r} until {until} was not all fetched, so it is not shown")


@click.command("restore")
@client_options
@click.option(
    "--at", required=True, metavar="TIME|ENTRY", help="A time such as 2026-05-04T12:30:00Z, or an entry's id."
)
@click.argument("collection")
@click.argument("id")
def restore_command(*, as_json: bool, at: str, collection: str, id: str) -> None:
    """Write a document as it was, as a new entry.  Exits with 1 where it did not exist then."""
    answer = client().request("POST", "v1", "collections", collection, "documents", id, "restore", body={"at": at})
    if as_json:
        print_json(answer)


@click.command("conflicts")
@client_options
@click.argument("collection", required=False)
def conflicts_command(*, as_json: bool, collection: str | None) -> None:
    """Show the documents, of one collection or of all, with writes that did not know of each other.

    For each field on which they differ: what is shown, and what lost.  Writing the document, with this before one's
    eyes, settles it.  --json prints a line a document.
    """
    api = client()
    names = [collection] if collection is not None else _collections(api)
    for name in names:
        with api.lines("v1", "collections", name, "conflicts") as conflicts:
            for conflict in conflicts:
                if as_json:
                    print_json(conflict)
                else:
                    _print_conflict(conflict)


def _collections(api: Client) -> list[str]:
    return [one["name"] for one in api.get("v1", "collections")["collections"] if not one.get("relayed")]


def _print_conflict(conflict: Mapping[str, Any]) -> None:
    collection, id = printable(conflict["collection"]), printable(conflict["id"], characters_max=1000)
    sides = len(conflict["writes"])
    # Who decided only some of the fields saw all sides, so that theirs is the only write that no later one has seen.
    what = f"{counted(sides, 'write')} that did not know of each other" if sides > 1 else "not wholly decided yet"
    write_line(f"{collection} {id}: {what}")
    for write in conflict["writes"]:
        write_line(f"    {_origin(write)}")
    for one in [*conflict["fields"], *([conflict["expires"]] if conflict["expires"] else [])]:
        if one["winner"] is None:
            write_line(f"  {printable(one['field'], characters_max=1000)}: to be decided")
        else:
            write_line(f"  {_field_and_value(one['field'], one['winner'])}  {_origin(one['winner'])}")
        for loser in one["losers"]:
            write_line(f"    {'lost: ' if one['winner'] else ''}{_value(loser)}  {_origin(loser)}")
    _say_if_incomplete(conflict, collection, id)


def _field_and_value(field: str, said: Mapping[str, Any]) -> str:
    return f"{printable(field, characters_max=1000)}: {_value(said)}"


def _value(said: Mapping[str, Any]) -> str:
    return to_json(said["value"]) if "value" in said else "(not there)"


def _say_if_incomplete(found: Mapping[str, Any], collection: str, id: str) -> None:
    if not found["complete"]:
        complain(f"{id!r} was written so often that older writes were not looked at; meshsync history {collection} ID")


def _origin(write: Mapping[str, Any]) -> str:
    """Entry, time, author and kind of a write."""
    entry, author = write["entry"][:_ID_DIGITS], write["author"][:_ID_DIGITS]
    return f"{entry}  {write['time']}  {author}  {write['kind']}"
