"""What one entry is to write: what must hold of the documents before, and several operations as one batch.

Nothing here reads or writes: a collection looks at the documents and appends the entry in one step, so that nothing
can come in between at this node.  Across nodes there is no such thing: whoever writes elsewhere at the same time makes
a conflict, as ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from meshsync.core import cbor
from meshsync.core.entry import DELETE, NEVER, PATCH, PUT, Operation, encode_operations
from meshsync.core.limits import EXPIRES_MS_MAX, OPERATIONS_MAX, PAYLOAD_BYTES_MAX
from meshsync.errors import LocalError, MovedOnError, PassedError, RefusedError
from meshsync.ids import EntryId
from meshsync.moments import milliseconds_of, moment_text, parse_expires, time_of

if TYPE_CHECKING:
    from meshsync.documents import Document
    from meshsync.past.outside import Outside

Expires = datetime | timedelta | str
"""When a document is to expire: at a time (with its zone), in a while, or a text that names either, or "never"."""

_ENTRY = re.compile("[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a writer believes of a document, and what must be so for the write to happen."""

    id: str
    entry: str | None
    """The first digits of its revision (8 or more); None: it does not exist."""

    def check(self, collection: str, document: Document | None, outside: Outside | None) -> None:
        """MovedOnError: the document is not what the writer believes, or nobody here can know."""
        where = f"{self.id!r:.80} in {collection}"
        if document is None:
            if outside is not None and (outside.may_exist or self.entry is not None):
                raise MovedOnError(f"nothing was written: {outside}")
            if self.entry is not None:
                raise MovedOnError(f"{where} does not exist any more, or never did, and nothing was written")
            return
        facts = f"entry {document.revision.short} by {document.author.short}, {document.time:%Y-%m-%d %H:%M:%S} UTC"
        if self.entry is None:
            raise MovedOnError(f"{where} exists already ({facts}), and nothing was written; read it, or choose an id")
        if not document.revision.hex().startswith(self.entry):
            raise MovedOnError(f"{where} has moved on ({facts}), and nothing was written; read it again")


def expect(id: str, if_entry: EntryId | str | None, *, if_absent: bool) -> list[Expectation]:
    """What a call asks for; nothing where it asks for nothing.  LocalError: it makes no sense."""
    if if_entry is None:
        return [Expectation(id, None)] if if_absent else []
    if if_absent:
        raise LocalError(f"document {id!r:.80}: it cannot both be absent and have an entry; give one of the two")
    text = if_entry.hex() if isinstance(if_entry, bytes) else str(if_entry).lower()
    if not _ENTRY.fullmatch(text):
        raise LocalError(f"{text!r:.80} is no entry: give all 64 hexadecimal digits, or at least 8 of them")
    return [Expectation(id, text)]


def expiry_ms(expires: Expires | None, now_ms: int) -> int | None:
    """What an operation says of when its document expires; see `Operation.expires_ms`.

    LocalError: it is no time, or no stamp could be as late.  PassedError: it has passed.
    """
    if expires is None:
        return None
    if expires == "never":
        return NEVER
    try:
        time = parse_expires(expires) if isinstance(expires, str) else expires
        if isinstance(time, timedelta):
            found = now_ms + time // timedelta(milliseconds=1)
        else:
            found = milliseconds_of(time)
    except LocalError as error:
        raise LocalError(f"expires: {error}") from None
    if found > EXPIRES_MS_MAX:
        raise LocalError(f"expires: {expires} is later than the year {time_of(EXPIRES_MS_MAX).year}; write never")
    if found <= now_ms:
        raise PassedError(
            f"expires: {expires} is not to come, because here it is {moment_text(time_of(now_ms))}; name a later time,"
            " or delete the document"
        )
    return found


