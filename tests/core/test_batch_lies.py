"""Batches that no honest peer sends: nothing of them is stored, and the peer is told from one with bad luck."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core import cbor
from meshsync.core.bare import check_described_untrusted
from meshsync.core.entry import PUT, Operation, describe_payload
from meshsync.core.limits import OPERATIONS_MAX, PAYLOAD_BYTES_MAX
from meshsync.core.messages import Batch, decode_untrusted, encode_message
from meshsync.errors import PeerError
from meshsync.ids import CollectionId
from tests.authors import START_MS, Author, Made, batch_of
from tests.replicas import apply, give, held, new_replica, two_logs


def with_payload(batch: Batch, at: int, payload: bytes | None) -> Batch:
    return replace(batch, payloads=[*batch.payloads[:at], payload, *batch.payloads[at + 1 :]])


def with_header(batch: Batch, *fields: Any) -> Batch:
    """The batch without its first payload, of which the header says this."""
    return with_described(batch, describe_payload(*fields))


def with_described(batch: Batch, *described: bytes) -> Batch:
    return replace(with_payload(batch, 0, None), bare=list(described))


def in_long_form(entry: Made, head: bytes) -> bytes:
    """What a header says, with a size that takes more bytes than it has to."""
    return entry.described[:34] + head + bytes([entry.bare[1]]) + entry.described[-10:]


LIES: dict[str, Callable[[Batch, list[Made]], Batch]] = {
    "another payload": lambda b, e: with_payload(b, 1, e[0].payload),
    "a payload of another encoding": lambda b, e: with_payload(b, 1, b"\x9f" + e[1].payload[1:] + b"\xff"),
    "a payload with a byte behind it": lambda b, e: with_payload(b, 1, e[1].payload + b"\x00"),
    "a payload that swallows the next": lambda b, e: with_payload(b, 0, b"\x82" + e[0].payload[1:]),
    "no operations": lambda b, _: with_payload(b, 0, b"\x80"),
    "a document twice": lambda b, _: with_payload(b, 0, cbor.encode([[2, "x"], [2, "x"]])),
    "a later stamp": lambda b, _: replace(b, hlcs=[b.hlcs[0] + 1, *b.hlcs[1:]]),
    "a stamp not later": lambda b, _: replace(b, hlcs=[b.hlcs[0], 0, *b.hlcs[2:]]),
    "a negative stamp": lambda b, _: replace(b, hlcs=[-1, *b.hlcs[1:]]),
    "a stamp beyond the clock": lambda b, _: replace(b, hlcs=[2**63, *b.hlcs[1:]]),
    "stamps that overflow": lambda b, _: replace(b, hlcs=[*b.hlcs[:2], 2**63 - 1, 2**63 - 1, *b.hlcs[4:]]),
    "parents left out": lambda b, _: replace(b, parents=[]),
    "another parent": lambda b, e: replace(b, parents=[(2, [(0, 1, e[0].id)]), *b.parents[1:]]),
    "a parent twice": lambda b, e: replace(b, parents=[(2, [(0, 2, e[1].id)] * 2), *b.parents[1:]]),
    "a parent of the same log": lambda b, e: replace(b, parents=[(2, [(0, 2, e[1].id)]), (3, [(0, 2, e[1].id)])]),
    "a parent of no log": lambda b, e: replace(b, parents=[(2, [(7, 2, e[1].id)]), *b.parents[1:]]),
    "a run of no log": lambda b, _: replace(b, runs=[(7, *b.runs[0][1:]), *b.runs[1:]]),
    "a run of no entries": lambda b, _: replace(b, runs=[(0, 1, 0, None), *b.runs]),
    "a run at seq 0": lambda b, _: replace(b, runs=[(0, 0, *b.runs[0][2:]), *b.runs[1:]]),
    "a wrong seq": lambda b, _: replace(b, runs=[*b.runs[:2], (0, 4, *b.runs[2][2:]), *b.runs[3:]]),
    "the first entry twice": lambda b, _: replace(b, runs=[(0, 1, 1, None), (0, 1, 1, None), *b.runs[1:]]),
    "a run that continues nothing": lambda b, _: replace(b, runs=[(0, 5, 2, None), *b.runs[1:]]),
    "another author": lambda b, _: replace(b, runs=[(1 - run[0], *run[1:]) for run in b.runs]),
    "more entries than counted": lambda b, _: replace(b, runs=b.runs[:-1]),
    "more stamps than entries": lambda b, _: replace(b, hlcs=[*b.hlcs, 1]),
    "more payloads than entries": lambda b, _: replace(b, payloads=[*b.payloads, b"\x80"]),
    "no seals": lambda b, _: replace(b, seals=[]),
    "one seal missing": lambda b, _: replace(b, seals=b.seals[:1]),
    "a seal that does not verify": lambda b, _: replace(b, seals=[(b.seals[0][0], bytes(64)), *b.seals[1:]]),
    "seals swapped": lambda b, _: replace(b, seals=[(b.seals[0][0], b.seals[1][1]), (b.seals[1][0], b.seals[0][1])]),
    "the seal of an earlier entry": lambda b, e: replace(b, seals=[(4, e[2].seal), (5, e[5].seal)]),
    "the seal of the wrong place": lambda b, e: replace(b, seals=[(3, e[5].seal), (4, e[4].seal)]),
    "a seal behind the end": lambda b, _: replace(b, seals=[*b.seals, (6, bytes(64))]),
    "a seal twice": lambda b, _: replace(b, seals=[*b.seals, b.seals[-1]]),
    "offsets out of order": lambda b, _: replace(b, parents=b.parents[::-1]),
    "a parent's offset twice": lambda b, _: replace(b, parents=[b.parents[0], *b.parents]),
    "parents behind the end": lambda b, e: replace(b, parents=[*b.parents, (6, [(0, 1, e[0].id)])]),
    "a header besides its payload": lambda b, e: replace(b, bare=[e[0].described]),
    "neither header nor payload": lambda b, _: with_payload(b, 0, None),
    "a header with another hash": lambda b, e: with_header(b, bytes(32), *e[0].bare[1:]),
    "a header with another size": lambda b, e: with_header(b, e[0].bare[0], e[0].bare[1] + 1, e[0].bare[2]),
    "a header with another tag": lambda b, e: with_header(b, *e[0].bare[:2], [bytes(8)]),
    "a header with a tag of 7 bytes": lambda b, e: with_described(b, e[0].described[:-9] + b"\x47" + bytes(7)),
    "a header with no tags at all": lambda b, e: with_described(b, e[0].described[:-10]),
    "a header with a byte behind": lambda b, e: with_described(b, e[0].described + b"\x00"),
    "a header with a number for its hash": lambda b, e: with_described(b, b"\x00" + e[0].described[34:]),
    "a header with text for its tag": lambda b, e: with_described(b, e[0].described[:-9] + b"\x68" + b"x" * 8),
    "headers for two": lambda b, e: with_described(b, e[0].described, e[1].described),
    "a header with its size in 3 bytes": lambda b, e: with_described(b, in_long_form(e[0], b"\x19\x00")),
    "a header with its size in 5 bytes": lambda b, e: with_described(b, in_long_form(e[0], b"\x1a\x00\x00\x00")),
    "a header with its size in 9 bytes": lambda b, e: with_described(b, in_long_form(e[0], b"\x1b" + bytes(7))),
}


CIRCULAR = {
    "another payload",
    "a later stamp",
    "parents left out",
    "another parent",
    "a wrong seq",
    "the first entry twice",
    "a header with another hash",
    "a header with another size",
    "a header with another tag",
}


@pytest.mark.parametrize("lie", LIES)
def test_nothing_of_a_lie_is_stored(lie: str) -> None:
    """Otherwise a peer gets entries stored that their author never signed in this form."""
    entries, _, _ = two_logs()
    batch, logs = batch_of(entries)
    replica = new_replica()
    try:
        applied = apply(replica, LIES[lie](batch, entries), logs)
    except PeerError:
        pass
    else:
        # One log's lie shows first as a parent that the other log does not find: the peer is asked again.
        assert lie in CIRCULAR
        assert set(applied.skipped) == set(logs)
    assert held(replica) == set()
    assert replica.tables.branches() == []
    assert replica.by_log == {}


LIES_IN_ONE_LOG: dict[str, Callable[[Batch, list[Made]], Batch]] = {
    "another payload": lambda b, e: with_payload(b, 0, e[1].payload),
    "a later stamp": lambda b, _: replace(b, hlcs=[b.hlcs[0] + 1, *b.hlcs[1:]]),
    "parents left out": lambda b, _: replace(b, parents=[]),
    "a parent more": lambda b, e: replace(b, parents=[(0, [(1, 1, e[2].parents[0].id)]), *b.parents]),
    "a wrong seq": lambda b, _: replace(b, runs=[(0, 1, 2, None), (0, 4, 1, None)]),
    "a header with another hash": LIES["a header with another hash"],
    "a header with another size": LIES["a header with another size"],
    "a header with another tag": LIES["a header with another tag"],
}


@pytest.mark.parametrize("lie", LIES_IN_ONE_LOG)
def test_a_lie_is_the_peers_fault(lie: str) -> None:
    """Otherwise a lie is taken for bad luck, and the peer is asked for it again and again."""
    parent = Author(2).write()
    a = Author(1)
    entries = [a.write(), a.write([Operation(PUT, "y", {})]), a.write(parents=[parent])]
    batch, logs = batch_of(entries)
    replica = new_replica()
    give(replica, parent)
    with pytest.raises(PeerError):
        apply(replica, LIES_IN_ONE_LOG[lie](batch, entries), logs)
    assert held(replica) == {parent.id}
    give(replica, *entries)


def test_an_entry_of_another_collection_is_no_entry_here() -> None:
    """Otherwise what was written for one collection can be replayed into another."""
    replica = new_replica(collection=CollectionId.of_name("other"))
    with pytest.raises(PeerError, match="seal"):
        apply(replica, *batch_of([Author(1).write()]))


def test_a_payload_above_the_bound_is_refused_though_signed() -> None:
    """Otherwise nodes with other bounds disagree on what is valid."""
    payload = cbor.encode([[PUT, "doc", {"x": "y" * PAYLOAD_BYTES_MAX}]])
    entry = Author(1).write([Operation(PUT, "doc", {})], payload=payload)
    with pytest.raises(PeerError, match="payload of"):
        apply(new_replica(), *batch_of([entry]))


TAGS = [number.to_bytes(8, "big") for number in range(OPERATIONS_MAX)]
CANNOT_BE: dict[str, tuple[bytes, int, list[bytes]]] = {
    "nothing": (bytes(32), 0, TAGS[:1]),
    "more than a payload may have": (bytes(32), PAYLOAD_BYTES_MAX + 1, TAGS[:1]),
    "far more, of several documents": (bytes(32), 2**32 - 1, TAGS[:2]),
    "no documents": (bytes(32), 9, []),
    "a document twice": (bytes(32), 9, [TAGS[0], TAGS[0]]),
    "documents in no order": (bytes(32), 9, [TAGS[1], TAGS[0]]),
}


@pytest.mark.parametrize("what", CANNOT_BE)
def test_a_header_that_no_payload_can_fit_is_refused_though_signed(what: str) -> None:
    """Otherwise nodes without the payload hold an entry that all others refuse, and no two of them get level."""
    with pytest.raises(PeerError, match="what cannot be"):
        check_described_untrusted([describe_payload(bytes(32), 9, TAGS[:1]), describe_payload(*CANNOT_BE[what])])


def test_a_header_of_the_greatest_payload_is_taken() -> None:
    """Otherwise what is written at the bound reaches nobody who wants a part."""
    check_described_untrusted([describe_payload(bytes(32), PAYLOAD_BYTES_MAX, TAGS[:count]) for count in (1, 2, 256)])


@pytest.mark.parametrize("hlc", ["same", "earlier"])
def test_an_entry_not_later_than_its_parent_is_refused_though_signed(hlc: str) -> None:
    """Otherwise stamps no longer respect causality, and an answer can lose against what it answers."""
    a1 = Author(1).write()
    b1 = Author(2).write(parents=[a1], hlc=a1.hlc - (hlc == "earlier"))
    with pytest.raises(PeerError, match="not later"):
        apply(new_replica(), *batch_of([a1, b1]))


@given(st.data())
def test_mutated_batches_raise_nothing_else_and_store_only_what_was_signed(data: st.DataObject) -> None:
    """Otherwise a peer breaks this node with a batch that is nearly right, or forges an entry."""
    entries, a, _ = two_logs()
    given_before = data.draw(st.integers(0, 3))
    bare = [entry for entry in entries if data.draw(st.booleans())]
    batch, logs = batch_of(entries, bare=bare, explicit=data.draw(st.booleans()))
    frame = bytearray(encode_message(batch))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    replica = new_replica()
    if given_before:
        give(replica, *entries[:given_before])
    before = held(replica)
    try:
        message = decode_untrusted(bytes(frame))
        if isinstance(message, Batch):
            replica.apply(message, logs, None, START_MS)
    except PeerError:
        assert held(replica) == before
    assert held(replica) <= {entry.id for entry in entries}
    assert a.log in replica.by_log or not before


@given(st.data())
def test_any_columns_raise_nothing_else(data: st.DataObject) -> None:
    """Otherwise well-formed nonsense ends a task with an exception that nobody expects."""
    small = st.integers(0, 4)
    entries, _, _ = two_logs()
    ids = st.sampled_from([entry.id for entry in entries])
    count = data.draw(st.integers(0, 4))
    batch = Batch(
        0,
        (),
        data.draw(st.lists(st.tuples(small, small, small, st.none() | ids | ids.map(lambda id: id[:8])), max_size=4)),
        data.draw(st.lists(st.integers(-2, 2) | st.just(entries[0].hlc), min_size=count, max_size=count)),
        data.draw(
            st.lists(
                st.tuples(small, st.lists(st.tuples(small, small, st.none() | ids), min_size=1, max_size=3)), max_size=3
            )
        ),
        data.draw(
            st.lists(st.none() | st.sampled_from([entry.payload for entry in entries]), min_size=count, max_size=count)
        ),
        data.draw(
            st.lists(st.sampled_from([entry.described for entry in entries]) | st.binary(max_size=48), max_size=3)
        ),
        data.draw(st.lists(small, max_size=3)),
        data.draw(st.lists(st.tuples(small, st.sampled_from([entry.seal for entry in entries])), max_size=3)),
        1,
        None,
    )
    replica = new_replica()
    give(replica, *entries[:3])
    before = held(replica)
    try:
        replica.apply(batch, [entries[0].log, entries[2].log], None, START_MS)
    except PeerError:
        assert held(replica) == before
    assert held(replica) <= {entry.id for entry in entries}
