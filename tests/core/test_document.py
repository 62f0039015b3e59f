"""Merging operations into documents."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.anchor import Place
from meshsync.core.document import DocumentState, Stamp
from meshsync.core.entry import DELETE, NEVER, PATCH, PUT
from tests.meshoracle import document_of

Operation = tuple[int, dict[str, Any] | None, Stamp, int | None]

bodies = st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 3), max_size=3)
stamps = st.builds(Stamp, st.integers(1, 4), st.sampled_from([b"A", b"B"]), st.binary(min_size=4, max_size=4))
expiries = st.sampled_from([None, None, NEVER, 1, 2, 3])
contents = st.one_of(
    st.tuples(st.sampled_from([PUT, PATCH]), bodies, expiries), st.tuples(st.just(DELETE), st.none(), st.none())
)
operations = st.lists(
    st.builds(lambda what, stamp: (what[0], what[1], stamp, what[2]), contents, stamps),
    max_size=7,
    unique_by=lambda operation: operation[2],
)


def merged(applied: list[Operation]) -> DocumentState:
    state = DocumentState()
    for operation in applied:
        state.apply(*operation)
    return state


def content(state: DocumentState) -> Any:
    return state.clear, state.exists, dict(state.fields), state.expiry


@given(operations, st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(applied: list[Operation], rng: Any) -> None:
    """Otherwise two nodes with the same entries show different documents."""
    shuffled = applied + applied[: len(applied) // 2]
    rng.shuffle(shuffled)
    assert content(merged(shuffled)) == content(merged(applied))


@given(operations)
def test_the_document_is_that_of_a_replay_in_the_order_of_stamps(applied: list[Operation]) -> None:
    """Otherwise what is shown is not what the last writers meant."""
    writes: list[Any] = [(tuple(stamp), kind, body) for kind, body, stamp, _ in applied]
    assert merged(applied).visible() == document_of(writes)


@given(operations)
def test_a_document_expires_when_the_last_write_says_that_knew_of_it(applied: list[Operation]) -> None:
    """Otherwise it is gone before its time, or never goes, whatever was written last."""
    expires_ms: int | None = None
    for kind, _, _, said in sorted(applied, key=lambda operation: operation[2]):
        if kind != PATCH or said is not None:
            expires_ms = said or None
    assert merged(applied).expires_ms == expires_ms


@given(operations)
def test_a_state_survives_its_encoding(applied: list[Operation]) -> None:
    """Otherwise a document changes when the node restarts."""
    state = merged(applied)
    state.frontier = [Place(3, 7, 11), Place(4, 1, 12)]
    again = DocumentState.decode(state.encode())
    assert content(again) == content(state)
    assert again.frontier == state.frontier
    assert again.encode() == state.encode()


@given(operations)
def test_the_last_stamp_is_the_greatest_that_contributes(applied: list[Operation]) -> None:
    """Otherwise a document is shown with the author and time of a write that it does not hold."""
    state = merged(applied)
    if not applied:
        return
    clears = [stamp for kind, _, stamp, _ in applied if kind in (PUT, DELETE)]
    hidden = max(clears, default=None)
    seen = [stamp for _, _, stamp, _ in applied if hidden is None or stamp >= hidden]
    assert state.last() in seen


def test_a_patch_after_a_delete_brings_back_only_its_own_fields() -> None:
    """Otherwise deleted fields come back."""
    state = merged(
        [
            (PUT, {"a": 1, "b": 2}, Stamp(1, b"A", b"1"), None),
            (DELETE, None, Stamp(2, b"B", b"2"), None),
            (PATCH, {"a": 3}, Stamp(3, b"A", b"3"), None),
        ]
    )
    assert state.visible() == {"a": 3}


def test_an_empty_document_exists() -> None:
    """Otherwise `put {}` looks like a delete."""
    assert merged([(PUT, {}, Stamp(1, b"A", b"1"), None)]).visible() == {}
    assert merged([(PATCH, {}, Stamp(1, b"A", b"1"), None)]).visible() == {}
    assert merged([(PATCH, {"a": None}, Stamp(1, b"A", b"1"), None)]).visible() == {}


def test_null_in_a_put_is_a_value() -> None:
    """Otherwise a document that holds null loses the field on its way."""
    assert merged([(PUT, {"a": None}, Stamp(1, b"A", b"1"), None)]).visible() == {"a": None}


def test_a_field_removed_is_not_brought_back_by_an_older_write() -> None:
    """Otherwise a patch that removes a field works on some nodes only."""
    remove, older = (PATCH, {"a": None}, Stamp(5, b"A", b"5"), None), (PATCH, {"a": 1}, Stamp(4, b"B", b"4"), None)
    assert merged([remove, older]).visible() == merged([older, remove]).visible() == {}
