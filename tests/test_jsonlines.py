"""Documents as JSON lines: what is dumped is what is loaded again."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.limits import EXPIRES_MS_MAX
from meshsync.core.strictjson import decode_untrusted_json, encode_json
from meshsync.errors import LocalError
from meshsync.jsonlines import EXPIRES, line_of, take_expiry
from meshsync.moments import time_of
from meshsync.store.memory import MemoryStore
from tests.test_collection import NOW_MS, Notes

TIME = "2100-06-01T08:00:00.000Z"
NAMES = st.sampled_from([EXPIRES, f"${EXPIRES}", "$conflict", "expires", "n"])
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "never", TIME, "ä😀\u2028"])
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(NAMES, SCALARS, max_size=2)
BODIES = st.dictionaries(NAMES, VALUES, max_size=4)
MOMENTS = st.none() | st.integers(NOW_MS + 1, EXPIRES_MS_MAX).map(time_of)


@given(st.dictionaries(st.text("abé", min_size=1, max_size=2), st.tuples(BODIES, MOMENTS, BODIES), max_size=6))
async def test_a_collection_comes_back_as_it_was(writes: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]]) -> None:
    """Otherwise a backup loses when documents expire, or takes a field of theirs for it."""
    notes, other = (Notes(MemoryStore(random_bytes=random.Random(seed).randbytes)) for seed in (1, 2))
    for id, (body, expires, patch) in writes.items():
        await notes.put(id, body, expires=expires)
        await notes.patch(id, patch)
    for document in notes.documents():
        line = encode_json(line_of(document.id, document.body, document.expires))
        if document.expires is None and EXPIRES not in document.body:
            assert line == encode_json({**document.body, "id": document.id}), "the line is as it ever was"
        read = decode_untrusted_json(line.encode(), "the line")
        assert isinstance(read, dict)
        expires = take_expiry(read)
        await other.put(read.pop("id"), read, expires=expires)
    assert [(one.id, one.body, one.expires) for one in other.documents()] == [
        (one.id, one.body, one.expires) for one in notes.documents()
    ]


@pytest.mark.parametrize("said", [3, None, {}, [TIME], [1, 2], [TIME, 1, 2]])
def test_what_is_no_time_is_refused_with_the_way_to_write_a_field(said: Any) -> None:
    """Otherwise a field is lost, or a document never expires, and nobody is told."""
    with pytest.raises(LocalError, match=r"^\$expires says when .* such as 2026-12-01T00:00Z, not .*; .*\[null, …\]$"):
        take_expiry({"id": "n1", EXPIRES: said})
