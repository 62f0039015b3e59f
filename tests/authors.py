"""Entries made by hand: authors that sign, and batches of what they signed, without any replica."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshsync.core import cbor
from meshsync.core.entry import HeaderBuilder, Operation, describe_payload, document_tags, encode_operations, make_seal
from meshsync.core.messages import Batch
from meshsync.ids import CollectionId, EndpointId, LogId

COLLECTION = CollectionId.of_name("notes")
START_MS = 1_800_000_000_000
"""When these authors write."""


@dataclass(frozen=True)
class Made:
    """A signed entry."""

    author: Author
    log: LogId
    seq: int
    id: bytes
    prev: bytes | None
    parents: tuple[Made, ...]
    height: int
    hlc: int
    payload: bytes
    header: bytes

    @property
    def seal(self) -> bytes:
        return make_seal(self.author.key, self.id)

    @property
    def bare(self) -> tuple[bytes, int, list[bytes]]:
        ids = [operation[1] for operation in cbor.decode_trusted(self.payload)]
        return cbor.sha256(self.payload), len(self.payload), document_tags(self.author.collection, ids)

    @property
    def described(self) -> bytes:
        return describe_payload(*self.bare)


@dataclass
class Author:
    """A key and its log; `number` makes it the same in every run."""

    number: int
    collection: CollectionId = COLLECTION
    last: Made | None = None
    key: Ed25519PrivateKey = field(init=False)
    log: LogId = field(init=False)
    builder: HeaderBuilder = field(init=False)

    def __post_init__(self) -> None:
        self.key = Ed25519PrivateKey.from_private_bytes(self.number.to_bytes(32, "big"))
        public = EndpointId(self.key.public_key().public_bytes_raw())
        self.log = LogId(public, cbor.sha256(self.number.to_bytes(8, "big"))[:8])
        self.builder = HeaderBuilder(self.collection, self.log)

    def write(
        self,
        operations: Sequence[Operation] = (Operation(0, "doc", {"x": 1}),),
        parents: Sequence[Made] = (),
        *,
        after: Made | None = None,
        hlc: int | None = None,
        payload: bytes | None = None,
    ) -> Made:
        """Sign the next entry; `after`: go on from that one instead, which forks the log."""
        prev = after or self.last
        payload = encode_operations(operations) if payload is None else payload
        above = [*([prev] if prev is not None else []), *parents]
        if hlc is None:
            hlc = max([START_MS << 16, *(one.hlc + 1 for one in above)])
        height = 1 + max((one.height for one in above), default=0)
        seq = 1 if prev is None else prev.seq + 1
        tags = document_tags(self.collection, [operation.id for operation in operations])
        ids = sorted(parent.id for parent in parents)
        fields = (seq, prev.id if prev else None, ids, height, hlc, cbor.sha256(payload), len(payload), tags)
        ordered = tuple(sorted(parents, key=lambda one: one.id))
        made = Made(
            self,
            self.log,
            seq,
            self.builder.id(*fields),
            prev.id if prev else None,
            ordered,
            height,
            hlc,
            payload,
            self.builder.header(*fields),
        )
        self.last = made
        return made


def batch_of(
    entries: Sequence[Made],
    *,
    bare: Sequence[Made] = (),
    superseded: Sequence[Made] = (),
    explicit: bool = True,
    cursor: int = 1,
    root: bytes | None = None,
) -> tuple[Batch, list[LogId]]:
    """A batch of these entries, each a run of its own, and the log table that goes with it."""
    logs: dict[LogId, int] = {}
    for entry in entries:
        for one in (entry, *entry.parents):
            logs.setdefault(one.log, len(logs))
    passed = {entry.id for entry in superseded}
    ids = {entry.id for entry in bare} | passed
    last = {entry.log: position for position, entry in enumerate(entries)}
    tips = {entry.id: position for position, entry in enumerate(entries)}
    for entry in entries:  # on every branch the last entry has a seal
        if entry.prev is not None:
            tips.pop(entry.prev, None)
    runs: list[tuple[int, int, int, bytes | None]] = []
    for position, entry in enumerate(entries):
        before = entries[position - 1] if position else None
        if before is not None and before.id == entry.prev:
            log, first, count, prev = runs[-1]
            runs[-1] = (log, first, count + 1, prev)
        else:
            hint = entry.prev if explicit or entry.prev is None else entry.prev[:8]
            runs.append((logs[entry.log], entry.seq, 1, hint))
    stamps = [entry.hlc for entry in entries]
    batch = Batch(
        round=0,
        logs=tuple(logs),
        runs=runs,
        hlcs=[b - a for a, b in zip([0, *stamps], stamps, strict=False)],
        parents=[
            (k, [(logs[one.log], one.seq, one.id if explicit else None) for one in entry.parents])
            for k, entry in enumerate(entries)
            if entry.parents
        ],
        payloads=[None if entry.id in ids else entry.payload for entry in entries],
        bare=[entry.described for entry in entries if entry.id in ids],
        superseded=[k for k, entry in enumerate(entries) if entry.id in passed],
        seals=[(k, entries[k].seal) for k in sorted({*last.values(), *tips.values()})],
        cursor=cursor,
        root=root,
    )
    return batch, list(logs)
