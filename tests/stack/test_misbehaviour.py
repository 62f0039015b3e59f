"""Peers that break the protocol: closed by name, kept out for a while, and nobody else notices."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
import trio

from meshsync.core.entry import document_tag
from meshsync.core.limits import LIMITS
from meshsync.core.messages import (
    Close,
    Locate,
    Match,
    Open,
    Ping,
    Subscribed,
    decode_untrusted,
    encode_message,
)
from meshsync.errors import CloseCode, TransportLost
from meshsync.sync.link import tag_of
from meshsync.transports.base import MessageChannel
from tests.stack.stranger import (
    NOTES,
    Deed,
    batch_of_false_payloads,
    batch_with_a_bad_seal,
    batch_with_a_gap,
    batch_with_a_missing_parent,
    batch_without_a_seal,
    confirms_what_was_never_sent,
    control_answer_to_nothing,
    control_carry_unasked,
    control_frame_too_long,
    control_garbage,
    control_wrong_message,
    open_of_another_tag,
    open_said_twice,
    stranger,
    stream_frame_too_long,
    stream_garbage,
    stream_without_open,
)
from tests.stack.world import EPOCH_MS, PORT, World, documents, events, level, simulate, until, write

PROTOCOL = CloseCode.PROTOCOL


@pytest.mark.parametrize(
    ("deed", "code", "reason"),
    [
        (control_garbage, PROTOCOL, ""),
        (control_wrong_message, PROTOCOL, "Have does not belong on the control stream"),
        (control_frame_too_long, CloseCode.LIMIT, ""),
        (control_answer_to_nothing, PROTOCOL, "never sent"),
        (control_carry_unasked, PROTOCOL, "does not relay"),
        (stream_without_open, PROTOCOL, "begin with OPEN"),
        (stream_garbage, PROTOCOL, ""),
        (stream_frame_too_long, CloseCode.LIMIT, ""),
        (open_said_twice, PROTOCOL, "round"),
        (open_of_another_tag, PROTOCOL, "another collection"),
        (confirms_what_was_never_sent, PROTOCOL, "never sent"),
        (batch_with_a_bad_seal, PROTOCOL, "does not verify"),
        (batch_without_a_seal, PROTOCOL, "without a seal"),
        (batch_with_a_gap, PROTOCOL, "not here"),
        (batch_with_a_missing_parent, PROTOCOL, "not here"),
        (batch_of_false_payloads, PROTOCOL, ""),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_breach_is_closed_by_name_and_the_others_go_on(deed: Deed, code: CloseCode, reason: str) -> None:
    """Otherwise one peer can end a node, or goes on unpunished, or costs the others their connection."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        async with stranger(world) as one, trio.open_nursery() as nursery:
            nursery.start_soon(one.answer_pings)
            await deed(one)
            closed = await one.connection.wait_closed()
            assert (closed.code, closed.by_peer) == (code, True)
        breach = await until(a, "peer_error")
        assert breach.facts["code"] == code.name
        assert breach.facts["peer"] == world.id(9).hex()
        assert reason in breach.facts["reason"]
        async with stranger(world) as again:
            assert (await again.connection.wait_closed()).code is CloseCode.BUSY
        await trio.sleep(2 * LIMITS.backoff_first_seconds)
        async with stranger(world) as again:
            await again.stream()
        assert not documents(a)
        await write(a, "still here")
        await level(a, b)
        assert set(documents(a)) == set(documents(b)) == {"still here"}
        assert len(events(b, "connected")) == 1
        assert not events(a, "failed")

    simulate(scenario)


