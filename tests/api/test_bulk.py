from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import trio

from meshsync.core.limits import LIMITS
from meshsync.errors import StoreError
from tests.api.support import Served

LOAD = "/v1/collections/notes/load"


def lines(*documents: Any) -> bytes:
    """Documents as JSON lines; bytes are taken as they are."""
    return b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in documents)


async def load(served: Served, body: Any, **parameters: Any) -> tuple[int, dict[str, Any]]:
    """Status and answer of a load."""
    response = await served.client.post(LOAD, params=parameters, content=body)
    return response.status_code, response.json()


def ids(served: Served) -> list[str]:
    """The documents that are there."""
    return [document.id for document in served.node.collection("notes").documents()]


@pytest.mark.parametrize("batch", [1, 7, 256])
async def test_every_line_is_stored_in_order(served: Served, batch: int) -> None:
    """The later of two lines about one document counts, also where both go into one entry."""
    documents = [{"id": f"n{n % 300:03}", "n": n} for n in range(700)]
    assert await load(served, lines(*documents), batch=batch) == (
        200,
        {"v": 1, "stored": 700, "bad": 0, "expired": 0, "bad_lines": []},
    )
    notes = served.node.collection("notes")
    assert len(notes) == 300
    assert [document.body["n"] for document in notes.documents()] == [*range(600, 700), *range(400, 600)]
    order = [id for entry in served.node.log_entries("notes") for _, id in entry["ops"]]
    assert order == [one["id"] for one in documents]


async def test_it_stops_at_the_first_bad_line_and_names_it(served: Served) -> None:
    """What comes before is stored, what comes after is not, and going on from that line loses nothing."""
    body = lines({"id": "n1"}, b"", {"id": "n2"}, b'{"id":"n3","a":NaN}', {"id": "n4"})
    for batch in (1, 100):
        status, answer = await load(served, body, batch=batch)
        assert status == 400
        assert (answer["stored"], answer["error"]["line"], answer["error"]["code"]) == (2, 4, "bad_request")
        assert answer["error"]["message"] == "line 4: a: NaN is not JSON"
        assert ids(served) == ["n1", "n2"]


async def test_bad_lines_are_skipped_and_listed_where_that_is_asked_for(served: Served) -> None:
    """One bad line in a million should not need an editor."""
    long = {"id": "n4", "a": "x" * 300_000}
    body = lines({"id": "n1"}, {"n": 1}, {"id": "n2"}, b"[", long, {"id": 7}, {"id": "n3"})
    for batch in (1, 100):
        status, answer = await load(served, body, batch=batch, skip_bad="true")
        assert (status, answer["stored"], answer["bad"]) == (200, 3, 4)
        assert sorted(one["line"] for one in answer["bad_lines"]) == [2, 4, 5, 6]
        assert ids(served) == ["n1", "n2", "n3"]


async def test_a_line_without_end_is_refused(served: Served) -> None:
    """It would be collected until the memory is full."""
    status, answer = await load(served, lines({"id": "n1"}, b" " * (LIMITS.request_bytes_max + 70_000)))
    assert (status, answer["stored"], answer["error"]["line"]) == (413, 1, 2)


async def test_progress_is_told_while_the_lines_are_still_coming(served: Served) -> None:
    """A load of an hour would show nothing until its end."""
    told = trio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'{"id":"n1"}\n'
        await told.wait()
        yield b'{"id":"n2"}\n'

    # httpx reads no answer before the body is sent, so the first half is seen from the other side.
    async with trio.open_nursery() as nursery:

        async def wait_stored() -> None:
            async with aclosing(served.node.collection("notes").changes(since="0")) as changes:
                await anext(changes)
                told.set()

        nursery.start_soon(wait_stored)
        response = await served.client.post(LOAD, params={"progress": "true"}, content=body())
    reports = [json.loads(line) for line in response.text.splitlines()]
    assert reports[0] == {"v": 1, "stored": 0, "bad": 0, "expired": 0}
    assert reports[-1] == {"v": 1, "stored": 2, "bad": 0, "expired": 0, "bad_lines": [], "done": True}


async def test_a_disk_that_fails_ends_it_with_the_line_to_go_on_from(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not acknowledged by the disk must not be reported as stored."""
    notes = served.node.collection("notes")
    write_soon, written = notes.write_soon, []

    def fail_at_the_third(operations: Any) -> Any:
        written.append(operations)
        if len(written) == 3:
            raise StoreError("the disk is full; free some space")
        return write_soon(operations)

    monkeypatch.setattr(notes, "write_soon", fail_at_the_third)
    status, answer = await load(served, lines(*({"id": f"n{n}"} for n in range(10))), skip_bad="true")
    assert (status, answer["stored"]) == (507, 2)
    assert answer["error"] == {
        "line": 3,
        "code": "store_failed",
        "message": "the disk is full",
        "hint": "free some space",
    }
    assert ids(served) == ["n0", "n1"]
