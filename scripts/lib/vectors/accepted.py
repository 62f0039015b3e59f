"""What every implementation must arrive at.  Bytes are in hexadecimal digits."""

from __future__ import annotations

from typing import Any

from meshsync.addresses import HostPort
from meshsync.core.anchor import Place
from meshsync.core.document import DocumentState, Stamp
from meshsync.core.entry import DELETE, NEVER, PATCH, PUT, Operation
from meshsync.core.hello import NAME_CHARACTERS_MAX
from meshsync.core.limits import EXPIRES_MS_MAX, SUMMARY_LASTS_SECONDS_MAX, SUMMARY_LINKS_MAX, SUMMARY_MARKS_MAX
from meshsync.core.messages import (
    FLAG_COMPLETE,
    FLAG_LATEST,
    FLAG_LAZY,
    Batch,
    Carry,
    Close,
    Graft,
    Have,
    Known,
    Locate,
    Match,
    Message,
    Open,
    Payloads,
    Ping,
    Pong,
    Prune,
    Relay,
    Subscribed,
    Summary,
    Want,
    encode_message,
)
from meshsync.core.policy import Policy, collection_id
from meshsync.core.query import Query
from meshsync.core.siblings import Mark as Written
from meshsync.core.siblings import SiblingState
from meshsync.core.sieve import encode_query
from meshsync.core.summary import Mark, NodeSummary, PeerLink, SignedSummary, sign_summary
from meshsync.core.tips import Tip, root_of
from meshsync.ids import CollectionId
from tests.authors import COLLECTION, Author, Made, batch_of

Vector = dict[str, Any]


def plain(value: Any) -> Any:
    """A value as JSON: bytes as "h:" and digits, tuples as arrays."""
    if isinstance(value, bytes):
        return f"h:{value.hex()}"
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def keys() -> list[Vector]:
    """Private key to endpoint id."""
    authors = [Author(number) for number in (1, 2, 3)]
    return [{"private": author.key.private_bytes_raw().hex(), "endpoint": str(author.log.author)} for author in authors]


def names() -> list[Vector]:
    """Name to collection id."""
    plain = [{"name": name, "id": str(CollectionId.of_name(name))} for name in ("notes", "a", "é", "x" * 128)]
    policies = [policy for policy in Policy if policy.keeps_all]
    return [
        *plain,
        *({"name": "notes", "policy": one.value, "id": str(collection_id("notes", one))} for one in policies),
    ]


def made() -> list[Made]:
    """Entries of two logs that name each other, with one and with many documents."""
    a, b = Author(1), Author(2)
    a1 = a.write(
        [Operation(PUT, "doc", {"title": "first", "n": 1, "half": 0.5, "none": None, "list": [True, {"a": "é"}]})]
    )
    b1 = b.write([Operation(PATCH, "doc", {"n": -1, "gone": None})], [a1])
    a2 = a.write([Operation(DELETE, "doc")])
    a3 = a.write([Operation(PUT, f"doc{k}", {}) for k in range(30)], [b1])
    c1 = Author(3).write([Operation(PUT, "é" * 256, {"big": 2**63 - 1, "small": -(2**63)})], [a3, b1], hlc=2**63 - 1)
    return [a1, b1, a2, a3, c1]


def made_to_expire() -> list[Made]:
    """Entries of one log that say when documents expire."""
    author = Author(2)
    times = [Operation(PUT, "doc", {}, EXPIRES_MS_MAX), Operation(PATCH, "one", {"a": 1}, 1)]
    return [author.write(times), author.write([Operation(PATCH, "doc", {}, NEVER)])]


