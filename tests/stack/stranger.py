"""A peer that knows the protocol well enough to break it, and its deeds."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from meshsync.core.entry import PUT, Operation
from meshsync.core.limits import LIMITS, Limits
from meshsync.core.messages import (
    Batch,
    Carry,
    Have,
    Message,
    Open,
    Ping,
    Pong,
    decode_untrusted,
    encode_message,
)
from meshsync.core.session import Session
from meshsync.core.session_events import Event, Ready, Received, Send, Start
from meshsync.errors import TransportLost
from meshsync.ids import CollectionId, LogId
from meshsync.store.memory import MemoryStore
from meshsync.store.replica import Replica
from meshsync.sync.link import tag_of
from meshsync.transports.base import Connection, MessageChannel
from tests.stack.world import EPOCH_MS, PORT, World

NOTES = CollectionId.of_name("notes")


class Stranger:
    """One end of a connection with node 1 that a test speaks by hand."""

    def __init__(self, world: World, connection: Connection) -> None:
        self.world = world
        self.connection = connection
        self.tag = tag_of(connection.nonces, NOTES)

    async def stream(self) -> tuple[MessageChannel, Batch]:
        """A stream on which both sides said OPEN, and a true batch to send next."""
        store = MemoryStore(random_bytes=random.Random(1).randbytes)
        replica = Replica(store, store.collection(NOTES, "notes"), self.world.machine(9).identity.private_key)
        for number in range(5):
            replica.append([Operation(PUT, f"n{number}", {})], EPOCH_MS)
        session = Session(replica, self.connection.peer, self.tag)
        channel = await self.connection.open_channel()
        for message in _sent(session, Start()):
            await channel.send(encode_message(message))
        session.handle(Received(decode_untrusted(await channel.receive())), 0, EPOCH_MS)
        [batch] = _sent(session, Ready())
        assert isinstance(batch, Batch)
        return channel, batch

    async def answer_pings(self) -> None:
        """Be alive, for as long as the connection lasts."""
        control = self.connection.control
        with suppress(TransportLost):
            while True:
                match decode_untrusted(await control.receive()):
                    case Ping(number, _):
                        await control.send(encode_message(Pong(number, EPOCH_MS)))


def _sent(session: Session, event: Event) -> list[Message]:
    return [effect.message for effect in session.handle(event, 0, EPOCH_MS) if isinstance(effect, Send)]


@asynccontextmanager
async def stranger(world: World, limits: Limits = LIMITS) -> AsyncIterator[Stranger]:
    """An endpoint that has dialled node 1."""
    machine = world.machine(1)
    async with world.endpoint(9, limits=limits) as endpoint:
        connection = await endpoint.dial((machine.host, PORT), machine.id)
        yield Stranger(world, connection)


async def control_garbage(stranger: Stranger) -> None:
    await stranger.connection.control.send(b"\xff\x00garbage")


async def control_wrong_message(stranger: Stranger) -> None:
    await stranger.connection.control.send(encode_message(Have(None, bytes(32), (), [])))


async def control_frame_too_long(stranger: Stranger) -> None:
    with suppress(TransportLost):  # the beginning is enough to be refused
        await stranger.connection.control.send(bytes(LIMITS.control_frame_bytes_max + 1))


async def control_answer_to_nothing(stranger: Stranger) -> None:
    await stranger.connection.control.send(encode_message(Pong(77, EPOCH_MS)))


async def control_carry_unasked(stranger: Stranger) -> None:
    await stranger.connection.control.send(encode_message(Carry(((NOTES, 0),))))


async def stream_without_open(stranger: Stranger) -> None:
    channel = await stranger.connection.open_channel()
    await channel.send(encode_message(Have(None, bytes(32), (), [])))


async def stream_garbage(stranger: Stranger) -> None:
    channel, _ = await stranger.stream()
    await channel.send(b"\x01\x02")


async def stream_frame_too_long(stranger: Stranger) -> None:
    channel, _ = await stranger.stream()
    await channel._stream.send_all((LIMITS.frame_bytes_max + 1).to_bytes(4, "big"))


async def open_said_twice(stranger: Stranger) -> None:
    channel, _ = await stranger.stream()
    await channel.send(encode_message(Open(stranger.tag, 0, bytes(8), None, bytes(32), (), 0)))


async def open_of_another_tag(stranger: Stranger) -> None:
    channel, _ = await stranger.stream()
    await channel.send(encode_message(Open(bytes(16), 1, bytes(8), None, bytes(32), (), 0)))


async def confirms_what_was_never_sent(stranger: Stranger) -> None:
    channel, _ = await stranger.stream()
    await channel.send(encode_message(Have(99, bytes(32), (), [])))


async def batch_with_a_bad_seal(stranger: Stranger) -> None:
    channel, batch = await stranger.stream()
    await channel.send(encode_message(replace(batch, seals=[(offset, bytes(64)) for offset, _ in batch.seals])))


async def batch_without_a_seal(stranger: Stranger) -> None:
    channel, batch = await stranger.stream()
    await channel.send(encode_message(replace(batch, seals=[])))


async def _again_and_again(channel: MessageChannel, batch: Batch) -> None:
    """Answer each new OPEN with the same batch."""
    with suppress(TransportLost):
        while True:
            await channel.send(encode_message(batch))
            while not isinstance(message := decode_untrusted(await channel.receive()), Open):
                pass
            batch = replace(batch, round=message.round)


async def batch_with_a_gap(stranger: Stranger) -> None:
    channel, batch = await stranger.stream()
    [(log, first, count, _)] = batch.runs
    await _again_and_again(channel, replace(batch, runs=[(log, first + 3, count, bytes(32))]))


async def batch_with_a_missing_parent(stranger: Stranger) -> None:
    channel, batch = await stranger.stream()
    other = LogId(stranger.world.id(5), bytes(8))
    await _again_and_again(channel, replace(batch, logs=(other,), parents=[(0, [(1, 7, bytes(32))])]))


async def batch_of_false_payloads(stranger: Stranger) -> None:
    channel, batch = await stranger.stream()
    await channel.send(encode_message(replace(batch, payloads=[b"\xff" for _ in batch.payloads])))


Deed = Callable[[Stranger], Awaitable[None]]
