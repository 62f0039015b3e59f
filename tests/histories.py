"""Random histories of one document, `d`, and what they mean, worked out the slow and obvious way."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from meshsync.core import cbor
from meshsync.core.entry import DELETE, NEVER, PATCH, PUT, Operation
from meshsync.ids import CollectionId
from tests.authors import COLLECTION, START_MS, Author, Made
from tests.meshoracle import Write

SOON_MS, LATER_MS = START_MS + 10_000, START_MS + 20_000
"""When documents of the histories expire, if they do: later than any of their stamps."""

expiries = st.sampled_from([None, None, NEVER, SOON_MS, LATER_MS])

operations = st.tuples(
    st.sampled_from([PUT, PATCH, DELETE]),
    st.dictionaries(st.sampled_from("ab"), st.none() | st.integers(0, 2), max_size=2),
    expiries,
)


def operation_of(kind: int, content: dict[str, int | None], expires_ms: int | None = None) -> Operation:
    return Operation(kind, "d") if kind == DELETE else Operation(kind, "d", content, expires_ms)


@st.composite
def histories(draw: st.DrawFn, collection: CollectionId = COLLECTION) -> list[Made]:
    """Entries of a few authors on one document, each with parents among those before."""
    authors = [Author(number, collection) for number in range(1, 5)]
    entries: list[Made] = []
    for _ in range(draw(st.integers(1, 12))):
        author = draw(st.sampled_from(authors))
        others = [entry for entry in entries if entry.log != author.log]
        chosen = draw(st.lists(st.sampled_from(others), max_size=3, unique_by=lambda entry: entry.id)) if others else []
        stamp = max([START_MS << 16, *(entry.hlc for entry in [*chosen, *([author.last] if author.last else [])])])
        content = draw(operations)
        entries.append(author.write([operation_of(*content)], chosen, hlc=stamp + draw(st.integers(1, 3))))
    return entries


def ancestors(entries: list[Made]) -> dict[bytes, set[bytes]]:
    by_id = {entry.id: entry for entry in entries}
    found: dict[bytes, set[bytes]] = {}
    for entry in entries:
        above = [*entry.parents, *([by_id[entry.prev]] if entry.prev else [])]
        found[entry.id] = {one.id for one in above}.union(*(found[one.id] for one in above))
    return found


def writes_of(entries: Sequence[Made]) -> list[Write]:
    """The writes to the document, in the order of the entries."""
    writes: list[Write] = []
    for entry in entries:
        ((kind, _, *content),) = cbor.decode_trusted(entry.payload)
        writes.append(((entry.hlc, bytes(entry.log.author), entry.id), kind, content[0] if content else None))
    return writes


def in_any_order(entries: list[Made], data: st.DataObject) -> list[Made]:
    """The entries in another order in which all come behind what they build upon."""
    left, given, order = list(entries), set[bytes](), list[Made]()
    while left:
        able = [
            entry
            for entry in left
            if (entry.prev is None or entry.prev in given) and all(parent.id in given for parent in entry.parents)
        ]
        chosen = data.draw(st.sampled_from(able))
        left.remove(chosen)
        given.add(chosen.id)
        order.append(chosen)
    return order