def entries() -> list[Vector]:
    """Fields to header, id and seal."""
    return [
        {
            "private": entry.author.key.private_bytes_raw().hex(),
            "collection": str(COLLECTION),
            "incarnation": entry.log.incarnation.hex(),
            "seq": entry.seq,
            "prev": entry.prev and entry.prev.hex(),
            "parents": sorted(parent.id.hex() for parent in entry.parents),
            "height": entry.height,
            "hlc": entry.hlc,
            "payload": entry.payload.hex(),
            "header": entry.header.hex(),
            "id": entry.id.hex(),
            "seal": entry.seal.hex(),
        }
        for entry in [*made(), *made_to_expire()]
    ]


def messages() -> list[Vector]:
    """Fields to frame, and for a batch the ids of the entries that come out of it."""
    found = made()
    log = found[0].log
    root = root_of(COLLECTION, [Tip(found[0].log, 1, found[0].id)])
    batch, _ = batch_of(found[:4], explicit=False, cursor=5, root=root)
    explicit, _ = batch_of(found[:4])
    bare, _ = batch_of(found[:4], bare=found[1:3])
    superseded, _ = batch_of(found[:4], bare=found[1:2], superseded=found[2:3])
    samples: list[Message] = [
        Open(bytes(range(16)), 0, b"epoch678", None, root, (), 1),
        Open(bytes(range(16)), 3, b"epoch678", (b"epoch876", 7), root, ((log, 2**53, bytes(range(16))),), 3),
        Open(bytes(range(16)), 2**32, b"epoch678", (b"epoch876", 7), root, None, 0),
        Open(bytes(range(16)), 0, b"epoch678", None, root, (), FLAG_COMPLETE | FLAG_LAZY),
        batch,
        explicit,
        bare,
        superseded,
        Batch(0, (), [], [], [], [], [], [], [], 1, None),
        Have(None, root, (), []),
        Have(5, root, (log,), [(0, 3, bytes(range(16)))]),
        Have(None, root, (), [(0, 3, bytes(range(16)))], 250),
        Locate((log,), 0, [(9, bytes(range(16))), (1, bytes(16))]),
        Want((log,), [(0, 1), (0, 2)]),
        Payloads((log,), 2, [(0, 1, found[0].payload)], []),
        Payloads((), 3, [], [(0, found[0].id[:8]), (2, found[2].id[:8])]),
        Close(1, "stopping"),
        Prune(),
        Graft(),
        Open(bytes(range(16)), 1, b"epoch678", None, root, (), 0, encode_query(Query.parse("team=blue"))),
        Open(bytes(range(16)), 1, b"epoch678", None, root, (), 0, encode_query(Query.parse("team=blue")), b"bookmark"),
        Open(bytes(range(16)), 2, b"epoch678", None, root, (), FLAG_COMPLETE | FLAG_LATEST),
        Match(1, True, [bytes(range(8)), bytes(8)]),
        Match(1, True, [bytes(8)], bytes(range(32))),
        Match(2**32, False, []),
        Subscribed((bytes(range(16)), bytes(16))),
        Ping(1, 1_800_000_000_000),
        Pong(2**32, 0),
        Summary(bytes(range(16)), 1500, summaries_made()[0].body, summaries_made()[0].signature),
        Relay(),
        Carry(((COLLECTION, 0), (CollectionId(bytes(32)), 86_400))),
        Known(bytes(range(16)), bytes(range(8))),
    ]
    vectors: list[Vector] = []
    for message in samples:
        fields = {name: plain(getattr(message, name)) for name in type(message).__slots__}
        vector: Vector = {"message": type(message).__name__, "fields": fields, "frame": encode_message(message).hex()}
        if isinstance(message, Batch) and message.runs:
            vector["entries"] = [entry.id.hex() for entry in found[:4]]
        vectors.append(vector)
    return vectors


