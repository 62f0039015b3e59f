from __future__ import annotations

import trio

from meshsync.lab.agenda import Agenda


async def test_all_comes_when_it_is_due_and_in_the_order_in_which_it_was_added(autojump_clock: object) -> None:
    """Otherwise simulated links are longer or shorter than they say, and datagrams of one moment change places."""
    del autojump_clock
    agenda: Agenda[str] = Agenda()
    began = trio.current_time()
    taken: list[tuple[float, str]] = []

    async def take() -> None:
        while len(taken) < 4:
            await agenda.wait()
            taken.extend((trio.current_time() - began, item) for item in agenda.take())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.sleep(1)
        agenda.add(began + 9, "late")
        agenda.add(began + 5, "first")
        agenda.add(began + 5, "second")
        await trio.sleep(1)
        agenda.add(began + 3, "sooner")
    assert taken == [(3, "sooner"), (5, "first"), (5, "second"), (9, "late")]


async def test_a_wait_ends_when_it_is_to_end(autojump_clock: object) -> None:
    """Otherwise a station forgets nobody while nobody speaks."""
    del autojump_clock
    agenda: Agenda[str] = Agenda()
    began = trio.current_time()
    agenda.add(began + 9, "late")
    await agenda.wait(began + 2)
    assert trio.current_time() - began == 2
    assert list(agenda.take()) == []
