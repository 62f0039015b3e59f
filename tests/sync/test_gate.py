"""Who sends next on a link."""

from __future__ import annotations

import trio
import trio.testing

from meshsync.core.priority import Priority
from meshsync.sync.gate import PriorityGate


async def contend(turns: int, wanted: dict[str, Priority]) -> list[str]:
    """Let senders that never run dry share a gate; who sent, in order, until that many batches went out."""
    gate = PriorityGate()
    sent: list[str] = []

    async def send(name: str, priority: Priority) -> None:
        while True:
            async with gate.turn(priority) as may_go_on:
                while True:
                    await trio.sleep(1)
                    sent.append(name)
                    if len(sent) == turns:
                        nursery.cancel_scope.cancel()
                    if not may_go_on():
                        break

    async with trio.open_nursery() as nursery:
        for name, priority in wanted.items():
            nursery.start_soon(send, name, priority)
    return sent


async def test_the_urgent_go_first_and_the_others_still_get_a_turn_in_every_few(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Otherwise an alarm waits behind a bulk transfer, or the bulk starves."""
    del autojump_clock
    sent = await contend(300, {"bulk": Priority.LOW, "alarm": Priority.CRITICAL})
    assert 0.8 < sent.count("alarm") / 300 < 0.95
    gaps = "".join("a" if name == "alarm" else "b" for name in sent).split("b")
    assert max(map(len, gaps)) <= 10


async def test_equals_take_turns(autojump_clock: trio.testing.MockClock) -> None:
    """Otherwise one collection holds the link until it is done."""
    del autojump_clock
    sent = await contend(40, {"one": Priority.MEDIUM, "two": Priority.MEDIUM})
    assert sent.count("one") == sent.count("two") == 20


async def test_many_urgent_ones_do_not_starve_the_last(autojump_clock: trio.testing.MockClock) -> None:
    """Otherwise, where all have waited too long, the urgent among them always come first again."""
    del autojump_clock
    wanted = {f"urgent {number}": Priority.CRITICAL for number in range(12)} | {"last": Priority.LOW}
    sent = await contend(260, wanted)
    assert sent.count("last") >= 10
    assert min(map(sent.count, wanted)) >= 10


async def test_whoever_is_cancelled_gives_the_place_up(autojump_clock: trio.testing.MockClock) -> None:
    """Otherwise the gate stays shut after a stream ended while it waited, or was just let in."""
    del autojump_clock
    gate = PriorityGate()
    passed: list[int] = []

    async def send(number: int, seconds: float) -> None:
        with trio.move_on_after(seconds):
            async with gate.turn(Priority.HIGH):
                await trio.sleep(1)
                passed.append(number)

    async with trio.open_nursery() as nursery:
        # Some are cancelled while they wait, some in the very moment in which they are let in, some while they send.
        for number, seconds in enumerate([0.5, 0.2, 0.5, 1.0, 1.5, 99, 2.5, 99]):
            nursery.start_soon(send, number, seconds)
    assert {5, 7} <= set(passed)
    assert not gate._busy
    assert not gate._waiting
