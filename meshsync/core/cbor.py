"""Deterministic CBOR (RFC 8949 section 4.2.1), and the strict reading of bytes that a peer sent.

Two profiles.  A *message* must be in the deterministic form to the last byte.  A *payload* is JSON's data model
in CBOR: definite lengths, no tags, text keys without duplicates, 64-bit integers, finite floats, bounded depth.
A payload's hash is taken over its bytes as they came, so another encoding of the same operations is another
entry, and insisting on minimal lengths there would cost a second encoding of everything and defend nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

import cbor2

from meshsync.core.limits import BODY_DEPTH_MAX, INT_MAX, INT_MIN
from meshsync.errors import PeerError


class Malformed(ValueError):
    """A value is outside of the data model; the message says where and why."""


GARBAGE = (cbor2.CBORError, ValueError, TypeError, LookupError, EOFError, RecursionError, OverflowError, MemoryError)
"""What reading bytes as if they were one's own can raise when they are not."""


def encode(value: Any) -> bytes:
    """Encode in the deterministic form."""
    return cbor2.dumps(value, canonical=True)


def encode_uint(number: int) -> bytes:
    """Encode one unsigned integer below 2**64; some ten times cheaper than the general way."""
    if number < 24:
        return bytes((number,))
    if number < 0x100:
        return bytes((0x18, number))
    if number < 0x10000:
        return b"\x19" + number.to_bytes(2, "big")
    if number < 0x100000000:
        return b"\x1a" + number.to_bytes(4, "big")
    return b"\x1b" + number.to_bytes(8, "big")


def _refuse_tag(*_: Any) -> NoReturn:
    raise ValueError("tags are not allowed")


# Both ways are needed: tag_hook sees only tags that the library has no decoder of its own for.
_BUILT_IN_TAGS = (*range(6), 25, 28, 29, 30, 35, 36, 37, 43, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
_DECODE = partial(
    cbor2.loads,
    tag_hook=_refuse_tag,
    semantic_decoders=dict.fromkeys(_BUILT_IN_TAGS, _refuse_tag),
    allow_indefinite=False,
    allow_duplicate_keys=False,
    strict_hashable_types=True,
)


def decode_message_untrusted(frame: bytes, depth_max: int = 8) -> Any:
    """Decode one message.  PeerError unless `frame` is exactly one item in the deterministic form."""
    try:
        value = _DECODE(frame, max_depth=depth_max)
        deterministic = encode(value) == frame
    except (cbor2.CBORError, ValueError, RecursionError) as error:
        raise PeerError(f"not the CBOR of a message: {error}") from None
    if not deterministic:
        raise PeerError("not the deterministic CBOR encoding of a message")
    return value


def decode_payloads_untrusted(payloads: Sequence[bytes]) -> list[Any]:
    """Decode many payloads in one call of the library, each exactly one item.  PeerError otherwise.

    The library ignores what follows an item, and a payload that ends too early would eat the next one.  So all
    of them become one array with a marker after each.  A sender cannot know the marker, which is a hash over
    all of the bytes, and as many markers must come out as went in.
    """
    marker = hashlib.sha256(b"".join(payloads)).digest()
    head = b"\x9a" + (2 * len(payloads)).to_bytes(4, "big")
    between = b"\x58\x20" + marker
    try:
        items = _DECODE(head + between.join(payloads) + between, max_depth=BODY_DEPTH_MAX + 4)
    except (cbor2.CBORError, ValueError, RecursionError) as error:
        raise PeerError(f"a payload is not the CBOR of operations: {error}") from None
    if items[1::2] != [marker] * len(payloads):
        raise PeerError("a payload is not exactly one CBOR item")
    result: list[Any] = items[::2]
    return result


def sha256(data: bytes) -> bytes:
    """SHA-256: 32 bytes."""
    return hashlib.sha256(data).digest()


def decode_trusted(data: bytes) -> Any:
    """Decode what this node itself stored."""
    return cbor2.loads(data)


def decode_many_trusted(items: Sequence[bytes]) -> list[Any]:
    """`decode_trusted` of each, in one call of the library, which is four times as fast where they are small."""
    result: list[Any] = cbor2.loads(b"\x9a" + len(items).to_bytes(4, "big") + b"".join(items))
    return result


def check_body(body: Any) -> None:
    """Check that a document's body is a JSON object within bounds.  Malformed otherwise."""
    if type(body) is not dict:
        raise Malformed(f"a document must be a JSON object, not {_kind(body)}")
    for key, value in body.items():
        kind = type(value)
        if type(key) is not str:
            raise Malformed(f"field names must be strings, not {_kind(key)}")
        # The common kinds first: this runs once for every field that ever arrives.
        if kind is str or kind is bool or value is None or (kind is int and INT_MIN <= value <= INT_MAX):
            continue
        _check_value(value, key, 2)


def _check_value(value: Any, path: str, depth: int) -> None:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is int:
        if not INT_MIN <= value <= INT_MAX:
            raise Malformed(f"{path}: integers must fit 64 bits; send greater ones as strings")
    elif kind is float:
        if not math.isfinite(value):
            raise Malformed(f"{path}: {value} is no JSON number")
    elif kind is list or kind is dict:
        if depth > BODY_DEPTH_MAX:
            raise Malformed(f"{path}: nested deeper than {BODY_DEPTH_MAX} levels")
        if kind is list:
            for index, item in enumerate(value):
                _check_value(item, f"{path}[{index}]", depth + 1)
        else:
            for key, item in value.items():
                if type(key) is not str:
                    raise Malformed(f"{path}: field names must be strings, not {_kind(key)}")
                _check_value(item, f"{path}.{key}", depth + 1)
    else:
        raise Malformed(f"{path}: {_kind(value)} is nothing that JSON can say")


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        int: "a number",
        float: "a number",
        bool: "a boolean",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)
