"""Letting the past go: what is dropped, when, and that nothing is looked at over and over."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from meshsync.core.bare import LET_GO, mark_of
from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.core.hlc import COUNTER_BITS
from meshsync.core.query import Query
from meshsync.core.retention import ALL, LATEST, Retention
from meshsync.errors import StoreError
from meshsync.past.conflicts import conflicts
from meshsync.store.base import Store
from meshsync.store.contributing import contributing
from meshsync.store.headers import rebuilt_id
from meshsync.store.past import Past
from meshsync.store.replica import Replica
from meshsync.store.rows import EntryRow
from meshsync.store.sqlite import SqliteStore
from tests.authors import COLLECTION, START_MS, Author
from tests.duo import Duo
from tests.replicas import give, new_replica, put, store_of

DAY_MS = 86_400_000
BEGAN_MS = START_MS - 500 * DAY_MS
LATER = BEGAN_MS + 400 * DAY_MS


def opened(store: Store) -> Replica:
    return Replica(store, store.collection(COLLECTION, "notes"), Author(9).key)


def sweep(replica: Replica, now_ms: int = START_MS) -> int:
    """Let go what is to go; how many steps that took."""
    steps = 0
    while replica.retaining.step(now_ms):
        steps += 1
        assert steps < 10_000
    return steps


def here(replica: Replica) -> list[int]:
    """The arrivals of the payloads that are here."""
    return [row.arrival for row in replica.scan_entries() if row.payload is not None]


def at(days: float) -> int:
    """A stamp."""
    return BEGAN_MS + int(days * DAY_MS) << COUNTER_BITS


def test_superseded_payloads_of_others_go_and_headers_stay(store: Store) -> None:
    """Otherwise the disk of a node fills with what nobody will read."""
    replica, author = opened(store), Author(1)
    give(replica, *(author.write([Operation(PUT, "d", {"n": n})]) for n in range(200)))
    give(replica, author.write([Operation(PUT, "e", {})]))
    root, before = replica.root(), replica.tables.size_bytes()
    replica.retaining.keep(LATEST)
    sweep(replica)
    assert here(replica) == [200, 201]
    assert replica.root() == root
    dropped = replica.retaining.dropped
    assert (dropped.entries, replica.tables.size_bytes()) == (199, before - dropped.bytes)
    row = replica.tables.entry(7)
    assert row is not None
    assert mark_of(row.bare or b"") == LET_GO
    assert rebuilt_id(replica, row) == row.id
    assert replica.complete
    assert list(store.verify()) == []


def test_what_this_node_wrote_stays_until_someone_else_has_it(store: Store) -> None:
    """Otherwise a node that is on its own destroys what nobody else ever saw."""
    replica, other = opened(store), Author(1)
    replica.retaining.keep(LATEST)
    for number in range(5):
        put(replica, "d", number)
    give(replica, *(other.write([Operation(PUT, "e", {"n": n})]) for n in range(2)))
    sweep(replica)
    assert here(replica) == [1, 2, 3, 4, 5, 7]
    assert replica.retaining.waiting == 4
    replica.retaining.kept_elsewhere(4)
    sweep(replica)
    assert here(replica) == [4, 5, 7]
    assert opened(store).retaining.waiting == 1
    replica.retaining.kept_elsewhere(8)
    sweep(replica)
    assert here(replica) == [5, 7]
    assert replica.retaining.waiting == 0


def test_a_session_says_who_has_it() -> None:
    """A node that wants only a part takes the headers: it keeps nothing for anyone."""
    source, part, whole = new_replica(1), new_replica(2), new_replica(3)
    source.retaining.keep(LATEST)
    part.choose(Query.parse("n=7"))
    for number in range(4):
        put(source, "d", number)
    Duo(source, part).run(1)
    sweep(source)
    assert here(source) == [1, 2, 3, 4]
    Duo(source, whole).run(1)
    sweep(source)
    assert here(source) == [4]
    assert here(whole) == [1, 2, 3, 4]


def test_an_age_is_that_of_the_write(store: Store) -> None:
    """Otherwise what is kept for thirty days goes early, or never."""
    replica, author = opened(store), Author(1)
    replica.retaining.keep(Retention.parse("30d"))
    give(replica, *(author.write([Operation(PUT, "d", {"n": n})], hlc=at(n)) for n in range(10)))
    give(replica, author.write([Operation(PUT, "e", {})], hlc=at(10)))
    sweep(replica, BEGAN_MS + 29 * DAY_MS)
    assert here(replica) == list(range(1, 12))
    sweep(replica, BEGAN_MS + 33 * DAY_MS)
    assert here(replica) == list(range(4, 12))
    sweep(replica, LATER)
    assert here(replica) == [10, 11]
    # Old already when it is superseded: the pointer has passed it.
    give(replica, author.write([Operation(PUT, "e", {"n": 1})], hlc=at(401)))
    sweep(replica, LATER)
    assert here(replica) == [10, 12]


def test_what_is_old_when_it_comes_goes_at_once(store: Store) -> None:
    """Otherwise a new node keeps years of the past for another thirty days, behind one young entry."""
    replica, old, young = opened(store), Author(1), Author(2)
    replica.retaining.keep(Retention.parse("30d"))
    give(replica, young.write([Operation(PUT, "y", {"n": 0})], hlc=at(399)))
    give(replica, *(old.write([Operation(PUT, "d", {"n": n})], hlc=at(n)) for n in range(3)))
    sweep(replica, LATER)
    assert here(replica) == [1, 4]
    give(replica, old.write([Operation(PUT, "d", {"n": 9})], hlc=at(10)))
    sweep(replica, LATER)
    assert here(replica) == [1, 5]
    give(replica, young.write([Operation(PUT, "y", {"n": 1})], hlc=at(399.5)))
    sweep(replica, LATER)
    assert here(replica) == [1, 5, 6]
    sweep(replica, LATER + 31 * DAY_MS)
    assert here(replica) == [5, 6]


def test_a_number_of_entries_is_counted_by_arrival(store: Store) -> None:
    """Otherwise a bound on the log of a busy document is none."""
    replica, author = opened(store), Author(1)
    replica.retaining.keep(Retention.parse("3 entries"))
    give(replica, *(author.write([Operation(PUT, "d", {"n": n})]) for n in range(10)))
    sweep(replica)
    assert here(replica) == [8, 9, 10]
    give(replica, author.write([Operation(PUT, "d", {})]))
    sweep(replica)
    assert here(replica) == [9, 10, 11]


def test_less_is_kept_from_when_that_is_wished_and_all_again_later(store: Store) -> None:
    """Otherwise a change of the configuration counts for new entries only, or is not seen at all."""
    replica, author = opened(store), Author(1)
    give(replica, *(author.write([Operation(PUT, "d", {"n": n})]) for n in range(10)))
    sweep(replica)
    assert len(here(replica)) == 10
    replica.retaining.keep(Retention.parse("5 entries"))
    sweep(replica)
    assert here(replica) == [6, 7, 8, 9, 10]
    replica.retaining.keep(ALL)
    give(replica, author.write([Operation(PUT, "d", {})]))
    sweep(replica)
    assert here(replica) == [6, 7, 8, 9, 10, 11]
    replica = opened(store)
    assert replica.retaining.retention == ALL
    replica.retaining.keep(LATEST)
    sweep(replica)
    assert here(replica) == [11]
    assert replica.retaining.dropped.entries == 10


def test_a_document_that_is_written_without_end_costs_a_look_a_write(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each sweep looks through all that was ever written to it."""
    looked: list[int] = []

    def counting(replica: Replica, entries: list[EntryRow]) -> set[int]:
        looked.extend(entry.arrival for entry in entries)
        return contributing(replica, entries)

    monkeypatch.setattr("meshsync.store.retaining.contributing", counting)
    replica, author = opened(store), Author(1)
    replica.retaining.keep(LATEST)
    for start in range(0, 500, 50):
        # The other document of each entry keeps its payload here, though the hot one was written again.
        for n in range(start, start + 50):
            give(replica, author.write([Operation(PUT, "hot", {"n": n}), Operation(PUT, f"d{n}", {})]))
        sweep(replica)
    assert len(here(replica)) == 500
    assert len(looked) <= 2 * 500
    give(replica, *(author.write([Operation(PUT, "hot", {"n": n})]) for n in range(500)))
    sweep(replica)
    assert len(here(replica)) == 501
    assert len(looked) <= 2 * 1000 + 64