def test_half_a_frame_is_waited_for_so_long_and_costs_no_more_than_the_connection() -> None:
    """Otherwise a byte now and then holds a stream for ever; or a peer is punished for what a broken link did."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        async with stranger(world) as one, trio.open_nursery() as nursery:
            nursery.start_soon(one.answer_pings)
            channel, _ = await one.stream()
            await channel._stream.send_all(b"\x00\x00\x01\x00abc")
            closed = await one.connection.wait_closed()
            assert (closed.code, closed.by_peer) == (CloseCode.TIMEOUT, True)
        assert "not finished" in (await until(a, "disconnected")).facts["reason"]
        assert not events(a, "peer_error")
        async with stranger(world) as again:
            await again.stream()

    simulate(scenario)


def test_each_breach_costs_more_than_the_one_before() -> None:
    """Otherwise a peer that does it again and again is let in twice a second."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        waits = []
        async with world.endpoint(9) as endpoint:
            for _ in range(8):
                began = trio.current_time()
                code = CloseCode.BUSY
                while code is CloseCode.BUSY:
                    await trio.sleep(0.9)
                    connection = await endpoint.dial((world.machine(1).host, PORT), a.id)
                    with suppress(TransportLost):
                        await connection.control.send(b"\xff")
                    code = (await connection.wait_closed()).code
                waits.append(trio.current_time() - began)
        assert waits[-1] > 30
        assert len(events(a, "peer_error")) == 8

    simulate(scenario)


def test_an_unknown_collection_is_answered_alike_and_costs_nothing() -> None:
    """Otherwise a peer can probe for the names of collections, or its guess costs it the connection."""

    async def scenario(world: World) -> None:
        await world.start(1)
        async with stranger(world) as one:
            for _ in range(300):
                channel = await one.connection.open_channel()
                await channel.send(encode_message(Open(bytes(16), 0, bytes(8), None, bytes(32), (), 0)))
                assert decode_untrusted(await channel.receive()) == Close(CloseCode.NOT_HERE, "")
                await channel.aclose()
            assert not one.connection.is_closed

    simulate(scenario)


def test_a_peer_that_accepts_and_never_speaks_is_given_up() -> None:
    """Otherwise a peer that hangs counts as connected, and is never dialled again."""

    async def scenario(world: World) -> None:
        async with world.endpoint(9) as endpoint:
            a = await world.start(1, peers=[9])
            await endpoint.accept()
            assert (
                (await until(a, "dial_failed")).facts["reason"].startswith("this node closed the connection: TIMEOUT")
            )
            assert not events(a, "connected")
            await endpoint.accept()

    simulate(scenario)


def test_a_peer_that_answers_no_more_is_given_up() -> None:
    """Otherwise a peer whose machine is alive and whose program hangs stays `connected` for ever."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        async with stranger(world) as one:
            await one.connection.control.send(encode_message(Subscribed(())))
            await until(a, "connected")
            gone = await until(a, "disconnected")
            assert "did not answer a ping" in gone.facts["reason"]

    simulate(scenario)


def test_the_side_that_accepted_must_not_open_streams() -> None:
    """Otherwise both sides may open one for the same collection, and they cross."""

    async def scenario(world: World) -> None:
        async with world.endpoint(9) as endpoint:
            a = await world.start(1, peers=[9])
            connection = await endpoint.accept()
            channel = await connection.open_channel()
            await channel.send(encode_message(Open(bytes(16), 0, bytes(8), None, bytes(32), (), 0)))
            assert (await connection.wait_closed()).code is CloseCode.PROTOCOL
            assert (await until(a, "peer_error")).facts["code"] == "PROTOCOL"

    simulate(scenario)


def test_a_flood_of_wishes_opens_one_stream() -> None:
    """Otherwise a peer has a node open stream after stream for one collection."""

    async def scenario(world: World) -> None:
        async with world.endpoint(9) as endpoint:
            a = await world.start(1, peers=[9])
            connection = await endpoint.accept()
            tag = tag_of(connection.nonces, NOTES)
            opened: list[MessageChannel] = []

            async def count() -> None:
                while True:
                    opened.append(await connection.accept_channel())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(count)
                for _ in range(50):
                    await connection.control.send(encode_message(Subscribed((tag,) * 1000)))
                await trio.sleep(5)
                nursery.cancel_scope.cancel()
            assert len(opened) == 1
            [link] = a.sync.links.values()
            assert len(link.exchanges) == len(a.sync._exchanges) == 1
            assert not connection.is_closed

    simulate(scenario)


def test_a_peer_that_opens_the_same_collection_again_replaces_its_stream() -> None:
    """Otherwise a peer piles up sessions of one collection."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        async with stranger(world) as one:
            channels = [(await one.stream())[0] for _ in range(40)]
            await trio.sleep(1)
            [link] = a.sync.links.values()
            assert len(link.exchanges) == len(a.sync._exchanges) == 1
            for channel in channels[:-1]:
                with pytest.raises(TransportLost) as lost:
                    await channel.receive()
                assert lost.value.code is CloseCode.NOT_HERE
            assert not one.connection.is_closed

    simulate(scenario)