def summaries_made() -> list[SignedSummary]:
    """One of a node in the middle of a mesh, one that says as little and one that says as much as it may."""
    a, b, c = (Author(number) for number in (1, 2, 3))
    root = root_of(COLLECTION, [])
    middle = NodeSummary(
        collection=COLLECTION,
        author=a.log.author,
        version=1_800_000_000_000,
        lasts_s=10_800,
        name="bücher",
        addresses=(HostPort("10.0.12.2", 4433), HostPort("2001:db8::1", 4433)),
        links=(PeerLink(b.log.author, 1500), PeerLink(c.log.author, 0)),
        links_total=2,
        root=root,
        entries=7,
        documents=5,
        marks=(Mark(a.log.incarnation, 4), Mark(b.log.incarnation, 3)),
    )
    least = NodeSummary(COLLECTION, b.log.author, 0, 0, "", (), (), 0, root, 0, 0, ())
    most = NodeSummary(
        collection=COLLECTION,
        author=c.log.author,
        version=2**64 - 1,
        lasts_s=SUMMARY_LASTS_SECONDS_MAX,
        name="\U0001f600" * NAME_CHARACTERS_MAX,
        addresses=tuple(HostPort(f"2001:db8:1234:5678:9abc:def0:1234:{k:x}", 65535) for k in range(0x1000, 0x1008)),
        links=tuple(PeerLink(Author(k).log.author, 2**32 - 1) for k in range(4, 4 + SUMMARY_LINKS_MAX)),
        links_total=2**53,
        root=root,
        entries=2**53,
        documents=2**53,
        marks=tuple(Mark(Author(k).log.incarnation, 2**53) for k in range(SUMMARY_MARKS_MAX)),
    )
    return [sign_summary(one, author.key) for one, author in ((middle, a), (least, b), (most, c))]


def summaries() -> list[Vector]:
    """What a node says of itself, to body and signature."""
    return [
        {
            "private": author.key.private_bytes_raw().hex(),
            "fields": {name: plain(getattr(made.summary, name)) for name in NodeSummary.__slots__},
            "body": made.body.hex(),
            "signature": made.signature.hex(),
        }
        for author, made in zip(map(Author, (1, 2, 3)), summaries_made(), strict=True)
    ]


def roots() -> list[Vector]:
    """Tips to root."""
    tips = [Tip(entry.log, entry.seq, entry.id) for entry in made()]
    return [
        {
            "collection": str(COLLECTION),
            "tips": [[tip.log.author.hex(), tip.log.incarnation.hex(), tip.seq, tip.id.hex()] for tip in tips[:count]],
            "root": root_of(COLLECTION, tips[:count]).hex(),
        }
        for count in range(len(tips) + 1)
    ]


def documents() -> list[Vector]:
    """Operations with stamps to the document that they make, in any order."""
    one, two = b"\x01" * 32, b"\x02" * 32
    cases: list[list[tuple[Any, ...]]] = [
        [],
        [(PUT, {}, (1, one, one))],
        [(PUT, {"a": 1, "b": None}, (1, one, one)), (PATCH, {"a": None, "c": 2}, (2, one, two))],
        [(PUT, {"a": 1}, (1, one, one)), (PUT, {"b": 2}, (1, two, two))],
        [(PUT, {"a": 1}, (1, one, one)), (PUT, {"b": 2}, (1, one, two))],
        [(PUT, {"a": 1}, (1, one, one)), (DELETE, None, (2, two, two))],
        [(PUT, {"a": 1}, (1, one, one)), (DELETE, None, (2, two, two)), (PATCH, {"b": 1}, (3, one, two))],
        [(PATCH, {"b": 1}, (1, one, one)), (DELETE, None, (2, two, two))],
        [(PATCH, {"a": 1}, (2, one, one)), (PATCH, {"a": 2, "b": 2}, (1, two, two))],
        [(PATCH, {"a": None}, (2, one, one)), (PATCH, {"a": 2}, (1, two, two))],
        [(PUT, {"a": 1}, (1, one, one), 100)],
        [(PUT, {"a": 1}, (1, one, one), 100), (PATCH, {"b": 1}, (2, two, two))],
        [(PUT, {"a": 1}, (1, one, one), 100), (PATCH, {}, (3, two, two), 50), (PATCH, {}, (2, one, two), 200)],
        [(PUT, {"a": 1}, (1, one, one), 100), (PATCH, {}, (2, two, two), NEVER)],
        [(PUT, {"a": 1}, (1, one, one), 100), (PUT, {"a": 2}, (2, two, two))],
        [(PUT, {"a": 1}, (1, one, one)), (PATCH, {}, (2, two, two), 100), (PUT, {"b": 2}, (1, two, one), 50)],
        [(PUT, {"a": 1}, (1, one, one), 100), (DELETE, None, (2, two, two)), (PATCH, {"b": 1}, (3, one, two))],
        [(DELETE, None, (2, two, two)), (PATCH, {}, (1, one, two), 100)],
    ]
    vectors: list[Vector] = []
    for writes in cases:
        state = DocumentState()
        for kind, body, stamp, *expires_ms in writes:
            state.apply(kind, body, Stamp(*stamp), *expires_ms)
        rows = [[kind, body, [stamp[0], stamp[1].hex(), stamp[2].hex()], *more] for kind, body, stamp, *more in writes]
        vectors.append({"writes": rows, "document": state.visible(), "expires": state.expires_ms})
    return vectors


