"""The session: subscriptions that choose, and payloads that stay away."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core import cbor
from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.core.limits import LIMITS
from meshsync.core.messages import Match, Open, decode_untrusted, encode_message
from meshsync.core.query import Query
from meshsync.core.session_events import Changed, Chosen, Start
from meshsync.core.sieve import decode_untrusted_query, encode_query
from meshsync.errors import LocalError, PeerError
from meshsync.store.replica import Applied, Replica
from tests.authors import START_MS
from tests.duo import BOTH_SYNCED, PULLING, PUSHING, Duo, Side
from tests.replicas import new_replica, store_of
from tests.store.rows import scan_documents

BLUE = Query.parse("team=blue")


def write(replica: Replica, kind: int, id: str, **body: Any) -> Applied:
    applied, _ = replica.append([Operation(kind, id, body if kind != DELETE else None)], START_MS)
    return applied


def view(replica: Replica) -> dict[str, dict[str, Any] | None]:
    merger, interest = replica.merger, replica.interest
    assert interest is not None
    return {row.id: merger.body(row, None) for row, _ in scan_documents(replica.tables) if row.id in interest}


def choosing(number: int, query: Query = BLUE) -> Replica:
    replica = new_replica(number)
    assert replica.choose(query)
    return replica


def sent(side: Side) -> bytes:
    return b"".join(map(encode_message, side.sent))


def test_payloads_that_do_not_match_never_cross() -> None:
    """Otherwise a small device pays for everything that the others write."""
    whole, part = new_replica(11), choosing(12)
    for number in range(20):
        write(whole, PUT, f"r{number}", team="red", note="secret")
    write(whole, PUT, "b1", team="blue", note="for us")
    duo = Duo(part, whole)
    duo.run(1)
    write_red = write(whole, PUT, "r99", team="red", note="secret")
    duo.write(duo.b, write_red, write(whole, PUT, "b2", team="blue", note="live"))
    duo.run(1)
    assert duo.states == BOTH_SYNCED
    assert part.root() == whole.root()
    assert view(part) == {"b1": {"team": "blue", "note": "for us"}, "b2": {"team": "blue", "note": "live"}}
    assert b"secret" not in sent(duo.b)
    assert part.tables.counts()[2] == 21


def test_a_document_that_stops_matching_leaves() -> None:
    """Otherwise it is shown for ever as it was when it last matched."""
    whole, part = new_replica(11), choosing(12)
    write(whole, PUT, "d", team="blue")
    write(whole, PUT, "e", team="blue")
    duo = Duo(part, whole)
    duo.run(1)
    assert set(view(part)) == {"d", "e"}
    duo.write(duo.b, write(whole, PATCH, "d", team="red"), write(whole, DELETE, "e"))
    duo.run(1)
    assert duo.states == BOTH_SYNCED
    assert view(part) == {}
    duo.write(duo.b, write(whole, PATCH, "d", note="secret"))
    duo.run(1)
    assert b"secret" not in sent(duo.b)


def test_a_document_that_begins_to_match_comes_with_its_whole_past() -> None:
    """Otherwise it is shown without the fields that were written while it did not match."""
    whole, part = new_replica(11), choosing(12)
    write(whole, PUT, "d", team="red", n=1)
    write(whole, PATCH, "d", n=2)
    duo = Duo(part, whole)
    duo.run(1)
    assert view(part) == {}
    duo.write(duo.b, write(whole, PATCH, "d", team="blue"))
    duo.run(1)
    assert view(part) == {"d": {"team": "blue", "n": 2}}
    assert part.complete


def test_two_halves_of_a_match_that_came_as_headers_are_named() -> None:
    """Otherwise a document that only a third node sees whole never reaches the subscriber."""
    query = Query.parse(["team=blue", "n>5"])
    one, two, third, part = new_replica(11), new_replica(12), new_replica(13), choosing(14, query)
    write(one, PATCH, "d", team="blue")
    write(two, PATCH, "d", n=9)
    for half in (one, two):
        Duo(part, half).run(1)
        Duo(third, half).run(1)
    assert view(part) == {}
    duo = Duo(part, third)
    duo.run(1)
    assert view(part) == {"d": {"team": "blue", "n": 9}}
    assert duo.states == BOTH_SYNCED


def test_a_header_leaves_alone_only_when_its_payload_is_durable() -> None:
    """Otherwise the header comes back to an author that lost power, and nobody has the payload."""
    author, part = choosing(11, Query.parse("team=red")), choosing(12)
    duo = Duo(part, author)
    duo.run(1)
    duo.b.is_synced_at_once = False
    write_blue = write(author, PUT, "b1", team="blue")
    write_red = write(author, PUT, "r1", team="red", note="secret")
    duo.write(duo.b, write_blue, write_red, write(author, PUT, "b2", team="blue"))
    duo.run(1)
    assert set(view(part)) == {"b1"}  # with its payload it may go at once
    assert duo.states[1] is PUSHING
    duo.sync(duo.b)
    duo.run(1)
    assert set(view(part)) == {"b1", "b2"}
    assert part.root() == author.root()
    assert b"secret" not in sent(duo.b)
    assert duo.states == BOTH_SYNCED


def test_a_header_that_came_alone_goes_on_at_once() -> None:
    """Otherwise each node between waits for its disk, though whoever sent the header has the payload for good."""
    whole, middle, end = new_replica(11), choosing(12), choosing(13)
    write(whole, PUT, "r", team="red")
    Duo(middle, whole).run(1)
    duo = Duo(end, middle, start=False)
    duo.b.is_synced_at_once = False
    duo.handle(duo.a, Start())
    duo.handle(duo.b, Start())
    duo.run(1)
    assert end.root() == whole.root()


def test_what_the_disk_did_not_take_is_named_again_though_its_header_comes_otherwise() -> None:
    """Otherwise the peer takes it that its payload is here, and the roots are equal: the document is missed."""
    whole, part, third = new_replica(11), choosing(12), choosing(13, Query.parse("team=red"))
    duo = Duo(part, whole)
    duo.run(1)
    written = write(whole, PUT, "b", team="blue")
    Duo(third, whole).run(1)
    store_of(part).broken = "disk full"
    duo.write(duo.b, written)
    duo.run(1)
    store_of(part).broken = ""
    other = Duo(part, third)
    other.run(0)
    for applied in other.a.applied:
        duo.handle(duo.a, Changed(dict(applied.tips)))
    assert part.root() == whole.root()
    assert view(part) == {}
    assert duo.states[0] is PULLING
    duo.run(60)
    assert view(part) == {"b": {"team": "blue"}}
    assert duo.states == BOTH_SYNCED


def named(side: Side) -> int:
    """How many names a side sent."""
    return sum(len(message.tags) for message in side.sent if isinstance(message, Match))


def test_who_comes_back_is_told_what_changed_and_no_more() -> None:
    """Otherwise each link that comes and goes costs a look at every document."""
    whole, part, third = new_replica(11), choosing(12), choosing(13, Query.parse("team=red"))
    for number in range(9):
        write(whole, PUT, f"b{number}", team="blue")
    first = Duo(part, whole)
    first.run(1)
    write(whole, PUT, "b9", team="blue")
    write(whole, PATCH, "b0", n=1)
    Duo(third, whole).run(1)
    Duo(third, part).run(1)  # the headers come by another way
    second = Duo(part, whole)
    second.run(1)
    assert named(second.b) == 2
    assert second.states == BOTH_SYNCED
    assert len(view(part)) == 10
    assert view(part)["b0"] == {"team": "blue", "n": 1}
    last = Duo(part, whole)
    last.run(1)
    assert named(last.b) == 0
    assert last.states == BOTH_SYNCED


def test_who_comes_back_after_a_restart_or_with_another_query_is_told_everything() -> None:
    """Otherwise what was named and had not come is never asked for again, or another part remains empty."""
    whole, part = new_replica(11), choosing(12)
    write(whole, PUT, "b", team="blue")
    write(whole, PUT, "r", team="red")
    Duo(part, whole).run(1)
    restarted = Replica(part.store, part.tables, part.key)
    restarted.choose(BLUE)
    again = Duo(restarted, whole)
    again.run(1)
    assert named(again.b) == 1
    restarted.choose(Query.parse("team=red"))
    other = Duo(restarted, whole)
    other.run(1)
    assert set(view(restarted)) == {"r"}
    assert other.states == BOTH_SYNCED


def test_who_comes_back_is_told_of_payloads_that_came_late_in_the_meantime() -> None:
    """Otherwise a document that begins to match without a new entry is missed."""
    whole, middle, part = new_replica(11), choosing(12, Query.parse("team=red")), choosing(13)
    write(whole, PUT, "b", team="blue")
    Duo(middle, whole).run(1)
    Duo(part, middle).run(1)
    assert view(part) == {}
    middle.choose(None)
    Duo(middle, whole).run(1)
    duo = Duo(part, middle)
    duo.run(1)
    assert view(part) == {"b": {"team": "blue"}}
    assert duo.states == BOTH_SYNCED


def test_a_bookmark_that_says_nothing_is_as_good_as_none() -> None:
    """Otherwise a peer that makes one up gets nothing, or breaks the session."""
    whole = new_replica(11)
    write(whole, PUT, "b", team="blue")
    selection = whole.selection
    mark = selection.bookmark(1)
    assert selection.since(mark) == (1, [])
    forged = [b"", bytes(24), mark[:-1], mark[:-1] + b"\x09", mark[:8] + b"\1" * 16, mark[:-8] + bytes(8)]
    assert [selection.since(one) for one in forged] == [None] * len(forged)
    selection.renew()
    assert selection.since(mark) is None


def drop(replica: Replica) -> int:
    """Drop what is not wanted, as far as it may go; how many payloads went."""
    before, now = replica.unwanted.dropped.entries, 0.0
    while (due := replica.unwanted.due(now)) is not None:
        now = max(due, now)
        replica.unwanted.step(now)
    return replica.unwanted.dropped.entries - before


def test_a_payload_is_dropped_when_a_peer_that_has_everything_gave_a_receipt() -> None:
    """Otherwise nothing ever goes at a node that never writes; or what goes may have been the last copy."""
    whole, part = new_replica(11), choosing(12, Query.parse("team=red"))
    write(whole, PUT, "r", team="red")
    duo = Duo(part, whole)
    duo.run(1)
    part.choose(BLUE)
    duo.handle(duo.a, Chosen())
    duo.run(1)
    assert drop(part) == 0
    duo.run(LIMITS.receipt_seconds / 2)
    assert drop(part) == 0
    duo.run(LIMITS.receipt_seconds)
    assert drop(part) == 1
    assert duo.states == BOTH_SYNCED
    assert part.tables.counts()[2] == 1
    sent_before = len(duo.a.sent)
    duo.run(3 * LIMITS.receipt_seconds)
    assert len(duo.a.sent) == sent_before


def test_a_peer_that_wants_a_part_gives_no_receipt() -> None:
    """Otherwise two nodes each take it that the other one keeps a payload, and both drop it."""
    author, one, two = new_replica(11), choosing(12, Query.parse("team=red")), choosing(13, Query.parse("team=red"))
    write(author, PUT, "r", team="red")
    Duo(one, author).run(1)
    Duo(two, author).run(1)
    one.choose(BLUE)
    two.choose(BLUE)
    duo = Duo(one, two)
    duo.run(1)
    assert (drop(one), drop(two)) == (0, 0)
    duo.run(3 * LIMITS.receipt_seconds)
    assert (drop(one), drop(two)) == (0, 0)


def test_a_query_changes_while_connected() -> None:
    """Otherwise whoever moves its window has to reconnect, or sees what it no longer asked for."""
    whole, part = new_replica(11), choosing(12)
    write(whole, PUT, "b", team="blue")
    write(whole, PUT, "r", team="red")
    duo = Duo(part, whole)
    duo.run(1)
    assert part.choose(Query.parse("team=red"))
    duo.handle(duo.a, Chosen())
    assert duo.states[0] is PULLING  # the peer has yet to say what matches
    duo.run(1)
    assert duo.states == BOTH_SYNCED
    assert set(view(part)) == {"r"}
    assert not part.choose(Query.parse("team=red"))
    assert part.choose(None)
    duo.handle(duo.a, Chosen())
    duo.run(1)
    assert part.complete
    assert duo.states == BOTH_SYNCED


def test_a_payload_that_was_not_there_when_asked_for_is_told_of_when_it_comes() -> None:
    """Otherwise a node behind one that held only headers waits for the next comparison, or for ever."""
    whole, middle, end = new_replica(11), choosing(12), new_replica(13)
    write(whole, PUT, "r", team="red")
    Duo(middle, whole).run(1)
    right = Duo(middle, end)
    right.run(1)
    assert end.tables.counts()[2] == 1
    assert "payloads are lacking" in (right.b.session.stall or "")
    middle.choose(Query.parse("team=red"))
    left = Duo(middle, whole)
    left.run(1)
    for applied in left.a.applied:
        right.handle(right.a, Changed(dict(applied.tips), tuple(applied.filled)))
    right.run(1)
    assert end.tables.counts()[2] == 0
    assert right.states[1] == "synced"


def test_who_wants_everything_says_and_hears_nothing_of_queries() -> None:
    """Otherwise what whole subscriptions exchange grows for the sake of others."""
    a, b = new_replica(11), new_replica(12)
    write(a, PUT, "d", n=1)
    duo = Duo(a, b)
    duo.run(1)
    assert not [message for side in (duo.a, duo.b) for message in side.sent if isinstance(message, Match)]
    assert isinstance(duo.a.sent[0], Open)
    assert len(cbor.decode_trusted(encode_message(duo.a.sent[0]))) == 8


def test_own_writes_stay_and_their_past_comes() -> None:
    """Otherwise a patch of a document that was not here shows only what it set."""
    whole, part = new_replica(11), choosing(12)
    write(whole, PUT, "d", team="red", n=1)
    duo = Duo(part, whole)
    duo.run(1)
    duo.write(duo.a, write(part, PATCH, "d", team="blue"), write(part, PUT, "mine", team="red"))
    duo.run(1)
    assert view(part) == {"d": {"team": "blue", "n": 1}}
    assert whole.complete


keys = st.sampled_from(
    [
        "field",
        "=",
        "<",
        "!=",
        "in",
        "prefix",
        "exists",
        "within_radius",
        "within_bounds",
        "and",
        "or",
        "not",
        "lat",
        "a",
    ]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=60) | values.map(cbor.encode))
def test_any_bytes_are_a_query_or_the_peers_fault(data: bytes) -> None:
    """Otherwise a peer ends more than its own session with what it asks for."""
    with suppress(PeerError):
        decode_untrusted_query(data)


def test_a_query_that_no_peer_would_take_is_refused_here() -> None:
    """Otherwise every peer closes the connection, and nobody knows why."""
    query = Query.parse("a=1")
    for _ in range(6):
        query = ~(query & Query.parse("b=1"))
    with pytest.raises(LocalError, match="cannot be subscribed to"):
        encode_query(query)
    assert decode_untrusted_query(encode_query(BLUE)) == BLUE
    assert decode_untrusted(encode_message(Match(1, True, []))) == Match(1, True, [])
