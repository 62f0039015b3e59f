"""`collections`, `log` and `verify`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from meshsync.cli.documents import where_option
from meshsync.cli.exits import CommandError, Exit
from meshsync.cli.main import client, client_options
from meshsync.cli.numbers import WholeNumber
from meshsync.cli.output import counted, print_json, print_table, printable, query_text, relayed_text, write_line


@click.group("collections", invoke_without_command=True)
@client_options
@click.pass_context
def collections_command(context: click.Context, *, as_json: bool) -> None:
    """List, join and leave collections."""
    if context.invoked_subcommand is None:
        _list(as_json=as_json)


@collections_command.command("ls")
@client_options
def _ls(*, as_json: bool) -> None:
    """List the collections of this node: the default."""
    _list(as_json=as_json)


def _list(*, as_json: bool) -> None:
    answer = client().get("v1", "collections")
    if as_json:
        print_json(answer)
    elif answer["collections"]:
        limited = [one for one in answer["collections"] if one["retain"] != "all"]
        latest = [one for one in answer["collections"] if one["history"] != "full"]
        rows = [
            (
                one["name"],
                relayed_text(one) or one["documents"],
                one["entries"],
                one["priority"],
                one["conflicts"],
                *([one["history"]] if latest else []),
                *([one["retain"]] if limited else []),
                query_text(one),
            )
            for one in answer["collections"]
        ]
        history, retain = ("HISTORY",) if latest else (), ("RETAIN",) if limited else ()
        print_table(("NAME", "DOCUMENTS", "ENTRIES", "PRIORITY", "CONFLICTS", *history, *retain, "WHERE"), rows)
    else:
        write_line("no collections; meshsync collections join NAME")


@collections_command.command("join")
@client_options
@where_option
@click.option(
    "--history",
    type=click.Choice(["full", "latest"]),
    help="How much of the past to fetch: all, or what documents are made of now.  [full; latest with --retain latest]",
)
@click.option(
    "--priority",
    type=click.Choice(["critical", "high", "medium", "low"]),
    help="What goes first when there is more to send than the network takes.  [medium]",
)
@click.option(
    "--conflicts",
    type=click.Choice(["latest", "greatest", "least", "manual"]),
    help="What wins of writes that did not know of each other; the same on all nodes.  [as it is held here, or latest]",
)
@click.option(
    "--retain",
    metavar="30d",
    help="What to keep here of what was overwritten: all, latest, 30d, 12h or '10000 entries'.  [all]",
)
@click.argument("name")
def _join(
    *,
    as_json: bool,
    where: tuple[str, ...],
    history: str | None,
    priority: str | None,
    conflicts: str | None,
    retain: str | None,
    name: str,
) -> None:
    """Replicate a collection from now on, also after a restart.

    With --where only the documents that match are fetched, and shown.

    Joining again changes what is named, says what that was before, and leaves the rest as it is.  With no option at all
    every document is wanted from now on.  At the next start the keys that the configuration has for it (where, history,
    priority, conflicts, retain) count again; the others stay as they were joined here, and so does one that it names,
    or --collection, without any.

    With --history latest nothing is fetched that was overwritten before it came.  Joining again with --history full
    fetches it, as far as a peer has it.

    --conflicts is part of what the collection is: `latest` shows the write with the latest clock, `greatest` and
    `least` the greatest and least value of each field, `manual` all values, as {"$conflict": […]}, until someone who
    saw them writes the field.  Where peers have another one, status says so, and nothing is replicated with them.

    --retain lets older payloads go that no document shows any more, on this node only; nothing can be read of them
    here then.  What was written here stays until a peer that replicates all of the collection has it.
    """
    said = {"where": list(where), "history": history, "priority": priority, "conflicts": conflicts, "retain": retain}
    body = {"name": name, **{option: value for option, value in said.items() if value not in (None, [])}}
    answer = client().request("POST", "v1", "collections", body=body)
    if as_json:
        print_json(answer)
    else:
        for option, values in answer["changed"].items():
            before, after = (printable(values[when], 400) or "all documents" for when in ("before", "after"))
            write_line(f"{option}: {after}, before: {before}")


@collections_command.command("leave")
@client_options
@click.argument("name")
def _leave(*, as_json: bool, name: str) -> None:
    """Replicate a collection no longer.  What is stored stays.

    One that is only relayed for others is named by its id; its data is removed, and it is not relayed again for 30
    days, whoever asks.
    """
    answer = client().request("DELETE", "v1", "collections", name)
    if as_json:
        print_json(answer)


@click.command("log")
@client_options
@click.option("--graph", is_flag=True, help="Show which entries each one follows.")
@click.option(
    "--limit", type=WholeNumber("how many entries to print: 1 or more", 1), metavar="N", help="At most so many entries."
)
@click.argument("collection")
def log_command(*, as_json: bool, graph: bool, limit: int | None, collection: str) -> None:
    """Print the entries of a collection, parents first."""
    parameters = [] if limit is None else [("limit", str(limit))]
    with client().lines("v1", "collections", collection, "log", parameters=parameters) as entries:
        for entry in entries:
            if as_json:
                print_json(entry)
            else:
                write_line(_entry_text(entry, graph=graph))


def _entry_text(entry: dict[str, Any], *, graph: bool) -> str:
    parents = " ".join(parent[:8] for parent in entry["parents"])
    mark = ("◆ " if entry["parents"] else "● ") if graph else ""
    operations = entry["ops"]
    done = "payload not here" if operations is None else ", ".join(f"{kind} {id}" for kind, id in operations)
    at = datetime.fromisoformat(entry["time"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    text = f"{mark}{entry['entry'][:8]}  {entry['author'][:8]}/{entry['seq']:<5}  {at}  {printable(done)}"
    return f"{text}  after {parents}" if graph and parents else text


@click.command("verify")
@client_options
@click.option("--repair", is_flag=True, help="Fetch what is damaged from peers.")
def verify_command(*, as_json: bool, repair: bool) -> None:
    """Check the store of the node against its hashes.  Exits with 1 where something is, or remains, damaged."""
    with client().lines("v1", "verify", method="POST", body={"repair": repair}) as lines:
        result: dict[str, Any] = {}
        for result in lines:
            if as_json:
                print_json(result)
            else:
                for kind, before in (("fault", ""), ("repair", "repair: "), ("remains", "remains: ")):
                    if kind in result:
                        write_line(before + printable(result[kind], characters_max=1000))
    faults = result.get("faults")
    if faults is None:
        raise CommandError(Exit.NOT_SO, "the check was not finished; see the node's log")
    if faults:
        raise CommandError(Exit.NOT_SO, counted(faults, "fault") + ("" if repair else "; meshsync verify --repair"))
    if not as_json:
        found = result.get("found")
        write_line(f"{counted(found, 'fault')}, all repaired" if found else "no faults")
