"""Entries: operations, payloads, headers, ids and seals (protocol: "Entries").

A header is a CBOR array in the deterministic encoding; its hash is the id of the entry, and the author's
signature over the id is the seal.  A receiver builds each header anew from what it holds and what the batch
says; only the very header that the author hashed gives an id that the seal fits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from meshsync.core import cbor
from meshsync.core.limits import (
    DOCUMENT_ID_BYTES_MAX,
    EXPIRES_MS_MAX,
    OPERATIONS_MAX,
    PAYLOAD_BYTES_MAX,
    PROTOCOL_VERSION,
)
from meshsync.errors import CloseCode, LocalError, PeerError, RefusedError
from meshsync.ids import CollectionId, LogId

PUT, PATCH, DELETE = 0, 1, 2
KINDS = ("put", "patch", "delete")
NEVER = 0
"""In the place of the milliseconds: what a patch says of a document that is not to expire any more."""

_ENTRY_DOMAIN = b"meshsync/entry/1\0"
_SEAL_DOMAIN = b"meshsync/seal/1\0"
_DOCUMENT_DOMAIN = b"meshsync/doc/1\0"
_BYTES32 = b"\x58\x20"
_NULL = b"\xf6"
TAG_BYTES = 8
_KINDS = frozenset((PUT, PATCH, DELETE))
_ONE_OPERATION = frozenset(bytes((0x81, 0x80 + items, kind)) for items in (2, 3, 4) for kind in _KINDS)
_TEXT = 0x60


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of one document: `kind` is PUT, PATCH or DELETE; `body` is None exactly for DELETE."""

    kind: int
    id: str
    body: Mapping[str, Any] | None = None
    expires_ms: int | None = None
    """From when on the document is not shown any more, in milliseconds since the Unix epoch, or NEVER.  None: nothing
    is said of it, which for a put means never."""

    @classmethod
    def of(cls, item: Sequence[Any]) -> Operation:
        """The operation of a checked item of a payload."""
        return cls(item[0], item[1], item[2] if len(item) > 2 else None, said_expiry(item))


def said_expiry(item: Sequence[Any]) -> int | None:
    """What a checked item of a payload says of the time at which its document expires; see `Operation.expires_ms`."""
    return None if len(item) < 4 else item[3] or NEVER


def encode_operations(operations: Sequence[Operation]) -> bytes:
    """Check operations that a local caller wants to write, and encode them as a payload.

    LocalError names the document and field at fault; RefusedError when a bound is exceeded.
    """
    if not operations:
        raise LocalError("an entry needs at least one operation")
    if len(operations) > OPERATIONS_MAX:
        raise RefusedError(
            f"{len(operations)} operations in one entry; at most {OPERATIONS_MAX}: write several entries"
        )
    items: list[list[Any]] = []
    for operation in operations:
        try:
            check_document_id(operation.id)
            if operation.kind == DELETE:
                items.append([DELETE, operation.id])
                continue
            body = dict(operation.body) if operation.body is not None else None
            cbor.check_body(body)
            items.append([operation.kind, operation.id, body, *expiry_item(operation)])
        except cbor.Malformed as error:
            raise LocalError(f"document {operation.id!r:.80}: {error}") from None
    if len({operation.id for operation in operations}) != len(operations):
        raise LocalError("one entry may touch a document only once: merge the operations on it")
    try:
        payload = cbor.encode(items)
    except UnicodeEncodeError as error:
        raise LocalError(f"a string holds a lone surrogate, which no UTF-8 can carry: {error}") from None
    if len(payload) > PAYLOAD_BYTES_MAX:
        several = f" and {len(operations) - 1} more documents" if len(operations) > 1 else ""
        raise RefusedError(
            f"{operations[0].id!r:.80}{several}: {len(payload)} bytes encoded; an entry holds at most"
            f" {PAYLOAD_BYTES_MAX}"
        )
    return payload


def expiry_item(operation: Operation) -> list[int | None]:
    """What follows the body in a payload: one form for each meaning."""
    expires_ms = operation.expires_ms
    if expires_ms is None or (expires_ms == NEVER and operation.kind == PUT):
        return []
    item = None if expires_ms == NEVER else expires_ms
    _check_expiry(operation.kind, item)
    return [item]


