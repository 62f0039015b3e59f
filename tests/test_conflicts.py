"""Why a field has its value, and what was written without knowing of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.core.limits import LIMITS
from meshsync.past.conflicts import Conflict, conflicts
from meshsync.past.facts import Said
from meshsync.past.origins import why
from meshsync.store.past import Past
from tests.authors import Author, Made, batch_of
from tests.histories import ancestors, histories, in_any_order, writes_of
from tests.meshoracle import Write, document_of
from tests.replicas import apply, give, new_replica

NOT_THERE = "not there"


def given_to(*entries: Made) -> Past:
    replica = new_replica()
    give(replica, *entries)
    return Past(replica)


def value(said: Said) -> object:
    return said.value if said.is_there else NOT_THERE


def told(conflict: Conflict) -> dict[str, list[tuple[object, bytes]]]:
    """By field: values and entries, the winner first."""
    return {
        one.field: [(value(said), bytes(said.write.entry)) for said in (one.winner, *one.losers) if said is not None]
        for one in conflict.fields
    }


# The model: everything from the sets of all ancestors


def touches(write: Write, field: str) -> bool:
    return write[1] in (PUT, DELETE) or field in write[2]


def value_in(write: Write, field: str) -> object:
    body = write[2] or {}
    return NOT_THERE if field not in body or (write[1] == PATCH and body[field] is None) else body[field]


def origins(entries: list[Made], field: str) -> list[Write]:
    """The writes that say what the field is, the latest first."""
    return sorted(
        (write for write in writes_of(entries) if touches(write, field)), reverse=True, key=lambda one: one[0]
    )


def conflicts_of(entries: list[Made]) -> dict[str, list[tuple[object, bytes]]] | None:
    above = ancestors(entries)
    sides = [entry for entry in entries if not any(entry.id in above[other.id] for other in entries)]
    if len(sides) == 1:
        return None
    known = {side.id: above[side.id] | {side.id} for side in sides}
    found = {}
    for field in "ab":
        shown: dict[bytes, Write] = {}
        for side in sides:
            views = origins([entry for entry in entries if entry.id in known[side.id]], field)
            if views:
                shown[side.id] = views[0]
        open_writes = {
            write[0]: write
            for write in shown.values()
            if all(shown[side] == write for side, knows in known.items() if write[0][2] in knows)
        }
        if not open_writes:
            continue  # nobody ever said anything of it
        first, *rest = [(value_in(open_writes[stamp], field), stamp[2]) for stamp in sorted(open_writes, reverse=True)]
        losers = [one for one in rest if one[0] != first[0]]
        if losers:
            found[field] = [first, *losers]
    return found


@given(histories(), st.data())
def test_conflicts_are_those_of_the_history_in_any_order_of_arrival(entries: list[Made], data: st.DataObject) -> None:
    """Otherwise a value that somebody wrote is lost without a word, or nodes disagree on what lost."""
    expected = conflicts_of(entries)
    found = list(conflicts(given_to(*in_any_order(entries, data))))
    assert [told(conflict) for conflict in found] == ([] if expected is None else [expected])
    document = document_of(writes_of(entries)) or {}
    for conflict in found:
        assert conflict.complete
        for one in conflict.fields:
            assert one.winner is not None
            assert value(one.winner) == document.get(one.field, NOT_THERE)


@given(histories())
def test_a_write_that_has_seen_all_settles_every_conflict(entries: list[Made]) -> None:
    """Otherwise a conflict is shown for ever."""
    above = ancestors(entries)
    sides = [entry for entry in entries if not any(entry.id in above[other.id] for other in entries)]
    past = given_to(*entries, Author(9).write([Operation(PATCH, "d", {"c": 1})], sides))
    assert list(conflicts(past)) == []


@given(histories())
def test_why_names_the_writes_that_count(entries: list[Made]) -> None:
    """Otherwise the wrong person is asked why."""
    above = ancestors(entries)
    sides = [entry.id for entry in entries if not any(entry.id in above[other.id] for other in entries)]
    lost = conflicts_of(entries) or {}
    past = given_to(*entries)
    for field in "ab":
        found = why(past, "d", field)
        assert found is not None
        assert found.complete
        assert (found.deleted is not None) == (document_of(writes_of(entries)) is None)
        said = origins(entries, field)
        if not any(field in (write[2] or {}) for write in said):
            assert found.fields == []
            continue
        if not found.fields:
            # All who named the field were seen by one who wrote the document without it, and that was overridden.
            assert value_in(said[0], field) == NOT_THERE
            continue
        (origin,) = found.fields
        assert (value(origin.said), origin.said.write.entry) == (value_in(said[0], field), said[0][0][2])
        expected = []
        is_over, unsaid = False, [entry.id for entry in entries]
        for write in said:
            unsaid = [id for id in unsaid if id != write[0][2] and write[0][2] not in above[id]]
            if write == said[0]:
                continue
            seen = write[0][2] in above[said[0][0][2]]
            if not seen or (value_in(write, field) != NOT_THERE and not is_over):
                expected.append((value_in(write, field), write[0][2], seen))
            is_over = is_over or seen
            if is_over and not any(id in unsaid for id in sides):
                break
        assert [(value(one.said), one.said.write.entry, one.seen) for one in origin.overrode] == expected
        unseen = [(value(one.said), one.said.write.entry) for one in origin.overrode if not one.seen]
        assert all(loser in unseen for loser in lost.get(field, [])[1:])


@given(histories(), st.data())
def test_who_fetched_only_the_latest_names_the_same_losers(entries: list[Made], data: st.DataObject) -> None:
    """Otherwise a node that does not want the past is not told of a value that somebody wrote, and nobody saw."""
    entries = in_any_order(entries, data)
    sender, receiver = new_replica(1), new_replica(2)
    give(sender, *entries)
    rows = list(sender.scan_entries())
    passed = sender.superseded.among(rows)
    left_out = {row.id for row in rows if row.arrival in passed}
    apply(receiver, *batch_of(entries, superseded=[entry for entry in entries if entry.id in left_out]))
    assert receiver.tables.marked() == len(left_out)
    assert list(conflicts(Past(receiver))) == list(conflicts(Past(sender)))


# Transcripts


def test_two_who_did_not_know_of_each_other() -> None:
    """The case that all of this is for: what lost is named, with its author, until somebody decides."""
    a, b = Author(1), Author(2)
    first = a.write([Operation(PUT, "d", {"title": "x", "n": 1})])
    mine = a.write([Operation(PATCH, "d", {"title": "mine"})])
    theirs = b.write([Operation(PATCH, "d", {"title": "theirs", "n": 1})], [first], hlc=mine.hlc + 1)
    past = given_to(first, mine, theirs)
    (conflict,) = conflicts(past)
    assert (conflict.id, [write.author for write in conflict.writes]) == ("d", [b.log.author, a.log.author])
    assert told(conflict) == {"title": [("theirs", theirs.id), ("mine", mine.id)]}, "n: they agree"
    found = why(past, "d")
    assert found is not None
    assert [(one.field, value(one.said), one.said.write.author) for one in found.fields] == [
        ("n", 1, b.log.author),
        ("title", "theirs", b.log.author),
    ]
    assert [(value(one.said), one.said.write.author, one.seen) for one in found.fields[1].overrode] == [
        ("mine", a.log.author, False),
        ("x", a.log.author, True),
    ]


def test_a_deletion_that_lost_and_one_that_won() -> None:
    """Otherwise what was deleted comes back, or a change vanishes, and nobody sees why."""
    for deletes_later in (False, True):
        a, b = Author(1), Author(2)
        first = a.write([Operation(PUT, "d", {"x": 1})])
        change = a.write([Operation(PATCH, "d", {"x": 2})], hlc=first.hlc + 5)
        delete = b.write([Operation(DELETE, "d")], [first], hlc=first.hlc + (9 if deletes_later else 1))
        past = given_to(first, change, delete)
        (conflict,) = conflicts(past)
        both = [(2, change.id), (NOT_THERE, delete.id)]
        assert told(conflict) == {"x": both[::-1] if deletes_later else both}
        found = why(past, "d", "x")
        assert found is not None
        assert (found.deleted is not None) == deletes_later


def test_what_lost_is_named_though_a_later_write_was_seen() -> None:
    """Whoever asks why a field is gone would not hear of the value that nobody had seen, as `conflicts` tells it."""
    a, b = Author(1), Author(2)
    first = a.write([Operation(PUT, "d", {"n": 1})])
    lost = a.write([Operation(PATCH, "d", {"n": 5})], hlc=first.hlc + 1)
    before = b.write([Operation(PATCH, "d", {"n": 3})], [first], hlc=first.hlc + 2)
    delete = b.write([Operation(DELETE, "d")], hlc=first.hlc + 3)
    found = why(given_to(first, lost, before, delete), "d", "n")
    assert found is not None
    assert [(value(one.said), one.seen) for one in found.fields[0].overrode] == [(3, True), (5, False)]


def test_what_was_never_there_has_no_reason() -> None:
    """Otherwise a slip in a name is answered as if the field had been removed."""
    a = Author(1)
    past = given_to(a.write([Operation(PUT, "d", {"x": 1})]), a.write([Operation(PUT, "d", {"y": 1})]))
    assert why(past, "unknown") is None
    found = why(past, "d", "z")
    assert found is not None
    assert found.fields == []
    found = why(past, "d", "x")
    assert found is not None
    assert [value(one.said) for one in found.fields] == [NOT_THERE]
    assert [value(one.said) for one in found.fields[0].overrode] == [1]


def test_a_document_that_was_written_without_end_is_not_read_to_its_beginning() -> None:
    """Otherwise one question holds up the whole node."""
    a, b = Author(1), Author(2)
    first = a.write([Operation(PUT, "d", {"old": 1})])
    many = [a.write([Operation(PATCH, "d", {"n": number})]) for number in range(LIMITS.past_writes_max)]
    last = b.write([Operation(PATCH, "d", {"n": -1})], [first], hlc=many[-1].hlc + 1)
    past = given_to(first, *many, last)
    found = why(past, "d")
    assert found is not None
    assert not found.complete
    assert [one.field for one in found.fields] == ["n"]
    assert len(found.fields[0].overrode) == LIMITS.overridden_max
    (conflict,) = conflicts(past)
    assert not conflict.complete
    assert told(conflict) == {"n": [(-1, last.id), (LIMITS.past_writes_max - 1, many[-1].id)]}
