"""The messages: one frozen dataclass each, and the one way in which a peer's bytes become one.

A message is a CBOR array that begins with its number; the order of the dataclass's fields is the order on the
wire.  Those on a collection's stream come first, those on the control stream from 16 on.

Logs are named by an index into the sender's *log table*: a log is appended to it when the sender's OPEN names
it in a tip or when a message lists it under `logs`, in that order; sender and receiver count alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from meshsync.core import cbor
from meshsync.core.limits import (
    BOOKMARK_BYTES_MAX,
    LIMITS,
    MATCH_TAGS_MAX,
    PAYLOAD_BYTES_MAX,
    QUERY_BYTES_MAX,
    SUMMARY_BYTES_MAX,
    SUMMARY_DIGEST_BYTES,
    Limits,
)
from meshsync.core.wirefields import (
    bare_column,
    blob,
    blob_up_to,
    boolean,
    carried,
    hlc_column,
    index,
    logs,
    many,
    offset,
    optional,
    parents,
    payload_column,
    row,
    seq,
    text,
    tip_id,
    tip_row,
    uint,
    up_to,
)
from meshsync.errors import CloseCode, PeerError
from meshsync.ids import CollectionId, LogId

PREV_HINT_BYTES = 8
AGE_MS_MAX = 2**40

FLAG_COMPLETE = 1
"""OPEN: the sender has the payload of every entry that it holds."""
FLAG_FULL = 8
"""OPEN: the sender takes no entries at present; it opens anew, without this flag, when it does."""
FLAG_LATEST = 16
"""OPEN: the sender wants only payloads that contribute to the documents as they stand; superseded ones stay away."""
FLAG_EXPLICIT = 2
"""OPEN: the sender holds a fork, or met what may be one; name every parent and predecessor by its whole id."""
FLAG_LAZY = 4
"""OPEN: the link is lazy for this collection, as after PRUNE."""


@dataclass(frozen=True, slots=True)
class Open:
    """First message each way, and again whenever the sender wants to be compared anew."""

    NUMBER: ClassVar[int] = 0
    tag: bytes
    round: int
    """Rises with each OPEN of the sender; a BATCH says which one it answers."""
    epoch: bytes
    cursor: tuple[bytes, int] | None
    """The epoch of the receiver's store and the next arrival number to read of it."""
    root: bytes
    tips: tuple[tuple[LogId, int, bytes], ...] | None
    """(log, seq, TIP_ID_BYTES of the id); what does not fit follows in HAVEs.  None: those below the cursor."""
    flags: int
    query: bytes | None = None
    """The documents that the sender wants, in CBOR; None: all, and then the field is left out."""
    bookmark: bytes | None = None
    """The last one that a MATCH for this very query brought.  None: all that matches is to be named."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries, parents first, in columns.  See `meshsync.core.batch` for what each column means."""

    NUMBER: ClassVar[int] = 1
    round: int
    logs: tuple[LogId, ...]
    runs: list[tuple[int, int, int, bytes | None]]
    hlcs: list[int]
    parents: list[tuple[int, list[tuple[int, int, bytes | None]]]]
    payloads: list[bytes | None]
    bare: list[bytes]
    superseded: list[int]
    seals: list[tuple[int, bytes]]
    cursor: int
    """The sender's next arrival number: all entries below are in this batch, went before, or are the receiver's."""
    root: bytes | None
    """The sender's root, where this batch completes what it holds."""


@dataclass(frozen=True, slots=True)
class Have:
    """What the sender has stored: the acknowledgement of batches, and the comparison of roots on an idle link.

    With tips it is more of them than fit into OPEN, or on a lazy link those that changed, or the answer to LOCATE:
    those of the samples that the sender holds, or (log, 0, zeros) for none.
    """

    NUMBER: ClassVar[int] = 2
    cursor: int | None
    """Everything below this arrival number of the receiver's store is durably stored at the sender."""
    root: bytes
    logs: tuple[LogId, ...]
    tips: list[tuple[int, int, bytes]]
    age_ms: int | None = None
    """On a lazy link, how long ago the first of the tips came to the sender."""


