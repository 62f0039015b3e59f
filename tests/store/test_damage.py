"""Damage under the sessions: what is damaged is never sent, nothing is blamed on a peer, and the rest goes on.

Two or three replicas on the simulated mesh; any message that its receiver refuses ends the test with a PeerError.
"""

from __future__ import annotations

from typing import Any

import pytest

from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.core.session_events import Changed, Check, Lost, SessionState
from meshsync.errors import DamagedError
from meshsync.store.healing import DocumentRebuild, heal_entry
from meshsync.store.memory_tables import MemoryTables
from meshsync.store.rows import EntryRow
from tests.authors import Author
from tests.replicas import give, new_replica
from tests.simmesh import SimMesh
from tests.simnode import End, Node


def put(id: str, **fields: Any) -> list[Operation]:
    return [Operation(PUT, id, fields)]


def tables_of(node: Node) -> MemoryTables:
    """The tables of a node, with the knobs that let them rot."""
    assert isinstance(node.replica.tables, MemoryTables)
    return node.replica.tables


def row_of(node: Node, arrival: int) -> EntryRow:
    return tables_of(node).inspect_entries(arrival, 1)[0].row


def session(node: Node) -> End:
    (end,) = node.ends
    return end


def pair(count: int) -> tuple[SimMesh, Node, Node]:
    """Two nodes that are not connected; the first wrote so many documents."""
    mesh = SimMesh(1, nodes=2)
    a, b = mesh.nodes
    for number in range(1, count + 1):
        a.write(put(f"d{number}", number=number))
    return mesh, a, b


def shared(count: int) -> tuple[SimMesh, Node, Node]:
    """Two nodes that share what the first wrote, connected."""
    mesh, a, b = pair(count)
    mesh.link(a, b)
    assert mesh.run(60, until=mesh.is_level)
    return mesh, a, b


def tell_mended(node: Node) -> None:
    """What the owner of the sessions does after a repair."""
    tips = {number: branch.tip.seq for number, branch in node.replica.branches.items()}
    for end in node.ends:
        end.handle(Changed(tips))
        end.give_ready()


def finish(rebuild: DocumentRebuild) -> None:
    while not rebuild.step():
        pass


def body(node: Node, id: str) -> Any:
    row = node.replica.tables.documents([id])[id]
    return node.replica.merger.read(row).body


ROT: list[dict[str, Any]] = [{"payload": b"rot"}, {"id": bytes(32)}, {"hlc": 7}, {"height": 99}, {"seal": b"s" * 64}]


@pytest.mark.parametrize("rot", ROT)
def test_damaged_entry_and_what_follows_it_stay_here(rot: dict[str, Any]) -> None:
    """The peer would take this node for a liar, and close the connection."""
    mesh, a, b = pair(9)
    sound = row_of(a, 5)
    tables_of(a).rot_entry(5, **rot)
    mesh.link(a, b)
    mesh.run(90)
    assert [tip.seq for tip in b.replica.tips()] == [4]
    assert session(a).session.stall is not None
    assert "verify --repair" in (a.replica.damage.text() or "")
    with a.store.transaction():
        tables_of(a).rewrite_entry(sound)
    a.replica.damage.entry_mended(5)
    tell_mended(a)
    assert mesh.run(60, until=mesh.is_level)
    assert b.replica.entry_count() == 9


def test_other_logs_go_on() -> None:
    """One bad sector would stop all of a collection."""
    mesh = SimMesh(1, nodes=3)
    a, b, c = mesh.nodes
    a.write(put("a1"))
    b.write(put("b1"))
    b.write(put("b2"))
    link = mesh.link(a, b)
    assert mesh.run(60, until=lambda: a.replica.entry_count() == b.replica.entry_count() == 3)
    mesh.cut(link)
    (log_b,) = [branch for branch in b.replica.branches.values() if branch.log.author == b.replica.author]
    head = b.replica.tables.entry_at(log_b.number, 1)
    assert head is not None
    tables_of(b).rot_entry(head.arrival, payload=b"rot")
    mesh.link(b, c)
    mesh.run(60)
    assert [tip.log.author for tip in c.replica.tips()] == [a.replica.author]


def test_what_names_a_damaged_entry_as_a_parent_waits_with_it() -> None:
    """The peer would be sent an entry without its parents, and blame this node."""
    mesh, a, b = shared(3)
    b.write(put("from b"))  # names entry 3 of a as a parent
    assert mesh.run(60, until=mesh.is_level)
    tables_of(b).rot_entry(2, payload=b"rot")
    c = mesh.add_node()
    mesh.link(b, c)
    mesh.run(60)
    # Entry 1 of a stays, too: it came without a seal of its own.
    assert c.replica.tips() == []
    mesh.link(a, c)
    assert mesh.run(90, until=mesh.is_level)


