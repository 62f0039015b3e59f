from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.api.support import Served, happened, serving

STRANGER = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"


async def test_status_has_the_keys_of_the_interface(served: Served) -> None:
    """Scripts and labs are written against these keys."""
    status = await served.get("/v1/status")
    assert status["v"] == 1
    assert set(status) >= {"id", "name", "version", "uptime_s", "listen", "trust", "store", "peers", "collections"}
    assert set(status["store"]) >= {"entries", "bytes"}
    (notes,) = status["collections"]
    keys = {"name", "id", "root", "entries", "documents", "logs", "priority", "query", "peers", "held"}
    assert set(notes) >= keys
    assert status["listen"] == list(served.node.listen)


async def test_health_graph_and_collections_answer(served: Served) -> None:
    """A dashboard draws these."""
    assert (await served.get("/v1/health"))["healthy"] is True
    graph = await served.get("/v1/graph")
    (node,) = graph["nodes"]
    assert node.items() >= {"id": str(served.node.id), "name": "", "age_s": 0, "collections": ["notes"]}.items()
    assert (graph["self"], graph["links"]) == (str(served.node.id), [])
    assert [one["name"] for one in (await served.get("/v1/collections"))["collections"]] == ["notes"]


async def test_collections_are_joined_and_left(served: Served) -> None:
    """Without a restart, and remembered."""
    response = await served.client.post("/v1/collections", json={"name": "a/ä", "priority": "high"})
    assert response.json() == {"v": 1, "collection": "a/ä", "changed": {}}
    (joined,) = [one for one in (await served.get("/v1/collections"))["collections"] if one["name"] == "a/ä"]
    assert joined["priority"] == "high"
    for body, before, after in (
        ({"where": ["team=blue"]}, "", "team=blue"),
        ({"where": []}, "team=blue", ""),
        ({"where": ["team=red"], "retain": None}, "", "team=red"),
        ({}, "team=red", ""),
    ):
        response = await served.client.post("/v1/collections", json={"name": "a/ä", **body})
        assert response.json()["changed"] == {"where": {"before": before, "after": after}}
    path = "/v1/collections/a%2F%C3%A4"
    assert (await served.client.put(f"{path}/documents/x", content=b"{}")).status_code == 200
    assert (await served.client.delete(path)).status_code == 200
    assert (await served.error("GET", f"{path}/documents/x"))[1]["code"] == "no_collection"
    assert (await served.error("DELETE", path))[1]["code"] == "no_collection"


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({"name": "x", "where": ["team"]}, 400, "team"),
        ({"name": "x", "history": "some"}, 400, "there is no history 'some'"),
        ({"name": "x", "priority": "urgent"}, 400, "there is no priority 'urgent'"),
        ({"name": 7}, 400, "name is a string"),
        ({}, 400, "lacks the key 'name'"),
        ({"nam": "x"}, 400, "has the key 'nam'"),
        ([], 400, "must be a JSON object"),
    ],
)
async def test_what_cannot_be_joined_is_refused(served: Served, body: Any, status: int, expected: str) -> None:
    """A wish that is accepted and not carried out would be worse than a refusal."""
    found, error = await served.error("POST", "/v1/collections", json=body)
    assert found == status
    assert expected in error["message"]


async def test_two_nodes_meet_are_accepted_and_sync(tmp_path: Path) -> None:
    """The whole way: knock, pending, accept, connected, synced."""
    async with serving(tmp_path / "a", name="a") as a:
        peer = f"{a.node.id}@{a.node.listen[0]}"
        async with serving(tmp_path / "b", name="b", peers=[peer]) as b:
            with trio.fail_after(30):
                await happened(a.node, "pending")
                pending = (await a.get("/v1/peers", state="pending"))["peers"]
                assert [one["id"] for one in pending] == [str(b.node.id)]
                prefix = str(b.node.id)[:8]
                assert (await a.client.post(f"/v1/peers/{prefix}/accept")).json() == {"v": 1, "id": str(b.node.id)}
                await a.client.put("/v1/collections/notes/documents/n1", content=b'{"n":1}')
                waited = (await b.client.post("/v1/wait", json={}, timeout=30)).json()
                assert waited["synced"] is True
                waited = (
                    await b.client.post("/v1/wait", json={"collections": ["notes"], "peers": [str(a.node.id)]})
                ).json()
                assert waited["synced"] is True
                assert (await b.get("/v1/collections/notes/documents/n1"))["doc"] == {"n": 1}
                cycle = (await b.client.post("/v1/sync", json={"collection": "notes"})).json()
                assert (cycle["v"], cycle["peers"]) == (1, 1)
                connected = await b.client.post("/v1/connect", json={"peer": peer})
                assert connected.json() == {"v": 1, "id": str(a.node.id), "connected": True}
            assert [one["state"] for one in (await b.get("/v1/peers"))["peers"]] == ["connected"]
            assert (await b.get("/v1/graph"))["links"][0]["state"] == "connected"


