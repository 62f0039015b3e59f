"""Summaries over real connections: who hears what, what it costs, and what a hostile peer can do with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from meshsync.core.limits import SUMMARY_BYTES_MAX
from meshsync.core.messages import Message, Subscribed, Summary, decode_untrusted, encode_message
from meshsync.core.summary import NodeSummary, SignedSummary, decode_untrusted_summary, sign_summary
from meshsync.errors import CloseCode
from meshsync.ids import CollectionId
from meshsync.node import Node
from meshsync.sync.control import Control
from tests.stack.stranger import NOTES, Stranger, stranger
from tests.stack.world import EPOCH_MS, IDENTITIES, World, documents, level, simulate, until, write

OTHER = CollectionId.of_name("other")


def heard(node: Node, collection: CollectionId = NOTES) -> dict[str, NodeSummary]:
    """What a node has heard, by name."""
    facts = node.sync.summaries.gossip.facts(collection)
    return {fact.signed.summary.name: fact.signed.summary for fact in facts}


async def line(world: World, length: int, **more: Any) -> list[Node]:
    """Nodes each of which dials the one before."""
    nodes = [await world.start(1, **more)]
    nodes += [await world.start(number, peers=[number - 1], **more) for number in range(2, length + 1)]
    await level(*nodes)
    return nodes


async def heard_by_all(nodes: list[Node], condition: Callable[[dict[str, NodeSummary]], bool]) -> None:
    """Wait until every node has heard what is expected."""
    for node in nodes:
        await node.sync.summaries.changed.wait_until(lambda node=node: condition(heard(node)))  # type: ignore[misc]


def links_told(found: dict[str, NodeSummary]) -> int:
    """How many ends of links are told of."""
    return sum(len(one.links) for one in found.values())


def frames_counted(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Every summary that any node reads from now on."""
    found: list[Message] = []
    original = decode_untrusted

    def counting(frame: bytes, *rest: Any) -> Message:
        message = original(frame, *rest)
        if isinstance(message, Summary):
            found.append(message)
        return message

    monkeypatch.setattr("meshsync.sync.control.decode_untrusted", counting)
    return found


def test_the_ends_of_a_line_hear_of_each_other() -> None:
    """Otherwise a node knows of nobody but its own peers."""

    async def scenario(world: World) -> None:
        nodes = await line(world, 5)
        await heard_by_all(nodes, lambda found: links_told(found) == 8)
        assert all(set(heard(node)) == {other.name for other in nodes} for node in nodes)
        assert [link.peer for link in heard(nodes[0])["node 5"].links] == [nodes[3].id]
        assert all(node.sync.subscribers(NOTES) == 5 for node in nodes)
        await write(nodes[2], "a", "b")
        await heard_by_all(nodes, lambda found: all(one.entries == 2 for one in found.values()))
        roots = {one.root for node in nodes for one in heard(node).values()}
        assert roots == {nodes[0].sync.replica("notes").root()}
        assert heard(nodes[0])["node 5"].marks[0].seq == 2

    simulate(scenario)


def test_an_idle_mesh_says_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a link that nobody uses costs money all day."""
    counted = frames_counted(monkeypatch)

    async def scenario(world: World) -> None:
        nodes = await line(world, 5)
        await write(nodes[0], "a")
        await heard_by_all(nodes, lambda found: len(found) == 5 and all(one.entries == 1 for one in found.values()))
        await trio.sleep(60)
        counted.clear()
        await trio.sleep(1800)
        assert not counted
        await trio.sleep(1800)
        # Each speaks once an hour, and four links carry that once.
        assert 0 < len(counted) <= 5 * 4

    simulate(scenario)


def test_busy_writers_are_told_of_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each write of anyone costs a summary by everyone."""
    counted = frames_counted(monkeypatch)

    async def scenario(world: World) -> None:
        nodes = await line(world, 3)
        await heard_by_all(nodes, lambda found: len(found) == 3)
        await trio.sleep(10)
        counted.clear()
        for number in range(300):
            await write(nodes[number % 3], f"n{number}")
            await trio.sleep(0.2)
        assert len(counted) <= 3 * 2 * (60 / 5 + 2)
        await heard_by_all(nodes, lambda found: all(one.entries == 300 for one in found.values()))

    simulate(scenario)


def test_a_link_that_ends_is_told_soon() -> None:
    """Otherwise the picture shows links that are gone."""

    async def scenario(world: World) -> None:
        nodes = await line(world, 4)
        await heard_by_all(nodes, lambda found: links_told(found) == 6)
        await world.stop(4)
        with trio.fail_after(10):
            await heard_by_all(nodes[:3], lambda found: len(found["node 3"].links) == 1)
        assert heard(nodes[0])["node 4"].links, "it said so itself, and nobody speaks for it"

    simulate(scenario)