def test_a_damaged_parent_is_no_fault_of_the_peer() -> None:
    """A header rebuilt on a damaged parent gets another id, and then the author's seal seems forged."""
    mesh, a, b = shared(3)
    mesh.cut(mesh.links[0])
    b.write(put("from b"))
    tables_of(a).rot_entry(3, hlc=5)
    a.replica = type(a.replica)(a.store, a.replica.tables, a.key)
    assert [tip.seq for tip in a.replica.tips()] == [2]
    mesh.link(a, b)
    assert mesh.run(60, until=mesh.is_level)
    assert a.replica.entry_count() == 4


@pytest.mark.parametrize("rot", [{"id": bytes(32)}, {"hlc": 7}, {"height": 99}])
def test_branch_with_a_damaged_tip_is_completed_by_its_peers(rot: dict[str, Any]) -> None:
    """A wrong tip would be taken for a fork, by all peers and for ever."""
    mesh, a, b = shared(5)
    sound = row_of(b, 5)
    tables_of(b).rot_entry(5, **rot)
    tables_of(b).rot_entry(4, **rot)
    mesh.restart(b)
    assert [tip.seq for tip in b.replica.tips()] == [3]
    assert len(b.replica.damage.all()) == 2
    mesh.link(a, b)
    assert mesh.run(60, until=mesh.is_level)
    assert not b.replica.damage
    assert not b.replica.tails
    assert not b.replica.has_forks()
    assert row_of(b, 5)[:8] == sound[:8]
    assert b.replica.entry_count() == 5
    assert body(b, "d5") == {"number": 5}


def test_own_log_with_a_damaged_tip_is_not_continued() -> None:
    """Its next entry would stand beside the damaged one, which peers hold: a fork."""
    mesh, a, b = shared(3)
    tables_of(a).rot_entry(3, id=bytes(32))
    mesh.restart(a)
    a.write(put("after"))
    mesh.link(a, b)
    assert mesh.run(60, until=mesh.is_level)
    assert not b.replica.has_forks()
    assert b.replica.entry_count() == 5 - 1
    assert len({tip.log.incarnation for tip in b.replica.tips()}) == 2


def test_damaged_payload_is_asked_for_and_taken() -> None:
    """This is the repair of most of what can rot."""
    mesh, _, b = shared(5)
    sound = row_of(b, 3)
    tables_of(b).rot_entry(3, payload=b"rot")
    with pytest.raises(DamagedError):
        b.replica.tables.entry(3)
    b.replica.damage.lacking = [3]
    session(b).handle(Check())
    session(b).give_ready()
    assert session(b).session.is_asking
    mesh.run(5, until=lambda: not b.replica.damage)
    assert row_of(b, 3) == sound
    assert not session(b).session.is_asking
    assert mesh.run(60, until=mesh.is_level)


def test_peer_that_lost_the_payload_as_well_says_so() -> None:
    """Otherwise a repair would wait for it."""
    mesh, a, b = shared(5)
    for node in (a, b):
        tables_of(node).rot_entry(3, payload=b"rot")
    with pytest.raises(DamagedError):
        b.replica.tables.entry(3)
    b.replica.damage.lacking = [3]
    session(b).handle(Check())
    session(b).give_ready()
    mesh.run(5)
    assert not session(b).session.is_asking
    assert b.replica.damage
    assert session(a).session.state is SessionState.SYNCED


def test_held_below_a_damaged_head_the_rest_comes_again() -> None:
    """No other message carries what a header is made of."""
    mesh, _, b = shared(9)
    sound = [row_of(b, arrival) for arrival in range(1, 10)]
    tables_of(b).rot_entry(4, hlc=1, payload=b"rot")
    tables_of(b).rot_entry(6, parents=b"rot")
    b.replica.hold_below(1, 4)
    session(b).handle(Lost())
    session(b).give_ready()
    assert mesh.run(60, until=mesh.is_level)
    assert [row_of(b, arrival)[:9] for arrival in range(1, 10)] == [row[:9] for row in sound]
    assert not b.replica.tails
    assert b.replica.tables.counts() == (9, 9, 0)


# What is left proves it


@pytest.mark.parametrize("rot", [{"id": bytes(32)}, {"seal": b"s" * 64}])
def test_head_is_healed_where_what_is_left_proves_it(rot: dict[str, Any]) -> None:
    """What only this node wrote can come back from nowhere else."""
    _, a, _ = pair(5)
    sound = row_of(a, 3)
    tables_of(a).rot_entry(3, **rot)
    assert heal_entry(a.replica, tables_of(a).inspect_entries(3, 1)[0])
    assert row_of(a, 3) == sound


@pytest.mark.parametrize("rot", [{"hlc": 7}, {"height": 99}, {"id": bytes(32), "hlc": 7}, {"payload": b"rot"}])
def test_head_is_not_healed_by_a_guess(rot: dict[str, Any]) -> None:
    """An entry that nobody wrote would get a checksum that fits."""
    _, a, _ = pair(5)
    tables_of(a).rot_entry(3, **rot)
    assert not heal_entry(a.replica, tables_of(a).inspect_entries(3, 1)[0])


