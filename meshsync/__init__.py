"""meshsync: offline-first documents for a mesh of peers, over QUIC.

The nouns: an *endpoint* is a node's identity, a *peer* another one; a *collection* is a named set of *documents*;
a put, patch or delete is an *operation*, and an *entry* holds some of them, signed, in a Merkle-DAG; the entries
of one author form a *log*, its last entry is the *tip*, and equal tips mean equal sets: that is what *synced* says.

The layers, each importing only those before it: ids and errors, core (pure), store, transports, discovery, config
and identity and events, the past and what else reads collections, sync, peering, node, api, cli, lab.

The names below are the public ones.  They are loaded when they are first used, because most commands need none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshsync.collection import Collection
    from meshsync.config import Config
    from meshsync.core.history import History
    from meshsync.core.policy import Policy
    from meshsync.core.priority import Priority
    from meshsync.core.query import Query
    from meshsync.documents import Change, Document, Index
    from meshsync.errors import (
        ConfigError,
        CursorLostError,
        LocalError,
        MeshsyncError,
        MovedOnError,
        NotInPartError,
        PeerError,
        RefusedError,
        StoreError,
        TransportLost,
    )
    from meshsync.ids import CollectionId, EndpointId, EntryId, LogId
    from meshsync.launch import open_node
    from meshsync.node import Node
    from meshsync.past.conflicts import Conflict, FieldConflict
    from meshsync.past.facts import Said, WriteInfo
    from meshsync.past.history import FieldChange, PastWrite
    from meshsync.past.origins import Expiry, FieldOrigin, Overridden, Why
    from meshsync.past.outside import Outside
    from meshsync.past.snapshots import PastDocument, Snapshot
    from meshsync.sync.engine import SyncEngine
    from meshsync.writes import Batch

__all__ = [
    "Batch",
    "Change",
    "Collection",
    "CollectionId",
    "Config",
    "ConfigError",
    "Conflict",
    "CursorLostError",
    "Document",
    "EndpointId",
    "EntryId",
    "Expiry",
    "FieldChange",
    "FieldConflict",
    "FieldOrigin",
    "History",
    "Index",
    "LocalError",
    "LogId",
    "MeshsyncError",
    "MovedOnError",
    "Node",
    "NotInPartError",
    "Outside",
    "Overridden",
    "PastDocument",
    "PastWrite",
    "PeerError",
    "Policy",
    "Priority",
    "Query",
    "RefusedError",
    "Said",
    "Snapshot",
    "StoreError",
    "SyncEngine",
    "TransportLost",
    "Why",
    "WriteInfo",
    "open_node",
]

_HOMES = {
    "meshsync.collection": ("Collection",),
    "meshsync.config": ("Config",),
    "meshsync.core.query": ("Query",),
    "meshsync.documents": ("Change", "Document", "Index"),
    "meshsync.errors": (
        "ConfigError",
        "CursorLostError",
        "LocalError",
        "MeshsyncError",
        "MovedOnError",
        "NotInPartError",
        "PeerError",
        "RefusedError",
        "StoreError",
        "TransportLost",
    ),
    "meshsync.ids": ("CollectionId", "EndpointId", "EntryId", "LogId"),
    "meshsync.launch": ("open_node",),
    "meshsync.node": ("Node",),
    "meshsync.sync.engine": ("SyncEngine",),
    "meshsync.core.history": ("History",),
    "meshsync.core.policy": ("Policy",),
    "meshsync.core.priority": ("Priority",),
    "meshsync.past.conflicts": ("Conflict", "FieldConflict"),
    "meshsync.past.facts": ("Said", "WriteInfo"),
    "meshsync.past.history": ("FieldChange", "PastWrite"),
    "meshsync.past.origins": ("Expiry", "FieldOrigin", "Overridden", "Why"),
    "meshsync.past.outside": ("Outside",),
    "meshsync.past.snapshots": ("PastDocument", "Snapshot"),
    "meshsync.writes": ("Batch",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name from its home at first use (PEP 562)."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'meshsync' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
