"""`peers`, `connect` and `sync`."""

from __future__ import annotations

from typing import Any

import click

from meshsync.cli.main import client, client_options
from meshsync.cli.output import duration, print_json, print_table, printable, write_line


@click.group("peers", invoke_without_command=True)
@client_options
@click.pass_context
def peers_command(context: click.Context, *, as_json: bool) -> None:
    """List, accept, forget and ban peers."""
    if context.invoked_subcommand is None:
        _list(None, as_json=as_json)


@peers_command.command("ls")
@client_options
def _ls(*, as_json: bool) -> None:
    """List the peers: the default."""
    _list(None, as_json=as_json)


@peers_command.command("pending")
@client_options
def _pending(*, as_json: bool) -> None:
    """List the endpoints that wait to be accepted."""
    _list("pending", as_json=as_json)


@peers_command.command("accept")
@client_options
@click.argument("id")
def _accept(*, as_json: bool, id: str) -> None:
    """Trust a peer from now on."""
    _decide("accept", id, as_json=as_json)


@peers_command.command("forget")
@client_options
@click.argument("id")
def _forget(*, as_json: bool, id: str) -> None:
    """Forget what was decided about a peer."""
    _decide("forget", id, as_json=as_json)


@peers_command.command("ban")
@client_options
@click.argument("id")
def _ban(*, as_json: bool, id: str) -> None:
    """Disconnect a peer and refuse it from now on."""
    _decide("ban", id, as_json=as_json)


def _decide(what: str, id: str, *, as_json: bool) -> None:
    answer = client().request("POST", "v1", "peers", id, what)
    if as_json:
        print_json(answer)


def _list(state: str | None, *, as_json: bool) -> None:
    answer = client().get("v1", "peers", parameters=[] if state is None else [("state", state)])
    if as_json:
        print_json(answer)
    elif answer["peers"]:
        print_table(("ID", "NAME", "STATE", "ADDRESS", "VIA", "NOTE"), map(peer_row, answer["peers"]))
    else:
        write_line(
            "nobody waits to be accepted" if state else "no peers; meshsync status says where this node looks for some"
        )


def peer_row(peer: dict[str, Any]) -> tuple[str, ...]:
    """A peer as a row of a table."""
    note = printable(peer.get("last_error") or "", 400)  # a command that is cut off is none
    if peer["state"] == "connected":
        note = "" if peer.get("rtt_ms") is None else f"{peer['rtt_ms']:.1f} ms"
    elif peer.get("next_dial_s") is not None:
        note = f"{note}{', ' if note else ''}next try in {duration(peer['next_dial_s'])}"
    return peer["id"][:8], peer["name"], peer["state"], peer.get("address") or "", peer.get("via") or "", note


@click.command("connect")
@client_options
@click.argument("peer", metavar="HEX@HOST:PORT")
def connect_command(*, as_json: bool, peer: str) -> None:
    """Connect to a peer now.

    Prints True where it is connected, False where both connect at once and the peer's connection is the one kept.
    """
    answer = client().request("POST", "v1", "connect", body={"peer": peer})
    if as_json:
        print_json(answer)
    else:
        write_line(str(answer["connected"]))


@click.command("sync")
@client_options
@click.argument("collection", required=False)
def sync_command(*, as_json: bool, collection: str | None) -> None:
    """Force a round of synchronisation now, of one collection or of all."""
    body = {} if collection is None else {"collection": collection}
    answer = client().request("POST", "v1", "sync", body=body, answer_seconds=None)
    if as_json:
        print_json(answer)
    else:
        write_line(
            f"pulled {answer['pulled']}, pushed {answer['pushed']}, conflicts {answer['conflicts']},"
            f" peers {answer['peers']}"
        )
