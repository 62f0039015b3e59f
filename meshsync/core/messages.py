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
from meshsync.core.hlc import HLC_MAX
from meshsync.core.limits import LIMITS, PARENTS_MAX, SUMMARY_BYTES_MAX, Limits
from meshsync.core.tips import TIP_ID_BYTES
from meshsync.errors import CloseCode, LocalError, PeerError
from meshsync.ids import CollectionId, EndpointId, LogId

SEQ_MAX = 2**53
PREV_HINT_BYTES = 8
AGE_MS_MAX = 2**40

FLAG_COMPLETE = 1
"""OPEN: the sender has the payload of every entry that it holds."""
FLAG_FULL = 8
"""OPEN: the sender takes no entries at present; it opens anew, without this flag, when it does."""
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
    bare: list[tuple[int, bytes, int, list[bytes]]]
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


Message = (
    Open
    | Batch
    | Have
    | Locate
    | Want
    | Payloads
    | Close
    | Prune
    | Graft
    | Subscribed
    | Ping
    | Pong
    | Summary
    | Relay
    | Carry
)


# Checks.  Each takes a decoded value and returns it in the form that the dataclass holds, or raises Malformed.


def _malformed(what: str) -> cbor.Malformed:
    return cbor.Malformed(what)


def _uint(maximum: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if type(value) is not int or not 0 <= value <= maximum:
            raise _malformed(f"expected an integer from 0 to {maximum}")
        return value

    return check


def _blob(*sizes: int) -> Callable[[Any], bytes]:
    def check(value: Any) -> bytes:
        if type(value) is not bytes or len(value) not in sizes:
            raise _malformed(f"expected {' or '.join(map(str, sizes))} bytes")
        return value

    return check


def _blob_up_to(maximum: int) -> Callable[[Any], bytes]:
    def check(value: Any) -> bytes:
        if type(value) is not bytes or len(value) > maximum:
            raise _malformed(f"expected at most {maximum} bytes")
        return value

    return check


def _optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


def _items(value: Any) -> list[Any]:
    if type(value) is not list:
        raise _malformed("expected an array")
    return value


def _many(check: Callable[[Any], Any], into: Callable[[Any], Any] = list) -> Callable[[Any], Any]:
    return lambda value: into([check(item) for item in _items(value)])


def _row(*checks: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def check(value: Any) -> tuple[Any, ...]:
        if len(_items(value)) != len(checks):
            raise _malformed(f"expected {len(checks)} items")
        return tuple([one(item) for one, item in zip(checks, value, strict=True)])

    return check


def _log(author: Any, incarnation: Any) -> LogId:
    try:
        return LogId(EndpointId(_blob(32)(author)), _blob(8)(incarnation))
    except LocalError as error:
        raise _malformed(str(error)) from None


def _log_row(value: Any) -> LogId:
    if len(_items(value)) != 2:
        raise _malformed("expected [author, incarnation]")
    return _log(*value)


def _tip_row(value: Any) -> tuple[LogId, int, bytes]:
    if len(_items(value)) != 4:
        raise _malformed("expected [author, incarnation, seq, id]")
    return _log(value[0], value[1]), _seq(value[2]), _tip_id(value[3])


def _carried(value: Any) -> tuple[tuple[CollectionId, int], ...]:
    if len(_items(value)) > LIMITS.carry_collections_max:
        raise _malformed(f"expected at most {LIMITS.carry_collections_max} collections")
    return tuple([(CollectionId(id), age) for id, age in map(_row(_blob(32), _uint(2**32)), value)])


def _hlc_column(value: Any) -> list[int]:
    items = _items(value)
    if not set(map(type, items)) <= {int}:
        raise _malformed("expected integers")
    return items


def _payload_column(value: Any) -> list[bytes | None]:
    items = _items(value)
    if not set(map(type, items)) <= {bytes, type(None)}:
        raise _malformed("expected byte strings")
    return items


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > 200:
        raise _malformed("expected a string of at most 200 characters")
    return value


_index = _uint(LIMITS.logs_max)
_offset = _uint(LIMITS.batch_entries_max)
_seq = _uint(SEQ_MAX)
_stamp = _uint(HLC_MAX)
_tip_id = _blob(TIP_ID_BYTES)
_logs = _many(_log_row, tuple)
_parent = _row(_index, _seq, _optional(_blob(32)))


def _parents(value: Any) -> list[tuple[int, int, bytes | None]]:
    if not 1 <= len(_items(value)) <= PARENTS_MAX:
        raise _malformed(f"expected 1 to {PARENTS_MAX} parents")
    return [_parent(item) for item in value]


_FIELDS: dict[type, tuple[Callable[[Any], Any], ...]] = {
    Open: (
        _blob(16),
        _uint(2**32),
        _blob(8),
        _optional(_row(_blob(8), _seq)),
        _blob(32),
        _optional(_many(_tip_row, tuple)),
        _uint(255),
    ),
    Batch: (
        _uint(2**32),
        _logs,
        _many(_row(_index, _seq, _offset, _optional(_blob(PREV_HINT_BYTES, 32)))),
        _hlc_column,
        _many(_row(_offset, _parents)),
        _payload_column,
        _many(_row(_offset, _blob(32), _uint(2**32), _many(_blob(8)))),
        _many(_row(_offset, _blob(64))),
        _seq,
        _optional(_blob(32)),
    ),
    Have: (_optional(_seq), _blob(32), _logs, _many(_row(_index, _seq, _tip_id))),
    Locate: (_logs, _index, _many(_row(_seq, _tip_id))),
    Want: (_logs, _many(_row(_index, _seq))),
    Payloads: (
        _logs,
        _uint(LIMITS.want_entries_max),
        _many(_row(_index, _seq, lambda value: _payload_column([value])[0])),
    ),
    Close: (_uint(255), _text),
    Prune: (),
    Graft: (),
    Subscribed: (_many(_blob(16), tuple),),
    Ping: (_uint(2**32), _uint(2**53)),
    Pong: (_uint(2**32), _uint(2**53)),
    Summary: (_blob(16), _uint(AGE_MS_MAX), _blob_up_to(SUMMARY_BYTES_MAX), _blob(64)),
    Relay: (),
    Carry: (_carried,),
}
_TYPES: dict[int, type] = {message.NUMBER: message for message in _FIELDS}  # type: ignore[attr-defined]
_NAMES = {message: tuple(one.name for one in fields(message)) for message in _FIELDS}


def encode_message(message: Message) -> bytes:
    """Encode a message as the body of a frame."""
    if type(message) is Open and message.tips is not None:
        tips: Any = [(log.author, log.incarnation, seq, id) for log, seq, id in message.tips]
        cursor = message.cursor
        return cbor.encode([0, message.tag, message.round, message.epoch, cursor, message.root, tips, message.flags])
    return cbor.encode([message.NUMBER, *[getattr(message, name) for name in _NAMES[type(message)]]])


def decode_untrusted(frame: bytes, limits: Limits = LIMITS) -> Message:
    """Decode a frame's body.  PeerError says what is wrong with it; nothing else is raised."""
    if len(frame) > limits.frame_bytes_max:
        raise PeerError(f"a frame of {len(frame)} bytes; at most {limits.frame_bytes_max}", CloseCode.LIMIT)
    value = cbor.decode_message_untrusted(frame)
    if type(value) is not list or not value or type(value[0]) is not int or value[0] not in _TYPES:
        raise PeerError("not a message of this protocol")
    kind = _TYPES[value[0]]
    checks = _FIELDS[kind]
    if len(value) != len(checks) + 1:
        raise PeerError(f"{kind.__name__} has {len(checks)} fields, not {len(value) - 1}")
    checked = []
    for name, check, item in zip(_NAMES[kind], checks, value[1:], strict=True):
        try:
            checked.append(check(item))
        except cbor.Malformed as error:
            raise PeerError(f"{kind.__name__}.{name}: {error}") from None
    message: Message = kind(*checked)
    return message
