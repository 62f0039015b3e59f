"""What a peer's query lets through: payloads that go with their headers, and the names of documents that match.

A peer that subscribes to everything gets every payload with its header.  For one whose subscription chooses
(protocol.md section 7) these rules hold here, and the last, WANT, is in `meshsync.core.wants`:

    - To a peer that wants the latest no payload goes that contributes to no document as it stands here now.  With
      the header it is told that the payload is superseded, which stays true for ever, once that would survive a
      power cut here: afterwards nobody might have what superseded it.
    - A payload goes along when a document that the entry touches matches as it stands here now.
    - MATCH names, by tag, each document that matches now and that an entry changed which did not just go out whole.
      After an OPEN all that match are named, and the last MATCH of these says so.  It brings a bookmark as well:
      an OPEN that gives it back is answered with what changed since then.

Whoever asked for a payload that was not here is told when it came, or turned out to be superseded, by the same
message, be it with no names: it asks again for what it lacks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

from meshsync.core import cbor
from meshsync.core.bare import is_marked
from meshsync.core.holding import Holding, StoredEntry
from meshsync.core.limits import LIMITS, QUERY_BYTES_MAX, Limits
from meshsync.core.messages import FLAG_LATEST, Match, Open
from meshsync.core.peerview import PeerView
from meshsync.core.query import Query
from meshsync.errors import LocalError, PeerError
from meshsync.ids import LogPlace

_MESSAGE_DEPTH_MAX = 20
_DIRTY_MAX = 64
"""Where a peer may lack something of more branches, what it has is not looked at one by one."""


def encode_query(query: Query) -> bytes:
    """A query as OPEN carries it.  LocalError: it is larger, or nested deeper, than a peer takes."""
    tree = query.to_json()
    try:
        cbor.check_body(tree)
    except cbor.Malformed as error:
        raise LocalError(f"the query cannot be subscribed to: {error}") from None
    encoded = cbor.encode(tree)
    if len(encoded) > QUERY_BYTES_MAX:
        raise LocalError(f"the query cannot be subscribed to: {len(encoded)} bytes, at most {QUERY_BYTES_MAX}")
    return encoded


def decode_untrusted_query(encoded: bytes) -> Query:
    """The query of a peer's OPEN.  PeerError: it is none."""
    tree: Any = cbor.decode_message_untrusted(encoded, _MESSAGE_DEPTH_MAX)
    try:
        cbor.check_body(tree)
        return Query.from_json(tree)
    except (cbor.Malformed, LocalError) as error:
        raise PeerError(f"not a query: {error}") from None