def test_the_past_of_a_document_in_conflict_waits_until_someone_decided(store: Store) -> None:
    """Otherwise a side of the conflict cannot be read: what it says of a field may stand in an earlier write of it."""
    replica, a, b = opened(store), Author(1), Author(2)
    replica.retaining.keep(LATEST)
    give(replica, first := a.write([Operation(PUT, "d", {"n": 0})], hlc=at(0)))
    give(replica, a.write([Operation(PATCH, "d", {"n": 1})], hlc=at(1)))
    give(replica, side := a.write([Operation(PATCH, "d", {"text": "a"})], hlc=at(2)))
    give(replica, b.write([Operation(PUT, "d", {"n": 2})], [first], hlc=at(3)))
    sweep(replica)
    assert here(replica) == [1, 2, 3, 4]
    (conflict,) = conflicts(Past(replica))
    assert [(one.field, [said.value for said in one.losers]) for one in conflict.fields] == [
        ("n", [1]),
        ("text", ["a"]),
    ]
    give(replica, b.write([Operation(PATCH, "d", {"n": 3})], [side], hlc=at(4)))
    sweep(replica)
    assert here(replica) == [4, 5]
    assert replica.retaining.waiting == 0


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    """Otherwise each start of a node looks through all of its past."""
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot")
    replica, author = opened(store), Author(1)
    give(replica, *(author.write([Operation(PUT, "d", {"n": n})]) for n in range(1000)))
    replica.retaining.keep(LATEST)
    for _ in range(3):
        assert replica.retaining.step(START_MS)
    done = replica.retaining.dropped.entries
    assert done > 100
    store.close()
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot")
    replica = opened(store)
    assert replica.retaining.dropped.entries == done
    assert sweep(replica) <= 1000 // 64 - 1
    assert here(replica) == [1000]
    assert sweep(opened(store)) == 0
    store.close()


