"""Summaries that every implementation must refuse, each signed by its author, and why."""

from __future__ import annotations

from typing import Any

from meshsync.core import cbor
from tests.authors import Author
from vectors.accepted import Vector, summaries_made

_DOMAIN = b"meshsync/summary/1\0"


def refused_summaries() -> list[Vector]:
    """Bodies that are no summary, and signatures that are not the author's."""
    good, least, _ = summaries_made()
    fields: list[Any] = cbor.decode_trusted(good.body)

    def changed(at: int, value: Any) -> bytes:
        return cbor.encode([*fields[:at], value, *fields[at + 1 :]])

    link = fields[7][0]
    many = [[bytes(Author(number).log.author), 1] for number in range(4, 21)]
    bodies = {
        "nothing": b"",
        "a byte behind it": good.body + b"\x00",
        "cut short": good.body[:-1],
        "a map": cbor.encode({"a": 1}),
        "another format": changed(0, 2),
        "a field too few": cbor.encode(fields[:-1]),
        "a field too many": cbor.encode([*fields, 0]),
        "a collection of 31 bytes": changed(1, bytes(31)),
        "an author of small order": changed(2, bytes(32)),
        "a negative version": changed(3, -1),
        "a version that is a float": changed(3, 0.5),
        "a version that is true": changed(3, True),
        "one that lasts for more than its bound": changed(4, 32 * 86400 + 1),
        "a name of bytes": changed(5, b"name"),
        "nine addresses": changed(6, [f"10.0.0.{k}:4433" for k in range(1, 10)]),
        "an address with a name": changed(6, ["relay.example:4433"]),
        "an address without a port": changed(6, ["10.0.0.1"]),
        "an address with port 0": changed(6, ["10.0.0.1:0"]),
        "an address with port 65536": changed(6, ["10.0.0.1:65536"]),
        "an address with a port in other digits": changed(6, ["10.0.0.1:\u0664\u0664"]),
        "an address with blanks": changed(6, [" 10.0.0.1:4433"]),
        "an address that is a wildcard": changed(6, ["0.0.0.0:4433"]),
        "an address of a group": changed(6, ["224.0.0.251:5353"]),
        "an address with a zone": changed(6, ["[fe80::1%eth0]:4433"]),
        "an address of one link": changed(6, ["[fe80::1]:4433"]),
        "an address of IPv6 without brackets": changed(6, ["2001:db8::1:4433"]),
        "an address in another spelling": changed(6, ["[2001:DB8::1]:4433"]),
        "seventeen links": cbor.encode([*fields[:7], many, 17, *fields[9:]]),
        "a link to a key of small order": changed(7, [[bytes(32), 1]]),
        "a link listed twice": changed(7, [link, link]),
        "a link without its round trip": changed(7, [link[:1]]),
        "a round trip above its bound": changed(7, [[link[0], 2**32]]),
        "fewer links than are listed": changed(8, 1),
        "a root of 31 bytes": changed(9, bytes(31)),
        "a negative number of entries": changed(10, -1),
        "more documents than there are numbers": changed(11, 2**53 + 1),
        "twenty-five marks": changed(12, [[bytes(8), 1]] * 25),
        "a mark of a short incarnation": changed(12, [[bytes(7), 1]]),
        "a mark without its seq": changed(12, [[bytes(8)]]),
    }
    key = Author(1).key
    signed = {why: (body, key.sign(_DOMAIN + body)) for why, body in bodies.items()}
    signed |= {
        "a signature of zeros": (good.body, bytes(64)),
        "the signature of another summary": (good.body, least.signature),
        "another author's signature": (good.body, Author(2).key.sign(_DOMAIN + good.body)),
        "a signature without its domain": (good.body, key.sign(good.body)),
        "a later version under an old signature": (changed(3, fields[3] + 1), good.signature),
    }
    return [{"why": why, "body": body.hex(), "signature": by.hex()} for why, (body, by) in signed.items()]
