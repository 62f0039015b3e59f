"""The past of documents over the control API."""

from __future__ import annotations

from tests.api.support import Served

DOCUMENTS = "/v1/collections/notes/documents"


async def test_history_is_a_line_a_write(served: Served) -> None:
    """Otherwise programs cannot tell who changed what."""
    notes = served.node.collection("notes")
    entries = [await notes.put("n1", {"n": 1, "m": 1}), await notes.patch("n1", {"n": 2, "m": None})]
    deleted = await notes.delete("n1")
    assert deleted is not None
    lines = await served.lines(f"{DOCUMENTS}/n1/history", diff="true")
    assert [line["entry"] for line in lines] == [*map(str, entries), str(deleted)]
    assert {line["author"] for line in lines} == {str(served.node.id)}
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
