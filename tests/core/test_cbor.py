"""Deterministic CBOR, and the strict reading of bytes that a peer sent."""

from __future__ import annotations

import math
from typing import Any

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshsync.core import cbor
from meshsync.core.limits import BODY_DEPTH_MAX, INT_MAX, INT_MIN
from meshsync.errors import PeerError

integers = st.integers(INT_MIN, INT_MAX)
scalars = st.none() | st.booleans() | integers | st.text(max_size=20) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)
bodies = st.dictionaries(st.text(max_size=8), values, max_size=6)
messages = st.recursive(
    st.none() | st.integers(0, 2**64 - 1) | st.integers(INT_MIN, -1) | st.binary(max_size=40) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=20,
)


@given(st.integers(0, 2**64 - 1))
@example(23)
@example(24)
@example(0xFF)
@example(0x100)
@example(0xFFFF)
@example(0x10000)
@example(0xFFFFFFFF)
@example(0x100000000)
def test_the_fast_integers_are_those_of_the_library(number: int) -> None:
    """Otherwise a header has another hash than the same header of another implementation."""
    assert cbor.encode_uint(number) == cbor2.dumps(number, canonical=True)


@given(messages)
def test_a_message_survives(value: Any) -> None:
    """Otherwise a peer reads something else than what was sent."""
    assert cbor.decode_message_untrusted(cbor.encode(value)) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_the_peers_fault(data: bytes) -> None:
    """Otherwise a peer can end a task of this node with an exception that nobody expects."""
    try:
        value = cbor.decode_message_untrusted(data)
    except PeerError:
        return
    assert cbor.encode(value) == data


@given(st.lists(bodies, max_size=5))
def test_payloads_come_out_as_they_went_in(items: list[dict[str, Any]]) -> None:
    """Otherwise documents change on their way."""
    payloads = [cbor.encode([[0, "id", body]]) for body in items]
    assert [decoded[0][2] for decoded in cbor.decode_payloads_untrusted(payloads)] == items


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=5))
def test_any_payloads_are_as_many_values_or_the_peers_fault(payloads: list[bytes]) -> None:
    """Otherwise one payload can swallow the next, and two nodes read different operations under one hash."""
    try:
        values = cbor.decode_payloads_untrusted(payloads)
    except PeerError:
        return
    assert len(values) == len(payloads)
    for payload, value in zip(payloads, values, strict=True):
        alone = cbor.decode_payloads_untrusted([payload])[0]
        assert cbor.encode(alone) == cbor.encode(value)


def test_a_payload_cannot_swallow_its_neighbour() -> None:
    """Otherwise an array head that promises more items than it brings takes them from the next entry."""
    whole = cbor.encode([[0, "a", {}]])
    for short in (b"\x82" + whole[1:], b"\x83" + whole[1:], b"\x5a\x00\x00\x00\x40", b"", b"\x81"):
        with pytest.raises(PeerError):
            cbor.decode_payloads_untrusted([short, whole])


def test_big_numbers_as_keys_cost_nothing() -> None:
    """Otherwise colliding keys of 380 kB keep a node busy for seconds."""
    colliding = b"".join(b"\xc2\x49" + (k * (2**61 - 1)).to_bytes(9, "big") + b"\x00" for k in range(1, 2000))
    with pytest.raises(PeerError):
        cbor.decode_payloads_untrusted([b"\xb9\x07\xcf" + colliding])


@pytest.mark.parametrize("depth", [BODY_DEPTH_MAX, BODY_DEPTH_MAX + 1])
def test_the_bound_of_depth_is_exact(depth: int) -> None:
    """Otherwise two nodes disagree on whether an entry is valid, and never get level."""
    inner: Any = 1
    for _ in range(depth - 1):
        inner = [inner]
    body = {"a": inner}
    (decoded,) = cbor.decode_payloads_untrusted([cbor.encode([[0, "id", body]])])
    if depth <= BODY_DEPTH_MAX:
        cbor.check_body(decoded[0][2])
    else:
        with pytest.raises(cbor.Malformed, match="nested deeper"):
            cbor.check_body(decoded[0][2])


def test_very_deep_payloads_are_refused_without_recursion() -> None:
    """Otherwise 100 kB of brackets overflow the stack."""
    for opening in (b"\x81", b"\xa1\x61\x61"):
        with pytest.raises(PeerError):
            cbor.decode_payloads_untrusted([opening * 50_000 + b"\x00"])
    with pytest.raises(PeerError):
        cbor.decode_message_untrusted(b"\x81" * 50_000 + b"\x00")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (None, "JSON object"),
        ([1], "JSON object"),
        ({"a": INT_MAX + 1}, "64 bits"),
        ({"a": INT_MIN - 1}, "64 bits"),
        ({"a": {"b": INT_MAX + 1}}, "a.b: integers"),
        ({"a": math.nan}, "no JSON number"),
        ({"a": [math.inf]}, r"a\[0\]"),
        ({"a": b"bytes"}, "nothing that JSON can say"),
        ({1: "a"}, "field names"),
        ({"a": {1: "a"}}, "field names"),
        ({"a": cbor2.undefined}, "nothing that JSON can say"),
    ],
)
def test_what_json_cannot_say_is_refused_by_name(body: Any, fault: str) -> None:
    """Otherwise a document is stored that no listing can print, or a writer is not told which field is wrong."""
    with pytest.raises(cbor.Malformed, match=fault):
        cbor.check_body(body)


@given(bodies)
def test_what_json_can_say_is_taken(body: dict[str, Any]) -> None:
    """Otherwise honest documents are refused."""
    cbor.check_body(body)
