"""The session: subscriptions to the latest, superseded payloads, and the past for who wants it all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.core.history import History
from meshsync.core.limits import LIMITS
from meshsync.core.messages import Match, Open, Payloads, Want, encode_message
from meshsync.core.query import Query
from meshsync.core.session_events import Changed, Chosen
from meshsync.errors import PeerError
from meshsync.store.replica import Applied, Replica
from tests.authors import START_MS
from tests.duo import BOTH_SYNCED, Duo, Side
from tests.replicas import new_replica, store_of
from tests.store.rows import scan_documents

BLUE = Query.parse("team=blue")


def write(replica: Replica, kind: int, id: str, **body: Any) -> Applied:
    applied, _ = replica.append([Operation(kind, id, body if kind != DELETE else None)], START_MS)
    return applied


def documents(replica: Replica) -> dict[str, dict[str, Any] | None]:
    interest = replica.interest
    return {
        row.id: replica.merger.body(row, payload)
        for row, payload in scan_documents(replica.tables)
        if interest is None or row.id in interest
    }


def latest(number: int, query: Query | None = None) -> Replica:
    replica = new_replica(number)
    assert replica.choose(query, History.LATEST)
    return replica


def sent(side: Side) -> bytes:
    return b"".join(map(encode_message, side.sent))


def updated(number: int = 11, times: int = 20) -> Replica:
    """A document that was written often, and one that was deleted."""
    replica = new_replica(number)
    for n in range(times):
        write(replica, PUT, "d", n=n, note="old" if n < times - 1 else "new")
    write(replica, PUT, "gone", note="old")
    write(replica, DELETE, "gone")
    return replica


def test_superseded_payloads_never_cross() -> None:
    """Otherwise whoever wants to know where a vehicle is pays for everywhere that it was."""
    whole, device = updated(), latest(12)
    duo = Duo(device, whole)
    duo.run(1)
    assert duo.states == BOTH_SYNCED
    assert device.root() == whole.root()
    assert documents(device) == {"d": {"n": 19, "note": "new"}}
    assert b"old" not in sent(duo.b)
    assert (device.tables.counts()[2], device.tables.marked()) == (0, 20)
    assert device.complete
    assert not [message for side in (duo.a, duo.b) for message in side.sent if isinstance(message, Want)]
    duo.write(duo.b, write(whole, PUT, "d", n=20))
    duo.run(1)
    assert documents(device) == {"d": {"n": 20}}
    assert device.tables.marked() == 20  # what is superseded later stays


def test_what_still_contributes_comes_in_whatever_entry_it_was_said() -> None:
    """Otherwise a field that nobody wrote since is gone, and a loser of a conflict hidden."""
    whole, other, device = new_replica(11), new_replica(13), latest(12)
    write(whole, PUT, "d", a=1, b=1, c=1)
    Duo(whole, other).run(1)
    write(whole, PATCH, "d", b=2)
    write(whole, PATCH, "d", b=3, c=None)
    write(other, PATCH, "d", b=9)
    Duo(whole, other).run(1)
    duo = Duo(device, whole)
    duo.run(1)
    assert documents(device) == documents(whole)
    assert device.tables.marked() == 1
    row = device.tables.documents(["d"])["d"]
    assert row.conflict
    assert device.merger.state(row) == whole.merger.state(whole.tables.documents(["d"])["d"])


def test_a_mark_travels_on() -> None:
    """Otherwise whoever gets level with a node that has the latest only lacks payloads that it cannot get."""
    whole, device, full, third = updated(), latest(12), new_replica(13), latest(14)
    Duo(device, whole).run(1)
    for behind in (full, third):
        duo = Duo(behind, device)
        duo.run(1)
        assert duo.states == BOTH_SYNCED
        assert documents(behind) == documents(whole)
        assert (behind.complete, behind.tables.marked()) == (True, 20)
        assert not [message for message in duo.a.sent if isinstance(message, Want)]


def test_who_wants_the_past_gets_it_from_who_has_it() -> None:
    """Otherwise a node that first met one with the latest only never has the whole history."""
    whole, device, full = updated(), latest(12), new_replica(13)
    Duo(device, whole).run(1)
    Duo(full, device).run(1)
    assert full.tables.marked() == 20
    duo = Duo(full, whole)
    duo.run(1)
    assert duo.states == BOTH_SYNCED
    assert full.tables.marked() == 0
    assert [row.payload for row in full.scan_entries()] == [row.payload for row in whole.scan_entries()]
    assert documents(full) == documents(whole)


def test_a_peer_that_has_no_past_is_asked_once() -> None:
    """Otherwise two nodes ask each other for ever for what neither has, or are never in sync."""
    whole, device, full, other = updated(), latest(12), new_replica(13), latest(14)
    for one in (device, other):
        Duo(one, whole).run(1)
    Duo(full, device).run(1)
    duo = Duo(full, other)
    duo.run(1)
    assert sum(len(message.entries) for message in duo.a.sent if isinstance(message, Want)) == 20
    assert duo.states == BOTH_SYNCED
    duo.run(300)
    assert sum(isinstance(message, Want) for message in duo.a.sent) == 1
    assert full.tables.marked() == 20


def test_much_that_is_asked_for_in_vain_is_asked_for_in_parts() -> None:
    """Otherwise every reconnection of two nodes costs a question for each payload that neither has."""
    limits = replace(LIMITS, past_in_vain_max=6, want_entries_max=3)
    whole, device, full, other = updated(), latest(12), new_replica(13), latest(14)
    for one in (device, other):
        Duo(one, whole).run(1)
    Duo(full, device, limits).run(1)
    asked: list[tuple[int, int]] = []
    for expected in (6, 12, 18, 26):
        duo = Duo(full, other, limits)
        duo.run(1)
        asked += [entry for message in duo.a.sent if isinstance(message, Want) for entry in message.entries]
        assert (len(asked), duo.states) == (expected, BOTH_SYNCED)
    assert len({seq for _, seq in asked}) == 20  # the last time from the beginning again
    Duo(full, whole, limits).run(1)
    assert full.tables.marked() == 0


def test_the_past_that_a_peer_gets_later_is_told_of() -> None:
    """Otherwise the history stays away from whoever asked for it a moment too early."""
    whole, device, middle, full = updated(), latest(12), new_replica(13), new_replica(14)
    Duo(device, whole).run(1)
    Duo(middle, device).run(1)
    Duo(full, device).run(1)
    right = Duo(full, middle)
    right.run(1)
    assert full.tables.marked() == 20
    left = Duo(middle, whole)
    left.run(1)
    for applied in left.a.applied:
        right.handle(right.b, Changed(dict(applied.tips), tuple(applied.filled)))
    right.run(1)
    assert full.tables.marked() == 0
    assert right.states == BOTH_SYNCED


def test_a_history_changes_while_connected() -> None:
    """Otherwise whoever asks for the whole history has to reconnect, or waits for it for ever."""
    whole, device = updated(), latest(12)
    duo = Duo(device, whole)
    duo.run(1)
    assert device.choose(None, History.FULL)
    duo.handle(duo.a, Chosen())
    assert duo.states[0] is not BOTH_SYNCED[0]
    duo.run(1)
    assert duo.states == BOTH_SYNCED
    assert device.tables.marked() == 0
    assert device.choose(None, History.LATEST)
    assert not device.choose(None, History.LATEST)
    duo.handle(duo.a, Chosen())
    duo.run(1)
    for n in range(3):
        write(whole, PUT, "e", note=f"unseen {n}")
    duo.handle(duo.b, Changed({number: branch.tip.seq for number, branch in whole.branches.items()}))
    duo.run(1)
    assert b"unseen 1" not in sent(duo.b)
    assert documents(device) == documents(whole)


def test_a_query_and_the_latest_go_together() -> None:
    """Otherwise one of the two is forgotten where both are asked for."""
    whole, part = new_replica(11), latest(12, BLUE)
    for n in range(10):
        write(whole, PUT, "b", team="blue", note="old" if n < 9 else "new")
        write(whole, PUT, "r", team="red", note="other")
    write(whole, PUT, "w", team="red", n=1)
    duo = Duo(part, whole)
    duo.run(1)
    assert documents(part) == {"b": {"team": "blue", "note": "new"}}
    assert b"old" not in sent(duo.b)
    assert b"other" not in sent(duo.b)
    assert not [tag for message in duo.b.sent if isinstance(message, Match) for tag in message.tags]
    duo.write(duo.b, write(whole, PATCH, "w", team="blue"), write(whole, PATCH, "b", team="red"))
    duo.run(1)
    assert documents(part) == {"w": {"team": "blue", "n": 1}}
    assert duo.states == BOTH_SYNCED


def test_what_was_superseded_before_it_was_asked_for_is_not_sent() -> None:
    """Otherwise a document that begins to match comes with all that it ever was."""
    whole, part = new_replica(11), latest(12, BLUE)
    write(whole, PUT, "d", team="red", note="old")
    duo = Duo(part, whole)
    duo.run(1)
    assert part.tables.counts()[2] == 1  # not superseded yet, and not wanted
    duo.write(duo.b, write(whole, PUT, "d", team="blue"))
    duo.run(1)
    answers = [message for message in duo.b.sent if isinstance(message, Payloads)]
    assert [len(message.superseded) for message in answers] == [1]
    assert b"old" not in sent(duo.b)
    assert documents(part) == {"d": {"team": "blue"}}
    assert duo.states == BOTH_SYNCED


def test_a_header_that_came_alone_is_marked_when_it_comes_again() -> None:
    """Otherwise a payload that nobody needs is asked for, because another peer sent the header first."""
    whole, partial, device = new_replica(11), new_replica(13), latest(12)
    assert partial.choose(BLUE)
    write(whole, PUT, "d", team="red", note="old")
    Duo(partial, whole).run(1)
    Duo(device, partial).run(1)
    assert device.tables.counts()[2] == 1
    write(whole, PUT, "d", team="red", note="new")
    duo = Duo(device, whole)
    duo.run(1)
    assert b"old" not in sent(duo.b)
    assert (device.complete, device.tables.marked()) == (True, 1)
    assert documents(device) == documents(whole)


def test_only_who_wants_the_latest_says_so() -> None:
    """Otherwise what whole subscriptions exchange grows for the sake of others."""
    duo = Duo(updated(), latest(12))
    duo.run(1)
    opens = [side.sent[0] for side in (duo.a, duo.b)]
    assert [one.flags for one in opens if isinstance(one, Open)] == [1, 17]


def test_an_answer_marks_only_what_was_asked_for() -> None:
    """Otherwise a peer makes this node give up payloads that it never asked this peer for."""
    whole, partial, full = new_replica(11), new_replica(13), new_replica(12)
    assert partial.choose(BLUE)
    for n in range(3):
        write(whole, PUT, f"d{n}", team="red")
    Duo(partial, whole).run(1)
    ids = [row.id[:8] for row in whole.scan_entries()]
    duo = Duo(full, partial)
    while not any(isinstance(message, Want) for message in duo.a.sent):
        for side in (duo.a, duo.b):
            while side.inbox:
                duo.receive(side)
            duo.ready(side)
    duo.a.inbox.clear()
    duo.send(duo.b, Payloads((), 1, [], [(1, ids[1])]))
    with pytest.raises(PeerError, match="does not deal with"):
        duo.receive(duo.a)
    assert full.tables.counts()[2] == 3


def test_the_past_that_the_disk_did_not_take_is_asked_for_again() -> None:
    """Otherwise a disk that was full for a moment costs a part of the history."""
    whole, device, full = updated(), latest(12), new_replica(13)
    Duo(device, whole).run(1)
    Duo(full, device).run(1)
    store_of(full).broken = "disk full"
    duo = Duo(full, whole)
    duo.run(1)
    assert full.tables.marked() == 20
    store_of(full).broken = ""
    duo.run(10)
    assert full.tables.marked() == 0
    assert duo.states == BOTH_SYNCED


def test_what_was_left_out_before_the_past_was_wanted_is_asked_for() -> None:
    """Otherwise what was under way when the owner asked for the whole history never comes."""
    whole, device = updated(), latest(12)
    duo = Duo(device, whole)
    for side in (duo.b, duo.a):
        duo.receive(side)
    duo.ready(duo.b)
    assert duo.a.inbox  # the batch without what is superseded
    device.choose(None, History.FULL)
    duo.handle(duo.a, Chosen())
    duo.run(1)
    assert device.tables.marked() == 0
    assert duo.states == BOTH_SYNCED


def test_the_past_is_asked_for_once_the_peer_knows_that_it_is_wanted() -> None:
    """Otherwise the peer calls superseded what it has, and is not asked again."""
    whole, device = updated(), latest(12)
    Duo(device, whole).run(1)
    duo = Duo(device, whole)
    device.choose(None, History.FULL)
    duo.handle(duo.a, Chosen())  # the peer has not said anything yet
    duo.write(duo.b, write(whole, PUT, "d", n=20))
    duo.receive(duo.b)
    duo.ready(duo.b)
    while duo.a.inbox:
        duo.receive(duo.a)
    duo.run(1)
    assert device.tables.marked() == 0
    assert duo.states == BOTH_SYNCED
