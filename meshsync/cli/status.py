"""`status` and `wait`: am I in sync, with whom, since when, and tell me when I am."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from meshsync.cli.client import Client
from meshsync.cli.durations import Duration
from meshsync.cli.exits import CommandError, Exit
from meshsync.cli.faults import connected_text, find_faults, is_connected, session_text, why_not_synced
from meshsync.cli.main import client, client_options, data_dir_option
from meshsync.cli.output import (
    colour,
    counted,
    duration,
    lacking_text,
    part_text,
    past_text,
    print_json,
    print_table,
    printable,
    query_text,
    relayed_text,
    retained_text,
    size,
    write_line,
)
from meshsync.cli.peers import peer_row

_REFRESH_SECONDS = 1.0
_LOOKS = {"mdns": "on the local network", "dns": "in the DNS"}
"""Where a node looks for peers by itself, by the way's word."""
_CLEAR = "\x1b[H\x1b[2J"


@click.command("status")
@client_options
@click.option("--check", is_flag=True, help="Exit with 1 unless all is in sync and every static peer is connected.")
@click.option("--watch", is_flag=True, help="Go on showing it until interrupted.")
def status_command(*, as_json: bool, check: bool, watch: bool) -> None:
    """Show whether this node is in sync, with whom, since when, and what to do next."""
    node = client()
    while True:
        status = node.get("v1", "status")
        if watch and sys.stdout.isatty() and not as_json:
            write_line(_CLEAR)
        if as_json:
            print_json(status)
        else:
            _show(status, _pending(node, status))
        if not watch:
            break
        time.sleep(_REFRESH_SECONDS)
    if check and (faults := find_faults(status)):
        raise CommandError(Exit.NOT_SO, faults[0] + (f", and {len(faults) - 1} more" if len(faults) > 1 else ""))


def _pending(node: Client, status: dict[str, Any]) -> list[dict[str, Any]]:
    if not status.get("pending"):
        return []
    pending: list[dict[str, Any]] = node.get("v1", "peers", parameters=[("state", "pending")])["peers"]
    return pending


def _show(status: dict[str, Any], pending: list[dict[str, Any]]) -> None:
    name = f"{printable(status['name'])}  " if status["name"] else ""
    write_line(
        f"{name}{status['id']}\nup {duration(status['uptime_s'])}, listening on {', '.join(status['listen'])},"
        f" {counted(status['store']['entries'], 'entry', 'entries')} in {size(status['store']['bytes'])},"
        f" trust {status['trust']}"
    )
    if status["peers"]:
        write_line("")
        print_table(("PEER", "NAME", "STATE", "ADDRESS", "VIA", "NOTE"), map(peer_row, status["peers"]))
    names = {peer["id"]: peer["name"] or peer["id"][:8] for peer in status["peers"]}
    alone = "no connected peer has it" if is_connected(status) else "no peer is connected"
    rows = [row for collection in status["collections"] for row in _collection_rows(collection, names, alone)]
    if rows:
        write_line("")
        print_table(("COLLECTION", "DOCUMENTS", "PEER", "SYNC", "LAST SYNCED"), rows)
    for collection in status["collections"]:
        for text_of in (lacking_text, past_text, part_text):
            if text := text_of(collection):
                write_line(f"\n{text}")
        if collection["retain"] != "all":
            write_line(f"\n{retained_text(collection)}")
    relay = status["relay"]
    if relay["enabled"]:
        carried = counted(relay["collections"], "collection")
        write_line(f"\nrelays {carried} for others, {size(relay['bytes'])} of {size(relay['bytes_max'])}")
    write_line("")
    _show_next(status, pending)


def _collection_rows(collection: dict[str, Any], names: dict[str, str], alone: str) -> list[tuple[object, ...]]:
    """`alone`: what to say of one that is shared with nobody."""
    rows: list[tuple[object, ...]] = []
    for session in collection["peers"]:
        last = session["last_synced"]
        ago = "never" if last is None else f"{duration(max(0.0, time.time() - last))} ago"
        if session["state"] == "synced":
            ago = "now"
        rows.append(("", "", names.get(session["id"], session["id"][:8]), session_text(session), ago))
    rows = rows or [("", "", "", "" if collection["idle"] else alone, "")]
    documents = relayed_text(collection) or collection["documents"]
    if query := query_text(collection):
        documents = f"{documents} where {query}"
    if collection["history"] != "full":
        documents = f"{documents}, without their past"
    return [(collection["name"], documents, *rows[0][2:]), *rows[1:]]


def _show_next(status: dict[str, Any], pending: list[dict[str, Any]]) -> None:
    """The verdict, and what the owner can do about it."""
    faults = find_faults(status)
    for fault in faults:
        write_line(colour(fault, "red"))
    if status["discovery"]["fault"]:
        write_line(colour(printable(status["discovery"]["fault"], 400), "yellow"))
    for peer in pending:
        who = f"{printable(peer['name'])} ({peer['id'][:8]})" if peer["name"] else peer["id"][:8]
        does = "wants to connect" if peer["via"] == "knock" else f"was found by {peer['via']}"
        keyless = " and does not hold this mesh's key" if status["trust"] == "mesh-key" else ""
        write_line(f"{who} at {printable(peer['address'])} {does}{keyless}; to let it in:")
        write_line(f"    meshsync peers accept {peer['id'][:16]}")
    if not status["collections"]:
        write_line("no collections yet; meshsync collections join NAME")
    elif not faults and is_connected(status):
        for line in connected_text(status):
            write_line(colour(line, "green" if line.startswith("in sync") else "yellow"))
    elif not faults and not pending:
        ways = [way["via"] for way in status["discovery"]["ways"] if way["via"] in _LOOKS]
        looks = f"; looking {' and '.join(_LOOKS[way] for way in ways)}" if ways else ""
        write_line(f"no peer is connected{looks}; --peer HEX@HOST:PORT of `node` names one")


@click.group("wait")
@data_dir_option
def wait_command() -> None:
    """Wait until this node is in a state."""


@wait_command.command("synced", short_help="Wait until it is in sync with every connected peer.")
@client_options
@click.option(
    "--collection",
    "collections",
    multiple=True,
    metavar="C",
    help="Only this one; again for more.  One that is only relayed counts by its id.",
)
@click.option("--peer", "peers", multiple=True, metavar="ID", help="With this peer; again for more.")
@click.option("--timeout", "timeout_s", type=Duration(), metavar="60s", help="Give up after this; exits with 1 then.")
def _synced(*, as_json: bool, collections: tuple[str, ...], peers: tuple[str, ...], timeout_s: float | None) -> None:
    """Wait until the collections are in sync with every connected peer, of which there must be one.

    What is only relayed is not waited for, unless its id is given or this node subscribes to nothing.
    """
    body: dict[str, Any] = {"collections": list(collections), "peers": list(peers)}
    if timeout_s is not None:
        body["timeout_s"] = timeout_s
    node = client()
    answer = node.request("POST", "v1", "wait", body=body, answer_seconds=None)
    if as_json:
        print_json(answer)
    if not answer["synced"]:
        reason = why_not_synced(node.get("v1", "status"), collections, peers)
        raise CommandError(Exit.NOT_SO, f"not synced after {answer['waited_s']:g} s: {reason}")
    if not as_json:
        write_line("synced")
