"""Which entries touch a document, over every store."""

from __future__ import annotations

from contextlib import suppress

from meshsync.errors import StoreError
from meshsync.store.base import Store
from meshsync.store.rows import Touch
from meshsync.store.wholeness import touches_of
from tests.store.headers import header, noted, store_headers, tag
from tests.store.rows import places


def test_touches_are_read_by_time_from_either_end(store: Store) -> None:
    """Otherwise the past of a document is told in another order, or with holes."""
    tables = places(store)
    rows = [(b"tag-tag-", hlc, arrival) for arrival, hlc in enumerate([50, 20, 40, 20, 30], 1)]
    with store.transaction():
        tables.touches.add(rows)
        tables.touches.add([*rows[:2], (b"other---", 25, 9)])
    ordered = [Touch(20, 2), Touch(20, 4), Touch(30, 5), Touch(40, 3), Touch(50, 1)]
    page = tables.touches.page
    assert page(b"tag-tag-", None, 9) == ordered
    assert page(b"tag-tag-", None, 9, reverse=True) == ordered[::-1]
    assert page(b"tag-tag-", Touch(20, 2), 2) == ordered[1:3]
    assert page(b"tag-tag-", Touch(30, 5), 2, reverse=True) == [Touch(20, 4), Touch(20, 2)]
    assert page(b"tag-tag-", Touch(50, 1), 2) == []
    assert page(b"nothing-", None, 2) == page(b"nothing-", None, 2, reverse=True) == []


def test_touches_of_entries_that_lack_their_payloads_are_read_among_others(store: Store) -> None:
    """Otherwise the past of a document is told in another order, or with holes, while headers come in."""
    rows = [header(1, tag(1)), header(2, tag(1), tag(2)), header(3, tag(2))]
    tables, page = store_headers(store, rows), places(store).touches.page
    with store.transaction():
        tables.touches.add([(tag(1), 1 << 15, 9), (tag(1), 3 << 15, 8)])
    ordered = [Touch(1 << 15, 9), Touch(1 << 16, 1), Touch(3 << 15, 8), Touch(2 << 16, 2)]
    assert noted(tables, tag(1), limit=1) == noted(tables, tag(1), limit=9) == ordered
    assert noted(tables, tag(1), limit=3, reverse=True) == ordered[::-1]
    assert page(tag(1), ordered[1], 1) == [ordered[2]]
    with suppress(StoreError), store.transaction():
        tables.insert_entries([header(4, tag(2))])
        tables.touches.add_lacking(touches_of([header(4, tag(2))]))
        tables.touches.let_go([(tag(1), 1 << 16, 1)])
        assert page(tag(2), Touch(3 << 16, 3), 9) == [Touch(4 << 16, 4)]
        assert noted(tables, tag(1)) == [ordered[0], *ordered[2:]]
        raise StoreError("the disk is full")
    assert noted(tables, tag(1)) == ordered
    assert noted(tables, tag(2)) == [Touch(2 << 16, 2), Touch(3 << 16, 3)]
    with store.transaction():
        tables.touches.let_go([(tag(1), 1 << 16, 1)])
    assert noted(tables, tag(1)) == [ordered[0], *ordered[2:]]


def test_tags_of_documents_that_are_noted_are_told_from_others(store: Store) -> None:
    """A document of which nothing is noted is taken for what its only entry says, and not looked at."""
    tables = store_headers(store, [header(1, tag(1)), header(2, tag(2), tag(3))])
    touches = [(tag(4), 1, 3), (tag(4), 2, 4), (tag(5), 3, 5)]
    with store.transaction():
        tables.touches.add(touches)
    tags = [tag(number) for number in (1, 2, 3, 4, 5, 6, 4)]
    assert tables.touches.noted(tags) == {*tags} - {tag(6)}
    assert tables.touches.noted([tag(6)]) == tables.touches.noted([]) == set()
    with store.transaction():
        tables.touches.let_go([*touches[:1], *touches[2:], (tag(2), 2 << 16, 2)])
    assert tables.touches.noted(tags) == {tag(1), tag(3), tag(4)}


def test_touches_that_were_rolled_back_are_gone(store: Store) -> None:
    """Otherwise the past names entries that were never stored."""
    tables = places(store)
    with store.transaction():
        tables.touches.add([(b"tag-tag-", 1, 1)])
    with suppress(StoreError), store.transaction():
        tables.touches.add([(b"tag-tag-", 1, 1), (b"tag-tag-", 2, 2)])
        raise StoreError("the disk is full")
    assert tables.touches.page(b"tag-tag-", None, 9) == [Touch(1, 1)]
