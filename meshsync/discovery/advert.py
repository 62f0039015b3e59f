"""What a node says of itself on the local network, and what it makes of what others say.

    <first 32 digits of the id>._meshsync._udp.local.
    TXT  v=1  id=<64 digits>  name=<what people call it>  mesh=<16 digits>

DNS-SD (RFC 6763): the instance's name is one label of at most 63 octets, so the whole id is in the TXT record.
Everything here is a hint: who is really there has to prove it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from meshsync.core.hello import clean_text
from meshsync.errors import LocalError, PeerError
from meshsync.ids import EndpointId

FORMAT = "1"
LABEL_DIGITS = 32
_HEX_ID = re.compile(rb"[0-9a-f]{64}")
_TXT_BYTES_MAX = 255
"""Of one string in a TXT record (RFC 6763 section 6.1)."""


def mesh_hint(mesh_key: bytes, id: EndpointId) -> str:
    """Tells who holds the same mesh key apart from others, and only them.  No proof: anyone can repeat it."""
    return hmac.digest(mesh_key, b"meshsync/mdns/1\0" + id, hashlib.sha256)[:8].hex()


@dataclass(frozen=True)
class Advert:
    """What one endpoint says of itself."""

    id: EndpointId
    name: str = ""
    mesh: str = ""
    """`mesh_hint`, where only holders of the mesh key may connect."""

    @property
    def label(self) -> str:
        """The name of its instance, less the service."""
        return self.id.hex()[:LABEL_DIGITS]

    def txt(self) -> dict[str, str]:
        """The TXT record."""
        found = {"v": FORMAT, "id": self.id.hex()}
        if self.name:
            # A string that is too long is cut where a character ends.
            name = self.name.encode()[: _TXT_BYTES_MAX - len("name=")].decode(errors="ignore")
            found["name"] = name
        if self.mesh:
            found["mesh"] = self.mesh
        return found


def parse_untrusted_txt(label: str, txt: Mapping[bytes, bytes | None]) -> Advert:
    """Read a TXT record.  PeerError: it is none of this program, of another format, or of another endpoint."""
    if txt.get(b"v") != FORMAT.encode():
        raise PeerError("the format of the announcement is unknown")
    digits = txt.get(b"id") or b""
    if not _HEX_ID.fullmatch(digits):
        raise PeerError("the announcement has no endpoint id")
    try:
        id = EndpointId.parse(digits.decode())
    except LocalError as error:
        raise PeerError(str(error)) from None
    advert = Advert(
        id,
        clean_text((txt.get(b"name") or b"").decode(errors="replace")),
        clean_text((txt.get(b"mesh") or b"").decode(errors="replace")),
    )
    # Otherwise one announcer could speak for many endpoints under one name, or for one under many.
    if advert.label != label.lower():
        raise PeerError("the announcement has the name of another endpoint")
    return advert


def usable_addresses(addresses: Iterable[str], *, loopback: bool, addresses_max: int) -> tuple[str, ...]:
    """The addresses at which somebody else can be, each once, at most so many.

    IPv6 addresses that hold in one link only are of no use without the link's zone.  Loopback is somebody else's only
    where this node itself is to be found there.
    """
    found: dict[str, None] = {}
    for text in addresses:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        if address.is_unspecified or address.is_multicast or (address.is_loopback and not loopback):
            continue
        if address.version == 6 and address.is_link_local and "%" not in text:
            continue
        found[text] = None
    return tuple(found)[:addresses_max]
