"""The node itself: its state, its peers, its collections, and waiting for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import trio
from starlette.requests import Request
from starlette.responses import Response

from meshsync.addresses import parse_peer
from meshsync.api.errors import NotHereError
from meshsync.api.requests import collection_of, find_collection, path_text, read_object, refuse_unknown, whole_number
from meshsync.api.responses import Lines, Write, answer, line, while_connected
from meshsync.core.limits import INT_MAX
from meshsync.errors import LocalError

if TYPE_CHECKING:
    from meshsync.ids import EndpointId
    from meshsync.node import Node


async def get_health(_node: Node, request: Request) -> Response:
    """Whether the node runs.  It says nothing about peers; see status."""
    refuse_unknown(request)
    return answer(status=200, healthy=True)


async def get_status(node: Node, request: Request) -> Response:
    """All that the node knows of itself."""
    refuse_unknown(request)
    return answer(**_without_version(node.status()))


async def get_graph(node: Node, request: Request) -> Response:
    """The whole mesh as this node knows it: what it sees itself, and what the others say of themselves.

    A link is `connected` where an end says so and the other does not deny it, `down` where one said later than the
    other that it is gone, `disputed` where each keeps to its own word, `stale` where nobody who says so can be
    reached any more; else it is one that this node tries to make, in the state that `peers` tells.  `said_by` and
    `denied_by` name the ends; `age_s` is of the newest word.  A node is `connected` with this one, `reachable` over
    connected links, or `unreachable`.
    """
    refuse_unknown(request)
    return answer(**_without_version(node.graph()))


async def list_peers(node: Node, request: Request) -> Response:
    """The peers; with `state=pending` those that wait to be accepted."""
    refuse_unknown(request, "state")
    match request.query_params.get("state"):
        case None:
            return answer(peers=node.peers())
        case "pending":
            return answer(peers=node.pending())
        case state:
            return answer(peers=[peer for peer in node.peers() if peer["state"] == state])


async def accept_peer(node: Node, request: Request) -> Response:
    """Trust a peer from now on."""
    id = await _peer_of(node, request)
    await node.accept_peer(id)
    return answer(id=str(id))


async def forget_peer(node: Node, request: Request) -> Response:
    """Forget what was decided about a peer, and disconnect it unless the configuration names it."""
    id = await _peer_of(node, request)
    await node.forget_peer(id)
    return answer(id=str(id))


async def ban_peer(node: Node, request: Request) -> Response:
    """Disconnect a peer and refuse it from now on, without listing it as pending."""
    id = await _peer_of(node, request)
    await node.ban_peer(id)
    return answer(id=str(id))


async def connect(node: Node, request: Request) -> Response:
    """Connect to a peer now.  `connected` is false where the tie-break leaves it to the peer to connect to us."""
    body = await read_object(request, "peer", required=("peer",))
    peer = parse_peer(_text(body, "peer"))

    async def work() -> Response:
        connected = await node.connect(peer.id, [str(peer.address)])
        return answer(id=str(peer.id), connected=connected)

    return await while_connected(request, work)


async def sync(node: Node, request: Request) -> Response:
    """Force a round now, of one collection or of all."""
    body = await read_object(request, "collection")
    name = body.get("collection")
    if name is not None:
        find_collection(node, _text(body, "collection"))

    async def work() -> Response:
        cycle = await node.sync.force_sync(name)
        return answer(pulled=cycle.pulled, pushed=cycle.pushed, conflicts=cycle.conflicts, peers=_plain(cycle.peers))

    return await while_connected(request, work)


async def wait_synced(node: Node, request: Request) -> Response:
    """Wait until collections are synced with peers.  `synced` is false when `timeout_s` passed before.

    What is only relayed counts where its id is given, and on a node that subscribes to nothing.
    """
    body = await read_object(request, "collections", "peers", "timeout_s")
    names = _texts(body, "collections")
    for name in names:
        if node.relay.find(name) is None:
            find_collection(node, name)
    ids = [_resolve(node, text) for text in _texts(body, "peers")]
    seconds = body.get("timeout_s")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0):
        raise LocalError(f"timeout_s is a number of seconds, not {seconds!r}")

    async def work() -> Response:
        began = trio.current_time()
        with trio.move_on_after(float("inf") if seconds is None else seconds) as scope:
            await node.sync.wait_synced(names or None, ids or None)
        return answer(synced=not scope.cancelled_caught, waited_s=round(trio.current_time() - began, 3))

    return await while_connected(request, work)


async def list_collections(node: Node, request: Request) -> Response:
    """The collections that this node has, with the keys of status."""
    refuse_unknown(request)
    return answer(collections=node.status()["collections"])


async def join_collection(node: Node, request: Request) -> Response:
    """Replicate a collection from now on, also after a restart.

    `conflicts` is its policy for writes that did not know of each other; with another one it is another collection.
    `retain` is what is kept here of what was overwritten; where it is left out, all.  `history` is how much of the past
    is fetched: where it is left out, `full`, or `latest` where nothing is kept.

    Of a collection that was joined before stays what is left out; with the name alone, all documents are wanted from
    now on.  `changed` says what is otherwise than before.  At the next start what the configuration says of it wins.
    """
    from meshsync.core.query import Query

    body = await read_object(request, "name", "priority", "conflicts", "where", "history", "retain", required=("name",))
    name = _text(body, "name")
    said = {
        key: _text(body, key) for key in ("priority", "conflicts", "retain", "history") if body.get(key) is not None
    }
    query = Query.parse(_texts(body, "where")) if "where" in body else None
    changed = await node.join(name, query, **said)
    return answer(
        collection=name,
        changed={what: {"before": before, "after": after} for what, (before, after) in changed.items()},
    )


async def leave_collection(node: Node, request: Request) -> Response:
    """Replicate a collection no longer.  What is stored stays; of one that is only relayed it goes."""
    name = path_text(request, "collection")
    if name not in node.collections() and node.relay.find(name) is None:
        raise NotHereError(
            "no_collection", f"this node has no collection {name!r}; see what it has: meshsync collections"
        )
    await node.leave(name)
    return answer(collection=name)


async def list_log(node: Node, request: Request) -> Response:
    """The entries of a collection in the order in which they arrived, a line each."""
    refuse_unknown(request, "limit")
    collection = collection_of(node, request)
    limit = whole_number(request, "limit", 1, INT_MAX)

    async def produce(write: Write) -> None:
        for number, entry in enumerate(node.log_entries(collection.name)):
            if number == limit:
                return
            await write(line({"v": 1, **entry}))

    return Lines(produce)


async def verify(node: Node, request: Request) -> Response:
    """Check the store against its hashes: a line for each `fault`, and at the end how many `faults` there are.

    With `repair` what is damaged is fetched from peers: a line for each `repair`, and for each fault that `remains`.
    """
    body = await read_object(request, "repair")
    repair = body.get("repair", False)
    if not isinstance(repair, bool):
        raise LocalError("repair is true or false")

    async def produce(write: Write) -> None:
        counts: Counter[str] = Counter()
        async with aclosing(node.verify(repair=repair)) as findings:
            async for finding in findings:
                counts[finding.kind] += 1
                await write(line({"v": 1, finding.kind: finding.text}))
        done = {"v": 1, "done": True, "faults": counts["fault"]}
        await write(line({**done, "faults": counts["remains"], "found": counts["fault"]} if repair else done))

    return Lines(produce)


async def _peer_of(node: Node, request: Request) -> EndpointId:
    refuse_unknown(request)
    return _resolve(node, path_text(request, "id"))


def _resolve(node: Node, text: str) -> EndpointId:
    from meshsync.ids import EndpointId

    # A whole id need not be known here: one may be banned or accepted before it ever knocked.
    if len(text) == 64:
        return EndpointId.parse(text)
    try:
        return node.resolve_peer(text)
    except LocalError as error:
        raise NotHereError("no_peer", str(error)) from None


def _text(body: Mapping[str, Any], key: str) -> str:
    if not isinstance(body[key], str):
        raise LocalError(f"{key} is a string, not {body[key]!r}")
    return str(body[key])


def _texts(body: Mapping[str, Any], key: str) -> list[str]:
    value = body.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise LocalError(f"{key} is an array of strings")
    return value


def _plain(value: Any) -> Any:
    """Ids as hex, sets as lists."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Iterable) and not isinstance(value, str | Mapping):
        return [_plain(item) for item in value]
    return value


def _without_version(status: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in status.items() if key != "v"}
