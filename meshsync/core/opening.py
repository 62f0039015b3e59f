"""How a session tells what is held: an OPEN, and HAVEs behind it for the tips that it does not hold."""

from __future__ import annotations

from meshsync.core.history import History
from meshsync.core.holding import Holding
from meshsync.core.limits import Limits
from meshsync.core.logtable import OwnLogTable
from meshsync.core.messages import (
    FLAG_COMPLETE,
    FLAG_EXPLICIT,
    FLAG_FULL,
    FLAG_LATEST,
    FLAG_LAZY,
    Have,
    Message,
    Open,
)
from meshsync.core.tips import TIP_ID_BYTES
from meshsync.ids import EndpointId


def opening(
    held: Holding,
    logs: OwnLogTable,
    peer: EndpointId,
    limits: Limits,
    *,
    tag: bytes,
    number: int,
    whole: bool,
    explicit: bool,
    lazy: bool,
) -> list[Message]:
    """All tips: as many as an OPEN holds, and the rest in HAVEs right behind it.  `number`: of the round."""
    tips = held.tips()
    page = limits.open_tips_max
    first, rest = tips[:page], tips[page:]
    logs.named_by_open(tip.log for tip in first)
    flags = FLAG_COMPLETE * whole | FLAG_EXPLICIT * explicit | FLAG_LAZY * lazy | FLAG_FULL * bool(held.full)
    flags |= FLAG_LATEST * (held.history is History.LATEST)
    named = tuple((tip.log, tip.seq, tip.id[:TIP_ID_BYTES]) for tip in first)
    query = None if held.interest is None else held.interest.encoded
    bookmark = None if held.interest is None else held.interest.bookmark(peer)
    first_message = Open(tag, number, held.epoch, held.cursor_for(peer), held.root(), named, flags, query, bookmark)
    messages: list[Message] = [first_message]
    for start in range(0, len(rest), page):
        rows = [(logs.index(log), seq, id[:TIP_ID_BYTES]) for log, seq, id in rest[start : start + page]]
        messages.append(Have(None, held.root(), logs.take(), rows))
    return messages