@dataclass(frozen=True, slots=True)
class Locate:
    """Samples of one branch of a forked log, asking for the greatest that the receiver holds."""

    NUMBER: ClassVar[int] = 3
    logs: tuple[LogId, ...]
    log: int
    samples: list[tuple[int, bytes]]
    """(seq, TIP_ID_BYTES of the id), greatest seq first: the tip, tip-1, -2, -4, … 1."""


@dataclass(frozen=True, slots=True)
class Want:
    """Asks for the payloads of entries whose headers came alone."""

    NUMBER: ClassVar[int] = 4
    logs: tuple[LogId, ...]
    entries: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Payloads:
    """The answer to so many entries of the WANTs, in their order; one whose payload is not here is left out."""

    NUMBER: ClassVar[int] = 5
    logs: tuple[LogId, ...]
    answered: int
    payloads: list[tuple[int, int, bytes]]
    superseded: list[tuple[int, bytes]]
    """(position among those that are answered, PREV_HINT_BYTES of the id) of entries whose payloads stay away because
    no document needs them any more."""


@dataclass(frozen=True, slots=True)
class Close:
    """The last message on a stream."""

    NUMBER: ClassVar[int] = 6
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Prune:
    """Makes the link lazy for this collection, both ways: entries are announced by HAVE, and not pushed."""

    NUMBER: ClassVar[int] = 7


@dataclass(frozen=True, slots=True)
class Graft:
    """Makes the link eager for this collection, both ways: what the other side lacks is pushed."""

    NUMBER: ClassVar[int] = 8


@dataclass(frozen=True, slots=True)
class Match:
    """Names documents, by their tags, whose payloads the receiver may want: they match its query at the sender.

    Whoever gets one asks again for what the sender did not have before, also where it names none.
    """

    NUMBER: ClassVar[int] = 9
    round: int
    """Of the OPEN with the query."""
    is_complete: bool
    """Everything that matched when that OPEN came has been named."""
    tags: list[bytes]
    bookmark: bytes | None = None
    """What a later OPEN may give back, so that nothing is named again that was named until now."""


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The tags of collections that the sender has just begun to subscribe to; the dialer opens their streams."""

    NUMBER: ClassVar[int] = 16
    tags: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a Pong; carries the sender's wall clock so that a wrong clock is noticed by comparison."""

    NUMBER: ClassVar[int] = 17
    number: int
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers a Ping."""

    NUMBER: ClassVar[int] = 18
    number: int
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What a node says of itself and one collection, passed on as it was signed.  See `meshsync.core.summary`."""

    NUMBER: ClassVar[int] = 19
    tag: bytes
    age_ms: int
    """How long ago it was signed, as far as those who passed it on can tell; it is not signed itself."""
    body: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Relay:
    """The sender carries collections for others: it stores and forwards those that it is asked for."""

    NUMBER: ClassVar[int] = 20


@dataclass(frozen=True, slots=True)
class Carry:
    """Asks a peer that said RELAY to carry these collections: all of them, in the place of those asked for before.

    Whoever knows the id of a collection can compute its tags and read it from all who let it in.  So ids go only to
    a peer that said RELAY and that this node trusts (`Trust.confides`).  A relay learns the id, who subscribes, and
    everything that is written, which is signed and not encrypted.  It does not learn the name, unless it guesses it
    and compares, nor what is not named here: of other collections it sees salted tags.  It can withhold entries; it
    cannot forge or change any.  A relay asks other relays for what it carries itself, so ids travel on along them.
    """

    NUMBER: ClassVar[int] = 21
    collections: tuple[tuple[CollectionId, int], ...]
    """(id, seconds since a subscriber last asked for it: 0 where the sender subscribes), most urgent first.

    Two relays that ask each other both count on from the age that they heard, so their asking ends as well.
    """


@dataclass(frozen=True, slots=True)
class Known:
    """A digest of the summaries of one collection that the sender knows: equal where the receiver knows the same."""

    NUMBER: ClassVar[int] = 22
    tag: bytes
    digest: bytes


CollectionMessage = Open | Batch | Have | Locate | Want | Payloads | Close | Prune | Graft | Match
ControlMessage = Subscribed | Ping | Pong | Summary | Relay | Carry | Known
Message = CollectionMessage | ControlMessage


_ANSWERS_MAX = 4 * LIMITS.want_entries_max
"""In one PAYLOADS: where a log has forked, one place is answered by several entries."""