class Batch:
    """Operations on documents of one collection that become one entry.  Made by `Collection.batch`.

    Several operations on one document become one, as if they had been written one after another.  Each call checks
    what it is given and writes nothing: LocalError and RefusedError leave the batch as it was.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        """`now_ms`: the present, in milliseconds since the Unix epoch."""
        self._now_ms = now_ms
        self.entry: EntryId | None = None
        """The entry, once it is written; None where there was nothing to write."""
        self._operations: dict[str, Operation] = {}
        self._bytes: dict[str, int] = {}
        self._expectations: dict[str, Expectation] = {}
        self._is_over = False

    def __len__(self) -> int:
        """How many documents it writes."""
        return len(self._operations)

    def put(
        self,
        id: str,
        body: Mapping[str, Any],
        *,
        expires: Expires | None = None,
        if_entry: EntryId | str | None = None,
        if_absent: bool = False,
    ) -> None:
        """Write a whole document; the rest as `Collection.put`.

        `if_entry` and `if_absent` are about the document before the batch.
        """
        self._write(PUT, id, body, expires, expect(id, if_entry, if_absent=if_absent))

    def patch(
        self,
        id: str,
        body: Mapping[str, Any],
        *,
        expires: Expires | None = None,
        if_entry: EntryId | str | None = None,
        if_absent: bool = False,
    ) -> None:
        """Set some fields of a document; the rest as `Collection.patch`, and `put` here."""
        self._write(PATCH, id, body, expires, expect(id, if_entry, if_absent=if_absent))

    def _write(
        self,
        kind: int,
        id: str,
        body: Mapping[str, Any],
        expires: Expires | None,
        expectations: list[Expectation],
    ) -> None:
        said = expiry_ms(expires, self._now_ms())
        self._add(Operation(kind, id, without_id(id, body), said), expectations)

    def delete(self, id: str, *, if_entry: EntryId | str | None = None) -> None:
        """Delete a document; nothing where there is no such document.  The rest as `put`."""
        self._add(Operation(DELETE, id), expect(id, if_entry, if_absent=False))

    def close(self) -> tuple[list[Operation], list[Expectation]]:
        """End it: what is to be written, and what must hold for that."""
        self._is_over = True
        return list(self._operations.values()), list(self._expectations.values())

    def _add(self, operation: Operation, expectations: list[Expectation]) -> None:
        if self._is_over:
            raise LocalError("the batch is over: write inside its `async with` block, or begin another one")
        id = operation.id
        for one in expectations:
            if self._expectations.get(id, one) != one:
                raise LocalError(f"document {id!r:.80}: two operations of the batch expect different things of it")
        earlier = self._operations.get(id)
        # Encoded alone, to find what cannot be written where it is said; decoded, so that what the caller does with
        # its objects later changes nothing.
        encoded = encode_operations([operation])
        (item,) = cbor.decode_trusted(encoded)
        operation = Operation.of(item)
        if earlier is not None:
            operation = _joined(earlier, operation)
            encoded = encode_operations([operation])
        elif len(self._operations) == OPERATIONS_MAX:
            raise RefusedError(f"a batch writes at most {OPERATIONS_MAX} documents; write several batches")
        if sum(self._bytes.values()) - self._bytes.get(id, 0) + len(encoded) > PAYLOAD_BYTES_MAX:
            raise RefusedError(
                f"document {id!r:.80}: with it the batch has more than {PAYLOAD_BYTES_MAX} bytes; write several batches"
            )
        self._operations[id] = operation
        self._bytes[id] = len(encoded)
        for one in expectations:
            self._expectations[id] = one


def _joined(first: Operation, then: Operation) -> Operation:
    """The one operation that does what two on the same document do, one after the other."""
    if then.kind != PATCH:
        return then
    patch, expires_ms = then.body or {}, first.expires_ms if then.expires_ms is None else then.expires_ms
    if first.kind == PATCH:
        return Operation(PATCH, then.id, {**(first.body or {}), **patch}, expires_ms)
    body = {**(first.body or {}), **patch}
    removed = {name for name, value in patch.items() if value is None}
    return Operation(PUT, then.id, {name: value for name, value in body.items() if name not in removed}, expires_ms)


def without_id(id: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A body as it is stored.  `id` is no field of its own, and must not name another document."""
    if not isinstance(body, Mapping):
        raise LocalError(f"document {id!r:.80}: a document must be a JSON object")
    if "id" not in body:
        return body
    if body["id"] != id:
        raise LocalError(f"document {id!r:.80}: its body names another id, {body['id']!r:.80}")
    return {name: value for name, value in body.items() if name != "id"}
