"""Looking into documents: what was written, by whom, and what of it is still to be seen."""

from __future__ import annotations

from typing import Any

from hypothesis import given

from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.past.history import history
from meshsync.store.past import Past
from meshsync.store.replica import Replica
from tests.authors import Author, Made
from tests.histories import histories, writes_of
from tests.meshoracle import document_of
from tests.replicas import give, new_replica


def given_to(*entries: Made) -> Past:
    replica = new_replica()
    give(replica, *entries)
    return Past(replica)


def present(replica: Replica) -> Any:
    return replica.merger.read(replica.tables.documents(["d"])["d"]).body


def test_history_tells_what_each_write_did_and_whether_it_is_still_seen() -> None:
    """Otherwise nobody can tell who changed what."""
    a, b = Author(1), Author(2)
    first = a.write([Operation(PUT, "d", {"x": 1, "y": 1})])
    second = b.write([Operation(PATCH, "d", {"x": 2, "y": None})], [first])
    third = a.write([Operation(PATCH, "d", {"x": 3}), Operation(PUT, "other", {})], [second])
    found = list(history(given_to(first, second, third), "d", diff=True))
    assert [(one.write.entry, one.write.author, one.write.kind) for one in found] == [
        (first.id, a.log.author, "put"),
        (second.id, b.log.author, "patch"),
        (third.id, a.log.author, "patch"),
    ]
    assert [one.body for one in found] == [{"x": 1, "y": 1}, {"x": 2, "y": None}, {"x": 3}]
    assert [one.visible for one in found] == [False, True, True], "that y is gone is what the second wrote"
    changes = [
        [(change.field, change.was_there, change.before, change.is_there, change.after) for change in one.changes or []]
        for one in found
    ]
    assert changes == [
        [("x", False, None, True, 1), ("y", False, None, True, 1)],
        [("x", True, 1, True, 2), ("y", True, 1, False, None)],
        [("x", True, 2, True, 3)],
    ]


def test_a_deletion_is_seen_until_the_document_is_written_again() -> None:
    """Otherwise the history of a deleted document says that nothing of it is to be seen, and not why."""
    a = Author(1)
    put, delete = a.write([Operation(PUT, "d", {})]), a.write([Operation(DELETE, "d")])
    assert [one.visible for one in history(given_to(put, delete), "d")] == [False, True]
    again = a.write([Operation(PUT, "d", {})])
    assert [one.visible for one in history(given_to(put, delete, again), "d")] == [False, False, True]
    assert list(history(given_to(put), "unknown")) == []


def test_values_that_python_takes_for_equal_are_changes() -> None:
    """Otherwise a change from 1 to true is none."""
    a = Author(1)
    entries = [a.write([Operation(PUT, "d", {"x": value})]) for value in (1, 1.0, True, True)]
    counts = [len(one.changes or []) for one in history(given_to(*entries), "d", diff=True)]
    assert counts == [1, 1, 1, 0]


@given(histories())
def test_the_changes_of_a_history_add_up_to_the_document(entries: list[Made]) -> None:
    """Otherwise what is shown as changed is not what became of the document."""
    document: dict[str, Any] = {}
    for one in history(given_to(*entries), "d", diff=True):
        for change in one.changes or []:
            assert (change.field in document, document.get(change.field)) == (change.was_there, change.before)
            document.pop(change.field, None)
            if change.is_there:
                document[change.field] = change.after
    assert document == (document_of(writes_of(entries)) or {})


@given(histories())
def test_what_is_visible_is_what_would_be_missed(entries: list[Made]) -> None:
    """Otherwise a write is called visible that makes no difference, or one that does is called hidden."""
    writes = sorted(writes_of(entries), key=lambda write: write[0])
    whole = document_of(writes)
    for one, write in zip(history(given_to(*entries), "d"), writes, strict=True):
        assert one.write.entry == write[0][2]
        if not one.visible and whole is not None:
            rest = document_of([other for other in writes if other is not write])
            # A put that shows nothing of its own may still hide what came before it.
            hides = write[1] != PATCH
            assert hides or rest == whole
