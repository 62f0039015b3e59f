"""One round of asking every peer, by hand."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from meshsync.core.session_events import SessionState
from meshsync.ids import CollectionId
from meshsync.sync.results import SyncCycleResult

if TYPE_CHECKING:
    from meshsync.sync.engine import SyncEngine
    from meshsync.sync.exchange import Exchange


async def run_cycle(engine: SyncEngine, chosen: Collection[CollectionId]) -> SyncCycleResult:
    """Ask every connected peer now, and return when each is synced or cannot go on.

    Cancelling stops the waiting only.
    """
    before = engine.stats()
    # A round trip brings what the peers had to say, and the first message of sessions that have just begun.
    asked = {link: link.control.ask() for link in engine.links.values()}
    await engine.progressed.wait_until(
        lambda: all(
            link.control.answered >= number or engine.links.get(link.peer) is not link for link, number in asked.items()
        )
    )
    exchanges = [
        one
        for replica in engine.subscribed()
        if replica.id in chosen
        for one in engine.exchanges(replica)
        if one.link in engine.links.values()
    ]
    for exchange in exchanges:
        exchange.check()
    await engine.progressed.wait_until(lambda: all(map(_is_settled, exchanges)))
    after = engine.stats()
    return SyncCycleResult(
        after.pulled - before.pulled,
        after.pushed - before.pushed,
        after.conflicts - before.conflicts,
        len({one.link.peer for one in exchanges}),
    )


def _is_settled(exchange: Exchange) -> bool:
    exchange.absorb()
    session = exchange.session
    if exchange.is_ending or session.state is SessionState.SYNCED:
        return True
    return session.stall is not None and exchange.replica.is_settled
