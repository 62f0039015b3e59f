"""What every implementation must refuse, and why."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

from meshsync.core import cbor
from meshsync.core.entry import PUT, Operation, describe_payload
from meshsync.core.limits import BOOKMARK_BYTES_MAX, MATCH_TAGS_MAX, QUERY_BYTES_MAX
from meshsync.core.messages import Batch, Ping, encode_message
from meshsync.ids import CollectionId
from tests.authors import Author, Made, batch_of

Vector = dict[str, Any]

_P = 2**255 - 19
# RFC 8032's curve: the y coordinates of the points of order 1, 2, 4 and 8.
_ORDER_8_Y = (
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
)


def refused_keys() -> list[Vector]:
    """The fourteen encodings of points of small order, and encodings that are not canonical."""
    sign = 1 << 255
    small = {
        "order 1": 1,
        "order 1, sign bit": 1 | sign,
        "order 1, not canonical": 1 + _P,
        "order 1, not canonical, sign bit": (1 + _P) | sign,
        "order 2": _P - 1,
        "order 2, sign bit": (_P - 1) | sign,
        "order 4": 0,
        "order 4, sign bit": sign,
        "order 4, not canonical": _P,
        "order 4, not canonical, sign bit": _P | sign,
        "order 8, first": _ORDER_8_Y[0],
        "order 8, first, sign bit": _ORDER_8_Y[0] | sign,
        "order 8, second": _ORDER_8_Y[1],
        "order 8, second, sign bit": _ORDER_8_Y[1] | sign,
    }
    others = {f"y = p + {k}, not canonical": _P + k for k in (2, 3, 18)}
    vectors: list[Vector] = [{"why": why, "key": y.to_bytes(32, "little").hex()} for why, y in (small | others).items()]
    vectors += [{"why": f"{size} bytes", "key": "11" * size} for size in (0, 31, 33)]
    return vectors


def _cbor(value: Any) -> bytes:
    return cbor.encode(value)


def refused_frames() -> list[Vector]:
    """Frames that are no message."""
    ping = encode_message(Ping(1, 1000))
    tag, root, log = bytes(16), bytes(32), [bytes(Author(1).log.author), bytes(8)]
    frames = {
        "nothing": b"",
        "a byte behind the message": ping + b"\x00",
        "a message twice": ping * 2,
        "the message cut short": ping[:-1],
        "an integer in two bytes that fits one": b"\x83\x18\x11\x01\x19\x03\xe8",
        "an integer in three bytes that fits two": b"\x83\x11\x19\x00\x01\x19\x03\xe8",
        "an integer in five bytes that fits three": b"\x83\x11\x01\x1a\x00\x00\x03\xe8",
        "an integer in nine bytes that fits three": b"\x83\x11\x01\x1b" + (1000).to_bytes(8, "big"),
        "a length in two bytes that fits one": b"\x98\x03" + ping[1:],
        "an array without a length": b"\x9f" + ping[1:] + b"\xff",
        "a byte string without a length": b"\x82\x10\x9f\x5f\x50" + tag + b"\xff\xff",
        "a text without a length": b"\x83\x06\x01\x7f\x61\x61\xff",
        "a break alone": b"\xff",
        "a map in place of the message": _cbor({"a": 1}),
        "an integer alone": b"\x11",
        "an empty array": b"\x80",
        "a number that no message has": _cbor([99, 1]),
        "a negative number": _cbor([-1]),
        "a text as number": _cbor(["17", 1, 1000]),
        "true as number": b"\x83\xf5" + root,
        "a float as number": b"\x83\xf9\x4c\x40\x01\x01",
        "a field too few": _cbor([17, 1]),
        "a field too many": _cbor([17, 1, 1000, 1]),
        "a float for an integer": _cbor([17, 1, 0.5]),
        "true for an integer": _cbor([17, True, 1000]),
        "a negative integer": _cbor([17, 1, -1]),
        "an integer above its bound": _cbor([17, 2**32 + 1, 1]),
        "an integer above 64 bits": b"\x83\x11\x01\xc2\x49\x01" + bytes(8),
        "a tag": b"\x83\x11\xc1\x01\x19\x03\xe8",
        "the tag of CBOR itself": b"\xd9\xd9\xf7" + ping,
        "undefined": b"\x83\x11\xf7\x01",
        "a simple value": b"\x83\x11\xe0\x01",
        "NaN": b"\x83\x11\xf9\x7e\x00\x01",
        "a text that is not UTF-8": b"\x83\x06\x01\x62\xc3\x28",
        "a text with a surrogate": b"\x83\x06\x01\x63\xed\xa0\x80",
        "a text that is too long": _cbor([6, 1, "x" * 201]),
        "bytes for a text": _cbor([6, 1, b"bye"]),
        "an array of four thousand million": b"\x9a\xff\xff\xff\xff\x11",
        "a byte string of an exabyte": b"\x82\x10\x81\x5b\x10" + bytes(7),
        "nested too deep": b"\x81" * 12 + b"\x00",
        "nested far too deep": b"\x81" * 10_000 + b"\x00",
        "a collection's tag of fifteen bytes": _cbor([16, [bytes(15)]]),
        "a RELAY that says more": _cbor([20, []]),
        "a CARRY of a short id": _cbor([21, [[bytes(31), 0]]]),
        "a CARRY without ages": _cbor([21, [bytes(32)]]),
        "a CARRY of the future": _cbor([21, [[bytes(32), -1]]]),
        "a CARRY of more collections than one may ask for": _cbor([21, [[bytes([n]) * 32, 0] for n in range(129)]]),
        "an OPEN with a short root": _cbor([0, tag, 0, bytes(8), None, bytes(31), [], 0]),
        "an OPEN with a short epoch": _cbor([0, tag, 0, bytes(7), None, root, [], 0]),
        "an OPEN with half a cursor": _cbor([0, tag, 0, bytes(8), [bytes(8)], root, [], 0]),
        "a tip with a whole id": _cbor([0, tag, 0, bytes(8), None, root, [[*log, 1, bytes(32)]], 0]),
        "a tip beyond 2**53": _cbor([0, tag, 0, bytes(8), None, root, [[*log, 2**53 + 1, bytes(16)]], 0]),
        "a tip of a key of small order": _cbor(
            [0, tag, 0, bytes(8), None, root, [[bytes(32), bytes(8), 1, bytes(16)]], 0]
        ),
        "a log without incarnation": _cbor([2, None, root, [[log[0]]], []]),
        "a log of a short incarnation": _cbor([2, None, root, [[log[0], bytes(7)]], []]),
        "a map of logs": _cbor([2, None, root, {"a": 1}, []]),
        "a map with keys out of order": b"\x82\x18\x63\xa2\x62\x62\x62\x00\x61\x61\x00",
        "a map with a key twice": b"\x82\x18\x63\xa2\x61\x61\x00\x61\x61\x00",
        "a PRUNE with something in it": _cbor([7, root]),
        "a GRAFT with something in it": _cbor([8, 0]),
        "a PRUNE in two bytes": b"\x81\x18\x07",
        "a MATCH of a short tag": _cbor([9, 0, True, [bytes(7)]]),
        "a MATCH of more tags than one may have": _cbor([9, 0, True, [bytes(8)] * (MATCH_TAGS_MAX + 1)]),
        "a MATCH that is complete by number": _cbor([9, 0, 1, []]),
        "a MATCH with null for a bookmark": _cbor([9, 0, True, [], None]),
        "a MATCH with a bookmark that is too long": _cbor([9, 0, True, [], bytes(BOOKMARK_BYTES_MAX + 1)]),
        "an OPEN with null for a bookmark": _cbor([0, tag, 0, bytes(8), None, root, [], 0, b"query", None]),
        "an OPEN with null for a query": _cbor([0, tag, 0, bytes(8), None, root, [], 0, None]),
        "an OPEN with a query that is a text": _cbor([0, tag, 0, bytes(8), None, root, [], 0, "team=blue"]),
        "an OPEN with a query that is too long": _cbor(
            [0, tag, 0, bytes(8), None, root, [], 0, bytes(QUERY_BYTES_MAX + 1)]
        ),
        "a seal of 63 bytes": _cbor([1, 0, [], [], [], [], [], [], [], [[0, bytes(63)]], 1, None]),
        "a hint of nine bytes": _cbor([1, 0, [], [[0, 2, 1, bytes(9)]], [1], [], [b"\x80"], [], [], [], 1, None]),
        "no parents in a row of parents": _cbor([1, 0, [], [], [], [[0, []]], [], [], [], [], 1, None]),
        "seventeen parents": _cbor([1, 0, [], [], [], [[0, [[0, 1, None]] * 17]], [], [], [], [], 1, None]),
        "a document's tag of seven bytes": _cbor(
            [1, 0, [], [], [], [], [], [[0, root, 1, [bytes(7)]]], [], [], 1, None]
        ),
        "a place of a superseded payload that is a text": _cbor([1, 0, [], [], [], [], [], [], ["0"], [], 1, None]),
        "a batch without the column of superseded payloads": _cbor([1, 0, [], [], [], [], [], [], [], 1, None]),
        "an answer of seven bytes of an id": _cbor([5, [], 1, [], [[0, bytes(7)]]]),
        "an answer without superseded payloads": _cbor([5, [], 0, []]),
        "a payload that is a text": _cbor([1, 0, [], [[0, 1, 1, None]], [1], [], ["x"], [], [], [], 1, None]),
        "a stamp that is a float": _cbor([1, 0, [], [[0, 1, 1, None]], [1.5], [], [b"\x80"], [], [], [], 1, None]),
    }
    summary = [19, tag, 0, b"", bytes(64)]
    frames |= {
        "a summary of more bytes than one may have": _cbor([*summary[:3], bytes(2049), summary[4]]),
        "a summary with a signature of 63 bytes": _cbor([*summary[:4], bytes(63)]),
        "a summary from the future": _cbor([19, tag, -1, *summary[3:]]),
    }
    return [{"why": why, "frame": frame.hex()} for why, frame in frames.items()]


def refused_payloads() -> list[Vector]:
    """Payloads that are not the operations of an entry."""

    def put(body: bytes, id: bytes = b"\x61\x61") -> bytes:
        return b"\x81\x83\x00" + id + body

    def field(value: bytes) -> bytes:
        return put(b"\xa1\x61\x78" + value)

    payloads = {
        "nothing": b"",
        "null": b"\xf6",
        "a map": b"\xa0",
        "no operations": b"\x80",
        "257 operations": _cbor([[2, f"{k}"] for k in range(257)]),
        "an operation that is none": _cbor([1]),
        "an operation without document": _cbor([[0]]),
        "a put without body": _cbor([[0, "a"]]),
        "a put of null": _cbor([[0, "a", None]]),
        "a put of an array": _cbor([[0, "a", []]]),
        "a put with something more": _cbor([[0, "a", {}, 1, 1]]),
        "a delete with a body": _cbor([[2, "a", {}]]),
        "a put that expires never": _cbor([[0, "a", {}, None]]),
        "a put that expires at the beginning of time": _cbor([[0, "a", {}, 0]]),
        "a put that expires before it": _cbor([[0, "a", {}, -1]]),
        "a put that expires later than any stamp": _cbor([[0, "a", {}, 2**47]]),
        "a put that expires at a float": _cbor([[0, "a", {}, 1.5]]),
        "a put that expires at a text": _cbor([[0, "a", {}, "tomorrow"]]),
        "a put that expires at true": _cbor([[0, "a", {}, True]]),
        "a patch that expires at the beginning of time": _cbor([[1, "a", {}, 0]]),
        "a delete that expires": _cbor([[2, "a", {}, 1]]),
        "a delete that expires, without body": _cbor([[2, "a", None, 1]]),
        "an unknown kind": _cbor([[3, "a", {}]]),
        "a negative kind": _cbor([[-1, "a", {}]]),
        "true as kind": _cbor([[True, "a", {}]]),
        "a float as kind": b"\x81\x83\xf9\x00\x00\x61\x61\xa0",
        "an empty document id": _cbor([[0, "", {}]]),
        "a number as document id": _cbor([[0, 1, {}]]),
        "bytes as document id": _cbor([[0, b"a", {}]]),
        "a document id of 513 bytes": _cbor([[0, "a" * 513, {}]]),
        "a document id of 514 bytes in 257 characters": _cbor([[0, "é" * 257, {}]]),
        "a document twice": _cbor([[0, "a", {}], [2, "a"]]),
        "a byte behind the operations": _cbor([[0, "a", {}]]) + b"\x00",
        "operations twice": _cbor([[0, "a", {}]]) * 2,
        "operations cut short": _cbor([[0, "a", {"x": 1}]])[:-1],
        "more operations promised than there are": b"\x82" + _cbor([[0, "a", {}]])[1:],
        "an array without a length": b"\x9f" + _cbor([[0, "a", {}]])[1:] + b"\xff",
        "a map without a length": put(b"\xbf\x61\x78\x00\xff"),
        "a text without a length": field(b"\x7f\x61\x61\xff"),
        "a key twice": put(b"\xa2\x61\x78\x00\x61\x78\x01"),
        "a key twice, deep inside": field(b"\xa2\x61\x79\x00\x61\x79\x01"),
        "a number as key": put(b"\xa1\x00\x00"),
        "bytes as key": put(b"\xa1\x41\x78\x00"),
        "a big number as key": put(b"\xa1\xc2\x49\x01" + bytes(8) + b"\x00"),
        "an array as key": put(b"\xa1\x80\x00"),
        "bytes": field(b"\x41\x78"),
        "undefined": field(b"\xf7"),
        "a simple value": field(b"\xe0"),
        "NaN": field(b"\xf9\x7e\x00"),
        "NaN in eight bytes": field(b"\xfb\x7f\xf8" + bytes(6)),
        "infinity": field(b"\xf9\x7c\x00"),
        "minus infinity": field(b"\xfb" + struct.pack(">d", float("-inf"))),
        "an integer above 63 bits": field(b"\x1b\x80" + bytes(7)),
        "an integer below 63 bits": field(b"\x3b\x80" + bytes(7)),
        "a big number": field(b"\xc2\x49\x01" + bytes(8)),
        "a negative big number": field(b"\xc3\x49\x01" + bytes(8)),
        "a tagged date": field(b"\xc1\x1a\x51\x4b\x67\xb0"),
        "a tagged set": field(b"\xd9\x01\x02\x81\x00"),
        "a shared value": field(b"\xd8\x1c\x80"),
        "a reference": field(b"\xd8\x1d\x00"),
        "a tag that nobody knows": field(b"\xd9\xff\xff\x00"),
        "a text that is not UTF-8": field(b"\x61\xff"),
        "a text with a surrogate": field(b"\x63\xed\xa0\x80"),
        "a document id that is not UTF-8": put(b"\xa0", b"\x61\xff"),
        "nested seventeen deep": put(b"\xa1\x61\x78" + b"\x81" * 16 + b"\x00"),
        "nested far too deep": put(b"\xa1\x61\x78" + b"\x81" * 10_000 + b"\x00"),
        "a text of an exabyte": field(b"\x7b\x10" + bytes(7)),
    }
    return [{"why": why, "payload": payload.hex()} for why, payload in payloads.items()]


def refused_batches() -> list[Vector]:
    """Batches for a node that holds `held` and nothing else; each is a lie that no bad luck explains."""
    parent = Author(2).write()
    a = Author(1)
    entries = [a.write(), a.write([Operation(PUT, "y", {})]), a.write(parents=[parent])]
    before, _ = batch_of([parent])
    good, _ = batch_of(entries)

    def payload(at: int, value: bytes | None) -> Batch:
        return replace(good, payloads=[*good.payloads[:at], value, *good.payloads[at + 1 :]])

    def bare(*fields: Any) -> Batch:
        return replace(payload(0, None), bare=[describe_payload(*fields)])

    digest, size, tags = entries[0].bare
    seal = good.seals[0][1]
    twice = cbor.encode([[2, "doc"], [2, "doc"]])
    lies: dict[str, Batch] = {
        "another payload": payload(0, entries[1].payload),
        "a payload that swallows the next": payload(0, b"\x82" + entries[0].payload[1:]),
        "a byte behind a payload": payload(1, entries[1].payload + b"\x00"),
        "a later stamp": replace(good, hlcs=[good.hlcs[0] + 1, *good.hlcs[1:]]),
        "a stamp that is not later": replace(good, hlcs=[good.hlcs[0], 0, *good.hlcs[2:]]),
        "a stamp beyond 63 bits": replace(good, hlcs=[2**63, *good.hlcs[1:]]),
        "a stamp of 0": replace(good, hlcs=[0, *good.hlcs[1:]]),
        "parents left out": replace(good, parents=[]),
        "a parent more": replace(good, parents=[(0, [(1, 1, parent.id)]), *good.parents]),
        "a parent twice": replace(good, parents=[(2, [(1, 1, parent.id)] * 2)]),
        "a parent of the same log": replace(good, parents=[(2, [(0, 1, entries[0].id)])]),
        "a parent of no log": replace(good, parents=[(2, [(7, 1, parent.id)])]),
        "a run of no log": replace(good, runs=[(7, 1, 3, None)]),
        "a run at seq 0": replace(good, runs=[(0, 0, 3, None)]),
        "a run of nothing": replace(good, runs=[(0, 1, 0, None), *good.runs]),
        "a run that continues nothing": replace(good, runs=[(0, 1, 2, None), (0, 4, 1, None)]),
        "too few entries": replace(good, runs=[(0, 1, 2, None)]),
        "too many entries": replace(good, runs=[(0, 1, 4, None)]),
        "too many stamps": replace(good, hlcs=[*good.hlcs, 1]),
        "too many payloads": replace(good, payloads=[*good.payloads, b"\x80"]),
        "another author": replace(
            good, logs=good.logs[::-1], parents=[(2, [(0, 1, parent.id)])], runs=[(0, 1, 3, None)]
        ),
        "no seal": replace(good, seals=[]),
        "a seal of zeros": replace(good, seals=[(2, bytes(64))]),
        "the seal of another entry": replace(good, seals=[(2, entries[1].seal)]),
        "the seal of another author": replace(good, seals=[(2, parent.seal)]),
        "a seal with a bit flipped": replace(good, seals=[(2, seal[:-1] + bytes([seal[-1] ^ 1]))]),
        "a seal whose s is not reduced": replace(good, seals=[(2, _unreduced(seal))]),
        "the seal at another place": replace(good, seals=[(1, seal)]),
        "a seal behind the end": replace(good, seals=[(2, seal), (3, seal)]),
        "seals out of order": replace(good, seals=[(2, seal), (1, entries[1].seal)]),
        "a seal twice": replace(good, seals=[(2, seal), (2, seal)]),
        "parents behind the end": replace(good, parents=[*good.parents, (3, [(1, 1, parent.id)])]),
        "neither payload nor header": payload(0, None),
        "a header besides its payload": replace(good, bare=[describe_payload(digest, size, tags)]),
        "a header of another hash": bare(bytes(32), size, tags),
        "a header of another size": bare(digest, size + 1, tags),
        "a header of another tag": bare(digest, size, [bytes(8)]),
        "a header without tags": bare(digest, size, []),
        "a header with a byte behind": replace(payload(0, None), bare=[entries[0].described + b"\x00"]),
        "a header of two payloads": replace(payload(0, None), bare=[entries[0].described, entries[1].described]),
        "a payload that is called superseded": replace(good, superseded=[0]),
        "something superseded behind the end": replace(good, superseded=[3]),
        "superseded twice": replace(bare(digest, size, tags), superseded=[0, 0]),
    }
    signed: dict[str, list[Made]] = {
        "signed, and of no operations": [Author(4).write(payload=b"\x80")],
        "signed, and a document twice": [Author(4).write(payload=twice)],
        "signed, and in another encoding of CBOR": [Author(4).write(payload=b"\x9f\x82\x02\x61\x61\xff")],
        "signed, and not later than its parent": [Author(4).write(parents=[parent], hlc=parent.hlc)],
        "signed, for another collection": [Author(4, collection=CollectionId.of_name("other")).write()],
    }
    for why, found in signed.items():
        lies[why] = batch_of(found)[0]
    held = encode_message(before).hex()
    return [{"why": why, "held": held, "frame": encode_message(lie).hex()} for why, lie in lies.items()]


def _unreduced(seal: bytes) -> bytes:
    order = 2**252 + 27742317777372353535851937790883648493
    return seal[:32] + (int.from_bytes(seal[32:], "little") + order).to_bytes(32, "little")
