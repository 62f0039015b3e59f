"""What goes into a session, and what comes out: frozen events and effects, and the states that a session shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from meshsync.core.messages import Message
from meshsync.ids import LogId


class SessionState(StrEnum):
    """Where a session stands."""

    IDLE = "idle"
    PULLING = "pulling"
    PUSHING = "pushing"
    SYNCED = "synced"


# Events


@dataclass(frozen=True, slots=True)
class Start:
    """The stream is open."""

    lazy: bool = False
    """Begin as a lazy link: others provide what is lacking here."""
    answers_checks: bool = False
    """The peer is the one that compares roots now and then; it is told where it does not know ours to be equal."""


@dataclass(frozen=True, slots=True)
class Received:
    """The peer sent a message."""

    message: Message


@dataclass(frozen=True, slots=True)
class Changed:
    """These branches grew here, whoever wrote the entries: {branch: tip seq}."""

    tips: Mapping[int, int]
    filled: Sequence[int] = ()
    """Entries (arrivals) whose payloads came late."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The stream takes another message, and nothing is queued."""

    bytes_per_second: float = math.inf
    """What the path is thought to carry."""


@dataclass(frozen=True, slots=True)
class Durable:
    """What `Confirm(cursor)` asked for is on disk."""

    cursor: int


@dataclass(frozen=True, slots=True)
class Check:
    """It is time to compare roots on an idle link, or to resync if that is due."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Less is held than the peer was told: tell it the tips anew, so that it sends the rest again."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Another part of the collection is wanted: tell the peer."""


@dataclass(frozen=True, slots=True)
class MakeLazy:
    """Let others push: announce, and have the peer announce."""


@dataclass(frozen=True, slots=True)
class MakeEager:
    """Push, and have the peer push."""


Event = Start | Received | Changed | Ready | Durable | Check | Lost | Chosen | MakeLazy | MakeEager

# Effects


@dataclass(frozen=True, slots=True)
class Send:
    """Send this message, after those before it."""

    message: Message


@dataclass(frozen=True, slots=True)
class Stored:
    """A batch was applied, or parts of it were left out for now: tell the other sessions, the watchers, the owner."""

    applied: Any


@dataclass(frozen=True, slots=True)
class Arrived:
    """A batch came whole: so many entries were not here, and so many were."""

    new: int
    repeated: int
    places: Mapping[LogId, int]
    """Of each log the last that was new; none where it is a great deal."""
    repeats: Mapping[LogId, int]
    """Of each log of which nothing was new the last that came; none where it is a great deal."""


@dataclass(frozen=True, slots=True)
class Offered:
    """The peer announced, besides others, this entry: it has had it for so many seconds."""

    log: LogId
    seq: int
    age_seconds: float


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Give Ready again at this time: small batches are paced so that many writes share one."""

    time: float


@dataclass(frozen=True, slots=True)
class Confirm:
    """Give Durable(cursor) once everything committed by now is synced."""

    cursor: int


@dataclass(frozen=True, slots=True)
class Sync:
    """Give Ready again once everything committed by now is synced, and the replica was told so."""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The session entered another state."""

    state: SessionState


@dataclass(frozen=True, slots=True)
class Answered:
    """The peer dealt with payloads that it was asked for; those that it has came before this."""


@dataclass(frozen=True, slots=True)
class Wished:
    """More payloads are wanted, or less is in doubt, though nothing was stored: give Ready to all sessions, and let
    the part be looked at.
    """


Effect = Send | Stored | Arrived | Offered | WakeAt | Confirm | Sync | StateChanged | Answered | Wished
