from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from meshsync.core.entry import PUT, Operation
from tests.api.support import Served, serving

CHANGES = "/v1/collections/notes/changes"


async def test_changes_are_told_as_they_happen(served: Served) -> None:
    """`watch`: what is written after it began, in the words of the interface."""
    notes = served.node.collection("notes")
    await notes.put("before", {})
    async with served.feed(CHANGES) as feed:
        # The answer has begun, so the feed has its place: whatever is written now is in it.
        entry = await notes.put("n1", {"n": 1})
        await notes.patch("n1", {"m": 2})
        await notes.delete("n1")
        put, patch, delete = await feed.lines(3)
    assert set(put) == {"v", "cursor", "collection", "id", "doc", "author", "time", "kind", "conflict"}
    assert [one["kind"] for one in (put, patch, delete)] == ["put", "patch", "delete"]
    assert (put["v"], put["collection"], put["id"], put["conflict"]) == (1, "notes", "n1", False)
    assert put["author"] == str(served.node.id)
    assert delete["doc"] is None
    assert entry


async def test_a_cursor_goes_on_without_loss_or_repeat_also_after_a_restart(tmp_path: Path) -> None:
    """A program that was away must neither miss a change nor act on one twice."""
    async with serving(tmp_path / "n") as served:
        notes = served.node.collection("notes")
        for n in range(5):
            await notes.put(f"n{n}", {})
        async with served.feed(CHANGES, since="0") as feed:
            first = await feed.lines(3)
    async with serving(tmp_path / "n") as served:
        await served.node.collection("notes").put("n5", {})
        async with served.feed(CHANGES, since=first[-1]["cursor"]) as feed:
            second = await feed.lines(3)
    assert [one["id"] for one in first + second] == [f"n{n}" for n in range(6)]


async def test_a_live_query_goes_on_after_a_restart(tmp_path: Path) -> None:
    """What left the query while a program, or the node, was away must leave the program's view as well."""
    async with serving(tmp_path / "n") as served:
        notes = served.node.collection("notes")
        for id in ("n1", "n2", "n3"):
            await notes.put(id, {"team": "blue"})
        async with served.feed(CHANGES, since="0", where="team=blue") as feed:
            first = await feed.lines(3)
        await notes.patch("n1", {"team": "red"})
        await notes.delete("n2")
    async with serving(tmp_path / "n") as served:
        notes = served.node.collection("notes")
        await notes.put("n4", {"team": "red"})
        await notes.patch("n3", {"team": "red"})
        await notes.patch("n1", {"team": "blue"})
        async with served.feed(CHANGES, since=first[-1]["cursor"], where="team=blue") as feed:
            second = await feed.lines(4)
        async with served.feed(CHANGES, since="0", where="team=blue") as feed:
            assert await feed.lines(7) == first + second
    assert [(one["kind"], one["id"], one["doc"]) for one in second] == [
        ("removed", "n1", None),
        ("delete", "n2", None),
        ("removed", "n3", None),
        ("patch", "n1", {"team": "blue"}),
    ]


async def test_a_feed_that_nobody_reads_holds_up_nobody_and_loses_nothing(served: Served) -> None:
    """A client that sleeps must cost neither memory nor time, and find everything when it wakes."""
    notes = served.node.collection("notes")
    async with served.feed(CHANGES, where="n>=0") as feed:
        # Far more than the sockets between hold.
        for n in range(3000):
            notes.write_soon([Operation(PUT, f"n{n}", {"n": n, "text": "x" * 1000})])
        assert (await served.client.put("/v1/collections/notes/documents/last", content=b'{"n":0}')).status_code == 200
        found = await feed.lines(3001)
    assert [one["id"] for one in found] == [*(f"n{n}" for n in range(3000)), "last"]


async def test_the_header_names_where_a_feed_begins(served: Served) -> None:
    """A program lists, then follows: between the two it must miss nothing."""
    notes = served.node.collection("notes")
    async with served.feed(CHANGES) as feed:
        begin = feed.headers["meshsync-cursor"]
    await notes.put("n1", {})
    async with served.feed(CHANGES, since=begin) as feed:
        assert [one["id"] for one in await feed.lines(1)] == ["n1"]