def _check_expiry(kind: int, item: Any) -> None:
    """Check the fourth item of an operation.  Malformed: no time, or a put that says never, which it does without."""
    if item is None and kind == PATCH:
        return
    if type(item) is not int or not 1 <= item <= EXPIRES_MS_MAX:
        raise cbor.Malformed(f"the time at which a document expires must be from 1 to {EXPIRES_MS_MAX}: {item!r:.40}")


def check_document_id(id: Any) -> None:
    """Check a document's id.  Malformed: no string, empty, too long, not encodable."""
    if type(id) is not str or not id:
        raise cbor.Malformed("a document id must be a string of at least one character")
    # Most ids are short ASCII; only a long one is worth encoding to be measured.
    if (not id.isascii() or len(id) > DOCUMENT_ID_BYTES_MAX) and len(_encode_id(id)) > DOCUMENT_ID_BYTES_MAX:
        raise cbor.Malformed(f"a document id has at most {DOCUMENT_ID_BYTES_MAX} bytes of UTF-8")


def _encode_id(id: str) -> bytes:
    try:
        return id.encode()
    except UnicodeEncodeError:
        raise cbor.Malformed("a document id must be well-formed Unicode") from None


def check_operations(operations: Any) -> None:
    """Check the decoded operations of a payload.  Malformed when they are not what the protocol allows."""
    if type(operations) is not list or not 1 <= len(operations) <= OPERATIONS_MAX:
        raise cbor.Malformed(f"a payload must be an array of 1 to {OPERATIONS_MAX} operations")
    for operation in operations:
        if type(operation) is not list or not 2 <= len(operation) <= 4:
            raise cbor.Malformed("an operation must be an array of two to four items")
        check_document_id(operation[1])
        kind = operation[0]
        if type(kind) is not int or kind not in (PUT, PATCH, DELETE) or (len(operation) == 2) != (kind == DELETE):
            raise cbor.Malformed(f"unknown kind of operation: {kind!r:.40}")
        if kind != DELETE:
            cbor.check_body(operation[2])
            if len(operation) == 4:
                _check_expiry(kind, operation[3])
    if len(operations) > 1 and len({operation[1] for operation in operations}) != len(operations):
        raise cbor.Malformed("a document occurs twice in one entry")


