"""A node that holds a part of a collection, over HTTP: `watch`, and what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from meshsync.core.entry import PUT, Operation
from meshsync.core.query import Query
from tests.api.support import Feed, serving

CHANGES = "/v1/collections/notes/changes"
BLUE = Query.parse("team=blue")
RED = Query.parse("team=red")


async def told(feed: Feed, count: int) -> list[tuple[str, str, Any]]:
    """The next changes of a feed, without what is of no interest here."""
    return [(one["kind"], one["id"], one["doc"] and one["doc"].get("n")) for one in await feed.lines(count)]


async def test_a_browser_goes_on_by_the_last_event_id_on_a_part_too(tmp_path: Path) -> None:
    """EventSource reconnects by itself, also to a node that was started anew and wants another part meanwhile."""
    headers = {"Accept": "text/event-stream"}
    async with serving(tmp_path / "n", collections=[]) as served:
        await served.node.join("notes", BLUE)
        notes = served.node.collection("notes")
        for n in range(3):
            await notes.put(f"n{n}", {"team": "blue", "n": n})
        await notes.put("red", {"team": "red", "n": 9})
        async with served.feed(CHANGES, headers, since="0", where="n>0") as feed:
            first = [await feed.sent() for _ in range(2)]
        await notes.patch("n0", {"team": "red"})  # never told: it does not match
        await notes.patch("n1", {"n": -1})
    async with serving(tmp_path / "n", collections=[]) as served:
        await served.node.join("notes", RED)
        headers["Last-Event-ID"] = first[-1][0]
        async with served.feed(CHANGES, headers, where="n>0") as feed:
            second = [await feed.sent() for _ in range(3)]
            await served.node.collection("notes").patch("red", {"n": 10})
            second.append(await feed.sent())
    assert [(data["kind"], data["id"]) for _, _, data in first] == [("put", "n1"), ("put", "n2")]
    assert [(data["kind"], data["id"]) for _, _, data in second] == [
        ("removed", "n1"),
        ("removed", "n2"),
        ("put", "red"),
        ("patch", "red"),
    ]
    assert all(id == data["cursor"] and event == "change" for id, event, data in first + second)


async def test_a_feed_goes_on_when_the_node_wants_a_part_another_one_or_all(tmp_path: Path) -> None:
    """Otherwise whoever follows is cut off, or goes on to believe in what the node does not hold any more."""
    async with serving(tmp_path / "n") as served:
        notes = served.node.collection("notes")
        async with served.feed(CHANGES) as feed, served.feed(CHANGES, where="n>1") as narrow:
            for n, team in enumerate(("blue", "red", "blue", "red")):
                await notes.put(f"n{n}", {"team": team, "n": n})
            assert await told(feed, 4) == [("put", f"n{n}", n) for n in range(4)]
            assert await told(narrow, 2) == [("put", "n2", 2), ("put", "n3", 3)]
            await served.node.join("notes", BLUE)
            assert await told(feed, 2) == [("removed", "n1", None), ("removed", "n3", None)]
            assert await told(narrow, 1) == [("removed", "n3", None)]
            await notes.patch("n0", {"n": 7})
            assert await told(feed, 1) == await told(narrow, 1) == [("patch", "n0", 7)]
            await served.node.join("notes", RED)
            entered = [("put", "n1", 1), ("put", "n3", 3)]
            assert sorted(await told(feed, 4)) == [*entered, ("removed", "n0", None), ("removed", "n2", None)]
            assert sorted(await told(narrow, 3)) == [entered[1], ("removed", "n0", None), ("removed", "n2", None)]
            await served.node.join("notes")
            assert await told(feed, 2) == [("put", "n0", 7), ("put", "n2", 2)]
            await notes.delete("n3")
            assert await told(feed, 1) == [("delete", "n3", None)]
            assert await told(narrow, 3) == [("put", "n0", 7), ("put", "n2", 2), ("delete", "n3", None)]


async def test_a_reader_of_a_part_that_sleeps_finds_each_document_as_it_stands(tmp_path: Path) -> None:
    """It must cost neither memory nor time, and it need not be told what is not so any more."""
    async with serving(tmp_path / "n", collections=[]) as served:
        await served.node.join("notes", BLUE)
        notes = served.node.collection("notes")
        async with served.feed(CHANGES) as feed:
            # Far more than the sockets between hold.
            for n in range(3000):
                fields = {"team": "blue", "n": n, "text": "x" * 1000}
                notes.write_soon([Operation(PUT, f"n{n % 20:02}", fields)])
            found = await told(feed, 20)
            assert found[-1][1:] == ("n19", 2999)
            assert found == [("put", f"n{n:02}", 2980 + n) for n in range(20)]


async def test_what_is_looked_at_is_counted_among_all_that_is_held(tmp_path: Path) -> None:
    """Otherwise `ls --explain` says that it looked at more documents than there are."""
    async with serving(tmp_path / "n") as served:
        notes = served.node.collection("notes")
        for n in range(6):
            await notes.put(f"n{n}", {"team": "blue" if n < 2 else "red", "n": n})
        await served.node.join("notes", BLUE)
        await notes.add_index("n")
        await notes.wait_indexed()
        assert (len(notes), notes.held) == (2, 6)
        explained = await served.get("/v1/collections/notes/explain", where="team~b")
        assert (explained["documents_read"], explained["documents"], explained["matched"]) == (6, 6, 2)
        indexes = await served.get("/v1/collections/notes/indexes")
        assert (indexes["documents"], indexes["indexes"]) == (6, [{"field": "n", "ready": True, "documents": 6}])