async def test_a_feed_selects_by_query(served: Served) -> None:
    """`watch --where` would tell everything."""
    notes = served.node.collection("notes")
    async with served.feed(CHANGES, where="team=blue") as feed:
        await notes.put("n1", {"team": "red"})
        await notes.put("n2", {"team": "blue"})
        assert [one["id"] for one in await feed.lines(1)] == ["n2"]


async def test_a_cursor_of_another_store_is_refused(served: Served) -> None:
    """It would name another place here; and a program has to know that it is to forget what it was told."""
    bad, lost = (400, "bad_request"), (410, "cursor_lost")
    for cursor, answer in (("feedfeedfeedfeed-5", lost), ("part-feedfeedfeedfeed-5.5", lost), ("x", bad), ("-1", bad)):
        status, error = await served.error("GET", CHANGES, params={"since": cursor})
        assert (status, error["code"]) == answer
        status, error = await served.error("GET", CHANGES, headers={"Last-Event-ID": cursor})
        assert (status, error["code"]) == answer


async def test_a_browser_goes_on_by_the_last_event_id(served: Served) -> None:
    """EventSource reconnects by itself, with this header."""
    notes = served.node.collection("notes")
    headers = {"Accept": "text/event-stream"}
    await notes.put("n1", {})
    await notes.put("n2", {})
    async with served.feed(CHANGES, headers, since="0") as feed:
        assert feed.headers["content-type"].startswith("text/event-stream")
        id, event, data = await feed.sent()
    assert (event, data["id"], data["cursor"]) == ("change", "n1", id)
    headers["Last-Event-ID"] = id
    async with served.feed(CHANGES, headers) as feed:
        assert (await feed.sent())[2]["id"] == "n2"


async def test_events_are_numbered_and_selected(served: Served) -> None:
    """`events`: a gap in the numbers is the only way to see that something was missed."""
    events = served.node.events
    begin = events.next
    for _ in range(3):
        events.emit("synced", collection="notes")
        events.emit("fork", collection="notes")
    found = await served.lines("/v1/events", since=begin, follow="false")
    assert [one["n"] for one in found] == list(range(begin, begin + 6))
    assert found[0] == {"v": 1, "n": begin, "time": found[0]["time"], "type": "synced", "collection": "notes"}
    forks = await served.lines("/v1/events", since=begin, type="fork", follow="false")
    assert [one["n"] for one in forks] == [begin + 1, begin + 3, begin + 5]
    async with served.feed("/v1/events") as feed:
        events.emit("ready")
        assert (await feed.lines(1))[0]["n"] == begin + 6
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(begin + 5)}
    async with served.feed("/v1/events", headers) as feed:
        assert (await feed.sent())[:2] == (str(begin + 6), "ready")


@pytest.mark.parametrize("parameters", [{"type": "sinced"}, {"since": "x"}, {"follow": "perhaps"}, {"sinse": "1"}])
async def test_a_slip_in_a_parameter_of_events_is_refused(served: Served, parameters: dict[str, str]) -> None:
    """A misspelt type would wait for ever for events that never come."""
    assert (await served.error("GET", "/v1/events", params=parameters))[0] == 400


@pytest.mark.parametrize("id", ["9" * 5000, "٣", "-1", "part-1"])
async def test_the_last_id_of_another_stream_is_passed_over(served: Served, id: str) -> None:
    """A browser sends what it was told last, whoever it was: a number that Python will not read ended the request."""
    response = await served.client.get(
        "/v1/events", params={"follow": "false"}, headers={b"Last-Event-ID": id.encode()}
    )
    assert response.status_code == 200


async def test_a_feed_ends_with_its_client(served: Served) -> None:
    """A forgotten feed would stay for ever, and enough of them would use up the connections."""
    idle = trio.lowlevel.current_statistics().tasks_living
    async with served.feed(CHANGES):
        assert trio.lowlevel.current_statistics().tasks_living > idle
    with trio.fail_after(10):
        while trio.lowlevel.current_statistics().tasks_living > idle:
            await trio.testing.wait_all_tasks_blocked(0.01)
