"""The past of documents over the control API."""

from __future__ import annotations

import json

import httpx
import pytest

from meshsync.core.entry import PATCH, PUT, Operation
from meshsync.core.hlc import to_datetime
from meshsync.core.retention import Retention
from meshsync.moments import moment_text
from tests.api.support import Served
from tests.authors import START_MS, Author
from tests.replicas import give

DOCUMENTS = "/v1/collections/notes/documents"


async def test_history_is_a_line_a_write(served: Served) -> None:
    """Otherwise programs cannot tell who changed what."""
    notes = served.node.collection("notes")
    entries = [await notes.put("n1", {"n": 1, "m": 1}), await notes.patch("n1", {"n": 2, "m": None})]
    deleted = await notes.delete("n1")
    assert deleted is not None
    lines = await served.lines(f"{DOCUMENTS}/n1/history", diff="true")
    assert [line["entry"] for line in lines] == [*map(str, entries), str(deleted)]
    assert {(line["v"], line["author"]) for line in lines} == {(1, str(served.node.id))}
    assert all(line.pop("time").endswith("Z") for line in lines)
    assert [(line["kind"], line["set"], line["visible"], line["changes"]) for line in lines] == [
        ("put", {"n": 1, "m": 1}, False, [{"field": "m", "after": 1}, {"field": "n", "after": 1}]),
        ("patch", {"n": 2, "m": None}, False, [{"field": "m", "before": 1}, {"field": "n", "before": 1, "after": 2}]),
        ("delete", None, True, [{"field": "n", "before": 2}]),
    ]
    assert "changes" not in (await served.lines(f"{DOCUMENTS}/n1/history"))[0]


async def test_a_document_that_was_never_written_has_no_history(served: Served) -> None:
    """Otherwise a slip in an id looks like an empty past."""
    status, error = await served.error("GET", f"{DOCUMENTS}/nothing/history")
    assert (status, error["code"]) == (404, "no_document")
    assert (await served.error("GET", f"{DOCUMENTS}/nothing/history", params={"dif": "true"}))[0] == 400


def contest(served: Served) -> tuple[str, str]:
    """Let two authors write one document without knowing of each other; returns their ids."""
    a, b = Author(1), Author(2)
    first = a.write([Operation(PUT, "n1", {"title": "x"})])
    mine = a.write([Operation(PATCH, "n1", {"title": "mine"})])
    theirs = b.write([Operation(PATCH, "n1", {"title": "theirs", "more": 1})], [first], hlc=mine.hlc + 1)
    give(served.node.sync.replica("notes"), first, mine, theirs)
    return str(a.log.author), str(b.log.author)


async def test_why_and_conflicts_name_what_lost(served: Served) -> None:
    """Otherwise a value that somebody wrote is gone, and nobody can tell."""
    a, b = contest(served)
    found = await served.get(f"{DOCUMENTS}/n1/why", field="title")
    assert (found["collection"], found["id"], found["deleted"], found["complete"]) == ("notes", "n1", None, True)
    (origin,) = found["fields"]
    assert (origin["field"], origin["value"], origin["author"], origin["kind"]) == ("title", "theirs", b, "patch")
    overrode = [(one["value"], one["author"], one["seen"]) for one in origin["overrode"]]
    assert overrode == [("mine", a, False), ("x", a, True)]

    (conflict,) = await served.lines("/v1/collections/notes/conflicts")
    assert (conflict["v"], conflict["collection"], conflict["id"], conflict["complete"]) == (1, "notes", "n1", True)
    assert [write["author"] for write in conflict["writes"]] == [b, a]
    by_field = {one["field"]: (one["winner"], one["losers"]) for one in conflict["fields"]}
    assert sorted(by_field) == ["title"], "that a wrote nothing of `more` is no disagreement"
    winner, losers = by_field["title"]
    assert (winner["value"], [(one["value"], one["author"]) for one in losers]) == ("theirs", [("mine", a)])

    await served.node.collection("notes").patch("n1", {"seen": True})
    assert await served.lines("/v1/collections/notes/conflicts") == []


async def test_why_of_what_is_not_there_says_so(served: Served) -> None:
    """Otherwise a slip in a name looks like an answer."""
    notes = served.node.collection("notes")
    await notes.put("n1", {"n": 1})
    for path, parameters in (("nothing/why", {}), ("n1/why", {"field": "m"})):
        status, error = await served.error("GET", f"{DOCUMENTS}/{path}", params=parameters)
        assert (status, error["code"]) == (404, "no_document")
    await notes.delete("n1")
    found = await served.get(f"{DOCUMENTS}/n1/why")
    assert (found["deleted"]["kind"], found["fields"]) == ("delete", [])


