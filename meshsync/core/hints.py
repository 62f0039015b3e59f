"""Hints: what the stored bytes of a document must contain, for a query to match it.

A string is stored as its UTF-8, in one piece (meshsync/core/cbor.py takes no others), whatever is around it.  So most
documents that a query does not want need not be decoded, which takes five times as long as looking.
"""

from __future__ import annotations

from collections.abc import Callable

from meshsync.core.conditions import And, Compare, Condition, Exists, In, Not, OnField, Or, Prefix

Hint = Callable[[bytes], bool]
"""False where the document cannot match."""

_Needs = tuple[frozenset[bytes], ...]
"""Of each set, the bytes contain at least one."""
_ALTERNATIVES_MAX = 8


def compile_hint(condition: Condition) -> Hint | None:
    """The function that tells by the stored bytes that a document does not match; None where nothing can be told."""
    needs = _needs(condition)
    if not needs:
        return None
    # The longest are the rarest.
    chosen = sorted(needs, key=lambda alternatives: min(map(len, alternatives), default=0), reverse=True)[:3]
    wanted = [tuple(alternatives) for alternatives in chosen]
    if len(wanted) == 1 and len(wanted[0]) == 1:
        return _contains(wanted[0][0])
    return lambda stored: all(any(one in stored for one in alternatives) for alternatives in wanted)


def _contains(text: bytes) -> Hint:
    return lambda stored: text in stored


def _needs(condition: Condition) -> _Needs:
    match condition:
        case And(parts):
            return tuple(need for part in parts for need in _needs(part))
        case Or(parts):
            # One need of each part, and any of them will do.
            firsts = [min(needs, key=len) for part in parts if (needs := _needs(part))]
            union = frozenset().union(*firsts)
            return (union,) if len(firsts) == len(parts) and len(union) <= _ALTERNATIVES_MAX else ()
        case Not():
            return ()
        case Compare(_, "!=", _):
            return ()
        case _:
            return () if condition.path == ("id",) else _needs_of_test(condition)


def _needs_of_test(condition: OnField) -> _Needs:
    # The name of the field stands in the bytes as well, but mostly in all of them.
    match condition:
        case Compare(_, "=", str(value)) if value:
            return (frozenset([value.encode()]),)
        case Prefix(_, text) if text:
            return (frozenset([text.encode()]),)
        case In(_, values) if values and len(values) <= _ALTERNATIVES_MAX and all(map(_is_text, values)):
            return (frozenset(value.encode() for value in values),)
        case Exists() | Compare():
            return (frozenset([condition.path[-1].encode()]),) if condition.path[-1] else ()
    return ()


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""
