"""What a node knows of a document that it does not show: it holds another part of the collection, or wants all of it
and payloads have not come.

Every header reaches every node, and names the documents that its entry touches by their tags.  So a node knows that
somebody wrote a document, when and who, without knowing what was written.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from meshsync.core.hlc import to_datetime
from meshsync.core.limits import LIMITS
from meshsync.core.query import Query
from meshsync.ids import EndpointId
from meshsync.store.interest import Interest
from meshsync.store.past import Past


@dataclass(frozen=True, slots=True)
class Outside:
    """A document that is not in what a node holds of a collection, as far as the node can tell."""

    collection: str
    id: str
    query: Query | None
    """What the node wants; None: all."""
    writes: int
    """How many writes to it are known; `Limits.past_writes_max` stands for more.  Two documents may share a tag, once
    in a very great many."""
    unread: int
    """Of how many of them only the header is here, and may say something that counts."""
    author: EndpointId | None
    """Whose the last one is; None where there is none."""
    time: datetime | None
    """When that was written."""
    matches: bool = False
    """As far as it is here: it enters the part once all of it has come."""

    @property
    def may_exist(self) -> bool:
        """Whether it may be somewhere."""
        return self.writes > 0

    def __str__(self) -> str:
        """For people: what is so, and after a semicolon what to do."""
        if self.query is None:
            remedy = "meshsync status says from whom it may come"
            return f"what {self.id!r:.80} in {self.collection} says has not all come: {self._known()}; {remedy}"
        place = "enters it once all of it has come" if self.matches else "is not in it"
        part = f"this node holds the part of {self.collection} where {self.query}, and {self.id!r:.80} {place}"
        remedy = f"ask a node that holds it, or hold all: meshsync collections join {self.collection}"
        return f"{part}: {self._known()}" + (f"; {remedy}" if self.may_exist else "")

    def _known(self) -> str:
        """Which writes are known."""
        if self.author is None or self.time is None:
            return "no write to it is known"
        count = f"{self.writes}{'' if self.writes < LIMITS.past_writes_max else ' or more'}"
        known = f"{count} write{'' if self.writes == 1 else 's'} to it {'is' if self.writes == 1 else 'are'} known"
        unread = f", {self.unread} by header only" if self.unread else ""
        return f"{known}{unread}, the last of {self.time:%Y-%m-%d %H:%M:%S} UTC by {self.author.short}"


def look_outside(past: Past, collection: str, interest: Interest | None, id: str) -> Outside | None:
    """What is known of a document that is not in the part that is wanted, or is not here where all is.

    None where it is known that it does not exist, and without a part where no write to it is lacking.  DamagedError: a
    write cannot be read.
    """
    writes = unread = 0
    author: EndpointId | None = None
    time: datetime | None = None
    for write in islice(past.headers(id), LIMITS.past_writes_max):
        if author is None:
            author, time = write.author, to_datetime(write.hlc)
        writes += 1
        unread += write.is_lacking
    if interest is None and not unread:
        return None
    row = past.row(id)
    if writes and not unread and (row is None or not past.shows(row)):
        return None
    query, matches = (None, False) if interest is None else (interest.query, interest.is_held(id))
    return Outside(collection, id, query, writes, unread, author, time, matches)
