"""Summaries made by hand."""

from __future__ import annotations

from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshsync.core.summary import NodeSummary, PeerLink, SignedSummary, sign_summary
from meshsync.ids import EndpointId
from tests.authors import COLLECTION


@cache
def key_of(number: int) -> Ed25519PrivateKey:
    """A key; `number` makes it the same in every run."""
    return Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))


@cache
def id_of(number: int) -> EndpointId:
    """The endpoint with this key."""
    return EndpointId(key_of(number).public_key().public_bytes_raw())


def summary(number: int, version: int = 1, links: tuple[int, ...] = (), **fields: Any) -> SignedSummary:
    """What a node says."""
    content = NodeSummary(
        **{
            "collection": COLLECTION,
            "author": id_of(number),
            "version": version,
            "lasts_s": 10_000,
            "name": f"node {number}",
            "addresses": (),
            "links": tuple(PeerLink(id_of(one), 1000) for one in links),
            "links_total": len(links),
            "root": bytes(32),
            "entries": 0,
            "documents": 0,
            "marks": (),
            **fields,
        }
    )
    return sign_summary(content, key_of(number))
