"""How numbers stand in the stored bytes of a document: patterns for those that a comparison can match.

CBOR (RFC 8949 section 3) writes an integer as one byte with its sign and the least of its size, and 1, 2, 4 or 8
more.  Peers may write a small one in more bytes than it needs, so each width is looked at.  Of floats only that they
are there is looked at.
"""

from __future__ import annotations

import math
import re

_FLOATS = rb"[\xf9-\xfb]"
_WIDTHS = (1, 2, 4, 8)


def number_pattern(*tests: tuple[str, float]) -> bytes:
    """A regular expression for the bytes of a number, to be matched where it begins, that may pass all of the tests.

    Each is an operator (= < <= > >=) and a bound.
    """
    low, high = -(2**63), 2**64 - 1
    for op, bound in tests:
        if op in ("=", ">", ">="):
            low = max(low, math.floor(bound) + 1 if op == ">" else math.ceil(bound))
        if op in ("=", "<", "<="):
            high = min(high, math.ceil(bound) - 1 if op == "<" else math.floor(bound))
    found = [_FLOATS]
    if low <= high:
        if high >= 0:
            found += _integers(0x00, max(low, 0), high)
        if low < 0:
            found += _integers(0x20, -1 - min(high, -1), -1 - low)
    return b"(?:" + b"|".join(found) + b")"


def _integers(major: int, low: int, high: int) -> list[bytes]:
    """Those of one sign, by their size."""
    found = []
    if low < 24:
        found.append(_byte_between(major + low, major + min(high, 23)))
    for number, width in enumerate(_WIDTHS):
        greatest = 256**width - 1
        if low <= greatest:
            bounds = [_at_least(low.to_bytes(width, "big"))] if low else []
            bounds += [_at_most(high.to_bytes(width, "big"))] if high < greatest else []
            # The first as a look-ahead: both bounds hold for the same bytes.
            ahead = b"".join(b"(?=" + bound + b")" for bound in bounds)
            found.append(re.escape(bytes((major + 24 + number,))) + ahead)
    return found


def _at_least(data: bytes) -> bytes:
    first, rest = data[0], data[1:]
    if not rest:
        return _byte_between(first, 255)
    equal = re.escape(bytes((first,))) + _at_least(rest)
    return b"(?:" + (b"%b|" % _byte_between(first + 1, 255) if first < 255 else b"") + equal + b")"


def _at_most(data: bytes) -> bytes:
    first, rest = data[0], data[1:]
    if not rest:
        return _byte_between(0, first)
    equal = re.escape(bytes((first,))) + _at_most(rest)
    return b"(?:" + (b"%b|" % _byte_between(0, first - 1) if first > 0 else b"") + equal + b")"


def _byte_between(low: int, high: int) -> bytes:
    return b"[\\x%02x-\\x%02x]" % (low, high)