def test_a_peer_that_asks_without_reading_costs_no_memory() -> None:
    """Otherwise the answers to its pings pile up here."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        async with stranger(world) as one:
            control = one.connection.control
            with trio.move_on_after(20):
                for number in range(5_000):
                    await control.send(encode_message(Ping(number, EPOCH_MS)))
            await trio.sleep(1)
            [link] = a.sync.links.values()
            assert len(link.control._unsaid) <= 3

    simulate(scenario)


def test_a_peer_that_asks_on_a_stream_without_reading_is_heard_no_more_and_closed() -> None:
    """Otherwise the answers pile up here without bound."""
    small = replace(LIMITS, stream_window_bytes=16 * 1024)
    limits = replace(LIMITS, send_high_water_bytes=4096, answers_bytes_max=8192, answer_seconds_max=10)

    async def scenario(world: World) -> None:
        a = await world.start(1, limits=limits)
        async with stranger(world, small) as one, trio.open_nursery() as nursery:
            nursery.start_soon(one.answer_pings)
            channel, batch = await one.stream()
            [(log, seq, _, _)] = batch.runs
            question = encode_message(Locate((), log, [(seq + number, bytes(16)) for number in range(10)]))
            with suppress(TransportLost):
                for _ in range(5000):
                    await channel.send(question)
            [exchange] = a.sync._exchanges
            assert exchange._queued_bytes < 2 * limits.answers_bytes_max
            closed = await one.connection.wait_closed()
            assert closed.code is CloseCode.TIMEOUT
        assert "does not read the answers" in (await until(a, "disconnected")).facts["reason"]

    simulate(scenario)


def test_an_internal_fault_in_serving_one_peer_ends_that_connection_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a mistake of ours, met by one peer's data, takes the node down."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        c = await world.start(3, peers=[1])
        await level(a, c)
        faulty = a.sync.links[c.id].exchanges[NOTES]
        monkeypatch.setattr(faulty.session, "handle", lambda *_: 1 / 0)
        await write(c, "from c")
        failed = await until(a, "failed")
        assert failed.facts == {"part": "peer", "peer": c.id.hex()}
        await level(a, b, c)
        assert set(documents(b)) == {"from c"}
        assert len(events(b, "connected")) == 1

    simulate(scenario)


def test_who_names_a_document_and_does_not_send_it_holds_nothing_up() -> None:
    """Otherwise what a peer names waits for that peer, though another one has it, until somebody reconnects."""

    async def scenario(world: World) -> None:
        part = await world.start(1, collections=[{"name": "notes", "where": ["team=blue"]}])
        whole = await world.start(2, peers=[1])
        await write(whole, "d", team="red")
        await level(part, whole)
        replica = part.sync.replica("notes")
        assert replica.tables.counts()[2] == 1
        async with stranger(world) as one, trio.open_nursery() as nursery:
            nursery.start_soon(one.answer_pings)
            channel = await one.connection.open_channel()
            await channel.send(encode_message(Open(one.tag, 0, bytes(8), None, bytes(32), (), 0)))
            await channel.send(encode_message(Match(0, True, [document_tag(NOTES, "d")])))
            with trio.fail_after(600):
                await part.sync.watcher(replica).wait_until(lambda: replica.complete)
            nursery.cancel_scope.cancel()

    simulate(scenario)
