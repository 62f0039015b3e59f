"""What stands for a payload that is not here: `EntryRow.bare`, CBOR [hash, size, [document tags]], and maybe a mark.

Without a mark the payload is lacking: it stayed away, and is asked for where it is wanted.  A mark says that nothing
is lacking, because the documents are what they are without it (`meshsync.store.contributing`):

    1   superseded: a peer said so, and left it out
    2   let go: it was here, and this node dropped it

Either way others are told that it is superseded.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshsync.core import cbor
from meshsync.core.entry import TAG_BYTES, describe_payload, document_tag, document_tags
from meshsync.ids import CollectionId

SUPERSEDED = 1
LET_GO = 2

_WITHOUT_MARK = b"\x83"
_ONE_TAG_BYTES_MAX = 1 + 34 + 5 + 10
_WITH_MARK = b"\x84"
"""How an array of four begins (RFC 8949 section 3.1); collection.sql has it as well."""


def bare_of(described: bytes, mark: int | None = None) -> bytes:
    """What stands for a payload of which the header says this (`describe_payload`)."""
    return _WITHOUT_MARK + described if mark is None else _WITH_MARK + described + bytes([mark])


def described(collection: CollectionId, payload: bytes, ids: Sequence[str]) -> bytes:
    """What stands for a payload that touches these documents, and that stays away."""
    tags = [document_tag(collection, ids[0])] if len(ids) == 1 else document_tags(collection, ids)
    return bare_of(describe_payload(cbor.sha256(payload), len(payload), tags))


def is_lacking(bare: bytes | None) -> bool:
    """Whether a payload is not here and may be needed.  None: it is here."""
    return bare is not None and not is_marked(bare)


def is_marked(bare: bytes | None) -> bool:
    """Whether a payload is not here and is not needed."""
    return bare is not None and bare.startswith(_WITH_MARK)


def mark_of(bare: bytes) -> int | None:
    """The mark, None where the payload is lacking."""
    return cbor.decode_trusted(bare)[3] if is_marked(bare) else None


def with_mark(bare: bytes, mark: int) -> bytes:
    """The same with this mark."""
    return cbor.encode([*cbor.decode_trusted(bare)[:3], mark])


def description(bare: bytes | None) -> tuple[bytes, int, list[bytes]]:
    """What the header says of a payload: its hash, its size in bytes, the tags of the documents."""
    digest, size, tags = cbor.decode_trusted(bare or b"")[:3]
    return digest, size, tags


def descriptions(bares: Sequence[bytes]) -> list[tuple[bytes, int, list[bytes]]]:
    """`description` of each, at a fraction of the cost."""
    return [(digest, size, tags) for digest, size, tags, *_ in cbor.decode_many_trusted(bares)]


def tags_of(bare: bytes) -> list[bytes]:
    """The tags of the documents alone.  Of one document, as most are, the tag stands at the end."""
    if len(bare) <= _ONE_TAG_BYTES_MAX and not is_marked(bare):
        return [bare[-TAG_BYTES:]]
    return description(bare)[2]
