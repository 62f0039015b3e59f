"""The session: payloads that stayed away, and come later."""

from __future__ import annotations

import pytest

from meshsync.core import cbor
from meshsync.core.entry import PUT, Operation
from meshsync.core.limits import LIMITS, PAYLOAD_BYTES_MAX
from meshsync.core.messages import Open
from meshsync.core.query import Query
from meshsync.core.session_events import Changed
from meshsync.errors import PeerError
from meshsync.store.replica import Replica
from tests.authors import Author, batch_of
from tests.duo import BOTH_SYNCED, PULLING, Duo
from tests.replicas import apply, give, new_replica


def headers_only(number: int, whole: Replica) -> Replica:
    """A replica with all headers of another one, and no payload."""
    author = Author(1)
    entries = [author.write([Operation(PUT, f"x{number}", {"n": number})]) for number in range(600)]
    replica = new_replica(number)
    for start in range(0, 600, 200):
        apply(replica, *batch_of(entries[start : start + 200], bare=entries[start : start + 200]))
        give(whole, *entries[start : start + 200])
    assert replica.root() == whole.root()
    return replica


def test_payloads_that_stayed_away_are_asked_for() -> None:
    """Otherwise a node holds headers for ever, and says that it is in sync."""
    whole = new_replica(11)
    bare = headers_only(12, whole)
    duo = Duo(bare, whole)
    duo.run(1)
    assert duo.states == BOTH_SYNCED
    assert bare.complete
    assert duo.transcript.count("a Want") == 3
    assert bare.tables.counts() == whole.tables.counts()


def test_a_node_with_headers_alone_passes_them_on_and_later_the_payloads() -> None:
    """Otherwise what is behind a node that lacks payloads never gets them."""
    whole = new_replica(11)
    middle, end = headers_only(12, whole), new_replica(13)
    right = Duo(middle, end)
    right.run(1)
    assert end.root() == whole.root()
    assert right.states == (PULLING, PULLING)
    assert "payloads are lacking" in (right.b.session.stall or "")
    Duo(whole, middle).run(1)
    assert middle.complete
    right.run(1)
    assert end.complete
    assert right.states == BOTH_SYNCED


def test_a_peer_that_lacks_the_payloads_too_is_asked_once_and_not_for_ever() -> None:
    """Otherwise two nodes without a payload ask each other without end."""
    whole = new_replica(11)
    one, two = headers_only(12, whole), new_replica(13)
    duo = Duo(one, two)
    duo.run(300)
    wants = duo.transcript.count("a Want") + duo.transcript.count("b Want")
    assert wants <= 2 * 4
    duo.run(300)
    assert duo.transcript.count("a Want") + duo.transcript.count("b Want") == wants


def test_of_a_fork_the_payload_that_a_peer_has_is_not_taken_for_the_one_that_lacks() -> None:
    """Otherwise it is asked for, and sent, without end."""
    author = Author(1)
    one = author.write()
    forked = [author.write([Operation(PUT, "d", {"n": n})], after=one) for n in range(2)]
    asking, asked = new_replica(11), new_replica(12)
    for replica, bare in ((asking, forked), (asked, forked[:1])):
        give(replica, one)
        for entry in forked:
            apply(replica, *batch_of([entry], bare=[entry] if entry in bare else []))
    duo = Duo(asking, asked)
    duo.run(300)
    assert asking.tables.counts()[2] == 1
    assert duo.transcript.count("a Want") <= 4


def test_a_payload_above_the_bound_is_refused_behind_its_header_too() -> None:
    """Otherwise a node with a part takes what all others refuse, and they shut it out when it passes that on."""
    long = cbor.encode([[PUT, "doc", {"x": "y" * PAYLOAD_BYTES_MAX}]])
    author = Author(1)
    entry, other = author.write(), author.write([Operation(PUT, "doc", {})], payload=long)
    replica = new_replica()
    apply(replica, *batch_of([entry], bare=[entry]))
    with pytest.raises(PeerError, match="payload of"):
        replica.fill_payload(entry.log, entry.seq, long)
    with pytest.raises(PeerError, match="what cannot be"):
        apply(replica, *batch_of([other], bare=[other]))
    assert [row.payload for row in replica.scan_entries()] == [None]


def test_payloads_behind_many_that_nobody_has_are_found() -> None:
    """Otherwise 256 payloads that are gone for good hide all others."""
    whole = new_replica(11)
    bare = headers_only(12, whole)
    partial = headers_only(13, new_replica(14))
    author = Author(1)
    for seq in range(1, 601):
        if seq > 590:
            payload = whole.selection.entries_at(author.log, seq)[0].payload
            assert payload is not None
            partial.fill_payload(author.log, seq, payload)
    duo = Duo(bare, partial)
    duo.run(1)
    assert bare.tables.counts()[2] == 590


def test_the_first_message_says_whether_payloads_are_lacking() -> None:
    """Otherwise nodes that lack payloads ask those that lack them, too, first."""
    whole = new_replica(11)
    duo = Duo(headers_only(12, whole), whole)
    first, second = duo.a.sent[0], duo.b.sent[0]
    assert isinstance(first, Open)
    assert isinstance(second, Open)
    assert (first.flags & 1, second.flags & 1) == (0, 1)


@pytest.mark.parametrize("query", [None, Query.parse("n=1")])
def test_who_asked_in_vain_is_told_that_nobody_needs_it(query: Query | None) -> None:
    """Otherwise it waits for that payload as long as the connection lasts, where the other side compares the roots."""
    author = Author(1)
    entries = [author.write([Operation(PUT, "d", {"n": 1, "note": note})]) for note in ("old", "new")]
    asked, asking = new_replica(11), new_replica(12)
    asking.choose(query)
    for replica in (asked, asking):
        apply(replica, *batch_of(entries, bare=entries[:1]))
    duo = Duo(asked, asking)
    duo.run(1)
    assert duo.b.state is PULLING
    applied = asked.superseded.told(author.log, 1, entries[0].id[:8])
    assert applied is not None
    duo.handle(duo.a, Changed({}, tuple(applied.filled)))
    duo.run(1)
    assert asking.tables.marked() == 1
    assert duo.states == BOTH_SYNCED


def test_who_asked_in_vain_and_does_not_want_it_any_more_is_not_brought_back_to_it() -> None:
    """Otherwise two that asked each other while both got it from a third fetch, and drop, it once more."""
    author = Author(1)
    entries = [author.write([Operation(PUT, "d", {"team": team})]) for team in ("blue", "red")]
    asked, asking = new_replica(11), new_replica(12)
    asking.choose(Query.parse("team=blue"))
    for replica in (asked, asking):
        apply(replica, *batch_of(entries, bare=entries[1:]))
    duo = Duo(asked, asking)
    duo.run(1)
    assert duo.b.state is PULLING
    assert asking.fill_payload(author.log, 2, entries[1].payload) is not None  # by another peer
    asking.unwanted.kept_elsewhere(3)
    asking.unwanted.due(0.0)
    assert asking.unwanted.step(LIMITS.unwanted_seconds).entries == 2
    assert asked.fill_payload(author.log, 2, entries[1].payload) is not None
    wants = duo.transcript.count("b Want")
    duo.handle(duo.a, Changed({}, (2,)))
    duo.run(60)
    assert duo.transcript.count("b Want") == wants
    assert asking.tables.counts()[2] == 2
    assert duo.states == BOTH_SYNCED
