from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest

from meshsync.core.limits import LIMITS
from tests.api.support import Served

N1 = "/v1/collections/notes/documents/n1"


async def test_a_document_is_written_read_changed_and_deleted(served: Served) -> None:
    """The four calls that everything else is built on."""
    written = (await served.client.put(N1, content=b'{"title":"hello","n":1}')).json()
    assert {key: written[key] for key in ("v", "collection", "id")} == {"v": 1, "collection": "notes", "id": "n1"}

    found = await served.get(N1)
    assert datetime.fromisoformat(found.pop("time")).tzinfo == UTC
    assert found == {
        "v": 1,
        "collection": "notes",
        "id": "n1",
        "doc": {"title": "hello", "n": 1},
        "author": str(served.node.id),
        "entry": written["entry"],
        "conflict": False,
        "revision": written["entry"],
        "expires": None,
    }

    await served.client.patch(N1, content=b'{"title":null,"x":[1]}')
    assert (await served.get(N1))["doc"] == {"n": 1, "x": [1]}

    assert (await served.client.delete(N1)).status_code == 200
    assert (await served.error("GET", N1))[0] == 404
    assert (await served.error("DELETE", N1))[1]["code"] == "no_document"


@pytest.mark.parametrize("id", ["a/b", "..", ".", "a b", "ä😀", "100%", "a?b#c", "a%2Fb", "\n", "x" * 512])
async def test_any_text_is_an_id(served: Served, id: str) -> None:
    """An id with a slash would be taken for two parts of the path, and one that is decoded twice for another id."""
    path = f"/v1/collections/notes/documents/{quote(id, safe='')}"
    response = await served.client.put(path.replace("/..", "/%2E%2E").replace("/.", "/%2E"), content=b'{"n":1}')
    assert response.json().get("id") == id, response.text
    document = served.node.collection("notes").get(id)
    assert document is not None
    assert document.body == {"n": 1}


async def test_the_id_is_no_field_of_its_own(served: Served) -> None:
    """What `ls --json` prints must be what `put` takes."""
    await served.client.put(N1, content=b'{"id":"n1","n":1}')
    assert (await served.get(N1))["doc"] == {"n": 1}
    status, error = await served.error("PUT", N1, content=b'{"id":"n2","n":1}')
    assert (status, error["code"]) == (400, "bad_request")
    assert "another id" in error["message"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "not JSON"),
        (b"[1]", "must be a JSON object"),
        (b'{"a":NaN}', "a: NaN is not JSON"),
        (b'{"a":1,"a":2}', "a: this key stands twice"),
        (b'{"a":{"b":9223372036854775808}}', "a.b: 9223372036854775808 does not fit 64 bits"),
        (b'{"a":"\\ud800"}', "a: half a surrogate pair"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, "nested deeper than 16"),
        (b'{"a":"\xff"}', "not UTF-8"),
    ],
)
async def test_json_that_no_peer_would_accept_is_refused(served: Served, body: bytes, expected: str) -> None:
    """What Python's reader lets through would be written, and then differ on other nodes."""
    status, error = await served.error("PUT", N1, content=body)
    assert (status, error["code"]) == (400, "bad_request")
    assert expected in error["message"]
    assert served.node.collection("notes").get("n1") is None


async def test_a_body_is_bounded(served: Served) -> None:
    """One request could fill the memory."""
    status, error = await served.error("PUT", N1, content=b" " * (LIMITS.request_bytes_max + 1))
    assert (status, error["code"]) == (413, "too_large")
    status, error = await served.error("PUT", N1, json={"a": "x" * 300_000})
    assert (status, error["code"]) in {(413, "too_large"), (403, "refused"), (400, "bad_request")}
    assert served.node.collection("notes").get("n1") is None


async def test_a_collection_that_is_not_here_says_how_to_join_it(served: Served) -> None:
    """The first thing that goes wrong for a newcomer."""
    for method, path in (("GET", "documents/x"), ("PUT", "documents/x"), ("GET", "documents"), ("GET", "changes")):
        status, error = await served.error(method, f"/v1/collections/other/{path}")
        assert (status, error["code"]) == (404, "no_collection")
        assert error["hint"] == "meshsync collections join other"


async def test_listing_selects_pages_and_names_ids(served: Served) -> None:
    """`ls`, `dump` and programs that page through a collection."""
    notes = served.node.collection("notes")
    for n in range(10):
        await notes.put(f"n{n}", {"n": n, "team": "blue" if n % 2 else "red"})
    path = "/v1/collections/notes/documents"
    assert (await served.lines(path))[0] == {"id": "n0", "n": 0, "team": "red"}
    assert [one["id"] for one in await served.lines(path, where=["team=blue", "n>=5"])] == ["n5", "n7", "n9"]
    assert await served.lines(path, query='{"field":"n","in":[2,3]}', ids="true") == [{"id": "n2"}, {"id": "n3"}]
    assert await served.lines(path, where="id~n1", ids="true") == [{"id": "n1"}]
    first = await served.lines(path, limit=4, ids="true")
    second = await served.lines(path, limit=4, ids="true", after=first[-1]["id"])
    assert [one["id"] for one in first + second] == [f"n{n}" for n in range(8)]
    assert await served.lines(path, limit=0) == []


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"where": "team==blue"}, "query 'team==blue': column 6"),
        ({"query": '{"field":"n","near":1}'}, "query.near: no such test"),
        ({"query": "{"}, "query: not JSON"),
        ({"limit": "-1"}, "limit is a whole number"),
        ({"limit": "²"}, "limit is a whole number"),
        ({"were": "team=blue"}, "there is no parameter 'were' here"),
    ],
)
async def test_a_slip_in_a_parameter_is_refused(served: Served, parameters: Any, expected: str) -> None:
    """A misspelt `where` would list everything."""
    status, error = await served.error("GET", "/v1/collections/notes/documents", params=parameters)
    assert (status, error["code"]) == (400, "bad_request")
    assert expected in error["message"]


async def test_a_long_listing_lets_others_work(served: Served) -> None:
    """A `dump` of many documents must not hold up a `put`: the listing is written while other requests are answered."""
    notes = served.node.collection("notes")
    for n in range(3000):
        notes.write_soon([_put(f"n{n:04}", {"text": "x" * 200})])
    async with served.feed("/v1/collections/notes/documents") as feed:
        assert "n0000" in await feed.line()
        # Nobody reads the listing meanwhile, and its socket is full.
        assert (await served.client.put(N1, content=b"{}")).status_code == 200
        assert len(await feed.lines(2999)) == 2999


def _put(id: str, body: dict[str, Any]) -> Any:
    from meshsync.core.entry import PUT, Operation

    return Operation(PUT, id, body)