class Sieve:
    """For one peer."""

    def __init__(self, held: Holding, view: PeerView, limits: Limits = LIMITS) -> None:
        self._held = held
        self._view = view
        self._limits = limits
        self.query: Query | None = None
        """The peer's; None where it wants everything."""
        self.is_latest = False
        """Whether the peer wants no payloads that are superseded."""
        self.awaits_disk = False
        """An entry would leave without its payload, and what allows that is not durable here yet."""
        self._passed_at: dict[int, int] = {}
        self._asked_at: dict[int, int] = {}
        """Entries to be sent, and asked for, that were found superseded, and what was the next entry then."""
        self._missed: set[LogPlace] = set()
        """What the peer asked for and did not get."""
        self._is_put_off = False
        """Of that something may be superseded here, and in doubt."""
        self._is_to_ask = False
        """Something of that is here now, or known to need no payload, and the peer has yet to hear it."""
        self._round = 0
        self._is_complete = True
        """All that matched when the peer opened was named."""
        self._has_scanned = True
        self._after: str | None = None
        """The last document that was looked at since the OPEN."""
        self._next = 0
        """The next entry to look at for what it changed."""
        self._late: dict[int, None] = {}
        """Entries that got their payloads late."""
        self._end = 1
        """The next entry when the peer opened."""
        self._judged = 0
        """How many of the entries before it were sent since then."""
        self._bookmarked = 0
        """Up to which entry the peer was last given a bookmark."""
        self._whole: set[int] = set()
        """Entries that went out with their payloads, or as superseded, and were not looked at yet."""
        self._not_before = 0.0

    def opened(self, message: Open) -> None:
        """The peer told what it wants.  PeerError: it is no query."""
        self.query = None if message.query is None else decode_untrusted_query(message.query)
        self.is_latest = bool(message.flags & FLAG_LATEST)
        self._round = message.round
        self._is_complete = self._has_scanned = self.query is None
        self._after, self._next, self._bookmarked = None, 1, 0
        self._end, self._judged = self._held.selection.end(), 0
        self._whole.clear()
        since = None if message.bookmark is None else self._held.selection.since(message.bookmark)
        if self.query is not None and since is not None:
            # All that matched until then is named.
            self._has_scanned, (self._next, late) = True, since
            self._late.update(dict.fromkeys(late))

    def missed(self, place: LogPlace) -> None:
        """The peer asked for a payload that is not here."""
        self._is_put_off |= bool(self._held.superseded.words())
        if len(self._missed) < self._limits.named_documents_max:
            self._missed.add(place)

    def came_late(self, arrivals: Iterable[int]) -> None:
        """Entries got their payloads here, or are known to need none."""
        if self.query is not None or self._missed:
            self._late.update(dict.fromkeys(arrivals))

    @property
    def choice(self) -> Callable[[Sequence[Any]], Sequence[Any]] | None:
        """Gives entries as they go out now, without the payloads that stay away; None: all go along.

        Fewer than it is given where the next would leave without its payload, and what has the payload, or supersedes
        it, is not durable here: the header would outlive a power cut, after which nobody might have that.
        `awaits_disk` is set then.
        """
        takes_all = self.query is None and not self.is_latest and not self._held.superseded.words()
        return None if takes_all else self._choose

    def _choose(self, rows: Sequence[StoredEntry]) -> Sequence[StoredEntry]:
        durable_next = self._held.durable_next
        rows = self._held.superseded.without_doubts(rows)
        chosen, waits = self._without_superseded(rows) if self.is_latest else (rows, set[int]())
        if self.query is not None:
            chosen = self._held.selection.part(self.query, chosen)
        if waits or rows[-1].arrival >= durable_next:
            for position, (row, sent) in enumerate(zip(rows, chosen, strict=True)):
                is_durable = row.arrival < durable_next and row.arrival not in waits
                if not is_durable and sent.payload is None and row.payload is not None:
                    self.awaits_disk = True
                    return chosen[:position]
        return chosen

    def _without_superseded(self, rows: Sequence[StoredEntry]) -> tuple[Sequence[StoredEntry], set[int]]:
        """Entries without the payloads that are superseded; and which of these are not to leave yet."""
        passed = self._held.superseded.among(rows)
        return self._held.superseded.without(rows, passed), self._wait(rows, passed, self._passed_at)

    def _wait(self, rows: Sequence[StoredEntry], passed: set[int], found_at: dict[int, int]) -> set[int]:
        """Of superseded entries those that are so by what may not survive a power cut.

        A document that is written all the time is never durable as it stands, so what was found of an entry before
        counts: `found_at` says what was the next entry then.
        """
        held = self._held
        fresh = held.superseded.not_durable([row for row in rows if row.arrival in passed])
        now = {arrival: found_at.get(arrival, held.selection.end()) for arrival in fresh}
        found_at.clear()
        found_at.update(now)
        return {arrival for arrival in fresh if found_at[arrival] > held.durable_next}

    def passed(self, rows: Sequence[StoredEntry]) -> set[int] | None:
        """Of entries that the peer asks for those (arrivals) of which it is told that they are superseded.

        Where the payload is here, that is said to a peer that wants the latest only.  None: not yet, `awaits_disk`.
        """
        rows = self._held.superseded.without_doubts(rows)
        found = self._held.superseded.among(rows) if self.is_latest else set[int]()
        if self._wait(rows, found, self._asked_at):
            self.awaits_disk = True
            return None
        return found | {row.arrival for row in rows if is_marked(row.bare)}

    def sent(self, rows: Sequence[StoredEntry], superseded: Iterable[int]) -> None:
        """These entries go out, as they were chosen: those at these positions as superseded."""
        if self.query is None:
            return
        # What is superseded changes nothing, so no document has to be named for it.
        self._whole.update([row.arrival for row in rows if row.payload is not None])
        self._whole.update([rows[k].arrival for k in superseded])
        if not self._has_scanned:
            self._judged += bisect_left(rows, self._end, key=attrgetter("arrival"))

    def name(self, now: float, *, is_lazy: bool) -> Match | float | None:
        """Names that the peer has yet to hear, or when to ask again, or None where there are none."""
        if self._is_put_off and not self._held.superseded.words():
            self._is_put_off, self._is_to_ask = False, True
        if self.query is None and not self._late and not self._is_to_ask:
            return None
        if is_lazy and self._is_complete and now < self._not_before:
            return self._not_before
        tags, has_more = self._look()
        is_complete = self._has_scanned and self._next == self._held.selection.end() and not self._late
        is_far = self._is_complete and self._next >= self._bookmarked + self._limits.bookmark_entries
        if tags or self._is_to_ask or (is_complete and not self._is_complete) or is_far:
            self._is_complete |= is_complete
            self._is_to_ask = False
            self._not_before = now + self._limits.announce_seconds
            return Match(self._round, self._is_complete, tags, self._bookmark())
        return now if has_more else None

    def _bookmark(self) -> bytes | None:
        if not self._is_complete or self._late or self.query is None:
            return None
        self._bookmarked = self._next
        return self._held.selection.bookmark(self._next)

    def _look(self) -> tuple[list[bytes], bool]:
        """A slice of the work: names, and whether there is more of it."""
        selection, slice_max = self._held.selection, self._limits.match_slice_documents
        if self._late:
            late = list(self._late)[:slice_max]
            named: dict[bytes, None] = {}
            for arrival in late:
                del self._late[arrival]
                named.update(dict.fromkeys(self._tags_of(arrival)))
            return list(named), True
        if self.query is None:
            return [], False
        # A name that is ahead of its header is taken for one of what is there: so no further than the peer has all.
        horizon = self._horizon()
        if not self._has_scanned:
            if self._judged == self._end - 1:
                # Each document was looked at as its entries went out, and what changed since then is looked at below.
                self._next, self._has_scanned = self._end, True
                return [], True
            if self._after is None:
                self._next = horizon
            found, self._after = selection.next_matching(self.query, self._after, slice_max)
            self._has_scanned = self._after is None
            return [tag for tag, arrival in found if arrival not in self._whole], True
        if self._next < horizon:
            count = min(slice_max, horizon - self._next)
            tags, self._next = selection.changed_matching(self.query, self._next, count, self._whole)
            if self._next >= horizon:
                self._whole = {arrival for arrival in self._whole if arrival >= horizon}
            return tags, True
        return [], False

    def _horizon(self) -> int:
        """The first entry that the peer is not known to have; after all where there is none."""
        view, selection = self._view, self._held.selection
        if view.locating or len(view.dirty) > _DIRTY_MAX:
            return self._next
        lacking = [selection.arrival_at(number, view.known.get(number, 0) + 1) for number in view.dirty]
        return min((arrival for arrival in lacking if arrival is not None), default=selection.end())

    def _tags_of(self, arrival: int) -> list[bytes]:
        """Of an entry that got its payload late, the documents to name.

        Whoever asked for it and still lacks it asks again without their names, which only make what it may have
        dropped since then wanted once more.  Who wants all documents looks by them for the past of each.
        """
        place = self._held.selection.place(arrival)
        has_asked = place in self._missed
        if has_asked:
            self._missed.discard(place)
            self._is_to_ask = True
        return self._held.selection.touched_matching(self.query, arrival) if has_asked or self.query is not None else []