def test_a_lost_clock_is_overcome() -> None:
    """Otherwise a device that boots in 1970 is drawn as it was before, for years."""

    async def scenario(world: World) -> None:
        nodes = await line(world, 3)
        await heard_by_all(nodes, lambda found: len(found) == 3)
        before = heard(nodes[0])["node 3"].version
        assert before >= EPOCH_MS
        await world.stop(3)
        world.machine(3).skew_ms = -EPOCH_MS
        again = await world.start(3, peers=[2], collections=["notes", "more"])
        await again.collection("notes").put("after", {})
        with trio.fail_after(60):
            await heard_by_all([*nodes[:2], again], lambda found: found["node 3"].entries == 1)
        assert heard(nodes[0])["node 3"].version > before

    simulate(scenario)


def test_in_a_full_mesh_summaries_follow_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise what each node says of itself crosses every link, and ten nodes that write fill all of them."""
    counted = frames_counted(monkeypatch)

    async def scenario(world: World) -> None:
        numbers = range(1, 11)
        nodes = [await world.start(number, peers=[other for other in numbers if other < number]) for number in numbers]
        await level(*nodes)
        await heard_by_all(nodes, lambda found: links_told(found) == 10 * 9)
        for number in range(40):
            await write(nodes[number % 10], f"n{number}")
            await trio.sleep(0.5)
        await level(*nodes)
        await trio.sleep(120)
        counted.clear()
        await write(nodes[0], "one more")
        await heard_by_all(nodes, lambda found: all(one.entries == 41 for one in found.values()))
        lazy = sum(one.session.is_lazy for node in nodes for one in node.sync.sessions(node.sync.replica("notes")))
        assert lazy > 10 * 9 / 2, "there is no tree to follow"
        # Each author would be told of over all 45 links, over most of them twice.
        assert len(counted) <= 10 * 45 / 2

    simulate(scenario)


def test_who_leaves_a_collection_is_not_told_and_does_not_tell() -> None:
    """Otherwise summaries go to those who have no part in what they speak of."""

    async def scenario(world: World) -> None:
        a = await world.start(1, collections=["notes", "other"])
        b = await world.start(2, peers=[1], collections=["notes", "other"])
        await heard_by_all([a, b], lambda found: len(found) == 2)
        await b.leave("other")
        await a.collection("other").put("x", {})
        await a.collection("notes").put("x", {})
        await heard_by_all([a, b], lambda found: all(one.entries == 1 for one in found.values()))
        assert heard(b, OTHER) == {}
        await b.join("other")
        await level(a, b, collection="other")
        with trio.fail_after(30):
            await b.sync.summaries.changed.wait_until(lambda: len(heard(b, OTHER)) == 2)

    simulate(scenario)


# A hostile peer


def said(number: int, version: int = EPOCH_MS, **fields: Any) -> SignedSummary:
    """What a machine says of itself, or is made to say."""
    identity = IDENTITIES[number - 1]
    values: dict[str, Any] = {"collection": NOTES, "author": identity.endpoint_id, "version": version}
    values |= {"lasts_s": 10_000, "name": f"endpoint {number}", "addresses": (), "links": (), "links_total": 0}
    values |= {"root": bytes(32), "entries": 0, "documents": 0, "marks": (), **fields}
    return sign_summary(NodeSummary(**values), identity.private_key)


async def tell(one: Stranger, *summaries: SignedSummary, age_ms: int = 0) -> None:
    """Send summaries on the control stream, as the first to subscribe."""
    control = one.connection.control
    await control.send(encode_message(Subscribed((one.tag,))))
    for signed in summaries:
        await control.send(encode_message(Summary(one.tag, age_ms, signed.body, signed.signature)))


async def forged(one: Stranger) -> None:
    signed = said(2)
    await tell(one, SignedSummary(signed.summary, signed.body, said(9).signature))


async def of_another_collection(one: Stranger) -> None:
    await tell(one, said(9, collection=OTHER))


async def malformed(one: Stranger) -> None:
    await one.connection.control.send(encode_message(Subscribed((one.tag,))))
    await one.connection.control.send(encode_message(Summary(one.tag, 0, b"\x80", bytes(64))))


async def oversized(one: Stranger) -> None:
    await one.connection.control.send(encode_message(Subscribed((one.tag,))))
    body = said(9).body + bytes(SUMMARY_BYTES_MAX)
    await one.connection.control.send(encode_message(Summary(one.tag, 0, body, bytes(64))))


async def without_sharing(one: Stranger) -> None:
    signed = said(9)
    await one.connection.control.send(encode_message(Subscribed(())))
    await one.connection.control.send(encode_message(Summary(one.tag, 0, signed.body, signed.signature)))


async def without_a_word_before(one: Stranger) -> None:
    signed = said(9)
    await one.connection.control.send(encode_message(Summary(one.tag, 0, signed.body, signed.signature)))


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        (forged, "does not verify"),
        (of_another_collection, "another collection"),
        (malformed, "not a summary"),
        (oversized, "at most 2048 bytes"),
        (without_sharing, "does not share"),
        (without_a_word_before, "does not share"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_lie_ends_the_connection(deed: Callable[[Stranger], Awaitable[None]], reason: str) -> None:
    """Otherwise one peer draws the mesh as it likes."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        async with stranger(world) as one:
            await deed(one)
            closed = await one.connection.wait_closed()
            assert (closed.code, closed.by_peer) == (CloseCode.PROTOCOL, True)
        assert reason in (await until(a, "peer_error")).facts["reason"]
        assert set(heard(a)) <= {"node 1"}

    simulate(scenario)


