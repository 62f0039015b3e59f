"""Documents as they were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.core.hlc import to_datetime
from meshsync.errors import LocalError
from meshsync.past.snapshots import take_snapshot
from meshsync.store.past import Past
from meshsync.store.replica import Replica
from tests.authors import START_MS, Author, Made
from tests.histories import ancestors, histories, in_any_order, writes_of
from tests.meshoracle import document_of
from tests.replicas import give, new_replica


def given_to(*entries: Made) -> Past:
    replica = new_replica()
    give(replica, *entries)
    return Past(replica)


def at(past: Past, when: datetime | str) -> dict[str, Any]:
    """All documents as they were."""
    found: list[dict[str, Any]] = []

    async def take() -> None:
        snapshot = await take_snapshot(past, when)
        documents = {one.id: one.body async for one in snapshot.documents()}
        for id in "dx":
            one = await snapshot.get(id)
            assert (None if one is None else one.body) == documents.get(id)
        found.append(documents)

    trio.run(take)
    return found[0]


@given(histories(), st.data())
def test_a_snapshot_at_an_entry_is_what_its_author_saw(entries: list[Made], data: st.DataObject) -> None:
    """Otherwise a past is shown that nobody ever had before their eyes."""
    above = ancestors(entries)
    past = given_to(*in_any_order(entries, data))
    for entry in entries:
        known = [other for other in entries if other is entry or other.id in above[entry.id]]
        document = document_of(writes_of(known))
        assert at(past, entry.id.hex()) == ({} if document is None else {"d": document})


@given(histories(), st.data())
def test_a_snapshot_at_a_time_is_what_was_written_until_then(entries: list[Made], data: st.DataObject) -> None:
    """Otherwise it depends on when the entries arrived here."""
    apart = [entry.hlc for entry in entries]
    past = given_to(*in_any_order(entries, data))
    whole = document_of(writes_of(entries))
    assert at(past, to_datetime(max(apart))) == ({} if whole is None else {"d": whole})
    assert at(past, to_datetime(min(apart)) - timedelta(milliseconds=1)) == {}


def timed() -> Past:
    """A document written, patched, deleted and written again, a second apart each."""
    replica = new_replica()
    writes = [(PUT, {"n": 1}), (PATCH, {"m": 2}), (DELETE, None), (PATCH, {"k": 3})]
    for number, (kind, body) in enumerate(writes):
        replica.append([Operation(kind, "d", body), Operation(PUT, "x", {"n": number})], START_MS + 1000 * number)
    return Past(replica)


START = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=START_MS)


def test_times_count_to_the_end_of_their_millisecond() -> None:
    """Otherwise the time that `history` prints of a write leaves that very write out."""
    past = timed()
    for number, document in enumerate([{"n": 1}, {"n": 1, "m": 2}, None, {"k": 3}]):
        time = START + timedelta(seconds=number)
        expected = {"d": document, "x": {"n": number}} if document is not None else {"x": {"n": number}}
        assert at(past, time) == expected
        assert at(past, time.isoformat()) == expected
        assert at(past, time + timedelta(microseconds=999)) == expected
        assert at(past, time - timedelta(microseconds=1)) != expected
    assert at(past, "1969-01-01T00:00:00Z") == {}


def test_forks_of_a_log_are_told_apart() -> None:
    """Otherwise the past of one branch holds entries of the other."""
    a = Author(1)
    first = a.write([Operation(PUT, "d", {"n": 1})])
    second = a.write([Operation(PATCH, "d", {"m": 2})])
    other = a.write([Operation(PATCH, "d", {"k": 3})], after=first)
    last = a.write([Operation(PATCH, "d", {"j": 4})], after=other)
    past = given_to(first, second, other, last)
    assert at(past, last.id.hex()) == {"d": {"n": 1, "k": 3, "j": 4}}
    assert at(past, second.id.hex()[:12]) == {"d": {"n": 1, "m": 2}}


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("yesterday", "neither a time nor an entry"),
        ("ab" * 3, "neither a time nor an entry"),
        ("2026-05-04T12:30:00", "names no time zone"),
        ("2026-05-04", "names no time zone"),
        ("0" * 64, "there is no entry"),
        ("0" * 8, "there is no entry"),
    ],
)
def test_what_is_no_point_in_the_past_is_refused(when: str, expected: str) -> None:
    """Otherwise a slip shows some other past."""
    with pytest.raises(LocalError, match=expected):
        at(timed(), when)


def test_an_ambiguous_entry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise one of several is shown, and nobody knows which."""
    replica: Replica = new_replica()
    monkeypatch.setattr(replica.tables, "entries_named", lambda *_: [1, 2])
    for number in range(2):
        replica.append([Operation(PUT, "d", {"n": number})], START_MS)
    with pytest.raises(LocalError, match="more than one"):
        at(Past(replica), "0" * 8)


def test_a_deep_and_wide_past_is_explored_in_little_memory() -> None:
    """Otherwise a snapshot of a busy collection takes all of it, or overflows the stack."""
    replica = new_replica()
    a, b = Author(1), Author(2)
    last = a.write()
    entries = [last]
    for number in range(3000):
        last = (b, a)[number % 2].write(parents=[last] if number else [entries[0]])
        entries.append(last)
    give(replica, *entries[:1500])
    give(replica, *entries[1500:])
    past = Past(replica)
    place = next(places[0] for places in past.find(last.id, last.id, 4096) if places)
    sizes = [len(reached) for reached in past.explore(place)]
    assert max(sizes) == 2
    (reached,) = {tuple(sorted(reached.values())) for reached in [dict(one) for one in past.explore(place)][-1:]}
    assert sum(reached) == 3001