def check_untrusted_payload(payload: bytes, operations: Any) -> None:
    """Check a payload that a peer sent, and what it decodes to.  PeerError: it is none; LIMIT: it is too long."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise PeerError(f"a payload of {len(payload)} bytes; at most {PAYLOAD_BYTES_MAX}", CloseCode.LIMIT)
    try:
        check_operations(operations)
    except cbor.Malformed as error:
        raise PeerError(f"invalid operations: {error}") from None


def document_tag(collection: CollectionId, id: str) -> bytes:
    """The 8 bytes by which a header names a document."""
    return hashlib.sha256(_DOCUMENT_DOMAIN + collection + id.encode()).digest()[:TAG_BYTES]


class HeaderBuilder:
    """Builds the headers of one log; the fields that never change are encoded once."""

    __slots__ = ("_prefix",)

    def __init__(self, collection: CollectionId, log: LogId) -> None:
        self._prefix = b"".join(
            (
                _ENTRY_DOMAIN,
                b"\x8c",
                cbor.encode_uint(PROTOCOL_VERSION),
                _BYTES32,
                collection,
                _BYTES32,
                log.author,
                b"\x48",
                log.incarnation,
            )
        )

    def id(
        self,
        seq: int,
        prev: bytes | None,
        parents: Sequence[bytes],
        height: int,
        hlc: int,
        payload_hash: bytes,
        payload_size: int,
        tags: Sequence[bytes],
    ) -> bytes:
        """The id of the entry with these fields: 32 bytes.  `parents` and `tags` are sorted and without duplicates."""
        return self.id_described(seq, prev, parents, height, hlc, describe_payload(payload_hash, payload_size, tags))

    def id_described(
        self, seq: int, prev: bytes | None, parents: Sequence[bytes], height: int, hlc: int, described: bytes
    ) -> bytes:
        """The same, where `describe_payload` is at hand."""
        if prev is not None and not parents and height == seq and hlc >> 32:
            # What `_preimage` gives for most entries of one author, at half of its cost.
            place = cbor.encode_uint(seq)
            parts = (self._prefix, place, prev, place, hlc.to_bytes(8, "big"), described)
            return hashlib.sha256(b"%b%b\x58\x20%b\x80%b\x1b%b%b" % parts).digest()
        return hashlib.sha256(self._preimage(seq, prev, parents, height, hlc, described)).digest()

    def header(
        self,
        seq: int,
        prev: bytes | None,
        parents: Sequence[bytes],
        height: int,
        hlc: int,
        payload_hash: bytes,
        payload_size: int,
        tags: Sequence[bytes],
    ) -> bytes:
        """The encoded header; the arguments are those of `id`."""
        described = describe_payload(payload_hash, payload_size, tags)
        return self._preimage(seq, prev, parents, height, hlc, described)[len(_ENTRY_DOMAIN) :]

    def _preimage(
        self, seq: int, prev: bytes | None, parents: Sequence[bytes], height: int, hlc: int, described: bytes
    ) -> bytes:
        uint = cbor.encode_uint
        # Where there is one author both are the same; and a stamp of our times takes eight bytes.
        place = uint(seq)
        if parents:
            named = bytes((0x80 + len(parents),)) + b"".join([_BYTES32 + parent for parent in parents])
        else:
            named = b"\x80"
        return b"".join(
            (
                self._prefix,
                place,
                _NULL if prev is None else _BYTES32 + prev,
                named,
                place if height == seq else uint(height),
                b"\x1b" + hlc.to_bytes(8, "big") if hlc >> 32 else uint(hlc),
                described,
            )
        )


def describe_payload(payload_hash: bytes, payload_size: int, tags: Sequence[bytes]) -> bytes:
    """What a header says of its payload: the last three items of its array.  `tags` are sorted, without duplicates."""
    if len(tags) == 1:
        touched = b"\x81\x48" + tags[0]
    else:
        count = len(tags)
        head = bytes((0x80 + count,)) if count < 24 else b"\x98" + bytes((count,)) if count < 256 else b"\x99\x01\x00"
        touched = head + b"".join([b"\x48" + tag for tag in tags])
    return b"".join((_BYTES32, payload_hash, cbor.encode_uint(payload_size), touched))


def entry_id(header: bytes) -> bytes:
    """The id of the entry with this header: 32 bytes."""
    return hashlib.sha256(_ENTRY_DOMAIN + header).digest()


def touched_documents(payload: bytes) -> list[str]:
    """The ids of the documents that a payload of this node's own store touches."""
    only = _only_document(payload)
    return [operation[1] for operation in cbor.decode_trusted(payload)] if only is None else [only.decode()]


def touched_tags(collection: CollectionId, payload: bytes) -> list[bytes]:
    """The tags of `touched_documents`, as `document_tags` gives them."""
    only = _only_document(payload)
    if only is None:
        return document_tags(collection, touched_documents(payload))
    return [hashlib.sha256(_DOCUMENT_DOMAIN + collection + only).digest()[:TAG_BYTES]]


def _only_document(payload: bytes) -> bytes | None:
    """The id, in UTF-8, of the document of a payload of one operation, as most are.  None: look for yourself."""
    # It stands at the front, where it can be read without decoding the rest.
    if payload[:3] in _ONE_OPERATION:
        length = payload[3] - _TEXT
        if 0 <= length < 24:
            return payload[4 : 4 + length]
        if length == 24:
            return payload[5 : 5 + payload[4]]
    return None


def document_tags(collection: CollectionId, ids: Iterable[str]) -> list[bytes]:
    """The sorted tags of some documents, without duplicates."""
    return sorted({document_tag(collection, id) for id in ids})


def make_seal(key: Ed25519PrivateKey, entry: bytes) -> bytes:
    """Sign an entry id: 64 bytes."""
    return key.sign(_SEAL_DOMAIN + entry)


@lru_cache(maxsize=1024)
def _public_key(author: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(author)


def verify_seal(author: bytes, entry: bytes, seal: bytes) -> bool:
    """Whether `seal` is the author's signature over the entry id.  `author` is a checked EndpointId."""
    try:
        _public_key(bytes(author)).verify(seal, _SEAL_DOMAIN + entry)
    except InvalidSignature:
        return False
    return True
