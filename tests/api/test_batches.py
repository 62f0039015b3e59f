"""Conditional writes, and several operations as one entry."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshsync.core.limits import LIMITS
from tests.api.support import Served

N1 = "/v1/collections/notes/documents/n1"
BATCH = "/v1/collections/notes/batch"


def lines(*operations: dict[str, Any]) -> bytes:
    return "\n".join(map(json.dumps, operations)).encode()


async def test_a_condition_that_does_not_hold_is_told_as_such(served: Served) -> None:
    """A program must tell "somebody was faster" from every other failure, and learn what to do."""
    first = (await served.client.put(N1, params={"if_absent": "true"}, content=b'{"n":1}')).json()["entry"]
    second = (await served.client.patch(N1, params={"if_entry": first}, content=b'{"n":2}')).json()["entry"]
    for method, condition in (("PUT", first), ("PATCH", first[:8]), ("DELETE", first)):
        status, error = await served.error(method, N1, params={"if_entry": condition}, content=b'{"n":9}')
        assert (status, error["code"], error["hint"]) == (412, "moved_on", "read it again")
        assert f"entry {second[:8]} by {served.node.id.short}" in error["message"]
    status, error = await served.error("PUT", N1, params={"if_absent": "true"}, content=b"{}")
    assert (status, error["code"]) == (412, "moved_on")
    assert "exists already" in error["message"]
    assert (await served.error("PUT", N1, params={"if_entry": ""}, content=b"{}"))[0] == 400
    found = await served.get(N1)
    assert (found["doc"], found["revision"]) == ({"n": 2}, second)
    assert (await served.client.delete(N1, params={"if_entry": second})).status_code == 200


async def test_a_batch_is_written_whole(served: Served) -> None:
    """Several documents change together, in one entry, on every node."""
    notes = served.node.collection("notes")
    gone = await notes.put("gone", {})
    body = lines(
        {"put": {"id": "n1", "n": 1}, "if_absent": True},
        {"patch": {"id": "n2", "n": 2}},
        {"delete": {"id": "gone"}, "if_entry": str(gone)},
    )
    written = (await served.client.post(BATCH, content=body + b"\n\n")).json()
    document = notes.get("n1")
    assert document is not None
    assert written == {"v": 1, "collection": "notes", "entry": str(document.entry), "documents": 3}
    assert dict(notes.bodies()) == {"n1": {"n": 1}, "n2": {"n": 2}}
    nothing = (await served.client.post(BATCH, content=lines({"delete": {"id": "nothing"}}))).json()
    assert nothing["entry"] is None


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ({"put": {"id": "n2"}, "if_entry": "0" * 8}, "moved_on", "does not exist"),
        ({"put": {"id": "n1"}, "if_absent": True}, "moved_on", "exists already"),
        ({"put": {"n": 1}}, "bad_request", "line 2: put names no document"),
        ({"put": "n1"}, "bad_request", "line 2: put names no document"),
        ({"put": {"id": ""}}, "bad_request", "line 2: put names no document"),
        ({"put": {"id": "a"}, "delete": {"id": "b"}}, "bad_request", "line 2: one of put, patch and delete"),
        ({"id": "a"}, "bad_request", "line 2: one of put, patch and delete"),
        ({"put": {"id": "a"}, "if_entri": "0" * 8}, "bad_request", "line 2: there is no key 'if_entri'"),
        ({"put": {"id": "a"}, "if_entry": 5}, "bad_request", "line 2: if_entry"),
        ({"put": {"id": "a"}, "if_absent": 1}, "bad_request", "line 2: if_absent"),
        ({"delete": {"id": "a", "n": 1}}, "bad_request", "line 2: delete takes an id"),
        ({"put": {"id": "a", "text": "x" * 300_000}}, "refused", "line 2: 'a'"),
    ],
)
async def test_one_bad_line_keeps_all_out(served: Served, line: dict[str, Any], code: str, message: str) -> None:
    """Half a transaction is worse than none, and its owner must learn which line it was."""
    notes = served.node.collection("notes")
    await notes.put("n1", {"n": 0})
    _, error = await served.error("POST", BATCH, content=lines({"patch": {"id": "n1", "n": 1}}, line))
    assert error["code"] == code
    assert message in error["message"]
    assert dict(notes.bodies()) == {"n1": {"n": 0}}


async def test_a_batch_is_bounded(served: Served) -> None:
    """One request could fill the memory."""
    _, error = await served.error("POST", BATCH, content=lines(*({"put": {"id": f"n{n}"}} for n in range(257))))
    assert (error["code"], error["message"]) == ("refused", "line 257: a batch writes at most 256 documents")
    status, error = await served.error("POST", BATCH, content=b" " * (LIMITS.request_bytes_max + 1))
    assert (status, error["code"]) == (413, "too_large")
    assert len(served.node.collection("notes")) == 0
