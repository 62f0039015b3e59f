"""The golden vectors: what the protocol is, as data.  `scripts/vectors` writes them, by hand; tests only read them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import meshsync.core.messages
from meshsync.core import cbor
from meshsync.core.anchor import Place
from meshsync.core.document import DocumentState, Stamp
from meshsync.core.entry import HeaderBuilder, check_operations, document_tags, make_seal, verify_seal
from meshsync.core.messages import Batch, decode_untrusted, encode_message
from meshsync.core.policy import Policy, collection_id
from meshsync.core.siblings import Mark, SiblingState
from meshsync.core.summary import decode_untrusted_summary, sign_summary
from meshsync.core.tips import Tip, root_of
from meshsync.errors import LocalError, PeerError
from meshsync.ids import CollectionId, EndpointId, LogId
from tests.authors import START_MS
from tests.replicas import held, new_replica

VECTORS = Path(__file__).parent.parent / "vectors"


def read(name: str) -> list[dict[str, Any]]:
    found = json.loads((VECTORS / f"{name}.json").read_text())
    assert isinstance(found, list)
    return found


def each(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", read(name), ids=lambda vector: vector.get("why") or None)


def unhex(value: Any) -> Any:
    """The value that a field of a message stands for."""
    if isinstance(value, str) and value.startswith("h:"):
        return bytes.fromhex(value[2:])
    return [unhex(item) for item in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """A field of a message, without the types that JSON does not tell apart."""
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def log_of(author: str, incarnation: str) -> LogId:
    return LogId(EndpointId(bytes.fromhex(author)), bytes.fromhex(incarnation))


@each("keys")
def test_keys(vector: dict[str, str]) -> None:
    """Otherwise an upgrade gives every node another identity."""
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["private"]))
    assert key.public_key().public_bytes_raw().hex() == vector["endpoint"]
    assert str(EndpointId.parse(vector["endpoint"])) == vector["endpoint"]


@each("collections")
def test_collections(vector: dict[str, str]) -> None:
    """Otherwise a name means another collection after an upgrade."""
    assert str(collection_id(vector["name"], Policy(vector.get("policy", "latest")))) == vector["id"]


@each("entries")
def test_entries(vector: dict[str, Any]) -> None:
    """Otherwise versions disagree on the ids of all entries."""
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["private"]))
    author = EndpointId(key.public_key().public_bytes_raw())
    collection = CollectionId.parse(vector["collection"])
    payload = bytes.fromhex(vector["payload"])
    (operations,) = cbor.decode_payloads_untrusted([payload])
    check_operations(operations)
    fields = (
        vector["seq"],
        bytes.fromhex(vector["prev"]) if vector["prev"] else None,
        [bytes.fromhex(parent) for parent in vector["parents"]],
        vector["height"],
        vector["hlc"],
        cbor.sha256(payload),
        len(payload),
        document_tags(collection, [operation[1] for operation in operations]),
    )
    builder = HeaderBuilder(collection, LogId(author, bytes.fromhex(vector["incarnation"])))
    assert builder.header(*fields).hex() == vector["header"]
    assert builder.id(*fields).hex() == vector["id"]
    assert make_seal(key, builder.id(*fields)).hex() == vector["seal"]
    assert verify_seal(author, bytes.fromhex(vector["id"]), bytes.fromhex(vector["seal"]))


@each("messages")
def test_messages(vector: dict[str, Any]) -> None:
    """Otherwise two versions cannot talk to each other."""
    frame = bytes.fromhex(vector["frame"])
    message = decode_untrusted(frame)
    assert type(message) is getattr(meshsync.core.messages, vector["message"])
    assert {name: plain(getattr(message, name)) for name in vector["fields"]} == {
        name: unhex(value) for name, value in vector["fields"].items()
    }
    assert encode_message(message) == frame


@pytest.mark.parametrize("vector", [vector for vector in read("messages") if "entries" in vector])
def test_batches(vector: dict[str, Any]) -> None:
    """Otherwise versions rebuild other entries from the same batch."""
    message = decode_untrusted(bytes.fromhex(vector["frame"]))
    assert isinstance(message, Batch)
    replica = new_replica()
    applied = replica.apply(message, message.logs, None, START_MS)
    assert not applied.skipped
    assert [row.id.hex() for row in replica.scan_entries()] == vector["entries"]


@each("summaries")
def test_summaries(vector: dict[str, Any]) -> None:
    """Otherwise versions take each other's word for forged, and none sees the whole mesh."""
    body, signature = bytes.fromhex(vector["body"]), bytes.fromhex(vector["signature"])
    signed = decode_untrusted_summary(body, signature)
    signed.verify()
    assert {name: plain(getattr(signed.summary, name)) for name in vector["fields"]} == {
        name: unhex(value) for name, value in vector["fields"].items()
    }
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["private"]))
    assert sign_summary(signed.summary, key) == signed


