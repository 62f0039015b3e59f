"""Ends a script at a signal so that it cleans up: what it opened is closed on the way out."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

import trio

T = TypeVar("T")


class Interrupted(Exception):
    """SIGINT or SIGTERM."""


async def run_until_signal(function: Callable[[], Awaitable[T]]) -> T:
    """What the function returns.  Interrupted, in a group: a signal came first, and the function was cancelled."""
    results: list[T] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_raise_at, signals)
            results.append(await function())
            nursery.cancel_scope.cancel()
    return results[0]


async def _raise_at(signals: AsyncIterator[int]) -> None:
    async for number in signals:
        raise Interrupted(f"interrupted by {signal.Signals(number).name}")


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The plain exceptions of a group."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
