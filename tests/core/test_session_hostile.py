"""The session against a peer that breaks the protocol, or that only has bad luck."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.entry import PUT, Operation
from meshsync.core.limits import LIMITS
from meshsync.core.messages import (
    FLAG_COMPLETE,
    Batch,
    Close,
    Have,
    Locate,
    Match,
    Message,
    Open,
    Payloads,
    Ping,
    Subscribed,
    Want,
    decode_untrusted,
    encode_message,
)
from meshsync.core.pacing import MISFITS_MAX
from meshsync.core.session_events import Check, Ready, Received, Start, Stored
from meshsync.errors import CloseCode, PeerError
from meshsync.ids import LogId
from tests.authors import START_MS, Author, batch_of
from tests.core.test_messages import messages
from tests.duo import BOTH_SYNCED, PULLING, TAG, Duo
from tests.replicas import apply, give, held, new_replica, pair, store_of

OPEN = Open(TAG, 0, bytes(8), None, bytes(32), (), 0)
EMPTY = Batch(0, (), [], [], [], [], [], [], [], 1, None)
HAVE = Have(None, bytes(32), (), [])
LOG = Author(1).log


def opened() -> Duo:
    """Side a has told b that it holds nothing; what a sends from now on is up to the test."""
    a, b = pair(0, 3)
    duo = Duo(a, b, start=False)
    duo.handle(duo.b, Start())
    duo.send(duo.a, OPEN)
    duo.receive(duo.b)
    return duo


def say(duo: Duo, *said: Message) -> None:
    for message in said:
        duo.send(duo.a, message)
        duo.receive(duo.b)


FAULTS: dict[str, tuple[list[Message], CloseCode]] = {
    "an OPEN for another collection": ([replace(OPEN, tag=bytes(15) + b"x", round=1)], CloseCode.PROTOCOL),
    "an OPEN of the same round": ([OPEN], CloseCode.PROTOCOL),
    "an OPEN without tips": ([replace(OPEN, round=1, tips=None)], CloseCode.PROTOCOL),
    "an answer to an OPEN that was never sent": ([replace(EMPTY, round=1)], CloseCode.PROTOCOL),
    "a confirmation of what was never sent": ([replace(HAVE, cursor=5)], CloseCode.PROTOCOL),
    "a tip of no log": ([replace(HAVE, tips=[(0, 1, bytes(16))])], CloseCode.PROTOCOL),
    "a run of no log": ([replace(EMPTY, runs=[(0, 1, 1, None)])], CloseCode.PROTOCOL),
    "a fork of no log": ([Locate((), 0, [])], CloseCode.PROTOCOL),
    "endless samples": (
        [Locate((LOG,), 0, [(1, bytes(16))] * (LIMITS.locate_samples_max + 1))],
        CloseCode.LIMIT,
    ),
    "a wish of no log": ([Want((), [(0, 1)])], CloseCode.PROTOCOL),
    "too many wishes": ([Want((LOG,), [(0, 1)] * (LIMITS.want_entries_max + 1))], CloseCode.LIMIT),
    "too many wishes in several messages": ([Want((LOG,), [(0, 1)] * 200)] * 2, CloseCode.LIMIT),
    "a payload that nobody wished for": ([Payloads((LOG,), 0, [(0, 1, b"\x80")], [])], CloseCode.PROTOCOL),
    "an answer to nothing": ([Payloads((), 1, [], [])], CloseCode.PROTOCOL),
    "something superseded that nobody asked for": ([Payloads((), 0, [], [(0, bytes(8))])], CloseCode.PROTOCOL),
    "a query that is no CBOR": ([replace(OPEN, round=1, query=b"\xff")], CloseCode.PROTOCOL),
    "a query that is no query": ([replace(OPEN, round=1, query=b"\xa1\x61a\x01")], CloseCode.PROTOCOL),
    "a MATCH for an OPEN that was never sent": ([Match(1, True, [])], CloseCode.PROTOCOL),
    "a message of the control stream": ([Ping(1, 1)], CloseCode.PROTOCOL),
    "another message of the control stream": ([Subscribed(())], CloseCode.PROTOCOL),
    "the end": ([Close(CloseCode.SHUTDOWN, "bye")], CloseCode.SHUTDOWN),
    "the end, for a reason of the future": ([Close(200, "bye")], CloseCode.PROTOCOL),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_breach_of_the_protocol_ends_the_session(fault: str) -> None:
    """Otherwise a broken peer is served for ever, or this node fails in its stead."""
    duo = opened()
    before = held(duo.b.replica)
    said, code = FAULTS[fault]
    with pytest.raises(PeerError) as caught:
        say(duo, *said)
    assert caught.value.code is code
    assert held(duo.b.replica) == before


ANSWERS: dict[str, list[tuple[int, int, Any]]] = {
    "null": [(0, 1, None)],
    "no CBOR": [(0, 1, b"\xff")],
    "another entry's": [(0, 1, Author(2).write([Operation(PUT, "other", {})]).payload)],
    "of another entry": [(0, 2, Author(1).write().payload)],
    "the same for ever": [(0, 1, Author(1).write().payload)] * (4 * LIMITS.want_entries_max + 1),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_is_no_payload_ends_the_session(answer: str) -> None:
    """Otherwise whoever is asked for a payload ends the node, or keeps it busy with one message for seconds."""
    a, b = pair()
    author = Author(1)
    entry = author.write()
    apply(b, *batch_of([entry], bare=[entry]))
    duo = Duo(a, b, start=False)
    duo.handle(duo.b, Start())
    say(duo, replace(OPEN, flags=FLAG_COMPLETE))
    assert isinstance(duo.b.sent[-1], Want)
    with pytest.raises(PeerError):
        say(duo, Payloads((author.log,), 1, ANSWERS[answer], []))


@pytest.mark.parametrize("fails", ["disk", "peer"])
def test_what_was_stored_of_an_answer_that_failed_in_the_middle_is_told_of(fails: str) -> None:
    """Otherwise watchers and other peers do not learn of payloads that are here, until something else happens."""
    a, b = pair()
    author = Author(1)
    entries = [author.write([Operation(PUT, f"d{number}", {})]) for number in range(2)]
    apply(b, *batch_of(entries, bare=entries))
    duo = Duo(a, b, start=False)
    duo.handle(duo.b, Start())
    say(duo, replace(OPEN, flags=FLAG_COMPLETE))
    payloads = [(0, entry.seq, entry.payload) for entry in entries]
    if fails == "disk":
        store_of(b).commits_left = 1
        say(duo, Payloads((author.log,), 2, payloads, []))
        told = duo.b.applied
    else:
        with pytest.raises(PeerError):
            say(duo, Payloads((author.log,), 2, [payloads[0], (0, 2, b"\x80")], []))
        told = [effect.applied for effect in duo.b.session.rest() if isinstance(effect, Stored)]
    assert [applied.filled for applied in told] == [[1]]
    assert duo.b.session.rest() == []


def test_tips_of_a_peer_that_are_not_here_are_remembered_up_to_a_bound() -> None:
    """Otherwise a peer fills the memory of this node with entries that it makes up, of a single log."""
    limits = replace(LIMITS, logs_max=10)
    duo = Duo(*pair(), limits, start=False)
    duo.handle(duo.b, Start())
    say(duo, OPEN, replace(HAVE, logs=(LOG,), tips=[(0, 1, bytes(16))] * 100))
    with pytest.raises(PeerError) as caught:
        say(duo, replace(HAVE, tips=[(0, seq, bytes(16)) for seq in range(1, 100)]))
    assert caught.value.code is CloseCode.LIMIT


@pytest.mark.parametrize("message", [EMPTY, HAVE, Locate((LOG,), 0, []), Want((), []), Payloads((), 0, [], [])])
def test_nothing_comes_before_open(message: Message) -> None:
    """Otherwise a batch is read against a log table that the peer never sent."""
    a, b = pair()
    duo = Duo(a, b, start=False)
    duo.handle(duo.b, Start())
    with pytest.raises(PeerError, match="before OPEN"):
        say(duo, message)


def test_a_peer_names_a_bounded_number_of_logs() -> None:
    """Otherwise a peer makes this node remember logs without end."""
    limits = replace(LIMITS, logs_max=10)
    a, b = pair()
    duo = Duo(a, b, limits, start=False)
    duo.handle(duo.b, Start())
    say(duo, OPEN)
    say(duo, *(replace(HAVE, logs=(LogId(LOG.author, bytes([number] * 8)),)) for number in range(10)))
    with pytest.raises(PeerError) as caught:
        say(duo, replace(HAVE, logs=(LOG,)))
    assert caught.value.code is CloseCode.LIMIT


def test_an_honest_gap_is_mended_and_not_punished() -> None:
    """Otherwise a batch that follows one which could not be stored ends the session."""
    author = Author(1)
    entries = [author.write() for _ in range(4)]
    a, b = new_replica(11), new_replica(12)
    give(a, *entries)
    duo = Duo(a, b, start=False)
    duo.handle(duo.a, Start())
    duo.handle(duo.b, Start())
    batch, _ = batch_of(entries[2:])
    duo.send(duo.a, batch)
    duo.run(1)
    assert duo.states == BOTH_SYNCED
    assert len(held(b)) == 4


def test_a_peer_whose_batches_never_fit_is_broken() -> None:
    """Otherwise a broken peer keeps this node asking for ever."""
    duo = opened()
    author = Author(1)
    author.write()
    batch, _ = batch_of([author.write()])
    for number in range(MISFITS_MAX):
        say(duo, replace(batch, round=number))
        assert duo.b.state is PULLING
        assert duo.b.wake_at is not None
        duo.now, duo.b.wake_at = duo.b.wake_at, None
        duo.handle(duo.b, Ready())
    with pytest.raises(PeerError, match="batch after batch"):
        say(duo, replace(batch, round=MISFITS_MAX))
    assert len(held(duo.b.replica)) == 3


def test_wishes_are_answered_one_message_at_a_time() -> None:
    """Otherwise three kilobytes of wishes fill the memory of this node with answers."""
    a, b = pair()
    entry = Author(1).write()
    give(b, entry)
    duo = Duo(a, b, start=False)
    duo.handle(duo.b, Start())
    say(duo, OPEN)
    duo.ready(duo.b)
    sent = len(duo.b.sent)
    say(duo, Want((LOG,), [(0, 1)] * LIMITS.want_entries_max))
    assert len(duo.b.sent) == sent
    duo.handle(duo.b, Ready())
    assert len(duo.b.sent) == sent + 1


@given(st.lists(messages | st.sampled_from([OPEN, EMPTY, HAVE]), max_size=6), st.booleans())
def test_any_messages_raise_nothing_else_and_store_nothing(said: list[Message], first: bool) -> None:
    """Otherwise a hostile peer ends more than its own session."""
    duo = opened() if first else Duo(*pair(), start=False)
    before = held(duo.b.replica)
    try:
        for message in said:
            say(duo, message)
            duo.handle(duo.b, Ready())
            duo.handle(duo.b, Check())
    except PeerError:
        pass
    assert held(duo.b.replica) == before


@given(st.data())
def test_mutated_traffic_raises_nothing_else_and_stores_only_what_was_signed(data: st.DataObject) -> None:
    """Otherwise one flipped bit is more than the end of a session."""
    authors = [Author(1), Author(2)]
    entries = [authors[number % 2].write() for number in range(6)]
    fork = authors[0].write(after=entries[2])
    a, b = new_replica(11), new_replica(12)
    give(a, *entries)
    give(b, *entries[:3], fork)
    duo = Duo(a, b)
    at = data.draw(st.integers(0, 12))
    delivered = 0
    try:
        for _ in range(20):
            for side in (duo.a, duo.b):
                if side.inbox:
                    frame = bytearray(side.inbox.popleft())
                    if delivered == at:
                        frame[data.draw(st.integers(0, len(frame) - 1))] ^= 1 << data.draw(st.integers(0, 7))
                    delivered += 1
                    message: Any = decode_untrusted(bytes(frame))
                    duo.handle(side, Received(message))
                duo.handle(side, Ready())
    except PeerError:
        pass
    signed = {entry.id for entry in [*entries, fork]}
    assert held(a) <= signed
    assert held(b) <= signed


def test_the_wire_knows_what_the_session_sends() -> None:
    """Otherwise the tests above mutate messages that no session sends."""
    duo = opened()
    duo.ready(duo.b)
    assert all(decode_untrusted(encode_message(message)) == message for message in duo.b.sent)
    assert held(duo.b.replica)
    assert duo.b.wall_ms == START_MS
