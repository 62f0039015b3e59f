"""Hints: what the stored bytes of a document must contain, for a query to match it.

A string is stored as its UTF-8, in one piece (meshsync/core/cbor.py takes no others), whatever is around it, and a
number stands behind the name of its field.  So most documents that a query does not want need not be decoded, which
takes several times as long as looking.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from meshsync.core.conditions import And, Compare, Condition, Exists, In, Not, OnField, Or, Prefix
from meshsync.core.numberbytes import number_pattern

Hint = Callable[[bytes], bool]
"""False where the document cannot match."""

# Of a merged state: an array of two, and the number of a stamp (meshsync/core/document.py).
_STAMP = rb"(?:\x82(?:[\x00-\x17]|\x18.|\x19..|\x1a....))?"
_HINTS_MAX = 3
_ALTERNATIVES_MAX = 8


def compile_hint(condition: Condition) -> Hint | None:
    """The function that tells by the stored bytes that a document does not match; None where nothing can be told."""
    match condition:
        case And(parts):
            # Strings first: looking for them is cheaper, and rules out more.
            found = sorted(filter(None, map(compile_hint, parts)), key=_is_search)
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
        case Compare(path, op, value) if path[-1] and isinstance(value, int | float) and not isinstance(value, bool):
            pattern = re.escape(path[-1].encode()) + _STAMP + number_pattern(op, value)
            return partial(_searches, re.compile(pattern, re.DOTALL).search)
        case Exists(path) | Compare(path) if path[-1]:
            return _contains(path[-1].encode())
    return None


def _contains(text: bytes) -> Hint:
    return lambda stored: text in stored


def _searches(search: Callable[[bytes], object], stored: bytes) -> bool:
    return search(stored) is not None


def _is_search(hint: Hint) -> bool:
    return isinstance(hint, partial)


def _all(hints: list[Hint]) -> Hint:
    if len(hints) == 1:
        return hints[0]
    first, *others = hints
    rest = _all(others)
    return lambda stored: first(stored) and rest(stored)


def _any(hints: list[Hint]) -> Hint:
    if len(hints) == 1:
        return hints[0]
    return lambda stored: any(hint(stored) for hint in hints)
