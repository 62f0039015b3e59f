"""Hints: what the stored bytes of a document must contain, for a query to match it.

A string is stored as its UTF-8, in one piece (meshsync/core/cbor.py takes no others), whatever is around it, and a
number stands behind the name of its field.  So most documents that a query does not want need not be decoded, which
takes several times as long as looking.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeGuard

from meshsync.core.conditions import And, Compare, Condition, Exists, In, Not, OnField, Or, Path, Prefix
from meshsync.core.numberbytes import number_pattern

Hint = Callable[[bytes], object]
"""What it answers counts as false where the document cannot match."""

# Of a merged state: an array of two, and the number of a stamp (meshsync/core/document.py).
_STAMP = rb"(?:\x82(?:[\x00-\x17]|\x18.|\x19..|\x1a....))?"
_HINTS_MAX = 3
_ALTERNATIVES_MAX = 8


def compile_hint(condition: Condition) -> Hint | None:
    """The function that tells by the stored bytes that a document does not match; None where nothing can be told."""
    match condition:
        case And(parts):
            numbers = [part for part in parts if _is_of_number(part)]
            hints = [compile_hint(part) for part in parts if not _is_of_number(part)]
            # Numbers last: looking for strings is cheaper, and rules out more.
            found = [hint for hint in hints if hint] + _hints_of_numbers(numbers)
            return _all(found[:_HINTS_MAX]) if found else None
        case Or(parts):
            hints = [compile_hint(part) for part in parts]
            return (
                _any([hint for hint in hints if hint])
                if None not in hints and len(hints) <= _ALTERNATIVES_MAX
                else None
            )
        case Not():
            return None
        case _:
            return None if condition.path == ("id",) else _hint_of_test(condition)


def _hint_of_test(condition: OnField) -> Hint | None:
    match condition:
        case Compare(_, "!=", _):
            return None
        case Compare(_, "=", str(text)) | Prefix(_, text) if text:
            return _contains(text.encode())
        case In(_, values) if len(values) <= _ALTERNATIVES_MAX and all(isinstance(one, str) and one for one in values):
            return _any([_contains(value.encode()) for value in values])
        case Compare() if _is_of_number(condition):
            return _hints_of_numbers([condition])[0]
        case Exists(path) | Compare(path) if path[-1]:
            return _contains(path[-1].encode())
    return None


def _contains(text: bytes) -> Hint:
    # Of what is a few hundred bytes long this takes two thirds of the time of a function that asks `text in stored`.
    return re.compile(re.escape(text)).search


def _is_of_number(condition: Condition) -> TypeGuard[Compare]:
    """Whether it compares a field with a number, other than by `!=`."""
    return (
        isinstance(condition, Compare)
        and condition.op != "!="
        and bool(condition.path[-1])
        and isinstance(condition.value, int | float)
        and not isinstance(condition.value, bool)
    )


def _hints_of_numbers(conditions: Sequence[Compare]) -> list[Hint]:
    """One for each field: what is between two bounds is looked for once."""
    by_path: dict[Path, list[tuple[str, float]]] = {}
    for one in conditions:
        by_path.setdefault(one.path, []).append((one.op, one.value))
    patterns = [re.escape(path[-1].encode()) + _STAMP + number_pattern(*tests) for path, tests in by_path.items()]
    return [re.compile(pattern, re.DOTALL).search for pattern in patterns]


def _all(hints: list[Hint]) -> Hint:
    if len(hints) == 1:
        return hints[0]
    first, *others = hints
    rest = _all(others)
    return lambda stored: first(stored) and rest(stored)


def _any(hints: list[Hint]) -> Hint:
    if not hints:
        return lambda stored: False  # noqa: ARG005
    if len(hints) == 1:
        return hints[0]
    first, *others = hints
    rest = _any(others)
    return lambda stored: first(stored) or rest(stored)