@each("roots")
def test_roots(vector: dict[str, Any]) -> None:
    """Otherwise versions that hold the same never say that they are in sync."""
    tips = [Tip(log_of(author, at), seq, bytes.fromhex(id)) for author, at, seq, id in vector["tips"]]
    assert root_of(CollectionId.parse(vector["collection"]), tips).hex() == vector["root"]


@each("documents")
def test_documents(vector: dict[str, Any]) -> None:
    """Otherwise versions show different documents for the same entries."""
    writes = [
        (kind, body, Stamp(hlc, bytes.fromhex(a), bytes.fromhex(e)), *more)
        for kind, body, (hlc, a, e), *more in vector["writes"]
    ]
    for order in itertools.permutations(writes):
        state = DocumentState()
        for write in order:
            state.apply(*write)
        assert (state.visible(), state.expires_ms) == (vector["document"], vector["expires"])


@each("policies")
def test_policies(vector: dict[str, Any]) -> None:
    """Otherwise versions show different documents for the same entries of a collection that has a policy."""
    writes = list(enumerate(vector["writes"]))
    seen = {Place(number + 1, 1, number + 1): {one + 1 for one in known} for number, (_, _, known, *_) in writes}

    def unseen(new: Place, olds: Iterable[Place]) -> list[Place]:
        return [old for old in olds if old.branch not in seen[new]]

    for order in itertools.islice(itertools.permutations(writes), 24):
        state = SiblingState(Policy(vector["policy"]))
        for number, (kind, body, _, *more) in order:
            stamp = Stamp(number + 1, bytes([number]) * 32, bytes([number]) * 32)
            state.apply(Mark(stamp, Place(number + 1, 1, number + 1), kind), body, unseen, *more)
        assert cbor.encode([state.visible()]) == cbor.encode([vector["document"]])
        assert state.expires_ms == vector["expires"]


@each("refused-keys")
def test_refused_keys(vector: dict[str, str]) -> None:
    """Otherwise signatures can be forged, or one key has two names."""
    with pytest.raises(LocalError):
        EndpointId(bytes.fromhex(vector["key"]))


@each("refused-frames")
def test_refused_frames(vector: dict[str, str]) -> None:
    """Otherwise two implementations read one frame differently, or one falls over it."""
    with pytest.raises(PeerError):
        decode_untrusted(bytes.fromhex(vector["frame"]))


@each("refused-summaries")
def test_refused_summaries(vector: dict[str, str]) -> None:
    """Otherwise a node puts words into the mouth of another, or one falls over what a peer says."""
    with pytest.raises(PeerError):
        decode_untrusted_summary(bytes.fromhex(vector["body"]), bytes.fromhex(vector["signature"])).verify()


@each("refused-payloads")
def test_refused_payloads(vector: dict[str, str]) -> None:
    """Otherwise nodes disagree on whether an entry is valid, and never get level."""
    with pytest.raises((PeerError, cbor.Malformed)):
        check_operations(cbor.decode_payloads_untrusted([bytes.fromhex(vector["payload"])])[0])


@each("refused-batches")
def test_refused_batches(vector: dict[str, str]) -> None:
    """Otherwise an entry is stored that its author never signed, or not in this form."""
    replica = new_replica()
    before = decode_untrusted(bytes.fromhex(vector["held"]))
    assert isinstance(before, Batch)
    replica.apply(before, before.logs, None, START_MS)
    known = held(replica)
    message = decode_untrusted(bytes.fromhex(vector["frame"]))
    assert isinstance(message, Batch)
    with pytest.raises(PeerError):
        replica.apply(message, message.logs, None, START_MS)
    assert held(replica) == known


def test_there_are_vectors_of_every_message() -> None:
    """Otherwise a message changes and nothing notices."""
    known = {message.__name__ for message in meshsync.core.messages.Message.__args__}
    assert {vector["message"] for vector in read("messages")} == known


def test_all_fourteen_keys_of_small_order_are_there() -> None:
    """Otherwise one of the encodings under which OpenSSL accepts forged signatures is forgotten."""
    assert sum("order" in vector["why"] for vector in read("refused-keys")) == 14