def policies() -> list[Vector]:
    """Operations, and which of those before each had seen, to the document that they make under each policy."""
    cases: list[list[tuple[Any, ...]]] = [
        [(PUT, {"n": 1}, []), (PUT, {"n": 3}, []), (PUT, {"n": 2, "x": "y"}, [])],
        [(PUT, {"n": 1}, []), (PATCH, {"n": 5}, [0]), (PATCH, {"n": 3}, [0]), (PATCH, {"n": 2}, [0, 2])],
        [(PUT, {"n": 1}, []), (DELETE, None, [0]), (PATCH, {"m": 3}, [0])],
        [(PUT, {"n": 1}, []), (DELETE, None, [])],
        [(PUT, {"n": 1}, []), (PATCH, {"n": None}, [0]), (PATCH, {"n": 1}, [0]), (PATCH, {"n": 1.0}, [0])],
        [(PUT, {"n": value}, []) for value in (None, False, True, -1, 0.5, "", "a", [], [1], {}, {"a": 1})],
        [(PUT, {"n": 1}, []), (PUT, {"n": 2}, []), (PATCH, {"m": 1}, [0, 1])],
        [(PUT, {"n": 1}, [], 100), (PUT, {"n": 2}, [], 200), (PATCH, {"m": 1}, [0, 1])],
        [(PUT, {"n": 1}, [], 100), (PUT, {"n": 2}, [])],
        [(PUT, {"n": 1}, []), (PATCH, {}, [0], 100), (PATCH, {}, [0], 50), (PATCH, {}, [0, 1, 2], 70)],
        [(PUT, {"n": 1}, [], 100), (PATCH, {}, [0], NEVER), (PATCH, {"n": 2}, [0], 100)],
        [(PUT, {"n": 1}, [], 100), (DELETE, None, [0]), (PATCH, {"m": 1}, [0]), (PATCH, {}, [0], 50)],
    ]
    return [
        {
            "policy": policy.value,
            "writes": [list(write) for write in writes],
            "document": state.visible(),
            "expires": state.expires_ms,
        }
        for writes in cases
        for policy in Policy
        if policy.keeps_all
        for state in [_under(policy, writes)]
    ]


def _under(policy: Policy, writes: list[tuple[Any, ...]]) -> SiblingState:
    state = SiblingState(policy)
    for number, (kind, body, _, *expires_ms) in enumerate(writes):
        stamp = Stamp(number + 1, bytes([number]) * 32, bytes([number]) * 32)
        # Each in a log of its own.
        written = Written(stamp, Place(number, 1, number + 1), kind)
        unseen = lambda new, olds: [old for old in olds if old.branch not in writes[new.branch][2]]  # noqa: E731
        state.apply(written, body, unseen, *expires_ms)
    return state
