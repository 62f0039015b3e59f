"""The fields of messages: each function takes a decoded value and returns it in the form that the message's dataclass
holds, or raises Malformed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshsync.core.cbor import Malformed
from meshsync.core.entry import TAG_BYTES
from meshsync.core.limits import LIMITS, OPERATIONS_MAX, PARENTS_MAX
from meshsync.core.tips import TIP_ID_BYTES
from meshsync.errors import LocalError
from meshsync.ids import CollectionId, EndpointId, LogId

SEQ_MAX = 2**53
_DESCRIBED_BYTES_MAX = 34 + 5 + 3 + OPERATIONS_MAX * (1 + TAG_BYTES)
"""Hash, size, and as many tags as an entry can have, each with its length."""


def uint(maximum: int) -> Callable[[Any], int]:
    """An integer from 0 to `maximum`."""

    def check(value: Any) -> int:
        if type(value) is not int or not 0 <= value <= maximum:
            raise Malformed(f"expected an integer from 0 to {maximum}")
        return value

    return check


def blob(*sizes: int) -> Callable[[Any], bytes]:
    """Bytes of one of these lengths."""

    def check(value: Any) -> bytes:
        if type(value) is not bytes or len(value) not in sizes:
            raise Malformed(f"expected {' or '.join(map(str, sizes))} bytes")
        return value

    return check


def blob_up_to(maximum: int) -> Callable[[Any], bytes]:
    """Bytes, at most so many."""

    def check(value: Any) -> bytes:
        if type(value) is not bytes or len(value) > maximum:
            raise Malformed(f"expected at most {maximum} bytes")
        return value

    return check


def boolean(value: Any) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise Malformed("expected true or false")
    return value


def optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Null, or what `check` takes."""
    return lambda value: None if value is None else check(value)


def items(value: Any) -> list[Any]:
    """An array of anything."""
    if type(value) is not list:
        raise Malformed("expected an array")
    return value


def many(check: Callable[[Any], Any], into: Callable[[Any], Any] = list) -> Callable[[Any], Any]:
    """An array of what `check` takes."""
    return lambda value: into([check(item) for item in items(value)])


def up_to(maximum: int) -> Callable[[list[Any]], list[Any]]:
    """A list, of at most so many items."""

    def check(found: list[Any]) -> list[Any]:
        if len(found) > maximum:
            raise Malformed(f"expected at most {maximum} items")
        return found

    return check


def row(*checks: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    """An array of as many items as there are checks."""

    def check(value: Any) -> tuple[Any, ...]:
        if len(items(value)) != len(checks):
            raise Malformed(f"expected {len(checks)} items")
        return tuple([one(item) for one, item in zip(checks, value, strict=True)])

    return check


def log(author: Any, incarnation: Any) -> LogId:
    """A log, of its two parts."""
    try:
        return LogId(EndpointId(blob(32)(author)), blob(8)(incarnation))
    except LocalError as error:
        raise Malformed(str(error)) from None


def log_row(value: Any) -> LogId:
    """A log."""
    if len(items(value)) != 2:
        raise Malformed("expected [author, incarnation]")
    return log(*value)


def tip_row(value: Any) -> tuple[LogId, int, bytes]:
    """A tip: the log, the seq, and the id as far as tips carry it."""
    if len(items(value)) != 4:
        raise Malformed("expected [author, incarnation, seq, id]")
    return log(value[0], value[1]), seq(value[2]), tip_id(value[3])


def carried(value: Any) -> tuple[tuple[CollectionId, int], ...]:
    """Collections to be carried, and their ages in seconds."""
    if len(items(value)) > LIMITS.carry_collections_max:
        raise Malformed(f"expected at most {LIMITS.carry_collections_max} collections")
    return tuple([(CollectionId(id), age) for id, age in map(row(blob(32), uint(2**32)), value)])


def hlc_column(value: Any) -> list[int]:
    """Stamps as differences, of any size."""
    found = items(value)
    if not set(map(type, found)) <= {int}:
        raise Malformed("expected integers")
    return found


def payload_column(value: Any) -> list[bytes | None]:
    """Payloads, null for those that stay away."""
    found = items(value)
    if not set(map(type, found)) <= {bytes, type(None)}:
        raise Malformed("expected byte strings")
    return found


def bare_column(value: Any) -> list[bytes]:
    """What headers say of payloads that stay away; most of what goes to who wants little stands here."""
    found = items(value)
    if not set(map(type, found)) <= {bytes} or max(map(len, found), default=0) > _DESCRIBED_BYTES_MAX:
        raise Malformed(f"expected byte strings of at most {_DESCRIBED_BYTES_MAX} bytes")
    return found


def text(value: Any) -> str:
    """Words for people."""
    if type(value) is not str or len(value) > 200:
        raise Malformed("expected a string of at most 200 characters")
    return value


index = uint(LIMITS.logs_max)
offset = uint(LIMITS.batch_entries_max)
seq = uint(SEQ_MAX)
tip_id = blob(TIP_ID_BYTES)
logs = many(log_row, tuple)
parent = row(index, seq, optional(blob(32)))


def parents(value: Any) -> list[tuple[int, int, bytes | None]]:
    """Parents of one entry."""
    if not 1 <= len(items(value)) <= PARENTS_MAX:
        raise Malformed(f"expected 1 to {PARENTS_MAX} parents")
    return [parent(item) for item in value]
