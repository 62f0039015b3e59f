"""Operations, headers, ids and seals."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core import cbor
from meshsync.core.entry import (
    DELETE,
    NEVER,
    PATCH,
    PUT,
    HeaderBuilder,
    Operation,
    check_operations,
    document_tag,
    document_tags,
    encode_operations,
    entry_id,
    make_seal,
    touched_documents,
    verify_seal,
)
from meshsync.core.limits import DOCUMENT_ID_BYTES_MAX, EXPIRES_MS_MAX, OPERATIONS_MAX, PAYLOAD_BYTES_MAX
from meshsync.errors import LocalError, RefusedError
from meshsync.ids import CollectionId, EndpointId
from tests.authors import COLLECTION, Author
from tests.core.test_cbor import bodies

ids32 = st.binary(min_size=32, max_size=32)
uints = st.integers(0, 2**63 - 1)
times = st.integers(1, EXPIRES_MS_MAX)
operations = st.one_of(
    st.builds(Operation, st.just(PUT), st.text(min_size=1, max_size=20), bodies, st.none() | times),
    st.builds(Operation, st.just(PATCH), st.text(min_size=1, max_size=20), bodies, st.none() | st.just(NEVER) | times),
    st.builds(Operation, st.just(DELETE), st.text(min_size=1, max_size=20)),
)


@given(
    seq=st.integers(1, 2**53),
    prev=st.none() | ids32,
    parents=st.lists(ids32, max_size=16, unique=True).map(sorted),
    height=uints,
    hlc=uints,
    digest=ids32,
    size=st.integers(0, PAYLOAD_BYTES_MAX),
    tags=st.lists(st.binary(min_size=8, max_size=8), max_size=256, unique=True).map(sorted),
)
def test_a_header_is_the_deterministic_encoding_of_its_fields(
    seq: int,
    prev: bytes | None,
    parents: list[bytes],
    height: int,
    hlc: int,
    digest: bytes,
    size: int,
    tags: list[bytes],
) -> None:
    """Otherwise the fast way of hashing headers differs from what the protocol says, for some numbers of parents."""
    author = Author(1)
    fields = (seq, prev, parents, height, hlc, digest, size, tags)
    header = HeaderBuilder(COLLECTION, author.log).header(*fields)
    assert header == cbor.encode([1, COLLECTION, author.log.author, author.log.incarnation, *fields])
    assert HeaderBuilder(COLLECTION, author.log).id(*fields) == entry_id(header)


@given(st.lists(operations, min_size=1, max_size=3, unique_by=lambda one: one.id), st.integers(1, 300))
def test_the_documents_of_a_payload_are_found_at_its_front(some: list[Operation], length: int) -> None:
    """Otherwise a header names other documents than its payload, and a part goes without what it wants."""
    for one in ([Operation(PUT, "i" * length, {})], some):
        assert touched_documents(encode_operations(one)) == [operation.id for operation in one]


@pytest.mark.parametrize("payload", [b"\x98\x01\x82\x02\x61a", b"\x81\x82\x18\x02\x61a", b"\x81\x82\x02\x79\x00\x01a"])
def test_a_payload_with_long_lengths_is_read_as_well(payload: bytes) -> None:
    """Its bytes count as its author wrote them, and he need not have written them in the shortest way."""
    assert touched_documents(payload) == ["a"]


@pytest.mark.parametrize("count", [0, 1, 15, 16])
def test_headers_with_many_parents(count: int) -> None:
    """Otherwise the head of the array is wrong where its length no longer fits the first byte."""
    parents = sorted(cbor.sha256(bytes([k])) for k in range(count))
    fields = (2, bytes(32), parents, 3, 4, bytes(32), 5, [bytes(8)])
    header = HeaderBuilder(COLLECTION, Author(1).log).header(*fields)
    assert cbor.decode_trusted(header)[6] == parents


@pytest.mark.parametrize("count", [1, 23, 24, 255, 256])
def test_headers_with_many_tags(count: int) -> None:
    """Otherwise an entry of 24, or of 256, documents has an id that no other implementation arrives at."""
    tags = sorted(cbor.sha256(bytes([k % 256, k // 256]))[:8] for k in range(count))
    fields: tuple[Any, ...] = (1, None, [], 1, 1, bytes(32), 5, tags)
    header = HeaderBuilder(COLLECTION, Author(1).log).header(*fields)
    assert header == cbor.encode(cbor.decode_trusted(header))
    assert cbor.decode_trusted(header)[11] == tags


@given(st.lists(operations, min_size=1, max_size=5, unique_by=lambda operation: operation.id))
def test_operations_survive_their_encoding(written: list[Operation]) -> None:
    """Otherwise a peer reads other operations than those that were written, or refuses them."""
    (decoded,) = cbor.decode_payloads_untrusted([encode_operations(written)])
    check_operations(decoded)
    assert [Operation.of(one) for one in decoded] == written


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ([], "at least one"),
        ([Operation(PUT, "", {})], "at least one character"),
        ([Operation(PUT, "a", None)], "JSON object"),
        ([Operation(PUT, "a", {"x": 2**63})], "64 bits"),
        ([Operation(PUT, "\ud800", {})], "well-formed"),
        ([Operation(PUT, "a", {"x": "\ud800"})], "surrogate"),
        ([Operation(PUT, "a", {}), Operation(DELETE, "a")], "only once"),
        ([Operation(PUT, "a", {}, -1)], "time at which a document expires"),
        ([Operation(PATCH, "a", {}, EXPIRES_MS_MAX + 1)], "time at which a document expires"),
        ([Operation(PUT, "é" * (DOCUMENT_ID_BYTES_MAX // 2) + "a", {})], "at most 512 bytes"),
    ],
)
def test_what_cannot_be_written_is_the_writers_fault(written: list[Operation], fault: str) -> None:
    """Otherwise an entry is signed that every peer refuses."""
    with pytest.raises(LocalError, match=fault):
        encode_operations(written)


def test_bounds_refuse_what_is_above_and_take_what_is_at_them() -> None:
    """Otherwise two nodes disagree on whether an entry is valid."""
    most = [Operation(DELETE, f"{k}") for k in range(OPERATIONS_MAX)]
    encode_operations(most)
    with pytest.raises(RefusedError, match="257 operations"):
        encode_operations([*most, Operation(DELETE, "more")])
    room = PAYLOAD_BYTES_MAX - len(encode_operations([Operation(PUT, "a", {"x": "y" * 100_000})])) + 100_000
    assert len(encode_operations([Operation(PUT, "a", {"x": "y" * room})])) == PAYLOAD_BYTES_MAX
    with pytest.raises(RefusedError, match="an entry holds at most"):
        encode_operations([Operation(PUT, "a", {"x": "y" * (room + 1)})])
    encode_operations([Operation(DELETE, "é" * (DOCUMENT_ID_BYTES_MAX // 2))])


@pytest.mark.parametrize(
    "decoded",
    [
        None,
        {},
        [],
        [None],
        [[]],
        [[PUT]],
        [[PUT, "a"]],
        [[PUT, "a", None]],
        [[PUT, "a", []]],
        [[PUT, "a", {}, 1, 1]],
        [[PUT, "a", {}, None]],
        [[PUT, "a", {}, 0]],
        [[PATCH, "a", {}, EXPIRES_MS_MAX + 1]],
        [[PATCH, "a", {}, True]],
        [[PATCH, "a", {}, 1.0]],
        [[DELETE, "a", {}, 1]],
        [[DELETE, "a", {}]],
        [[DELETE, "a", None]],
        [[3, "a", {}]],
        [[True, "a", {}]],
        [[0.0, "a", {}]],
        [["put", "a", {}]],
        [[PUT, "", {}]],
        [[PUT, 1, {}]],
        [[PUT, b"a", {}]],
        [[PUT, "a" * 513, {}]],
        [[PUT, "a", {}], [DELETE, "a"]],
        [[DELETE, "a"]] * 257,
    ],
)
def test_operations_that_the_protocol_does_not_know_are_malformed(decoded: Any) -> None:
    """Otherwise an entry is stored that this node cannot apply."""
    with pytest.raises(cbor.Malformed):
        check_operations(decoded)


def test_a_seal_is_of_one_key_and_one_entry() -> None:
    """Otherwise anyone can sign for anyone, or for anything."""
    author, other = Author(1), Author(2)
    id = cbor.sha256(b"entry")
    seal = make_seal(author.key, id)
    assert verify_seal(author.log.author, id, seal)
    assert not verify_seal(other.log.author, id, seal)
    assert not verify_seal(author.log.author, cbor.sha256(b"another"), seal)
    assert not verify_seal(author.log.author, id, bytes(64))
    assert not verify_seal(author.log.author, id, author.key.sign(id))  # without the domain
    # The same signature with s + L is what a lax verifier takes for a second one.
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(seal[32:], "little") + order
    if s < 2**256:
        assert not verify_seal(author.log.author, id, seal[:32] + s.to_bytes(32, "little"))


def test_tags_depend_on_the_collection() -> None:
    """Otherwise a peer can tell documents of one collection by their tags in another."""
    assert document_tag(COLLECTION, "a") != document_tag(CollectionId.of_name("other"), "a")
    assert document_tags(COLLECTION, ["a", "b", "a"]) == sorted(
        {document_tag(COLLECTION, "a"), document_tag(COLLECTION, "b")}
    )


@given(st.binary(min_size=32, max_size=32))
def test_keys_are_taken_or_refused(raw: bytes) -> None:
    """Otherwise a key in a header ends a task with an exception that nobody expects."""
    try:
        key = EndpointId(raw)
    except LocalError:
        return
    assert not verify_seal(key, bytes(32), bytes(64))
