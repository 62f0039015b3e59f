"""Nurseries for callers who know nothing of them, and exceptions out of nurseries as such a caller wants them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The exceptions in a group and in the groups in it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise a lone exception as itself, however many nurseries it came through.

    A nursery wraps what its body raises in a group.  That is right where several tasks fail together, and in
    the way where `async with open_node(…)` stands around somebody's own code.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        errors = list(leaves(group))
        if len(errors) != 1:
            raise
        raise errors[0] from errors[0].__cause__


@asynccontextmanager
async def beside(*tasks: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Run tasks beside the block, and cancel them at its end.  What either raises comes out unwrapped."""
    with unwrapped():
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
