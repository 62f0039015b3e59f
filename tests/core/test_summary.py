"""Summaries: what is signed, what is read, and that a peer's bytes can do no harm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.addresses import HostPort
from meshsync.core import cbor
from meshsync.core.limits import (
    SUMMARY_ADDRESSES_MAX,
    SUMMARY_BYTES_MAX,
    SUMMARY_LASTS_SECONDS_MAX,
    SUMMARY_LINKS_MAX,
    SUMMARY_MARKS_MAX,
)
from meshsync.core.summary import (
    RTT_US_MAX,
    VERSION_MAX,
    Mark,
    NodeSummary,
    PeerLink,
    decode_untrusted_summary,
    next_version,
    sign_summary,
)
from meshsync.errors import CloseCode, PeerError
from meshsync.ids import CollectionId
from tests.summaries import id_of, key_of, summary

ids = st.integers(1, 40).map(id_of)
counts = st.integers(0, 2**53)
addresses = st.builds(
    HostPort,
    st.one_of(
        st.ip_addresses(network="10.0.0.0/8").map(str),
        st.ip_addresses(network="2001:db8::/32").map(str),
        st.just("127.0.0.1"),
    ),
    st.integers(1, 65535),
)
contents = st.builds(
    NodeSummary,
    st.binary(min_size=32, max_size=32).map(CollectionId),
    st.just(id_of(1)),
    st.integers(0, VERSION_MAX),
    st.integers(0, SUMMARY_LASTS_SECONDS_MAX),
    st.text(st.characters(exclude_categories=["C"]), max_size=64),
    st.lists(addresses, max_size=SUMMARY_ADDRESSES_MAX).map(tuple),
    st.lists(
        st.builds(PeerLink, ids, st.integers(0, RTT_US_MAX)),
        max_size=SUMMARY_LINKS_MAX,
        unique_by=lambda link: link.peer,
    ).map(tuple),
    st.integers(SUMMARY_LINKS_MAX, 2**53),
    st.binary(min_size=32, max_size=32),
    counts,
    counts,
    st.lists(st.builds(Mark, st.binary(min_size=8, max_size=8), counts), max_size=SUMMARY_MARKS_MAX).map(tuple),
)


@given(contents)
def test_a_summary_survives_the_wire_and_fits(content: NodeSummary) -> None:
    """Otherwise a node that has much to say of itself is thrown out by all others."""
    signed = sign_summary(content, key_of(1))
    assert len(signed.body) <= SUMMARY_BYTES_MAX
    again = decode_untrusted_summary(signed.body, signed.signature)
    again.verify()
    assert again == signed


@given(contents, st.data())
def test_no_bit_of_it_can_be_changed(content: NodeSummary, data: st.DataObject) -> None:
    """Otherwise whoever passes it on puts words into its author's mouth, or ends a task here with an exception."""
    signed = sign_summary(content, key_of(1))
    changed = bytearray(signed.body + signed.signature)
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(PeerError):
        decode_untrusted_summary(bytes(changed[:-64]), bytes(changed[-64:])).verify()


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**64 - 1) | st.binary(max_size=33) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=8,
)


@given(st.integers(0, 12), json_like)
def test_any_field_is_that_of_a_summary_or_the_peers_fault(at: int, value: Any) -> None:
    """Otherwise well-formed CBOR of the wrong shape gets past the decoder."""
    fields = cbor.decode_trusted(summary(1, links=(2, 3)).body)
    fields[at] = value
    try:
        decoded = decode_untrusted_summary(cbor.encode(fields), bytes(64))
    except PeerError:
        return
    assert decoded.summary.encode() == decoded.body or at == 5


@given(st.binary(max_size=200))
def test_any_bytes_are_a_summary_or_the_peers_fault(data: bytes) -> None:
    """Otherwise noise ends the connection with an exception that nobody expects."""
    with pytest.raises(PeerError):
        decode_untrusted_summary(data, bytes(64))


def test_one_that_is_too_long_is_not_even_decoded() -> None:
    """Otherwise a peer makes every node of the mesh carry as much as it likes."""
    with pytest.raises(PeerError) as caught:
        decode_untrusted_summary(bytes(SUMMARY_BYTES_MAX + 1), bytes(64))
    assert caught.value.code is CloseCode.LIMIT


def test_an_odd_name_is_made_harmless_and_what_was_signed_stays() -> None:
    """Otherwise a name writes to terminals; or the summary no longer verifies at whoever it is passed on to."""
    evil = summary(1, name="evil\x1b[2J\u202e" + "n" * 100)
    decoded = decode_untrusted_summary(evil.body, evil.signature)
    decoded.verify()
    assert decoded.summary.name == ("evil[2J" + "n" * 100)[:64]
    assert decoded.body == evil.body


def test_versions_rise_whatever_the_clock_says() -> None:
    """Otherwise a device that boots in 1970 is not heard before 2027."""
    assert next_version(1_800_000_000_000, 5) == 1_800_000_000_000
    assert next_version(1000, 1_800_000_000_000) == 1_800_000_000_001
    assert next_version(1000, VERSION_MAX) == VERSION_MAX


def test_it_says_when_it_does_not_say_all() -> None:
    """Otherwise a link that did not fit is taken for one that is gone, or a lag for exact that is not."""
    content = summary(1, links=(2, 3), entries=5, marks=(Mark(bytes(8), 3), Mark(b"x" * 8, 2))).summary
    assert content.tells_all_links
    assert content.tells_all_logs
    assert not replace(content, links_total=3).tells_all_links
    assert not replace(content, entries=6).tells_all_logs
