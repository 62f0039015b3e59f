"""What others announce: from records to sightings, within bounds.

Whatever is on the local network may say anything.  What does not look like an announcement of this program costs one
comparison and leaves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from zeroconf import RecordUpdate, RecordUpdateListener, Zeroconf
from zeroconf.asyncio import AsyncServiceInfo

from meshsync.addresses import HostPort
from meshsync.core.limits import Limits
from meshsync.discovery.advert import LABEL_DIGITS, Advert, parse_untrusted_txt, usable_addresses
from meshsync.discovery.base import Sighting
from meshsync.discovery.mdns._seam import DNSAddress, DNSPointer, DNSRecord, DNSService
from meshsync.errors import PeerError
from meshsync.ids import EndpointId

VIA = "mdns"
SERVICE = "_meshsync._udp.local."
_INSTANCE = re.compile(rf"[0-9a-f]{{{LABEL_DIGITS}}}(-[0-9]{{1,5}})?\.{re.escape(SERVICE)}")


@dataclass
class _Seen:
    """What one instance announced."""

    until: float
    """From then on it has not been heard of for too long."""
    server: str
    endpoint: EndpointId
    name: str
    addresses: tuple[HostPort, ...]


class Heard(RecordUpdateListener):
    """The instances that were heard of, by name.  Times are those of the caller, in seconds."""

    def __init__(
        self, own: EndpointId, is_wanted: Callable[[Advert], bool], has_news: Callable[[], None], limits: Limits
    ) -> None:
        self.takes_loopback = False
        """Whether addresses of loopback are somebody else's."""
        self._own_label = Advert(own).label
        self._is_wanted = is_wanted
        self._has_news = has_news
        self._limits = limits
        self._seen: dict[str, _Seen] = {}
        self._touched: dict[str, float | None] = {}
        """Instances with news, and for how many seconds they are there by that; 0.0: they are gone."""
        self._told: dict[EndpointId, Sighting] = {}

    # What zeroconf calls

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:  # noqa: ARG002
        """Note which instances the records are about."""
        for update in records:
            # zeroconf calls this before it keeps the record.  Of too many it drops first what runs out first: with the
            # same time for all that is the oldest, and nobody can claim the room for hours.
            update.new.ttl = min(update.new.ttl, self._limits.mdns_ttl_seconds_max)
            # An old record that ran out is no news: `_Seen.until` has that.
            if not update.new.ttl or not update.new.is_expired(now):
                self._hear(update.new)

    def async_update_records_complete(self) -> None:
        """Nothing: what was heard is looked at a little later."""

    def _hear(self, record: DNSRecord) -> None:
        if isinstance(record, DNSAddress):
            server = record.name.lower()
            for name, seen in self._seen.items():
                if seen.server == server:
                    self.touch(name)
        elif isinstance(record, DNSPointer):
            self.touch(record.alias, None if record.ttl else 0.0)
        elif isinstance(record, DNSService):
            self.touch(record.name, float(record.ttl))
        else:
            self.touch(record.name)

    def touch(self, name: str, seconds: float | None = None) -> None:
        """There is news of an instance."""
        name = name.lower()
        if not _INSTANCE.fullmatch(name) or name.startswith(self._own_label):
            return
        known = self._seen.keys() | self._touched.keys()
        # Who is there stays: a flood of made-up endpoints keeps new ones out, and takes nobody away.
        if name not in known and len(known) >= self._limits.sightings_max:
            return
        if seconds is not None:
            self._touched[name] = seconds
        else:
            # A goodbye consists of all records: those that say nothing of the time must not undo it.
            self._touched.setdefault(name, None)
        self._has_news()

    # What the station calls

    @property
    def next_end(self) -> float | None:
        """When the first of what is there has not been heard of for too long."""
        return min((seen.until for seen in self._seen.values()), default=None)

    def look(self, zeroconf: Zeroconf, now: float) -> list[AsyncServiceInfo]:
        """Take over what zeroconf knows of what was touched.  Returns of what something is missing."""
        touched, self._touched = self._touched, {}
        partial = []
        for name, seconds in touched.items():
            if seconds == 0.0:
                self._seen.pop(name, None)
                continue
            service = AsyncServiceInfo(SERVICE, name)
            if service.load_from_cache(zeroconf):
                self._take(name, service, now, seconds)
            elif name not in self._seen:
                partial.append(service)
            elif seconds is not None:
                self._seen[name].until = now + seconds
        for name in [name for name, seen in self._seen.items() if seen.until <= now]:
            del self._seen[name]
        return partial

    def _take(self, name: str, service: AsyncServiceInfo, now: float, seconds: float | None) -> None:
        """Take over an announcement.  One that is of no use changes nothing: anybody may have sent it."""
        try:
            advert = parse_untrusted_txt(name[:LABEL_DIGITS], service.properties)
        except PeerError:
            return
        addresses = usable_addresses(
            service.parsed_scoped_addresses(),
            loopback=self.takes_loopback,
            addresses_max=self._limits.addresses_per_sighting_max,
        )
        if not addresses or not service.port or not self._is_wanted(advert):
            return
        known = self._seen.pop(name, None)
        if seconds is None:
            until = known.until if known is not None else now + self._limits.mdns_ttl_seconds
        else:
            until = now + seconds
        places = tuple(HostPort(address, service.port) for address in addresses)
        self._seen[name] = _Seen(until, (service.server or "").lower(), advert.id, advert.name, places)

    def changes(self) -> list[Sighting]:
        """What is another than at the last call."""
        found: dict[EndpointId, Sighting] = {}
        for seen in self._seen.values():
            # An endpoint that listens on several ports has an instance for each.
            known = found.get(seen.endpoint, Sighting(seen.endpoint, (), VIA, seen.name))
            addresses = tuple(dict.fromkeys(known.addresses + seen.addresses))
            found[seen.endpoint] = replace(known, addresses=addresses[: self._limits.addresses_per_sighting_max])
        gone = [replace(told, addresses=()) for id, told in self._told.items() if id not in found]
        changed = [sighting for id, sighting in found.items() if self._told.get(id) != sighting]
        self._told = found
        return gone + changed