def test_an_old_word_said_again_changes_nothing() -> None:
    """Otherwise whoever recorded a summary can bring back the mesh of last year."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        async with stranger(world) as one, trio.open_nursery() as nursery:
            nursery.start_soon(one.answer_pings)
            old, new = said(9, EPOCH_MS, name="old"), said(9, EPOCH_MS + 1, name="new")
            await tell(one, new, old)
            await tell_again(one, old)
            await a.sync.summaries.changed.wait_until(lambda: "new" in heard(a))
            await trio.sleep(10)
            assert "old" not in heard(a)
            assert not one.connection.is_closed
            nursery.cancel_scope.cancel()

    simulate(scenario)


async def tell_again(one: Stranger, signed: SignedSummary) -> None:
    await one.connection.control.send(encode_message(Summary(one.tag, 0, signed.body, signed.signature)))


def test_what_is_too_old_when_it_comes_is_not_taken() -> None:
    """Otherwise a node that is gone for good is passed on in circles."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        async with stranger(world) as one:
            await tell(one, said(9, lasts_s=100), age_ms=100_000)
            await tell_again(one, said(8, lasts_s=100))
            await a.sync.summaries.changed.wait_until(lambda: "endpoint 8" in heard(a))
            assert "endpoint 9" not in heard(a)
            await trio.sleep(101)
            assert "endpoint 8" not in heard(a)

    simulate(scenario)


def test_a_flood_of_versions_costs_its_sender_time_and_the_others_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise one peer keeps every processor of the mesh busy with signatures, and every link with its name."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await heard_by_all([a, b], lambda found: len(found) == 2)
        counted = frames_counted(monkeypatch)
        async with stranger(world) as one, trio.open_nursery() as nursery:
            nursery.start_soon(one.answer_pings)
            began = trio.current_time()
            await tell(one, *(said(9, EPOCH_MS + number) for number in range(600)))
            await a.sync.summaries.changed.wait_until(
                lambda: "endpoint 9" in heard(a) and heard(a)["endpoint 9"].version == EPOCH_MS + 599
            )
            seconds = trio.current_time() - began
            assert seconds > 600 / a.limits.summary_checks_per_second - 1
            await write(b, "still here")
            await trio.sleep(5)
            assert set(documents(a)) == {"still here"}
            passed_on = sum(decode_untrusted_summary(one.body, one.signature).size for one in summaries_of(counted))
            budget = a.limits.summary_burst_bytes + (seconds + 6) * a.limits.summary_bytes_per_second
            assert passed_on - 600 * said(9).size <= budget
            nursery.cancel_scope.cancel()

    simulate(scenario)


def summaries_of(messages: list[Message]) -> list[Summary]:
    return [message for message in messages if isinstance(message, Summary)]


def test_a_tag_that_nobody_knows_is_nobodys_fault() -> None:
    """Otherwise a peer is thrown out because this node left a collection a moment before."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        async with stranger(world) as one:
            signed = said(9)
            await one.connection.control.send(encode_message(Summary(bytes(16), 0, signed.body, signed.signature)))
            await tell(one, said(8))
            await a.sync.summaries.changed.wait_until(lambda: "endpoint 8" in heard(a))
            assert "endpoint 9" not in heard(a)

    simulate(scenario)


def test_control_is_the_only_reader() -> None:
    """Otherwise the counting above counts nothing."""
    assert Control.read.__globals__["decode_untrusted"] is decode_untrusted