def test_what_payloads_took_is_taken_again(tmp_path: Path) -> None:
    """SQLite keeps the pages: the file does not shrink, and it must not grow by more than headers either."""
    path = tmp_path / "store.db"
    sizes = []
    for turn in range(5):
        store = SqliteStore.open(path, boot_id=b"boot")
        replica = opened(store)
        replica.retaining.keep(LATEST)
        for number in range(400):
            content = {"turn": turn, "text": hashlib.sha256(b"%d" % number).hexdigest() * 16}
            replica.append([Operation(PUT, f"d{number % 20}", content)], START_MS)
        replica.retaining.kept_elsewhere(replica.tables.next_arrival())
        sweep(replica)
        store.close()
        sizes.append(path.stat().st_size)
    assert sizes[-1] - sizes[0] < 4 * 400 * 400
    assert sizes[-1] < 2 * sizes[0]


def test_nothing_is_forgotten_when_the_disk_fails_or_the_power() -> None:
    """A payload that was passed and not dropped would stay for ever."""
    replica, author = new_replica(), Author(1)
    store_of(replica).sync_now()
    replica.retaining.keep(LATEST)
    give(replica, *(author.write([Operation(PUT, "d", {"n": n})]) for n in range(100)))
    store_of(replica).broken = "disk full"
    with pytest.raises(StoreError):
        replica.retaining.step(START_MS)
    store_of(replica).broken = ""
    assert len(here(replica)) == 100
    store_of(replica).sync_now()
    assert replica.retaining.step(START_MS)
    store = store_of(replica).crash()
    replica = Replica(store, store.collection(replica.id, replica.name), replica.key)
    assert len(here(replica)) == 100
    sweep(replica)
    assert here(replica) == [100]
    store_of(replica).sync_now()
    # Superseded when all had been passed: the queue is of the same transaction.
    give(replica, author.write([Operation(PUT, "d", {})]))
    store = store_of(replica).kill()
    replica = Replica(store, store.collection(replica.id, replica.name), replica.key)
    sweep(replica)
    assert here(replica) == [101]


def test_a_clock_that_was_ahead_does_not_make_all_old_for_ever(store: Store) -> None:
    """What it dropped is lost; what was written since must be kept as long as was asked for."""
    replica, author = opened(store), Author(1)
    replica.retaining.keep(Retention.parse("30d"))
    give(replica, *(author.write([Operation(PUT, "d", {"n": n})], hlc=at(n)) for n in range(3)))
    sweep(replica, LATER)
    assert here(replica) == [3]
    give(replica, *(author.write([Operation(PUT, "d", {"n": n})], hlc=at(n)) for n in range(3, 6)))
    sweep(replica, BEGAN_MS + 6 * DAY_MS)
    assert here(replica) == [3, 4, 5, 6]
    sweep(replica, BEGAN_MS + 34 * DAY_MS)
    assert here(replica) == [5, 6]


