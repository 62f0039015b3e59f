"""Exceptions out of nurseries, as a caller wants them who knows nothing of nurseries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


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
