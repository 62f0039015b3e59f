"""Replicas in memory, and batches given to them as if they came from the wire."""

from __future__ import annotations

import random
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshsync.core.entry import PUT, Operation
from meshsync.core.messages import Batch, decode_untrusted, encode_message
from meshsync.ids import CollectionId, LogId
from meshsync.store.memory import MemoryStore
from meshsync.store.replica import Applied, Replica
from tests.authors import COLLECTION, START_MS, Author, Made, batch_of


def new_replica(number: int = 99, collection: CollectionId = COLLECTION) -> Replica:
    store = MemoryStore(random_bytes=random.Random(number).randbytes)
    key = Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))
    return Replica(store, store.collection(collection, "notes"), key)


def apply(replica: Replica, batch: Batch, logs: Sequence[LogId], now_ms: int = START_MS) -> Applied:
    # As it comes from the wire, so that a batch that no peer can send is not tested by mistake.
    message = decode_untrusted(encode_message(batch))
    assert isinstance(message, Batch)
    return replica.apply(message, logs, None, now_ms)


def give(replica: Replica, *entries: Made) -> Applied:
    applied = apply(replica, *batch_of(entries))
    assert not applied.skipped
    return applied


def held(replica: Replica) -> set[bytes]:
    return {row.id for row in replica.scan_entries()}


def two_logs() -> tuple[list[Made], Author, Author]:
    """Six entries of two authors who read each other."""
    a, b = Author(1), Author(2)
    a1 = a.write([Operation(PUT, "x", {"n": 1})])
    a2 = a.write([Operation(PUT, "y", {"n": 2})])
    b1 = b.write([Operation(PUT, "x", {"n": 3})], [a2])
    a3 = a.write([Operation(PUT, "x", {"n": 4})], [b1])
    b2 = b.write([Operation(PUT, "z", {"n": 5}), Operation(PUT, "x", {"n": 6})])
    a4 = a.write([Operation(PUT, "y", {"n": 7})])
    return [a1, a2, b1, a3, b2, a4], a, b


def put(replica: Replica, id: str, number: int = 0) -> Applied:
    applied, _ = replica.append([Operation(PUT, id, {"n": number})], START_MS)
    return applied


def pair(count_a: int = 0, count_b: int = 0) -> tuple[Replica, Replica]:
    a, b = new_replica(11), new_replica(12)
    for number in range(count_a):
        put(a, f"a{number}")
    for number in range(count_b):
        put(b, f"b{number}")
    return a, b


def store_of(replica: Replica) -> MemoryStore:
    assert isinstance(replica.store, MemoryStore)
    return replica.store
