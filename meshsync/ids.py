"""Identifiers: 32-byte value types.  They are bytes, so they compare, hash and encode as such.

Nothing here knows how an id comes about, except the one derivation that users type: the id of an open
collection from its name.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple, Self

from meshsync.errors import LocalError

# Ed25519 (RFC 8032 section 5.1): the field prime, and the y coordinates of the points of small order.
# OpenSSL accepts forged signatures under keys of small order, and under encodings with y >= p two strings
# name one key.  Each encoding also occurs with the sign bit set.
_P = 2**255 - 19
_SMALL_ORDER_Y = frozenset(
    {
        0,
        1,
        _P - 1,
        int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
        int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
    }
)


class Id32(bytes):
    """32 bytes with a meaning, shown as 64 hex digits."""

    __slots__ = ()

    def __new__(cls, value: bytes) -> Self:
        """Take 32 bytes.  LocalError: another length."""
        if len(value) != 32:
            raise LocalError(f"{cls.__name__} must be 32 bytes, not {len(value)}")
        return super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 64 hex digits.  LocalError: anything else."""
        try:
            raw = bytes.fromhex(text)
        except ValueError:
            raw = b""
        if len(raw) != 32 or len(text) != 64:
            raise LocalError(f"{cls.__name__} must be 64 hexadecimal digits, not {text!r}")
        return cls(raw)

    @classmethod
    def of(cls, id: Self | str) -> Self:
        """An id, or the text of one.  LocalError: it is neither."""
        if isinstance(id, str):
            return cls.parse(id)
        if not isinstance(id, cls):
            raise LocalError(f"{id!r:.80} is no {cls.__name__}; give one, or its 64 hexadecimal digits")
        return id

    @property
    def short(self) -> str:
        """The first 8 hex digits, for people."""
        return self[:4].hex()

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.short}…)"


class EndpointId(Id32):
    """An endpoint's Ed25519 public key (RFC 8032), never of small order and always canonical."""

    __slots__ = ()

    def __new__(cls, value: bytes) -> Self:
        """Take 32 bytes.  LocalError: another length, a key of small order, a non-canonical encoding."""
        self = super().__new__(cls, value)
        y = int.from_bytes(value, "little") & (2**255 - 1)
        if y >= _P or y in _SMALL_ORDER_Y:
            raise LocalError(f"{bytes(value).hex()} is no usable Ed25519 public key: small order or not canonical")
        return self


class CollectionId(Id32):
    """The identity of a collection."""

    __slots__ = ()

    @classmethod
    def of_name(cls, name: str, policy: str = "") -> Self:
        """Derive the id of the open collection called `name`, the same on every node.

        `policy`: how it decides conflicts, where that is not the default (see `meshsync.core.policy`).
        """
        if not policy:
            return cls(hashlib.sha256(b"meshsync/collection/1\0" + name.encode()).digest())
        return cls(hashlib.sha256(f"meshsync/collection/2\0{policy}\0{name}".encode()).digest())


class EntryId(Id32):
    """The hash of an entry's header."""

    __slots__ = ()


class LogId(NamedTuple):
    """A log: the hash chain of one author's entries in one collection, in one incarnation of its store."""

    author: EndpointId
    incarnation: bytes
    """8 random bytes."""

    def __str__(self) -> str:
        return f"{self.author.hex()}/{self.incarnation.hex()}"


LogPlace = tuple[LogId, int]
"""A log, and a seq in it: how nodes name an entry to each other.  Of a forked log it may name several."""
