from __future__ import annotations

import json
import re
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import trio
import trio.testing

import meshsync
from meshsync.core.limits import LIMITS
from meshsync.events import EVENT_TYPES, Event, EventLog
from meshsync.ids import EndpointId, EntryId, LogId

KEY = EndpointId(bytes.fromhex("3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"))


def test_numbers_begin_at_one_and_rise_by_one() -> None:
    """A reader could not tell that it missed something."""
    log = EventLog(clock=lambda: 5.0)
    assert log.next == 1
    assert log.emit("ready") == Event(1, 5.0, "ready", {})
    assert log.emit("synced", collection="notes") == Event(2, 5.0, "synced", {"collection": "notes"})
    assert log.next == 3


def test_since_means_the_next_one() -> None:
    """A cursor that means "the last one seen" in one place and "the next" in another skips events."""
    log = EventLog()
    for _ in range(3):
        log.emit("synced")
    assert [event.n for event in log.read(2)] == [2, 3]
    assert [event.n for event in log.read()] == [1, 2, 3]
    assert log.read(log.next) == []


def test_a_gap_shows() -> None:
    """The log is bounded; what was dropped must be visible from the numbers."""
    log = EventLog(replace(LIMITS, events_kept_max=2))
    for _ in range(5):
        log.emit("synced")
    assert [event.n for event in log.read(1)] == [4, 5]


def test_a_number_of_an_earlier_process_gives_all_that_is_kept() -> None:
    """A reader that continues after a restart would wait until the numbers caught up."""
    log = EventLog()
    log.emit("ready")
    assert [event.n for event in log.read(500)] == [1]
    assert log.read(2) == []


def test_facts_are_what_json_can_say() -> None:
    """An id in an event would break the API's stream."""
    log = EventLog()
    event = log.emit("fork", entry=EntryId(b"\1" * 32), log=LogId(KEY, b"\2" * 8), more={"ids": {b"\3"}, "n": 1})
    assert json.loads(json.dumps(event.facts)) == {
        "entry": "01" * 32,
        "log": [str(KEY), "02" * 8],
        "more": {"ids": ["03"], "n": 1},
    }


async def test_followers_get_what_was_and_what_comes() -> None:
    """`meshsync events --since 1` must not miss what happens between reading and waiting."""
    log = EventLog()
    log.emit("ready")
    seen: list[int] = []
    late: list[int] = []

    async def follow(since: int | None, into: list[int]) -> None:
        async with aclosing(log.follow(since)) as events:
            async for event in events:
                into += [event.n]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, 1, seen)
        nursery.start_soon(follow, None, late)
        await trio.testing.wait_all_tasks_blocked()
        assert (seen, late) == ([1], [])
        log.emit("connected")
        log.emit("synced")
        await trio.testing.wait_all_tasks_blocked()
        assert (seen, late) == ([1, 2, 3], [2, 3])
        nursery.cancel_scope.cancel()


async def test_a_slow_follower_holds_up_nobody_and_sees_its_gap() -> None:
    """A paused `meshsync events | less` would otherwise fill the memory."""
    log = EventLog(replace(LIMITS, events_kept_max=3))
    log.emit("ready")
    async with aclosing(log.follow(1)) as events:
        assert (await anext(events)).n == 1
        for _ in range(10):
            log.emit("synced")
        assert [(await anext(events)).n for _ in range(3)] == [9, 10, 11]


def test_every_event_that_is_emitted_is_in_the_table() -> None:
    """`events --type` refuses what is not in the table, and people would wait for it in vain."""
    package = Path(meshsync.__file__).parent
    emitted = {
        name for path in package.rglob("*.py") for name in re.findall(r'\.emit\(\s*"(\w+)"', path.read_text("utf-8"))
    }
    assert emitted
    assert emitted <= set(EVENT_TYPES)