_FIELDS: dict[type, tuple[Callable[[Any], Any], ...]] = {
    Open: (
        blob(16),
        uint(2**32),
        blob(8),
        optional(row(blob(8), seq)),
        blob(32),
        optional(many(tip_row, tuple)),
        uint(255),
        blob_up_to(QUERY_BYTES_MAX),
        blob_up_to(BOOKMARK_BYTES_MAX),
    ),
    Batch: (
        uint(2**32),
        logs,
        many(row(index, seq, offset, optional(blob(PREV_HINT_BYTES, 32)))),
        hlc_column,
        many(row(offset, parents)),
        payload_column,
        bare_column,
        many(offset),
        many(row(offset, blob(64))),
        seq,
        optional(blob(32)),
    ),
    Have: (optional(seq), blob(32), logs, many(row(index, seq, tip_id)), optional(uint(AGE_MS_MAX))),
    Locate: (logs, index, many(row(seq, tip_id))),
    Want: (logs, many(row(index, seq))),
    Payloads: (
        logs,
        uint(LIMITS.want_entries_max),
        many(row(index, seq, blob_up_to(PAYLOAD_BYTES_MAX)), up_to(_ANSWERS_MAX)),
        many(row(uint(LIMITS.want_entries_max), blob(PREV_HINT_BYTES)), up_to(_ANSWERS_MAX)),
    ),
    Close: (uint(255), text),
    Prune: (),
    Graft: (),
    Match: (uint(2**32), boolean, many(blob(8), up_to(MATCH_TAGS_MAX)), blob_up_to(BOOKMARK_BYTES_MAX)),
    Subscribed: (many(blob(16), tuple),),
    Ping: (uint(2**32), uint(2**53)),
    Pong: (uint(2**32), uint(2**53)),
    Summary: (blob(16), uint(AGE_MS_MAX), blob_up_to(SUMMARY_BYTES_MAX), blob(64)),
    Relay: (),
    Carry: (carried,),
    Known: (blob(16), blob(SUMMARY_DIGEST_BYTES)),
}
_TYPES: dict[int, type] = {message.NUMBER: message for message in _FIELDS}  # type: ignore[attr-defined]
_NAMES = {message: tuple(one.name for one in fields(message)) for message in _FIELDS}
_OPTIONAL: dict[type, int] = {Open: 2, Match: 1}
"""So many fields at the end are left out where they, and those behind them, are None."""


def encode_message(message: Message) -> bytes:
    """Encode a message as the body of a frame."""
    if type(message) is Open and message.tips is not None:
        tips: Any = [(log.author, log.incarnation, seq, id) for log, seq, id in message.tips]
        cursor = message.cursor
        values = [0, message.tag, message.round, message.epoch, cursor, message.root, tips, message.flags]
        values += [message.query, message.bookmark]
    else:
        values = [message.NUMBER, *[getattr(message, name) for name in _NAMES[type(message)]]]
    for _ in range(_OPTIONAL.get(type(message), 0)):
        if values[-1] is None:
            values.pop()
    return cbor.encode(values)


def decode_untrusted(frame: bytes, limits: Limits = LIMITS) -> Message:
    """Decode a frame's body.  PeerError says what is wrong with it; nothing else is raised."""
    if len(frame) > limits.frame_bytes_max:
        raise PeerError(f"a frame of {len(frame)} bytes; at most {limits.frame_bytes_max}", CloseCode.LIMIT)
    value = cbor.decode_message_untrusted(frame)
    if type(value) is not list or not value or type(value[0]) is not int or value[0] not in _TYPES:
        raise PeerError("not a message of this protocol")
    kind = _TYPES[value[0]]
    checks = _FIELDS[kind]
    if 0 < len(checks) + 1 - len(value) <= _OPTIONAL.get(kind, 0):
        checks = checks[: len(value) - 1]
    if len(value) != len(checks) + 1:
        raise PeerError(f"{kind.__name__} has {len(checks)} fields, not {len(value) - 1}")
    checked = []
    for name, check, item in zip(_NAMES[kind][: len(checks)], checks, value[1:], strict=True):
        try:
            checked.append(check(item))
        except cbor.Malformed as error:
            raise PeerError(f"{kind.__name__}.{name}: {error}") from None
    message: Message = kind(*checked)
    return message
