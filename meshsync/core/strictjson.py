"""Strict JSON (RFC 8259): reads only what every node can hold, and says where the rest went wrong.

Python's reader lets through what no peer would accept: NaN, numbers of any size, a key twice (of which it drops
one in silence), half a surrogate pair, any depth.  Here each of these is refused, with the field named.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from meshsync.core.limits import BODY_DEPTH_MAX, INT_MAX, INT_MIN
from meshsync.errors import LocalError

_SURROGATE = re.compile("[\ud800-\udfff]")
_DIGITS_SHOWN = 24


@dataclass(frozen=True, slots=True)
class _Refused:
    """Stands in the parsed tree for a value that is not allowed, until `_faults` finds where it is."""

    reason: str


class _Reader:
    """One reading.  The hooks of Python's reader do not know where they are, so they leave a mark in the tree."""

    def __init__(self) -> None:
        self.marked = False

    def mark(self, reason: str) -> _Refused:
        self.marked = True
        return _Refused(reason)

    def read_int(self, text: str) -> int | _Refused:
        # Nineteen digits and a sign hold every 64-bit integer; int() itself is quadratic in their number.
        if len(text) <= 20:
            value = int(text)
            if INT_MIN <= value <= INT_MAX:
                return value
        shown = text if len(text) <= _DIGITS_SHOWN else text[:_DIGITS_SHOWN] + "…"
        return self.mark(f"{shown} does not fit 64 bits; write it as a string")

    def read_float(self, text: str) -> float | _Refused:
        value = float(text)
        if math.isfinite(value):
            return value
        return self.mark(f"{text[:_DIGITS_SHOWN]} is beyond what a 64-bit float can hold")

    def read_constant(self, text: str) -> _Refused:
        return self.mark(f"{text} is not JSON; use null or a string")

    def read_object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    result[key] = self.mark("this key stands twice in one object")
                seen.add(key)
        return result


def decode_untrusted_json(data: bytes | str, what: str = "JSON") -> Any:
    """Read one JSON value.

    LocalError, which names `what`, the line and column or the field: not UTF-8, not JSON, NaN or Infinity,
    a number beyond 64 bits, a key twice, half a surrogate pair, arrays and objects nested deeper than 16.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LocalError(f"{what} is not UTF-8: byte {error.start + 1} cannot be read") from None
    reader = _Reader()
    try:
        value = json.loads(
            text,
            parse_int=reader.read_int,
            parse_float=reader.read_float,
            parse_constant=reader.read_constant,
            object_pairs_hook=reader.read_object,
        )
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if "\n" not in text else f"line {error.lineno} column {error.colno}"
        raise LocalError(f"{what}: not JSON: {error.msg[0].lower()}{error.msg[1:]} ({place})") from None
    except RecursionError:
        raise LocalError(f"{what}: nested deeper than {BODY_DEPTH_MAX} levels") from None
    # Text without an escape, or with few brackets, can hold neither half a surrogate pair nor great depth.
    suspicious = reader.marked or "\\u" in text or text.count("{") + text.count("[") > BODY_DEPTH_MAX
    if suspicious or (isinstance(data, str) and not text.isascii()):
        for path, reason in _faults(value):
            raise LocalError(f"{what}: {path}{': ' if path else ''}{reason}")
    return value


def _faults(value: Any) -> Iterator[tuple[str, str]]:
    """What is not allowed in a parsed tree, as (path, reason), in the order of the text."""
    # A list and not recursion: the depth is what is being checked.
    waiting: list[tuple[str, int, Any]] = [("", 0, value)]
    while waiting:
        path, depth, item = waiting.pop()
        if isinstance(item, _Refused):
            yield path, item.reason
        elif isinstance(item, str):
            if _SURROGATE.search(item):
                yield path, "half a surrogate pair is not text"
        elif isinstance(item, dict | list):
            if depth >= BODY_DEPTH_MAX:
                yield path, f"nested deeper than {BODY_DEPTH_MAX} levels"
                continue
            if isinstance(item, list):
                below = [(f"{path}[{index}]", depth + 1, inner) for index, inner in enumerate(item)]
            else:
                below = [(f"{path}.{key}" if path else key, depth + 1, inner) for key, inner in item.items()]
                for key in item:
                    if _SURROGATE.search(key):
                        # Named by its escape: the message itself must be text.
                        name = key.encode("ascii", "backslashreplace").decode()
                        yield path, f"half a surrogate pair in the key {name}"
            waiting.extend(reversed(below))


def encode_json(value: Any) -> str:
    """Write JSON on one line, as text and not as escapes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
