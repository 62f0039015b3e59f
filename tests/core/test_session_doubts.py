"""The session: marks in doubt, where a peer called a payload superseded and has not sent yet what supersedes it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshsync.core.entry import PATCH, PUT, Operation
from meshsync.core.history import History
from meshsync.core.limits import LIMITS
from meshsync.core.messages import Have, Open, Payloads, Want
from meshsync.core.session_events import Ready
from meshsync.store.part_changes import is_shown
from meshsync.store.replica import Replica
from tests.authors import Author, batch_of
from tests.core.test_session_latest import BLUE, documents, latest, updated, write
from tests.duo import BOTH_SYNCED, PULLING, SYNCED, Duo
from tests.replicas import apply, give, new_replica, store_of


def cut_off(whole: Replica, device: Replica) -> None:
    """The device gets all but the last entry from the whole one, and never hears of that again."""
    whole.limits = replace(LIMITS, batch_entries_soft=1, batch_headers_soft=1)
    duo = Duo(device, whole)
    while device.entry_count() < whole.entry_count() - 1:
        for side in (duo.a, duo.b):
            if side.inbox:
                duo.receive(side)
            duo.handle(side, Ready())


def started(replica: Replica) -> Replica:
    """The same in another process."""
    again = Replica(store_of(replica), replica.tables, replica.key)
    again.choose(None if replica.interest is None else replica.interest.query, History.LATEST)
    settle(again)
    return again


def parted() -> tuple[Replica, Replica, Replica]:
    """A whole node, another one that has its first entries, and a device that never heard of its last one."""
    whole, other, device = new_replica(11), new_replica(13), latest(12)
    write(whole, PUT, "d", n=1)
    write(whole, PUT, "e", n=1)
    Duo(other, whole).run(1)
    write(whole, PUT, "d", n=2)
    cut_off(whole, device)
    return whole, other, device


def told(replica: Replica) -> set[str]:
    """What whoever follows the part has heard to be in it."""
    return {row.id for row in replica.part_changes.after(0, 9) if is_shown(row)}


def settle(replica: Replica) -> None:
    """What a worker does beside the sessions."""
    while replica.interest is not None and replica.interest.has_work:
        replica.interest.step()


def test_the_word_of_a_peer_that_is_gone_is_not_relied_on() -> None:
    """Otherwise a document is never shown that a peer with equal roots shows, because of a write that nobody has."""
    whole, other, device = parted()
    assert (device.root(), documents(device)) == (other.root(), {"e": {"n": 1}})
    duo = Duo(device, other)
    duo.run(1)
    assert duo.states == BOTH_SYNCED
    assert documents(device) == documents(other)
    again = Duo(device, other)
    again.run(1)
    assert not [message for message in again.a.sent if isinstance(message, Want)]  # nothing is in doubt any more
    Duo(device, whole).run(1)
    assert documents(device) == documents(whole)


def test_doubts_outlive_the_process() -> None:
    """Otherwise a restart makes a word one to rely on."""
    whole, other, device = new_replica(11), new_replica(13), latest(12)
    write(whole, PUT, "d", n=1)
    Duo(other, whole).run(1)
    write(whole, PUT, "d", n=2)
    cut_off(whole, device)
    started = Replica(store_of(device), device.tables, device.key)
    started.choose(None, History.LATEST)
    duo = Duo(started, other)
    duo.run(1)
    assert duo.states == BOTH_SYNCED
    assert documents(started) == documents(other) == {"d": {"n": 1}}


def test_what_a_peer_called_superseded_is_sure_once_all_of_it_is_here() -> None:
    """Otherwise each connection begins with questions about all that was ever superseded."""
    whole, device, other = updated(), latest(12), new_replica(13)
    whole.limits = replace(LIMITS, batch_entries_soft=4, batch_headers_soft=4)
    Duo(device, whole).run(1)
    Duo(other, whole).run(1)
    assert device.superseded.words() == set()
    duo = Duo(device, other)
    duo.run(1)
    assert not [message for message in duo.a.sent if isinstance(message, Want)]


def test_what_is_in_doubt_is_not_passed_on() -> None:
    """Otherwise two that were cut off alike assure each other of what neither knows."""
    whole, third, device, twin = new_replica(11), new_replica(13), latest(12), latest(14)
    write(whole, PUT, "d", n=1)
    Duo(third, whole).run(1)
    write(whole, PUT, "d", n=2)
    cut_off(whole, device)
    cut_off(whole, twin)
    Duo(device, twin).run(1)
    Duo(device, third).run(1)
    assert documents(device) == documents(third)


@pytest.mark.parametrize("remembered_max", [1, LIMITS.doubtful_marks_max])
def test_a_document_enters_a_part_once_nothing_of_it_is_in_doubt(remembered_max: int) -> None:
    """Otherwise it is shown with fields missing, to whoever follows the part as well, until somebody says better."""
    whole, other, part = new_replica(11), new_replica(13), latest(12, BLUE)
    part.limits = replace(LIMITS, doubtful_marks_max=remembered_max)
    write(whole, PUT, "d", team="red")
    write(whole, PATCH, "d", x=1)
    write(whole, PATCH, "d", team="blue")
    write(whole, PUT, "e", team="blue")
    Duo(other, whole).run(1)
    write(whole, PATCH, "d", x=2)
    part.part_changes.begin()
    cut_off(whole, part)
    assert part.root() == other.root()
    for replica in (part, started(part)):
        assert documents(replica) == {"e": {"team": "blue"}}
        assert not replica.is_satisfied
        assert told(replica) == {"e"}
    duo = Duo(part, other)
    duo.run(1)
    settle(part)
    duo.run(1)
    assert duo.states == BOTH_SYNCED
    assert documents(part) == documents(other) == {"d": {"team": "blue", "x": 1}, "e": {"team": "blue"}}
    assert told(part) == {"d", "e"}


def test_what_an_answer_calls_superseded_is_in_doubt_until_the_peer_tells_its_root() -> None:
    """Otherwise a document enters a part without what is superseded by an entry that is not here."""
    author = Author(1)
    entries = [author.write([Operation(PUT, "d", {"team": "blue"})]), author.write([Operation(PATCH, "d", {"x": 1})])]
    part, whole = latest(12, BLUE), new_replica(11)
    apply(part, *batch_of(entries, bare=entries[1:]))
    give(whole, *entries)
    duo = Duo(part, whole)
    while not any(isinstance(message, Want) for message in duo.a.sent):
        for side in (duo.a, duo.b):
            while side.inbox:
                duo.receive(side)
    duo.b.inbox.clear()
    duo.send(duo.b, Payloads(duo.b.session._own_logs.take(), 1, [], [(0, entries[1].id[:8])]))
    duo.receive(duo.a)
    assert part.complete
    assert (documents(part), part.is_satisfied) == ({}, False)
    assert duo.a.state is not SYNCED
    give(whole, later := author.write([Operation(PATCH, "d", {"x": 2})]))
    give(part, later)
    duo.send(duo.b, Have(None, whole.root(), (), []))
    duo.receive(duo.a)
    settle(part)
    assert documents(part) == {"d": {"team": "blue", "x": 2}}
    assert part.is_satisfied


def test_what_is_called_superseded_when_its_header_comes_again_is_in_doubt_at_once() -> None:
    """Otherwise a document enters a part without what is superseded by an entry that is still to come."""
    author = Author(1)
    entries = [author.write([Operation(PUT, "d", {"x": 1})]), author.write([Operation(PATCH, "d", {"team": "blue"})])]
    part = latest(12, BLUE)
    apply(part, *batch_of(entries, bare=entries[:1]))
    duo = Duo(part, new_replica(11))
    duo.receive(duo.a)
    duo.send(duo.b, batch_of(entries, superseded=entries[:1])[0])
    duo.receive(duo.a)
    settle(part)
    assert part.complete
    assert documents(part) == {}


def test_an_answer_that_calls_something_superseded_tells_the_root() -> None:
    """Otherwise whoever asked waits for the next comparison of roots to show what it wants."""
    whole, part = new_replica(11), latest(12, BLUE)
    write(whole, PUT, "d", team="red", x=1)
    write(whole, PATCH, "d", x=2)
    duo = Duo(part, whole)
    duo.run(1)
    assert part.tables.counts()[2] == 2
    duo.write(duo.b, write(whole, PATCH, "d", x=3), write(whole, PATCH, "d", team="blue"))
    duo.run(1)
    settle(part)
    duo.run(1)
    assert part.tables.marked() == 1
    assert documents(part) == {"d": {"team": "blue", "x": 3}}
    assert duo.states == BOTH_SYNCED


def test_who_asked_for_what_was_in_doubt_is_told_when_it_is_not_any_more() -> None:
    """Otherwise it waits for that payload as long as the connection lasts, where the other side compares the roots."""
    whole, device, asking = new_replica(11), latest(12), new_replica(13)
    write(whole, PUT, "d", n=1)
    write(whole, PUT, "e", n=1)
    write(whole, PUT, "d", n=2)
    cut_off(whole, device)
    duo = Duo(device, asking)
    duo.run(1)
    assert (asking.tables.counts()[2], duo.b.state) == (1, PULLING)
    other = Duo(device, whole)
    other.run(1)
    for applied in other.a.applied:
        duo.write(duo.a, applied)
    duo.run(1)
    assert asking.tables.marked() == 1
    assert duo.states == BOTH_SYNCED


def test_the_word_of_a_peer_about_the_words_of_others_is_in_doubt_as_well() -> None:
    """Otherwise one that has grown since it told its root makes a node rely on what it has not sent either."""
    _, other, device = parted()
    duo = Duo(device, other)
    duo.receive(duo.a)
    duo.ready(duo.a)
    assert [type(message) for message in duo.a.sent] == [Open, Want]
    duo.b.inbox.clear()
    first = next(iter(other.scan_entries()))
    duo.send(duo.b, Payloads(duo.b.session._own_logs.take(), 1, [], [(0, first.id[:8])]))
    words = []
    for root in (None, bytes(32), other.root()):
        if root is not None:
            duo.send(duo.b, Have(None, root, (), []))
        duo.receive(duo.a)
        duo.ready(duo.a)
        words.append(len(device.superseded.words()))
        assert duo.states[0] is not SYNCED or not words[-1]
    assert words == [1, 1, 0]
