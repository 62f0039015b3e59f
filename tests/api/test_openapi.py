from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from meshsync.api.documents import describe_write
from meshsync.api.errors import STATUS_OF_CODE
from meshsync.api.openapi import SCHEMAS
from meshsync.api.routes import ROUTES
from meshsync.core.retention import LATEST
from meshsync.past.history import history
from meshsync.store.past import Past
from tests.api.support import Served
from tests.authors import START_MS, Author, batch_of
from tests.replicas import apply, give, new_replica


def problems(value: Any, schema: dict[str, Any], place: str = "answer") -> Iterator[str]:
    """Where a value is not what a schema says; as much of JSON Schema as the schemas here use."""
    if "$ref" in schema:
        schema = SCHEMAS[schema["$ref"].rpartition("/")[2]]
    kinds = {"string": str, "boolean": bool, "object": dict, "array": list, "null": type(None)}
    wanted = schema.get("type", [])
    wanted = [wanted] if isinstance(wanted, str) else wanted
    numbers = {"number": (int, float), "integer": (int,)}
    if wanted and not any(
        type(value) in numbers[kind] if kind in numbers else isinstance(value, kinds[kind]) for kind in wanted
    ):
        yield f"{place}: {value!r} is not {wanted}"
    if "const" in schema and value != schema["const"]:
        yield f"{place}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place}: {value!r} is none of {schema['enum']}"
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        yield f"{place}: {value!r} does not match {schema['pattern']}"
    if isinstance(value, dict):
        yield from (f"{place}: {key} is missing" for key in schema.get("required", []) if key not in value)
        for key, below in schema.get("properties", {}).items():
            if key in value:
                yield from problems(value[key], below, f"{place}.{key}")
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from problems(item, schema["items"], f"{place}[{index}]")


async def test_every_route_is_described_and_nothing_else(served: Served) -> None:
    """A description that is behind its routes is worse than none."""
    described = await served.get("/openapi.json")
    found = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    assert found == {(route.method, route.path) for route in ROUTES}
    operations = [one for methods in described["paths"].values() for one in methods.values()]
    assert len({one["operationId"] for one in operations}) == len(ROUTES)
    for one in operations:
        assert one["summary"].endswith(".")
        assert {"200", "400", "500"} <= set(one["responses"])


def test_the_table_names_what_exists() -> None:
    """A slip in the table would show only to those who read the description."""
    for route in ROUTES:
        assert set(route.errors) <= set(STATUS_OF_CODE), route
        for name in (route.body, route.answer):
            assert name is None or name in SCHEMAS or "/" in name, route


def references(schema: Any) -> Iterator[str]:
    """The schemas that a schema refers to."""
    if isinstance(schema, dict):
        for key, below in schema.items():
            if key == "$ref":
                yield below.rpartition("/")[2]
            else:
                yield from references(below)
    elif isinstance(schema, list):
        for below in schema:
            yield from references(below)


def test_every_schema_is_there_and_used() -> None:
    """A generator of clients stops at a reference to nothing."""
    used = {name for route in ROUTES for name in (route.body, route.answer) if name in SCHEMAS}
    assert set(references(SCHEMAS)) | used | {"Error"} == set(SCHEMAS)


ANSWERS: list[tuple[str, str, str, Any]] = [
    ("Written", "PUT", "/v1/collections/notes/documents/n1", {"n": 1}),
    ("Document", "GET", "/v1/collections/notes/documents/n1", None),
    ("Why", "GET", "/v1/collections/notes/documents/n1/why", None),
    ("Health", "GET", "/v1/health", None),
    ("Status", "GET", "/v1/status", None),
    ("Graph", "GET", "/v1/graph", None),
    ("Peers", "GET", "/v1/peers", None),
    ("Collections", "GET", "/v1/collections", None),
    ("Joined", "POST", "/v1/collections", {"name": "x"}),
    ("Waited", "POST", "/v1/wait", {"timeout_s": 0}),
    ("Cycle", "POST", "/v1/sync", {}),
    ("Loaded", "POST", "/v1/collections/notes/load", {"id": "n2"}),
    ("PeerId", "POST", f"/v1/peers/{'5b' * 32}/ban", None),
    ("Error", "GET", "/v1/nothing", None),
    ("Error", "PUT", "/v1/collections/notes/documents/n1", []),
]


@pytest.mark.parametrize(("schema", "method", "path", "body"), ANSWERS)
async def test_answers_are_as_described(served: Served, schema: str, method: str, path: str, body: Any) -> None:
    """The schemas are made by hand; this holds them to what is answered."""
    await served.node.collection("notes").put("n1", {"n": 1})
    answer = (await served.client.request(method, path, json=body)).json()
    assert list(problems(answer, SCHEMAS[schema])) == []


def test_a_write_that_is_not_kept_is_as_described() -> None:
    """Otherwise a client with types of its own stops at the first document whose past is not here."""
    author, replica = Author(1), new_replica()
    entries = [author.write() for _ in range(3)]
    apply(replica, *batch_of(entries, superseded=entries[:2]))
    told = [describe_write(past.write) for past in history(Past(replica), "doc")]
    replica.retaining.keep(LATEST)
    give(replica, author.write())
    while replica.retaining.step(START_MS):
        pass
    told += [describe_write(past.write) for past in history(Past(replica), "doc")]
    assert [write["kind"] for write in told] == ["not fetched", "put", "let go", "put"]
    assert [fault for write in told for fault in problems(write, SCHEMAS["Write"])] == []
