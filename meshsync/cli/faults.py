"""Why a node is not in the state that it should be in, from what it says of itself as `status --json`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from shlex import quote
from typing import Any

from meshsync.cli.output import printable

_Status = dict[str, Any]


def is_connected(status: _Status) -> bool:
    """Whether any peer is connected to a node."""
    return any(peer["state"] == "connected" for peer in status["peers"])


def find_faults(status: _Status) -> list[str]:
    """All that is wrong with a node; nothing when nothing is."""
    return [*_of_the_node(status), *_of_peers(status, ()), *_of_collections(status, (), ())]


def why_not_synced(status: _Status, collections: Sequence[str], peers: Sequence[str]) -> str:
    """The first reason why these collections, or all, are not in sync with these peers, or with all.

    They are as `wait synced` takes them: a collection is its name or id, a peer the beginning of its id.
    """
    is_lonely = not peers and not is_connected(status)
    reasons: list[str] = [
        *_of_the_node(status),
        *_of_collections(status, collections, peers),
        *_of_peers(status, peers),
        *(["no peer is connected; meshsync peers"] if is_lonely else _alone(status, collections, peers)),
    ]
    if reasons:
        return reasons[0]
    chosen = _chosen(status, collections)
    if not chosen:
        return "there are no collections; meshsync collections join NAME"
    return "by now it is" if any(one["peers"] for one in chosen) else "no connected peer shares it; meshsync peers"


def connected_text(status: _Status) -> list[str]:
    """The verdict on a node without faults that is connected: with whom it is in sync, and what it shares with none."""
    alone = list(_alone(status, (), ()))
    return alone if len(alone) == len(_chosen(status, ())) else ["in sync with every connected peer", *alone]


def session_text(session: dict[str, Any]) -> str:
    """Where a collection stands with a peer."""
    parts = [session["state"]]
    if session["missing"]:
        parts.append(f"{session['missing']} entries to come")
    if session["unsent"]:
        parts.append(f"{session['unsent']} to send")
    if session["stall"]:
        parts.append(session["stall"])
    return ", ".join(parts)


def _of_the_node(status: _Status) -> Iterator[str]:
    if status["store"].get("fault"):
        yield f"the store fails: {printable(status['store']['fault'])}; free space or mend the disk"
    if status["relay"]["fault"]:
        yield printable(status["relay"]["fault"], 400)


def _of_peers(status: _Status, chosen: Sequence[str]) -> Iterator[str]:
    """What is wrong with static peers, or with those that are chosen."""
    names = _names(status)
    for peer in status["peers"]:
        is_missed = _is_among(peer["id"], chosen) if chosen else peer["via"] == "static" and not peer["banned"]
        if is_missed and peer["state"] != "connected":
            why = f": {peer['last_error']}" if peer.get("last_error") else ""
            yield printable(f"{names[peer['id']]} is not connected ({peer['state']}){why}", 400)
    for beginning in chosen:
        if not any(_is_among(peer["id"], [beginning]) for peer in status["peers"]):
            yield f"{printable(beginning)[:8]} is not connected; meshsync connect HEX@HOST:PORT"


def _of_collections(status: _Status, chosen: Sequence[str], peers: Sequence[str]) -> Iterator[str]:
    names = _names(status)
    for collection in _chosen(status, chosen):
        for peer in collection["differing"]:
            name = names.get(peer["id"], peer["id"][:8])
            yield printable(
                f"{collection['name']} decides conflicts by `{collection['conflicts']}` here and by"
                f" `{peer['conflicts']}` at {name}, so they are two collections; dump one, leave it, join as the"
                " other, and load",
                400,
            )
        for session in collection["peers"]:
            if session["state"] != "synced" and (not peers or _is_among(session["id"], peers)):
                name = names.get(session["id"], session["id"][:8])
                yield printable(f"{collection['name']} is not synced with {name}: {session_text(session)}", 400)


def _alone(status: _Status, chosen: Sequence[str], peers: Sequence[str]) -> Iterator[str]:
    """Which collections no connected peer has, or not each of `peers`."""
    names = _names(status)
    connected = [peer["id"] for peer in status["peers"] if peer["state"] == "connected"]
    for collection in _chosen(status, chosen):
        if collection["relayed"]:
            continue
        name, sharing = printable(collection["name"]), [session["id"] for session in collection["peers"]]
        hint = f"`meshsync collections join {quote(name)}` there"
        if not sharing and not peers:
            yield f"no connected peer has {name}: {hint}"
        for one in connected:
            if _is_among(one, peers) and one not in sharing:
                yield f"{printable(names[one])} does not have {name}: {hint}"


def _chosen(status: _Status, chosen: Sequence[str]) -> list[dict[str, Any]]:
    """The collections of these names or ids, or those that a node is judged by.

    What is only carried for others may wait for them, and why it does is told elsewhere.
    """
    all_of_them: list[dict[str, Any]] = status["collections"]
    if chosen:
        return [one for one in all_of_them if one["name"] in chosen or one["id"] in chosen]
    return [one for one in all_of_them if not one["relayed"]] or all_of_them


def _names(status: _Status) -> dict[str, str]:
    return {peer["id"]: peer["name"] or peer["id"][:8] for peer in status["peers"]}


def _is_among(id: str, beginnings: Sequence[str]) -> bool:
    return any(id.startswith(beginning.lower()) for beginning in beginnings)
