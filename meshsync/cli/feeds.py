"""`watch` and `events`: streams that go on until they are interrupted."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import click

from meshsync.cli.documents import where_option
from meshsync.cli.main import client, client_options
from meshsync.cli.numbers import WholeNumber
from meshsync.cli.output import colour, print_json, printable, to_json, write_line

_COLOURS = {"put": "green", "patch": "yellow", "delete": "red", "removed": "red"}
_EVENT_NUMBER = WholeNumber(
    "the number of an event, with which each line of `meshsync events` begins; 0 begins with the oldest that is kept"
)
_ENVELOPE = ("v", "n", "time", "type")


@click.command("watch")
@client_options
@where_option
@click.option("--since", metavar="CURSOR", help="Go on from a cursor of an earlier watch; 0 for the beginning.")
@click.argument("collection")
def watch_command(*, as_json: bool, where: tuple[str, ...], since: str | None, collection: str) -> None:
    """Print every change of a collection, a line each, until interrupted.

    With --where, the changes after which a document matches, and `removed` or `delete` where it does not any more.
    A document that expires is told as `removed`, too.
    --json has a cursor in each line: --since with the last one goes on without loss or repeat, also after a restart of
    the node.  A reader may be slow: what it has not read yet stays in the store.  A cursor of changes that a power cut
    took from the node is refused: forget what was told, and begin anew with 0.

    Where the node holds a part of the collection: the documents that came into it, changed in it and left it, each as
    it stands now.  That goes on when the node wants another part, or all of it.
    """
    parameters = [("where", expression) for expression in where] + ([("since", since)] if since is not None else [])
    with client().lines("v1", "collections", collection, "changes", parameters=parameters) as changes:
        for change in changes:
            if as_json:
                print_json(change)
            else:
                write_line(_change_text(change))


def _change_text(change: dict[str, Any]) -> str:
    at = datetime.fromisoformat(change["time"]).astimezone().strftime("%H:%M:%S")
    kind = colour(f"{change['kind']:7}", _COLOURS.get(change["kind"]))
    conflict = colour("  conflict", "magenta") if change["conflict"] else ""
    document = "" if change["doc"] is None else f"  {to_json(change['doc'])}"
    return f"{at}  {kind}  {printable(change['id'], characters_max=1000)}{document}{conflict}"


@click.command("events")
@client_options
@click.option(
    "--since",
    type=_EVENT_NUMBER,
    metavar="N",
    help="Begin with event number N; 0, or a number of before the node was started: all that are kept.",
)
@click.option("--type", "types", multiple=True, metavar="T", help="Only events of this type; again for more.")
@click.option("--follow/--no-follow", default=True, help="Go on until interrupted, or print only what was.")
def events_command(*, as_json: bool, since: int | None, types: tuple[str, ...], follow: bool) -> None:
    """Print the events of the node, a line each, until interrupted."""
    parameters = [("type", name) for name in types]
    if since is not None:
        parameters.append(("since", str(since)))
    if not follow:
        parameters.append(("follow", "false"))
    with client().lines("v1", "events", parameters=parameters) as events:
        for event in events:
            if as_json:
                print_json(event)
            else:
                write_line(_event_text(event))
    sys.stdout.flush()


def _event_text(event: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(event["time"]).astimezone().strftime("%H:%M:%S")
    facts = "  ".join(f"{name}={_fact(fact)}" for name, fact in event.items() if name not in _ENVELOPE)
    return f"{event['n']:5}  {at}  {printable(event['type']):16}  {facts}".rstrip()


def _fact(fact: object) -> str:
    """An id is long and its first digits are enough for people."""
    text = fact if isinstance(fact, str) else to_json(fact)
    return text[:8] if len(text) == 64 and text.isalnum() else printable(text)
