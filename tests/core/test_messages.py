"""Messages: encoding, and the one way in which a peer's bytes become one."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core import cbor
from meshsync.core.limits import BOOKMARK_BYTES_MAX, LIMITS
from meshsync.core.messages import (
    AGE_MS_MAX,
    Batch,
    Carry,
    Close,
    Graft,
    Have,
    Locate,
    Match,
    Message,
    Open,
    Payloads,
    Ping,
    Pong,
    Prune,
    Relay,
    Subscribed,
    Summary,
    Want,
    decode_untrusted,
    encode_message,
)
from meshsync.core.query import Query
from meshsync.core.sieve import encode_query
from meshsync.errors import CloseCode, PeerError
from meshsync.ids import CollectionId, LogId
from tests.authors import Author

AUTHORS = [Author(number) for number in range(1, 4)]


def blob(*sizes: int) -> st.SearchStrategy[bytes]:
    return st.one_of([st.binary(min_size=size, max_size=size) for size in sizes])


logs = st.builds(lambda author, incarnation: LogId(author.log.author, incarnation), st.sampled_from(AUTHORS), blob(8))
tables = st.lists(logs, max_size=3).map(tuple)
indexes = st.integers(0, LIMITS.logs_max)
seqs = st.integers(0, 2**53)
offsets = st.integers(0, LIMITS.batch_entries_max)
parents = st.lists(st.tuples(indexes, seqs, st.none() | blob(32)), min_size=1, max_size=16)
queries = st.sampled_from(["team=blue", "n>5", "a.b~c"]).map(lambda text: encode_query(Query.parse(text)))
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Open,
        blob(16),
        st.integers(0, 2**32),
        blob(8),
        st.none() | st.tuples(blob(8), seqs),
        blob(32),
        st.none() | st.lists(st.tuples(logs, seqs, blob(16)), max_size=4).map(tuple),
        st.integers(0, 255),
        st.none() | st.binary(max_size=40) | queries,
    ),
    st.builds(
        Open,
        blob(16),
        st.integers(0, 2**32),
        blob(8),
        st.none(),
        blob(32),
        st.just(()),
        st.integers(0, 255),
        queries,
        st.none() | st.binary(max_size=BOOKMARK_BYTES_MAX),
    ),
    st.builds(
        Batch,
        st.integers(0, 2**32),
        tables,
        st.lists(st.tuples(indexes, seqs, offsets, st.none() | blob(8, 32)), max_size=4),
        st.lists(st.integers(-(2**63), 2**63), max_size=4),
        st.lists(st.tuples(offsets, parents), max_size=3),
        st.lists(st.none() | st.binary(max_size=20), max_size=4),
        st.lists(st.binary(max_size=60), max_size=3),
        st.lists(offsets, max_size=3),
        st.lists(st.tuples(offsets, blob(64)), max_size=3),
        seqs,
        st.none() | blob(32),
    ),
    st.builds(Have, st.none() | seqs, blob(32), tables, st.lists(st.tuples(indexes, seqs, blob(16)), max_size=4)),
    st.builds(Locate, tables, indexes, st.lists(st.tuples(seqs, blob(16)), max_size=4)),
    st.builds(Want, tables, st.lists(st.tuples(indexes, seqs), max_size=4)),
    st.builds(
        Payloads,
        tables,
        st.integers(0, 256),
        st.lists(st.tuples(indexes, seqs, st.binary(max_size=20)), max_size=4),
        st.lists(st.tuples(st.integers(0, 256), blob(8)), max_size=4),
    ),
    st.builds(Close, st.integers(0, 255), st.text(max_size=200)),
    st.builds(Prune),
    st.builds(Graft),
    st.builds(
        Match,
        st.integers(0, 2**32),
        st.booleans(),
        st.lists(blob(8), max_size=4),
        st.none() | st.binary(max_size=BOOKMARK_BYTES_MAX),
    ),
    st.builds(Subscribed, st.lists(blob(16), max_size=4).map(tuple)),
    st.builds(Ping, st.integers(0, 2**32), st.integers(0, 2**53)),
    st.builds(Pong, st.integers(0, 2**32), st.integers(0, 2**53)),
    st.builds(Summary, blob(16), st.integers(0, AGE_MS_MAX), st.binary(max_size=40), blob(64)),
    st.just(Relay()),
    st.builds(Carry, st.lists(st.tuples(blob(32).map(CollectionId), st.integers(0, 2**32)), max_size=4).map(tuple)),
)


@given(messages)
def test_a_message_survives_the_wire(message: Message) -> None:
    """Otherwise the two ends of a stream mean different things."""
    again = decode_untrusted(encode_message(message))
    assert again == message
    assert {name: type(getattr(again, name)) for name in names(again)} == {
        name: type(getattr(message, name)) for name in names(message)
    }


def names(message: Message) -> list[str]:
    return [one.name for one in fields(message)]


@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_the_peers_fault(data: bytes) -> None:
    """Otherwise a peer can end a task of this node with an exception that nobody expects."""
    try:
        message = decode_untrusted(data)
    except PeerError:
        return
    assert encode_message(message) == data


@given(messages, st.data())
def test_mutated_messages_are_messages_or_the_peers_fault(message: Message, data: st.DataObject) -> None:
    """Otherwise one flipped bit, which a hostile peer can choose, is an exception that nobody expects."""
    frame = bytearray(encode_message(message))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(frame) - 1))
        frame[at] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_untrusted(bytes(frame))
    except PeerError:
        return
    assert encode_message(decoded) == frame


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=33) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=12,
)


@given(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 18, 19, 20, 21]), st.lists(json_like, max_size=11))
def test_any_fields_are_a_message_or_the_peers_fault(number: int, values: list[Any]) -> None:
    """Otherwise well-formed CBOR of the wrong shape gets past the decoder."""
    try:
        message = decode_untrusted(cbor.encode([number, *values]))
    except PeerError:
        return
    assert number == message.NUMBER


def test_a_frame_above_the_limit_is_not_even_decoded() -> None:
    """Otherwise a peer makes this node decode as much as it likes."""
    with pytest.raises(PeerError) as caught:
        decode_untrusted(bytes(LIMITS.frame_bytes_max + 1))
    assert caught.value.code is CloseCode.LIMIT


@pytest.mark.parametrize("field", ["tag", "epoch", "root"])
def test_errors_name_message_and_field(field: str) -> None:
    """Otherwise whoever writes another implementation does not learn what is wrong with it."""
    message = Open(bytes(16), 0, bytes(8), None, bytes(32), (), 0)
    values = [0, *(getattr(message, name) for name in names(message))]
    values[1 + names(message).index(field)] = b"short"
    with pytest.raises(PeerError, match=rf"Open\.{field}: expected \d+ bytes"):
        decode_untrusted(cbor.encode(values))
