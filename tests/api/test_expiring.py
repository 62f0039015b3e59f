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
        assert error["hint"].endswith("restore --at one of its entries brings it back")
    found = await served.get(f"{N1}/why")
    assert (found["deleted"], found["expiry"]["passed"]) == (None, True)


async def test_whoever_asks_for_a_time_when_it_had_expired_is_told_so(served: Served) -> None:
    """Otherwise it looks as if it had never been, and a restore says that it is to be deleted."""
    entry = await put(served, '{"n":1}', expires=SUMMER)
    at = "2100-06-01T08:00Z"
    for answer in (
        await served.error("GET", N1, params={"at": at}),
        await served.error("POST", f"{N1}/restore", content=json.dumps({"at": at})),
    ):
        status, error = answer
        assert (status, error["code"]) == (404, "no_document")
        assert error["message"] == f"document 'n1' in notes had expired at {SUMMER_TEXT}"
        assert error["hint"] == "name an earlier time, or one of the entries that meshsync history shows"
    _, error = await served.error("POST", f"{N1}/restore", content='{"at":"2020-01-01T00:00Z"}')
    assert error["hint"] == "delete it by rm"
    assert (await served.get(N1, at="2100-06-01T07:59:59.999Z"))["entry"] == entry


async def test_lines_say_when_documents_expire_and_are_loaded_so(served: Served) -> None:
    """Otherwise what a backup brings back never expires."""
    entry = await put(served, '{"n":1}', expires=SUMMER)
    documents = f"{NOTES}/documents"
    for id, body, expires in (("n2", {"n": 2}, None), ("n3", {"$expires": [1]}, None), ("n4", {"$expires": 1}, SUMMER)):
        await served.node.collection("notes").put(id, body, expires=expires)
    lines = [
        {"n": 1, "id": "n1", "$expires": SUMMER_TEXT},
        {"n": 2, "id": "n2"},
        {"id": "n3", "$expires": [None, [1]]},
        {"id": "n4", "$expires": [SUMMER_TEXT, 1]},
    ]
    assert await served.lines(documents) == lines
    assert await served.lines(documents, order="n") == lines
    assert await served.lines(documents, at=entry) == lines[:1]
    assert await served.lines(documents, ids="true", limit=1) == [{"id": "n1"}]
    dumped = (await served.client.get(documents)).content
    notes = served.node.collection("notes")
    before = [(one.id, one.body, one.expires) for one in notes.documents()]
    for document in before:
        await notes.delete(document[0])
    for batch in ("1", "4"):
        response = await served.client.post(f"{NOTES}/load", params={"batch": batch}, content=dumped)
        assert response.json() == {"v": 1, "stored": 4, "bad": 0, "expired": 0, "bad_lines": []}
        assert [(one.id, one.body, one.expires) for one in notes.documents()] == before


async def test_a_line_that_has_expired_is_left_out_and_counted(served: Served) -> None:
    """A dump may be old: what has expired since must not stop the rest, nor come back for ever, nor go unsaid."""
    lines = [{"id": "l1", "$expires": "2020-01-01T00:00Z"}, {"id": "l2"}, {"id": "l3", "$expires": SUMMER}]
    content = "\n".join(map(json.dumps, lines))
    notes = served.node.collection("notes")
    for batch in ("1", "9"):
        response = await served.client.post(f"{NOTES}/load", params={"batch": batch}, content=content)
        assert response.json() == {"v": 1, "stored": 2, "bad": 0, "expired": 1, "bad_lines": []}
        assert [one.id for one in notes.documents()] == ["l2", "l3"]
    response = await served.client.post(f"{NOTES}/load", params={"expires": "never"}, content=content)
    assert response.json()["stored"] == 3
    assert [(one.id, one.body, one.expires) for one in notes.documents()] == [(f"l{n}", {}, None) for n in (1, 2, 3)]


@pytest.mark.parametrize("said", ["tomorrow", "2100-01-01T00:00", 30, ["30d"]])
async def test_a_line_with_no_time_is_a_bad_line(served: Served, said: Any) -> None:
    """Otherwise a slip in one line keeps a document for ever, or stops a load without a word where."""
    content = "\n".join(map(json.dumps, [{"id": "l1"}, {"id": "l2", "$expires": said}, {"id": "l3"}]))
    for batch in ("1", "9"):
        response = await served.client.post(f"{NOTES}/load", params={"batch": batch}, content=content)
        answer = response.json()
        assert (response.status_code, answer["stored"], answer["error"]["line"]) == (400, 1, 2)
        assert answer["error"]["message"].startswith("line 2: ")
