"""The exceptions of meshsync.  Each says whose fault it is, so that one boundary can decide what to do.

What a caller did wrong is a LocalError, what a peer did wrong a PeerError, what the network did a
TransportLost, what the disk did a StoreError.  A peer's bytes can raise nothing but PeerError.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class CloseCode(enum.IntEnum):
    """Why a connection or a stream was closed, as carried on the wire (QUIC application error codes)."""

    OK = 0
    """Nothing is wrong: the work is done or the owner asked for it."""
    SHUTDOWN = 1
    """The node is stopping."""
    DUPLICATE = 2
    """Another connection between the same two endpoints survives."""
    DISCONNECTED = 3
    """The owner disconnected this peer."""
    PENDING = 4
    """The endpoint is not trusted yet; it is listed as pending."""
    BANNED = 5
    """The endpoint is banned."""
    IDENTITY = 6
    """No certificate, a bad one, another identity than the one dialled, or a hello that does not verify."""
    VERSION = 7
    """The peer speaks another version of the protocol."""
    PROTOCOL = 8
    """The peer sent something that the protocol forbids."""
    LIMIT = 9
    """The peer exceeded a bound."""
    BUSY = 10
    """Too many connections or streams; try again later."""
    TIMEOUT = 11
    """A deadline passed."""
    INSTANCE = 12
    """Another process runs with the same identity."""
    INTERNAL = 13
    """This node failed; the fault is not the peer's."""
    NOT_HERE = 14
    """The collection is unknown here or not for this peer; the two are deliberately the same answer."""
    LOST = 15
    """The path is gone: nothing was heard for the idle time.  Never sent."""

    @classmethod
    def told(cls, code: int) -> CloseCode:
        """The code that a peer sent; PROTOCOL for one that this version does not know."""
        return cls(code) if code in cls._value2member_map_ else cls.PROTOCOL


class MeshsyncError(Exception):
    """Base of all exceptions that meshsync raises on purpose."""


class LocalError(MeshsyncError):
    """The caller did something that cannot be done; the message says what to do instead."""


class ConfigError(LocalError):
    """Configuration, command line or key material is wrong; the message names file, line, key and what was expected."""


class RefusedError(LocalError):
    """The request is well formed, and this node will not do it (not trusted, not subscribed, too large)."""


class NotSoError(LocalError):
    """What was asked for is not wrong, but it is not so here."""

    code: ClassVar[str]
    """How the control API names it."""


class MovedOnError(NotSoError):
    """A write was to happen only if its document still was what the writer had read, and it is not.

    Nothing was written; read the document again and decide anew.
    """

    code = "moved_on"


class NotInPartError(NotSoError):
    """The document is outside of the part of the collection that this node holds, or has not come, and may exist."""

    code = "not_in_part"


class PassedError(LocalError):
    """The time at which a document was to expire is not to come."""


class LetGoError(NotSoError):
    """What was asked for lies in a part of the past that is not kept here.

    `document`: it is not known as it was; `until`: only after this time.  `missing`: so many documents are not,
    `document` the first, and all others were told; 0 where it was asked for alone.
    """

    code = "let_go"

    def __init__(self, document: str, until: str, missing: int = 0) -> None:
        self.document = document
        self.until = until
        self.missing = missing
        which = f"document {document!r:.80}" + (f" and {missing - 1} more" if missing > 1 else "")
        besides = f"{missing} document{' is' if missing == 1 else 's are'} missing: " if missing else ""
        super().__init__(
            f"{besides}not all that was written to {which} until {until} is kept here; ask for a later time, or a node"
            " that retains all"
        )


class CursorLostError(NotSoError):
    """A reader cannot go on from its cursor: what it was told is not what this node has.

    Forget what was told, and begin anew.
    """

    code = "cursor_lost"


class StoreError(MeshsyncError):
    """The store failed: disk full, I/O error, corruption, wrong schema.  Nothing half-done remains."""


class DamagedError(StoreError):
    """What the disk gave back is not what was written to it.

    `arrival` or `document` says which row of the collection: an entry or a document; neither, that it is the list
    of the logs.  `seq` is the entry's, as far as it can be told; `has_head`: all but its payload is sound.
    """

    def __init__(
        self,
        collection: str,
        *,
        arrival: int | None = None,
        seq: int = 0,
        has_head: bool = False,
        document: str | None = None,
    ) -> None:
        self.collection = collection
        self.arrival = arrival
        self.seq = seq
        self.has_head = has_head
        self.document = document
        remedy = "`meshsync verify --repair` restores it from the peers"
        if document is not None:
            what = f"document {document!r:.80}"
        elif arrival is not None:
            what = f"the payload of entry {arrival}" if has_head else f"entry {arrival}"
        else:
            what = "the list of logs"
            remedy = "stop the node, move its store away and start it again: the peers hold the data"
        super().__init__(f"{what} of {collection} is damaged on the disk; {remedy}")


class PeerError(MeshsyncError):
    """A peer broke the protocol.  The connection is closed with `code`, counted, and backed off."""

    def __init__(self, message: str, code: CloseCode = CloseCode.PROTOCOL) -> None:
        super().__init__(message)
        self.code = code


class TransportLost(MeshsyncError):
    """The connection or stream is gone; try again later.  `code` is the reason where the peer gave one."""

    def __init__(self, message: str, code: CloseCode = CloseCode.LOST) -> None:
        super().__init__(message)
        self.code = code
