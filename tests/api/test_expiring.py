"""Documents that expire, over the control API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshsync.core.limits import EXPIRES_MS_MAX
from tests.api.support import Served

NOTES = "/v1/collections/notes"
N1 = f"{NOTES}/documents/n1"
SUMMER = "2100-06-01T10:00:00+02:00"
SUMMER_TEXT = "2100-06-01T08:00:00.000Z"


async def put(served: Served, content: str = "{}", **parameters: str) -> str:
    response = await served.client.put(N1, params=parameters, content=content)
    assert response.status_code == 200, response.text
    return str(response.json()["entry"])


async def test_when_a_document_expires_is_written_and_read(served: Served) -> None:
    """Otherwise only programs in Python can use it."""
    first = await put(served, '{"n":1}', expires=SUMMER)
    assert (await served.get(N1))["expires"] == SUMMER_TEXT
    assert (await served.get(N1, at=first))["expires"] == SUMMER_TEXT
    response = await served.client.patch(N1, params={"expires": "never"}, content="{}")
    assert response.status_code == 200, response.text
    assert (await served.get(N1))["expires"] is None
    history = await served.lines(f"{N1}/history")
    assert [(line["kind"], line["expires"], line["visible"]) for line in history] == [
        ("put", SUMMER_TEXT, True),
        ("patch", "never", True),
    ]
    assert (await served.get(f"{N1}/why"))["expiry"] is None
    second = await put(served, expires="30d")
    found = await served.get(f"{N1}/why")
    assert (found["expiry"]["entry"], found["expiry"]["passed"]) == (second, False)
    assert found["expiry"]["expires"] == (await served.get(N1))["expires"]


@pytest.mark.parametrize(
    ("expires", "message"),
    [
        ("2020-01-01T00:00Z", "2020-01-01T00:00Z is not to come, because here it is 20"),
        ("tomorrow", "no time at which a document can expire"),
        ("2100-01-01T00:00", "names no time zone"),
        ("0s", "is not to come"),
    ],
)
async def test_a_time_that_cannot_be_meant_is_refused(served: Served, expires: str, message: str) -> None:
    """Otherwise what was written is gone at once, and nobody says why."""
    for method, path, content in (
        ("PUT", N1, "{}"),
        ("PATCH", N1, "{}"),
        ("POST", f"{NOTES}/load", '{"id":"n1"}'),
    ):
        status, error = await served.error(method, path, params={"expires": expires}, content=content)
        assert (status, error["code"]) == (400, "bad_request")
        assert message in error["message"]
    line = json.dumps({"put": {"id": "n1"}, "expires": expires})
    status, error = await served.error("POST", f"{NOTES}/batch", content=line)
    assert (status, error["code"]) == (400, "bad_request")
    assert error["message"].startswith("line 1: expires: ")
    assert served.node.sync.replica("notes").entry_count() == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"put": {"id": "n1"}, "expires": 30}, "as a string"),
        ({"delete": {"id": "n1"}, "expires": "30d"}, "delete takes an id"),
    ],
)
async def test_a_line_that_makes_no_sense_is_named(served: Served, line: dict[str, Any], message: str) -> None:
    """Otherwise a batch forgets what it was told, or deletes later than now."""
    status, error = await served.error("POST", f"{NOTES}/batch", content=json.dumps(line))
    assert status == 400
    assert error["message"].startswith("line 1: ")
    assert message in error["message"]


async def test_batches_and_loads_expire(served: Served) -> None:
    """Otherwise whoever writes many documents has to delete them, one by one."""
    lines = [{"put": {"id": "n1"}, "expires": SUMMER}, {"patch": {"id": "n2"}, "expires": "never"}]
    response = await served.client.post(f"{NOTES}/batch", content="\n".join(map(json.dumps, lines)))
    assert response.status_code == 200, response.text
    content = "\n".join(json.dumps({"id": f"l{number}"}) for number in range(5))
    response = await served.client.post(f"{NOTES}/load", params={"expires": "1h", "batch": "2"}, content=content)
    assert response.status_code == 200, response.text
    notes = served.node.collection("notes")
    found = {document.id: document.expires for document in notes.documents()}
    assert len({found.pop(f"l{number}") for number in range(5)}) == 1, "all of a load expire together"
    assert {id: expires and expires.year for id, expires in found.items()} == {"n1": 2100, "n2": None}


async def test_whoever_asks_for_what_has_expired_is_told_so(served: Served) -> None:
    """Otherwise a document that everybody saw a minute ago looks as if it had been lost."""
    await put(served, expires=SUMMER)
    notes = served.node.collection("notes")
    replica = served.node.sync.replica("notes")
    while replica.expiries.step(EXPIRES_MS_MAX):
        pass
    assert len(notes) == 0
    for method in ("GET", "DELETE"):
        status, error = await served.error(method, N1)
        assert (status, error["code"]) == (404, "no_document")
        assert error["message"] == f"document 'n1' in notes expired at {SUMMER_TEXT}"
    found = await served.get(f"{N1}/why")
    assert (found["deleted"], found["expiry"]["passed"]) == (None, True)
