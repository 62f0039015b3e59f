"""What `status`, `peers` and `collections` say, built from the live state: the keys are the interface's."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import trio

from meshsync.ids import EndpointId
from meshsync.peering.peer import STATIC, Peer
from meshsync.store.replica import Replica

if TYPE_CHECKING:
    from meshsync.node import Node


def node_status(node: Node) -> dict[str, Any]:
    """The JSON of `status --json`."""
    replicas = node.sync.subscribed()
    entries = sum(replica.entry_count() for replica in replicas)
    return {
        "v": 1,
        "id": node.id.hex(),
        "name": node.name,
        "version": _version(),
        "uptime_s": round(trio.current_time() - node.started, 3),
        "listen": list(node.listen),
        "trust": node.config.trust,
        "store": {"entries": entries, "bytes": node.store.size_bytes(), "fault": node.sync.store_fault},
        "syncing": node.sync.is_syncing(),
        "synced": node.sync.is_synced(),
        "peers": peer_list(node),
        "pending": len(node.trust.knocks),
        "collections": [_collection(node, replica) for replica in [*replicas, *node.relay.idle()]],
        "relay": node.relay.status(),
        "discovery": _discovery(node),
    }


def _discovery(node: Node) -> dict[str, Any]:
    """The ways of finding peers, the interfaces that they use, and the first thing that is wrong with any of them."""
    ways = [{"via": one.via, "fault": one.fault} for one in node.peering.discoveries if one.via != STATIC]
    interfaces = node.interfaces
    faults = [interfaces.fault if interfaces is not None else None, *(way["fault"] for way in ways)]
    return {
        "ways": ways,
        "interfaces": [
            {"name": one.name, "addresses": list(one.addresses)}
            for one in (interfaces.chosen if interfaces is not None else ())
        ],
        "fault": next((fault for fault in faults if fault is not None), None),
    }


@cache
def _version() -> str:
    """The version of the package; "0" in a checkout that was not installed."""
    try:
        return metadata.version("meshsync")
    except metadata.PackageNotFoundError:
        return "0"


def peer_list(node: Node) -> list[dict[str, Any]]:
    """The peers, in the order in which they became known."""
    return [_peer(node, peer) for peer in node.peering.peers.values()]


def pending_list(node: Node) -> list[dict[str, Any]]:
    """The endpoints that are not trusted yet, with the keys of a peer: they knocked, or were seen."""
    return [
        {
            "id": knock.id.hex(),
            "name": knock.name,
            "state": "pending",
            "origin": "accepted" if knock.place is not None else None,
            "address": str(knock.addresses[0]),
            "via": knock.via,
            "rtt_ms": None,
            "since": knock.seen,
            "next_dial_s": None,
            "last_error": None,
        }
        for knock in node.trust.knocks.values()
    ]


def _peer(node: Node, peer: Peer) -> dict[str, Any]:
    connection = peer.connection
    address = str(peer.addresses[0]) if peer.addresses else ""
    if connection is not None:
        host, port = connection.address
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    wait = None if peer.next_dial is None else max(0.0, round(peer.next_dial - trio.current_time(), 2))
    link = node.sync.links.get(peer.id)
    return {
        "id": peer.id.hex(),
        "name": peer.name,
        "state": peer.state,
        "origin": connection.origin.value if connection is not None else None,
        "address": address,
        "via": peer.via,
        "rtt_ms": round(connection.rtt_seconds * 1000, 3) if connection is not None else None,
        "since": peer.since,
        "next_dial_s": wait,
        "last_error": peer.last_error,
        "bytes_sent": connection.bytes_sent if connection is not None else 0,
        "bytes_received": connection.bytes_received if connection is not None else 0,
        "clock_ahead_ms": link.control.clock_ahead_ms if link is not None else None,
        "banned": node.trust.is_banned(peer.id),
    }


def _collection(node: Node, replica: Replica) -> dict[str, Any]:
    exchanged = node.sync.exchanged(replica.id)
    is_exchanged = node.sync.is_subscribed(replica)
    partners = node.sync.sharing.partners(replica.id) if is_exchanged else []
    redundancy = exchanged.redundancy
    return {
        "name": replica.name,
        "id": replica.id.hex(),
        "relayed": not node.sync.is_own(replica.id),
        "idle": not is_exchanged,
        "bytes": replica.tables.size_bytes(),
        "root": replica.root().hex(),
        "entries": replica.entry_count(),
        "documents": replica.document_count(),
        "logs": len(replica.by_log),
        "forks": len(replica.forks()) if replica.has_forks() else 0,
        "priority": node.sync.priority(replica).name.lower(),
        "query": None if replica.interest is None else replica.interest.query.to_json(),
        "where": None if replica.interest is None else str(replica.interest.query),
        "settled": replica.is_settled,
        "lacking": replica.lacking_count,
        "certain": node.sync.sharing.is_certain(replica),
        "conflicts": replica.policy.value,
        "history": replica.history.value,
        "superseded": replica.tables.marked(),
        "retain": str(replica.retaining.retention),
        "let_go": _let_go(replica),
        "unwanted": _unwanted(replica),
        "differing": _differing(node, replica),
        "peers": [_session(node, replica, peer) for peer in partners],
        "subscribers": node.sync.subscribers(replica.id),
        "payload_bytes": {"received": exchanged.payload_bytes, "new": exchanged.payload_bytes_new},
        "redundancy": None if redundancy is None else round(redundancy, 3),
        "held": {str(log): why.value for log, why in node.sync.held(replica).items()},
    }


def _let_go(replica: Replica) -> dict[str, int]:
    """What was dropped of the past, and what waits until someone else has it."""
    dropped = replica.retaining.dropped
    return {"payloads": dropped.entries, "bytes": dropped.bytes, "waiting": replica.retaining.waiting}


def _unwanted(replica: Replica) -> dict[str, int]:
    """What was dropped since the start because it is not wanted, and what waits until someone else has it."""
    dropped = replica.unwanted.dropped
    return {"payloads": dropped.entries, "bytes": dropped.bytes, "documents_waiting": replica.unwanted.waiting}


def _differing(node: Node, replica: Replica) -> list[dict[str, Any]]:
    """The connected peers that have the collection under another policy for conflicts, which makes it another one."""
    found = ((link.peer, link.policy_of_peer(replica)) for link in node.sync.links.values())
    return [{"id": peer.hex(), "conflicts": policy.value} for peer, policy in found if policy is not None]


def _session(node: Node, replica: Replica, peer: EndpointId) -> dict[str, Any]:
    state = node.sync.state_of(replica, peer)
    return {
        "id": peer.hex(),
        "state": state.state.value,
        "missing": state.missing,
        "unsent": state.unsent,
        "last_synced": state.last_synced,
        "stall": state.stall,
        "lazy": state.lazy,
    }
