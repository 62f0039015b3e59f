"""Documents under the policies that keep all that was written unseen: the same in every order of arrival."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core import cbor
from meshsync.core.entry import DELETE, NEVER, PATCH, PUT, Operation
from meshsync.core.policy import UNDECIDED, Policy, collection_id, policy_of, value_key
from meshsync.core.siblings import SiblingState
from meshsync.errors import LocalError
from meshsync.ids import CollectionId
from meshsync.past.conflicts import conflicts
from meshsync.past.history import history
from meshsync.past.origins import why
from meshsync.past.snapshots import take_snapshot
from meshsync.store.past import Past
from meshsync.store.replica import Replica
from tests.authors import Author, Made, batch_of
from tests.histories import ancestors, histories, in_any_order
from tests.replicas import apply, give, new_replica
from tests.test_history import present as shown

POLICIES = [Policy.GREATEST, Policy.LEAST, Policy.MANUAL]
KEEPING = {policy: collection_id("notes", policy) for policy in POLICIES}


def new(policy: Policy, *entries: Made) -> Replica:
    replica = new_replica(collection=KEEPING[policy])
    assert replica.policy is policy
    give(replica, *entries)
    return replica


# The model: everything from the sets of all ancestors


class Model:
    """What some entries make of the document `d`, worked out the slow and obvious way."""

    def __init__(self, entries: list[Made], policy: Policy) -> None:
        self.policy = policy
        self.above = ancestors(entries)
        self.writes: dict[bytes, tuple[int, dict[str, Any]]] = {}
        self.said: dict[bytes, int] = {}
        """What the writes say of when it expires."""
        for entry in entries:
            ((kind, _, *content),) = cbor.decode_trusted(entry.payload)
            self.writes[entry.id] = (kind, content[0] if content else {})
            if kind == PUT or len(content) > 1:
                self.said[entry.id] = content[1] or NEVER if len(content) > 1 else NEVER

    def _is_overridden(self, id: bytes, field: str | None) -> bool:
        """`field` None: by any write at all."""
        return any(
            id in self.above[other] and (field is None or kind != PATCH or field in body)
            for other, (kind, body) in self.writes.items()
        )

    def sides(self, field: str) -> list[Any]:
        """The values that are not overridden."""
        return [
            body[field]
            for id, (kind, body) in self.writes.items()
            if field in body and not self._is_overridden(id, field) and not (kind == PATCH and body[field] is None)
        ]

    def expires_ms(self) -> int | None:
        if self.document() is None:
            return None
        left = [
            ms
            for id, ms in self.said.items()
            if not any(
                id in self.above[other] and (kind != PATCH or other in self.said)
                for other, (kind, _) in self.writes.items()
            )
        ]
        return None if NEVER in left else max(left, default=None)

    def document(self) -> dict[str, Any] | None:
        if all(kind == DELETE for id, (kind, _) in self.writes.items() if not self._is_overridden(id, None)):
            return None
        found = {}
        for field in "ab":
            values = sorted(self.sides(field), key=lambda value: (value is not None, value))
            if values and self.policy is Policy.GREATEST:
                found[field] = values[-1]
            elif values and self.policy is Policy.LEAST:
                found[field] = values[0]
            elif values:
                different = [one for one in (None, 0, 1, 2) if one in values]
                found[field] = {UNDECIDED: different} if len(different) > 1 else different[0]
        return found


@given(st.sampled_from(POLICIES), st.data())
def test_every_order_of_arrival_makes_the_same_document(policy: Policy, data: st.DataObject) -> None:
    """Otherwise two nodes that are in sync show different documents."""
    entries = data.draw(histories(KEEPING[policy]))
    replica = new(policy)
    order = in_any_order(entries, data)
    for number, entry in enumerate(order, 1):
        give(replica, entry)
        model = Model(order[:number], policy)
        assert shown(replica) == model.document()
        assert replica.tables.documents(["d"])["d"].expires_ms == model.expires_ms()
    row = replica.tables.documents(["d"])["d"]
    assert row.live == (shown(replica) is not None)
    assert replica.tables.counts()[1] == row.live
    state = replica.merger.state(row)
    assert isinstance(state, SiblingState)
    assert row.conflict == state.is_contested
    assert SiblingState.decode(state.encode(), policy).encode() == state.encode()


@given(st.sampled_from(POLICIES), st.data())
def test_payloads_that_come_late_make_the_same_document(policy: Policy, data: st.DataObject) -> None:
    """A node that was sent headers first must not end with another document than all others."""
    entries = data.draw(histories(KEEPING[policy]))
    replica = new(policy)
    bare = [entry for entry in entries if data.draw(st.booleans())]
    apply(replica, *batch_of(entries, bare=bare))
    for entry in data.draw(st.permutations(bare)):
        assert replica.fill_payload(entry.log, entry.seq, entry.payload) is not None
    assert shown(replica) == Model(entries, policy).document()
    assert replica.tables.documents(["d"])["d"].expires_ms == Model(entries, policy).expires_ms()


@pytest.mark.parametrize("policy", POLICIES)
def test_a_payload_that_comes_after_what_overrides_it_changes_nothing(policy: Policy) -> None:
    """The random histories rarely hold it: an old value would stand beside, or before, the one that replaced it."""
    for first, then in ((1, 3), (3, 1)):
        author = Author(1, KEEPING[policy])
        entries = [author.write([Operation(PATCH, "d", {"a": n})]) for n in (first, then)]
        replica = new(policy)
        apply(replica, *batch_of(entries, bare=entries))
        for entry in entries[::-1]:
            replica.fill_payload(entry.log, entry.seq, entry.payload)
        assert shown(replica) == {"a": then}
        assert not replica.tables.documents(["d"])["d"].conflict


@given(st.sampled_from(POLICIES), st.data())
def test_the_past_replays_to_what_was_shown(policy: Policy, data: st.DataObject) -> None:
    """`get --at` and `history --diff` must not tell of a document that nobody ever saw."""
    entries = data.draw(histories(KEEPING[policy]))
    past = Past(new(policy, *entries))
    above = ancestors(entries)
    entry = data.draw(st.sampled_from(entries))
    seen = Model([one for one in entries if one.id in above[entry.id] | {entry.id}], policy).document()

    async def look() -> None:
        document = await (await take_snapshot(past, entry.id.hex())).get("d")
        assert (None if document is None else document.body) == seen

    trio.run(look)
    now: dict[str, Any] = {}
    for write in history(past, "d", diff=True):
        for change in write.changes or ():
            now.pop(change.field, None)
            if change.is_there:
                now[change.field] = change.after
    assert now == (Model(entries, policy).document() or {})


@given(st.sampled_from(POLICIES), st.data())
def test_why_and_conflicts_tell_what_the_document_shows(policy: Policy, data: st.DataObject) -> None:
    """Otherwise the winner that is named is not the value that one sees."""
    entries = data.draw(histories(KEEPING[policy]))
    replica = new(policy, *in_any_order(entries, data))
    past, document = Past(replica), shown(replica)
    told = why(past, "d")
    assert told is not None
    assert (told.deleted is None) == (document is not None)
    for origin in told.fields:
        values = [origin.said, *origin.beside]
        if document is not None and origin.field in document:
            found = document[origin.field]
            is_open = isinstance(found, dict)
            assert sorted(map(repr, {one.value for one in values})) == sorted(
                map(repr, found[UNDECIDED] if is_open else [found])
            )
        assert not any(one.said.write in [said.write for said in values] for one in origin.overrode)
    assert set(document or {}) <= {origin.field for origin in told.fields}
    for conflict in conflicts(past):
        assert replica.tables.documents(["d"])["d"].conflict
        for one in conflict.fields:
            if one.winner is None:
                found = (document or {})[one.field][UNDECIDED]
                assert {said.value for said in one.losers if said.is_there} == set(found)
            elif document is not None:
                assert one.winner.is_there == (one.field in document)
                assert one.winner.value == document.get(one.field)


@given(histories(KEEPING[Policy.MANUAL]))
def test_whoever_has_seen_all_decides(entries: list[Made]) -> None:
    """Otherwise a conflict is there for ever."""
    replica = new(Policy.MANUAL, *entries)
    heads = [entry for entry in entries if not any(entry.id in above for above in ancestors(entries).values())]
    decided = Author(9, KEEPING[Policy.MANUAL]).write([Operation(PATCH, "d", {"a": 7, "b": None})], heads)
    give(replica, decided)
    assert shown(replica) == {"a": 7}
    assert not replica.tables.documents(["d"])["d"].conflict
    assert list(conflicts(Past(replica))) == []


def apart(policy: Policy, *operations: Operation) -> Replica:
    """Writes of as many authors, none of whom knew of another."""
    authors = [Author(number, KEEPING[policy]) for number in range(1, len(operations) + 1)]
    return new(policy, *(author.write([one]) for author, one in zip(authors, operations, strict=True)))


@pytest.mark.parametrize(
    ("policy", "n"), [(Policy.GREATEST, 3), (Policy.LEAST, 1), (Policy.MANUAL, {UNDECIDED: [1, 3]})]
)
def test_what_each_policy_does(policy: Policy, n: Any) -> None:
    """The words of the documentation, as an example."""
    bodies = [{"n": 1, "x": 1}, {"n": 3}, {"n": 1, "y": 2}]
    replica = apart(policy, *(Operation(PUT, "d", body) for body in bodies), Operation(DELETE, "d"))
    assert shown(replica) == {"n": n, "x": 1, "y": 2}, "who did not know of a field or document takes nothing away"


def test_a_field_is_undecided_until_someone_writes_that_field() -> None:
    """Under `manual` no write to something else may pass for a decision."""
    replica = apart(Policy.MANUAL, *(Operation(PUT, "d", {"n": n}) for n in (1, 2)))
    replica.append([Operation(PATCH, "d", {"other": 1})], 1_900_000_000_000)
    assert shown(replica) == {"n": {UNDECIDED: [1, 2]}, "other": 1}
    assert replica.tables.documents(["d"])["d"].conflict
    (conflict,) = conflicts(Past(replica))
    assert [(one.field, one.winner, [said.value for said in one.losers]) for one in conflict.fields] == [
        ("n", None, [2, 1])
    ]
    replica.append([Operation(PATCH, "d", {"n": 2})], 1_900_000_000_000)
    assert shown(replica) == {"n": 2, "other": 1}
    assert not replica.tables.documents(["d"])["d"].conflict


def test_what_stands_for_a_decision_is_not_written_as_one() -> None:
    """Whoever reads a document, changes one field and puts it back would make the open question its answer."""
    replica = apart(Policy.MANUAL, *(Operation(PUT, "d", {"n": n}) for n in (1, 2)))
    with pytest.raises(LocalError, match="'n' still holds all the values"):
        replica.append([Operation(PUT, "e", {}), Operation(PUT, "d", {**shown(replica), "m": 1})], 1_900_000_000_000)
    assert replica.entry_count() == 2
    for policy in (Policy.GREATEST, Policy.LATEST):
        other = new_replica(collection=collection_id("notes", policy))
        other.append([Operation(PUT, "d", {"n": {UNDECIDED: [1, 2]}})], 1_900_000_000_000)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


@given(st.lists(values, max_size=6), st.data())
def test_all_values_have_one_order(found: list[Any], data: st.DataObject) -> None:
    """Nodes that sort in different orders choose different values; 1, 1.0 and true are not one."""
    ordered = sorted(found, key=value_key)
    again = sorted(data.draw(st.permutations(found)), key=value_key)
    assert [cbor.encode(one) for one in again] == [cbor.encode(one) for one in ordered]
    kinds = [(type(None), bool, int, float, str, list, dict).index(type(one)) for one in ordered]
    assert all(a <= b or {a, b} == {2, 3} for a, b in pairwise(kinds))


def test_the_policy_is_part_of_the_identity() -> None:
    """Otherwise nodes that decide differently hold equal sets, say that they are in sync, and show different values."""
    ids = {policy: collection_id("notes", policy) for policy in Policy}
    assert len(set(ids.values())) == len(Policy)
    assert ids[Policy.LATEST] == CollectionId.of_name("notes")
    assert {policy_of(id, "notes") for id in ids.values()} == set(Policy)
    assert policy_of(ids[Policy.LEAST], "") is Policy.LATEST
    assert policy_of(ids[Policy.LEAST], "other") is Policy.LATEST
    with pytest.raises(LocalError, match="latest, greatest, least, manual"):
        Policy.of("newest")