async def test_waiting_gives_up_in_time(served: Served) -> None:
    """`wait synced --timeout` of a node without a peer would wait for ever."""
    answer = (await served.client.post("/v1/wait", json={"timeout_s": 0.01})).json()
    assert answer["synced"] is False


@pytest.mark.parametrize(
    ("path", "body", "status", "expected"),
    [
        ("/v1/wait", {"timeout_s": "60s"}, 400, "timeout_s is a number of seconds"),
        ("/v1/wait", {"collections": "notes"}, 400, "collections is an array of strings"),
        ("/v1/wait", {"collections": ["other"]}, 404, "has no collection 'other'"),
        ("/v1/wait", {"peers": ["feedfeed"]}, 404, "no known peers"),
        ("/v1/sync", {"collection": "other"}, 404, "has no collection 'other'"),
        ("/v1/connect", {"peer": "nonsense"}, 400, "has no @"),
        ("/v1/connect", {"peer": f"{STRANGER}@127.0.0.1"}, 400, "has no port"),
        ("/v1/verify", {"repair": 1}, 400, "repair is true or false"),
        ("/v1/peers/feedfeed/accept", None, 404, "no known peers"),
        ("/v1/peers/feed/ban", None, 404, "is no id"),
        ("/v1/peers/feedfeed/accept?x=1", None, 400, "there is no parameter 'x'"),
    ],
)
async def test_a_slip_is_told_apart_from_what_is_not_there(
    served: Served, path: str, body: Any, status: int, expected: str
) -> None:
    """The exit code of a command follows from this."""
    found, error = await served.error("POST", path, json=body)
    assert found == status
    assert expected in error["message"]


async def test_an_endpoint_may_be_judged_before_it_ever_knocked(served: Served) -> None:
    """Peers are accepted in advance from a list of ids."""
    for what in ("accept", "ban", "forget"):
        assert (await served.client.post(f"/v1/peers/{STRANGER}/{what}")).json() == {"v": 1, "id": STRANGER}


async def test_the_log_and_the_check_of_the_store_are_streams(served: Served) -> None:
    """`log` and `verify`."""
    notes = served.node.collection("notes")
    await notes.put("n1", {})
    await notes.delete("n1")
    first, second = await served.lines("/v1/collections/notes/log")
    assert set(first) >= {"v", "entry", "author", "incarnation", "seq", "height", "time", "parents", "size", "ops"}
    assert (first["ops"], second["ops"]) == ([["put", "n1"]], [["delete", "n1"]])
    assert first["time"].endswith("Z"), "as every other time"
    assert len(await served.lines("/v1/collections/notes/log", limit=1)) == 1
    response = await served.client.post("/v1/verify", json={})
    assert response.json() == {"v": 1, "done": True, "faults": 0}


async def test_metrics_are_in_the_format_of_prometheus(served: Served) -> None:
    """A scrape that fails to parse shows as a node that is down."""
    await served.node.collection("notes").put("n1", {})
    response = await served.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    assert families["meshsync_collection_documents"].samples[0].value == 1
    assert families["meshsync_info"].samples[0].labels["id"] == str(served.node.id)
    assert {"meshsync_uptime_seconds", "meshsync_store_bytes", "meshsync_peers"} <= set(families)


async def test_unknown_paths_and_methods_are_errors_in_the_one_shape(served: Served) -> None:
    """A client parses one shape of error, whatever it did."""
    assert (await served.error("GET", "/v1/statsu"))[0] == 404
    assert (await served.error("GET", "/v1/statsu"))[1]["code"] == "no_route"
    assert (await served.error("GET", "/v1/status/"))[0] == 404
    assert (await served.error("POST", "/v1/status"))[1]["code"] == "bad_method"
