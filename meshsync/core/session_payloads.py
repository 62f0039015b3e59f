"""What a session does about payloads that stayed away: naming them, asking for them, and answering.

Besides, a receipt: whoever would drop payloads asks a peer that has everything to confirm that.
"""

from __future__ import annotations

from meshsync.core.locating import Rows
from meshsync.core.messages import FLAG_COMPLETE, Batch, Have, Match, Payloads, Want
from meshsync.core.session_events import Answered, Effect, Send, Stored, Sync, WakeAt, Wished
from meshsync.core.session_parts import SessionParts


class SessionPayloads(SessionParts):
    """The part of a session that deals with them."""

    def _have(self, cursor: int | None = None, tips: Rows | None = None) -> Send:
        return Send(Have(cursor, self._roots.say(), self._own_logs.take(), tips or []))

    def _want(self) -> list[Effect]:
        # A peer that has yet to hear what is wanted now would answer by what was wanted before.
        want = None if self._asking.is_news else self._wants.ask()
        return [] if want is None else [Send(want)]

    def _on_match(self, message: Match) -> list[Effect]:
        before = self.held.wishes
        self._asking.named(message, self._puller.round)
        self._pasts.named(message.tags)
        self._wants.renew()  # there is news of payloads
        return self._want() + ([Wished()] if self.held.wishes != before else [])

    def _on_payloads(self, message: Payloads, now: float) -> list[Effect]:
        self._wants.take(message)
        stored = self.rest()
        want = self._want()
        wakes = [] if (again := self._wants.look_on(now)) is None else [WakeAt(again)]
        return [*want, *stored, *wakes, Answered()]

    def rest(self) -> list[Effect]:
        """What was stored though an event failed: to be carried out by the owner all the same."""
        return [Stored(applied) for applied in self._wants.changes()]

    def _besides(self, now: float) -> list[Effect]:
        """What is to be done where there is no batch to send."""
        answer: Payloads | Match | float | None = self._wants.answer()
        if answer is None and (self.is_lazy or not (self._view.dirty or self._view.locating)):
            answer = self._sieve.name(now, is_lazy=self.is_lazy)
        turns = [answer, self._wants.ask_besides(now), self._ask_receipt(now)]
        effects: list[Effect] = [Sync()] if self._sieve.awaits_disk else []
        for turn in turns:
            if isinstance(turn, Payloads | Match | Want | Batch):
                effects.append(Send(turn))
                if isinstance(turn, Payloads) and turn.superseded and self._sieve.is_latest:
                    effects.append(self._have())  # by the root it knows whether it has what supersedes them
            elif turn is not None:
                effects.append(WakeAt(turn))
        return effects

    # Receipts

    @property
    def has_everything(self) -> bool:
        """Whether the peer wants everything, and said that it has it."""
        return self._has_all_documents and not self._sieve.is_latest

    @property
    def _has_all_documents(self) -> bool:
        """The same, but for what is superseded."""
        is_complete = self._peer_open is not None and bool(self._peer_open.flags & FLAG_COMPLETE)
        return self._sieve.query is None and is_complete

    def _is_kept(self, cursor: int) -> None:
        """The peer has stored what arrived here before: with all payloads, where it wants everything."""
        if self._has_all_documents:
            # Who wants the latest only counts: else nothing would ever go where all do.
            self.held.retaining.kept_elsewhere(cursor)
        if self._receipt is not None and cursor >= self._receipt[0] and self._receipt_is_asked:
            if self.has_everything:
                self.held.unwanted.kept_elsewhere(self._receipt[0])
            self._receipt = None

    def _ask_receipt(self, now: float) -> Batch | float | None:
        """A batch of nothing, to be confirmed, or when it goes out, or None.

        The peer may have a header that came alone by another way, and is about to ask for the payload.  So it gets a
        while from the moment on at which it is known to have all headers.
        """
        if self._receipt is None:
            view = self._view
            is_level = not (view.dirty or view.locating or view.assumed)
            if not (self.held.unwanted.is_waiting and self.has_everything and is_level):
                return None
            self._receipt = (self.held.next_arrival(), now + self.limits.receipt_seconds)
            self._receipt_is_asked = False
        cursor, due = self._receipt
        if self._receipt_is_asked:
            return None
        if now < due:
            return due
        assert self._peer_open is not None
        self._receipt_is_asked = True
        return self._pusher.nothing(self._peer_open.round, cursor)
