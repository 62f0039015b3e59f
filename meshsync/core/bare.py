"""What stands for a payload that is not here: `EntryRow.bare`, CBOR [hash, size, [document tags]], and maybe a mark.

Without a mark the payload is lacking: it stayed away, and is asked for where it is wanted.  A mark says that nothing
is lacking, because the documents are what they are without it (`meshsync.store.contributing`):

    1   superseded: a peer said so, and left it out
    2   let go: it was here, and this node dropped it

Either way others are told that it is superseded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from meshsync.core import cbor
from meshsync.core.entry import TAG_BYTES, describe_payload
from meshsync.core.limits import PAYLOAD_BYTES_MAX
from meshsync.errors import PeerError

SUPERSEDED = 1
LET_GO = 2

_WITHOUT_MARK = b"\x83"
_ONE_TAG_START = _WITHOUT_MARK + b"\x58\x20"
_ONE_TAG_HEAD = b"\x81\x48"
_ONE_TAG_BYTES = 34 + 10
"""What hash and a single tag take of a description, besides the size."""
_ONE_TAG_BARE_BYTES_MAX = 1 + _ONE_TAG_BYTES + 5
_WITH_MARK = b"\x84"
"""How an array of four begins (RFC 8949 section 3.1); collection.sql has it as well."""
_SIZE = rb"[\x01-\x17]|\x18[\x18-\xff]|\x19[^\x00]."
_ONE_TAG = re.compile(rb"\x58\x20.{32}(?:" + _SIZE + rb")\x81\x48.{8}", re.DOTALL).fullmatch
"""A description with one tag and a size below 64 KiB, as most have, in its shortest form (RFC 8949 section 4.2.1)."""


def bare_of(described: bytes, mark: int | None = None) -> bytes:
    """What stands for a payload of which the header says this (`describe_payload`)."""
    return _WITHOUT_MARK + described if mark is None else _WITH_MARK + described + bytes([mark])


def described(payload: bytes, tags: Sequence[bytes]) -> bytes:
    """What stands for a payload that touches the documents with these tags (`document_tags`), and that stays away."""
    digest, size = hashlib.sha256(payload).digest(), len(payload)
    if len(tags) == 1:
        # Each entry that stays away passes here, and nearly each touches one document: in one piece.
        return b"".join((_ONE_TAG_START, digest, cbor.encode_uint(size), _ONE_TAG_HEAD, tags[0]))
    return bare_of(describe_payload(digest, size, tags))


def is_lacking(bare: bytes | None) -> bool:
    """Whether a payload is not here and may be needed.  None: it is here."""
    return bare is not None and not is_marked(bare)


def is_marked(bare: bytes | None) -> bool:
    """Whether a payload is not here and is not needed."""
    return bare is not None and bare[:1] == _WITH_MARK


def count_marked(bares: Iterable[bytes]) -> int:
    """How many of these payloads are not needed."""
    return sum([bare[0] == _WITH_MARK[0] for bare in bares])


def mark_of(bare: bytes) -> int | None:
    """The mark, None where the payload is lacking."""
    return cbor.decode_trusted(bare)[3] if is_marked(bare) else None


def with_mark(bare: bytes, mark: int) -> bytes:
    """The same with this mark."""
    return bare_of(described_by(bare), mark)


def description(bare: bytes | None) -> tuple[bytes, int, list[bytes]]:
    """What the header says of a payload: its hash, its size in bytes, the tags of the documents."""
    digest, size, tags = cbor.decode_trusted(bare or b"")[:3]
    return digest, size, tags


def described_by(bare: bytes) -> bytes:
    """What the header says of a payload, as it stands there (`describe_payload`)."""
    return bare[1:] if bare[:1] == _WITHOUT_MARK else bare[1:-1]


def check_described_untrusted(column: Sequence[bytes]) -> None:
    """Check what a peer says of payloads that stay away.  PeerError: no payload can be what it says.

    Who has the payload refuses such an entry, and whoever has not is to refuse it as well.
    """
    for described in column:
        if _ONE_TAG(described) is None:
            _check_described(described)


def _check_described(described: bytes) -> None:
    found = cbor.decode_message_untrusted(_WITHOUT_MARK + described)
    if [type(one) for one in found] != [bytes, int, list] or not {type(tag) for tag in found[2]} <= {bytes}:
        raise PeerError("a header says something else of its payload than hash, size and tags")
    digest, length, tags = found
    is_possible = len(digest) == 32 and 1 <= length <= PAYLOAD_BYTES_MAX and tags
    # There are no more of them than operations: `wirefields.bare_column` bounds what they take.
    if not is_possible or any(len(tag) != TAG_BYTES for tag in tags) or any(a >= b for a, b in pairwise(tags)):
        raise PeerError("a header says of its payload what cannot be")


def tags_of(bare: bytes) -> list[bytes]:
    """The tags of the documents alone.  Of one document, as most are, the tag stands at the end."""
    if len(bare) <= _ONE_TAG_BARE_BYTES_MAX and bare[0] == _WITHOUT_MARK[0]:
        return [bare[-TAG_BYTES:]]
    return description(bare)[2]