async def test_documents_are_shown_and_restored_as_they_were(served: Served) -> None:
    """Otherwise a slip that was written over cannot be taken back."""
    notes = served.node.collection("notes")
    first = await notes.put("n1", {"n": 1})
    await notes.put("n2", {"n": 2})
    await notes.patch("n1", {"n": 3})
    await notes.delete("n2")
    found = await served.get(f"{DOCUMENTS}/n1", at=str(first))
    assert (found["doc"], found["entry"], found["kind"]) == ({"n": 1}, str(first), "put")
    assert (await served.get(f"{DOCUMENTS}/n1", at=str(first)[:8]))["doc"] == {"n": 1}
    assert await served.lines(DOCUMENTS, at=str(first)) == [{"id": "n1", "n": 1}]
    time = (await served.lines(f"{DOCUMENTS}/n2/history"))[-1]["time"]
    assert await served.lines(DOCUMENTS, at=time) == [{"id": "n1", "n": 3}]
    status, error = await served.error("GET", f"{DOCUMENTS}/n2", params={"at": str(first)})
    assert (status, error["code"]) == (404, "no_document")
    status, error = await served.error("GET", DOCUMENTS, params={"at": "2026-05-04"})
    assert (status, error["code"]) == (400, "bad_request")

    restored = (await served.client.post(f"{DOCUMENTS}/n1/restore", json={"at": str(first)})).json()
    document = notes.get("n1")
    assert document is not None
    assert (document.body, str(document.entry)) == ({"n": 1}, restored["entry"])
    for body, expected in (({"at": "0" * 64}, 400), ({"at": 1}, 400), ({}, 400)):
        assert (await served.error("POST", f"{DOCUMENTS}/n1/restore", json=body))[0] == expected
    await notes.put("late", {})
    for id, hint in (("late", "delete it by rm"), ("nope", "meshsync history shows when it was written")):
        status, error = await served.error("POST", f"{DOCUMENTS}/{id}/restore", json={"at": str(first)})
        assert (status, error["code"], error["hint"]) == (404, "no_document", hint)


async def test_documents_as_they_were_end_with_how_many_are_missing(served: Served) -> None:
    """A program must get all that is known, and must not take it for the whole."""
    replica, author = served.node.sync.replica("notes"), Author(7)
    entries = [author.write([Operation(PUT, id, {"n": n})]) for n, id in enumerate("abcbd")]
    give(replica, *entries)
    replica.retaining.keep(Retention(0, 0))
    while replica.retaining.step(START_MS):
        pass
    lines: list[str] = []
    with pytest.raises(httpx.RemoteProtocolError):
        await stream(served, entries[2].id.hex(), lines)
    assert [json.loads(line) for line in lines[:-1]] == [{"n": 0, "id": "a"}, {"n": 2, "id": "c"}]
    error = json.loads(lines[-1])["error"]
    assert (error["code"], error["missing"]) == ("let_go", 1)
    assert error["hint"] == "ask for a later time, or a node that retains all"


async def test_each_name_for_what_is_not_here_means_one_thing(served: Served) -> None:
    """A program that reads a number of payloads where a time stands breaks at the first collection with `retain`."""
    replica, author = served.node.sync.replica("notes"), Author(7)
    entries = [author.write([Operation(PUT, "n1", {"n": n})]) for n in range(3)]
    give(replica, *entries)
    replica.retaining.keep(Retention(0, 0))
    while replica.retaining.step(START_MS):
        pass
    first, last = await served.lines(f"{DOCUMENTS}/n1/history")
    assert (first["gone"], first["time"], "gone" in last) == ("let_go", moment_text(to_datetime(entries[1].hlc)), False)
    why = await served.get(f"{DOCUMENTS}/n1/why")
    assert (why["let_go_until"], why["not_fetched_until"]) == (first["time"], None)
    dropped = sum(len(one.payload) for one in entries[:2])
    status = (await served.get("/v1/status"))["collections"][0]
    assert status["let_go"] == {"payloads": 2, "bytes": dropped, "waiting": 0}


async def stream(served: Served, at: str, lines: list[str]) -> None:
    """Note the lines of the documents as they were, as they come."""
    async with served.client.stream("GET", DOCUMENTS, params={"at": at}) as response:
        async for line in response.aiter_lines():
            lines.append(line)  # noqa: PERF401  # what came before it broke off counts