def test_a_damaged_entry_is_passed_by_and_met_again_when_it_is_mended() -> None:
    """Otherwise one flipped bit ends the sweep for good, or what a repair brings back stays."""
    replica, author = new_replica(), Author(1)
    entries = [author.write([Operation(PUT, "d", {"n": n})]) for n in range(5)]
    give(replica, *entries)
    store_of(replica)._tables[replica.id].rot_entry(2, payload=b"rot")
    replica.retaining.keep(LATEST)
    sweep(replica)
    assert [one.row.payload for one in replica.tables.inspect_entries(1, 4)] == [None, b"rot", None, None]
    assert replica.fill_payload(author.log, 2, entries[1].payload) is not None
    assert here(replica) == [2, 5]
    sweep(replica)
    assert here(replica) == [5]


def writer(replica: Replica, rng: random.Random) -> None:
    """One write of a node of its own."""
    id = rng.choice(["a", "b", "c", "hot", "hot"])
    kind = rng.choice([PUT, PUT, PATCH, PATCH, DELETE])
    body = None if kind == DELETE else {rng.choice("xyz"): rng.randrange(3) for _ in range(rng.randrange(3))}
    others = [Operation(PUT, f"once{rng.randrange(10**6)}", {})] if rng.random() < 0.2 else []
    replica.append([Operation(kind, id, body), *others], BEGAN_MS + rng.randrange(60) * DAY_MS)


KEEPS: list[Callable[[random.Random], Retention]] = [
    lambda rng: LATEST,  # noqa: ARG005
    lambda rng: Retention(rng.randrange(1, 60) * 86400, 0),
    lambda rng: Retention(0, rng.randrange(1, 40)),
    lambda rng: Retention(rng.randrange(1, 30) * 86400, rng.randrange(1, 20)),
]


def shown(replica: Replica) -> dict[str, object]:
    """The documents, with what is contested of them and the writes that they are made of."""
    found: dict[str, object] = {}
    for row in replica.tables.document_rows("", 10_000):
        state = replica.merger.state(row)
        places = sorted((replica.branches[one.branch].log, one.seq, one.hlc) for one in state.frontier)
        found[row.id] = (row.live, row.conflict, state.visible(), sorted(state.stamps()), places)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_nodes_that_let_go_show_what_a_node_shows_that_keeps_all(seed: int) -> None:
    """Whoever met whom, and whatever was dropped meanwhile: otherwise a mesh differs for ever, or deletes come back."""
    print(f"replay: pytest 'tests/store/test_retaining.py' -k 'keeps_all and {seed}'")
    rng = random.Random(seed)
    whole, *frugal = [new_replica(number) for number in range(1, 6)]
    restored = None
    for turn in range(60):
        replica = rng.choice(frugal)
        match rng.randrange(10):
            case 0:
                replica.retaining.keep(rng.choice(KEEPS)(rng))
            case 1 | 2 | 3 | 4:
                for _ in range(rng.randrange(1, 6)):
                    writer(rng.choice([whole, *frugal]), rng)
            case 5 | 6:
                for _ in range(rng.randrange(1, 8)):
                    replica.retaining.step(BEGAN_MS + turn * DAY_MS)
            case 7 if restored is None and replica.own.log in replica.by_log:
                # A restored copy of a node writes on in the same log: a fork.
                copy = store_of(replica).copy()
                restored = Replica(copy, copy.collection(replica.id, replica.name), replica.key)
                writer(restored, rng)
                writer(replica, rng)
                frugal.append(restored)
            case _:
                a, b = rng.sample([whole, *frugal], 2)
                if a.author != b.author:
                    Duo(a, b).run(rng.choice([0.01, 1, 1]))
    for _ in range(3):
        for replica in frugal:
            Duo(replica, whole).run(1)
            sweep(replica, LATER)
    assert len({replica.root() for replica in [whole, *frugal]}) == 1
    expected = shown(whole)
    for replica in frugal:
        assert shown(replica) == expected
    assert any(replica.tables.marked() for replica in frugal), "nothing was let go, so nothing was tried"