def test_damaged_id_of_a_tip_is_proved_by_its_seal() -> None:
    """Nothing follows a tip."""
    _, a, b = shared(5)
    sound = row_of(b, 5)
    assert sound.seal is not None
    tables_of(b).rot_entry(5, id=bytes(32))
    assert heal_entry(b.replica, tables_of(b).inspect_entries(5, 1)[0])
    assert row_of(b, 5) == sound
    tables_of(a).rot_entry(5, id=bytes(32))
    assert not heal_entry(a.replica, tables_of(a).inspect_entries(5, 1)[0])


# Documents


def test_damaged_document_is_told_and_not_shown() -> None:
    """What nobody wrote would be shown."""
    _, a, _ = pair(3)
    a.write([Operation(PATCH, "d2", {"more": 1})])
    tables_of(a).rot_document("d2")
    with pytest.raises(DamagedError, match=r"document 'd2' of notes is damaged.*verify --repair"):
        body(a, "d2")
    assert body(a, "d1") == {"number": 1}
    assert [error.document for error in a.replica.damage.all()] == ["d2"]


def test_document_of_a_damaged_payload_is_not_shown() -> None:
    """The row points at the entry, and is itself sound."""
    _, a, _ = pair(3)
    tables_of(a).rot_entry(2, payload=b"rot")
    with pytest.raises(DamagedError, match="payload of entry 2"):
        body(a, "d2")


def test_writing_goes_on_where_a_document_is_damaged() -> None:
    """Otherwise a peer's entry could not be stored because of what rotted here."""
    mesh, a, b = shared(3)
    tables_of(b).rot_entry(2, payload=b"rot")
    tables_of(b).rot_document("d3")
    a.write([Operation(PATCH, "d2", {"more": 1})])
    a.write(put("d3", number=33))
    a.write(put("d4"))
    assert mesh.run(60, until=lambda: b.replica.entry_count() == 6)
    assert body(b, "d4") == {}
    for id in ("d2", "d3"):
        with pytest.raises(DamagedError):
            body(b, id)


def test_put_over_a_damaged_payload_shows_what_was_put() -> None:
    """What it replaces is not needed for it."""
    _, a, _ = pair(3)
    tables_of(a).rot_entry(2, payload=b"rot")
    a.write(put("d2", number=22))
    assert body(a, "d2") == {"number": 22}


def test_documents_are_made_anew_from_their_entries() -> None:
    """They are the only rows that no peer can send."""
    mesh = SimMesh(1, nodes=2)
    a, b = mesh.nodes
    a.write(put("contested", by="a"))
    b.write(put("contested", by="b"))
    link = mesh.link(a, b)
    assert mesh.run(60, until=mesh.is_level)
    mesh.cut(link)
    a.write(put("patched", one=1, two=2))
    a.write([Operation(PATCH, "patched", {"two": None, "three": 3})])
    a.write(put("gone"))
    a.write([Operation(DELETE, "gone")])
    a.write(put("untouched"))
    ids = ["contested", "patched", "gone", "untouched"]
    before = a.replica.tables.documents(ids)
    counts = a.replica.tables.counts()
    for id in ids[:3]:
        tables_of(a).rot_document(id)
    rebuild = DocumentRebuild(a.replica, [b"contested", b"patched", b"gone"])
    a.write(put("later"))
    assert not rebuild.step()
    a.write([Operation(PATCH, "patched", {"four": 4})])
    finish(rebuild)
    after = a.replica.tables.documents(ids)
    assert [after[id] for id in ("contested", "gone", "untouched")] == [
        before[id] for id in ("contested", "gone", "untouched")
    ]
    assert body(a, "patched") == {"one": 1, "three": 3, "four": 4}
    assert a.replica.tables.counts() == (counts[0] + 2, counts[1] + 1, 0)


def test_documents_are_not_made_anew_while_an_entry_is_damaged() -> None:
    """Nobody knows which of them it touched: they would be shown without it."""
    _, a, _ = pair(3)
    tables_of(a).rot_document("d1")
    tables_of(a).rot_entry(2, payload=b"rot")
    rebuild = DocumentRebuild(a.replica, [b"d1"])
    with pytest.raises(DamagedError, match="entry 2"):
        finish(rebuild)


def test_of_documents_made_anew_the_one_that_cannot_be_is_named() -> None:
    """Otherwise an owner looks into a sound document, and the damaged one is not known."""
    replica, one, other = new_replica(), Author(1), Author(2)
    put, *others = [one.write([Operation(PUT, id, {})]) for id in ("d", *map(str, range(20)))]
    seen = other.write([Operation(PUT, "x", {})], [put])
    give(replica, put, *others, seen, other.write([Operation(PATCH, "d", {"n": 1})]))
    rebuild = DocumentRebuild(replica, [b"d", *(str(number).encode() for number in range(20))])
    assert not rebuild.step()
    tables = replica.tables
    assert isinstance(tables, MemoryTables)
    tables.rot_entry(22, height=0)
    with pytest.raises(DamagedError) as damaged:
        finish(rebuild)
    assert damaged.value.document == "d"
