"""Real sockets on the loopback interface."""

from __future__ import annotations

import errno
import socket as stdlib_socket
from typing import Any

import pytest
import trio
import trio.testing

from meshsync.errors import LocalError
from meshsync.transports.quic import UdpSocket, open_udp_socket
from tests.transports.support import quic_endpoint


async def receive_all(socket: UdpSocket, count: int) -> list[bytes]:
    """Return the payloads of `count` datagrams."""
    payloads: list[bytes] = []
    with trio.fail_after(60):
        while len(payloads) < count:
            payloads += [payload for payload, _ in await socket.receive()]
    return payloads


SIZES = [1200] * 70 + [500] + [1200] * 3 + [1] + [16_000] * 9 + [100]
"""More than one system call carries, of changing sizes, with short ones in between."""


@pytest.mark.parametrize("offload", [True, False], ids=["offload", "plain"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_datagrams_arrive_as_they_were_cut(host: str, offload: bool) -> None:
    """Otherwise segmentation in the kernel joins or cuts packets."""
    sender, receiver = open_udp_socket(host, offload=offload), open_udp_socket(host, offload=offload)
    payloads = [bytes([number]) * size for number, size in enumerate(SIZES)]
    assert sender.send(payloads, receiver.address) == len(payloads)
    assert await receive_all(receiver, len(payloads)) == payloads
    sender.close()
    receiver.close()


class WithoutSegmentation(stdlib_socket.socket):
    """A socket of a kernel, or over a device, that cannot cut."""

    def sendmsg(self, *_: Any) -> int:
        raise OSError(errno.EIO, "no segmentation here")


async def test_kernel_without_segmentation_will_do() -> None:
    """Otherwise nothing is sent on old kernels and odd devices."""
    raw = WithoutSegmentation(stdlib_socket.AF_INET, stdlib_socket.SOCK_DGRAM)
    raw.bind(("127.0.0.1", 0))
    sender, receiver = UdpSocket(raw), open_udp_socket("127.0.0.1")
    payloads = [bytes([number]) * 1200 for number in range(10)]
    assert sender.send(payloads, receiver.address) == 10
    assert await receive_all(receiver, 10) == payloads
    sender.close()
    receiver.close()


async def test_refused_datagrams_count_as_lost() -> None:
    """Otherwise a missing route ends the connection, or the node."""
    socket = open_udp_socket("127.0.0.1")
    assert socket.send([b"no broadcast from here"] * 3, ("255.255.255.255", 9)) == 3
    socket.close()


async def test_closing_wakes_the_receiver() -> None:
    """Otherwise the receiving task outlives its socket."""
    socket = open_udp_socket("127.0.0.1")

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await socket.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        socket.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_one_socket_serves_both_families(host: str) -> None:
    """Otherwise a node needs two ports, or half of its peers cannot reach it."""
    async with (
        quic_endpoint(open_udp_socket("::"), 1) as both,
        quic_endpoint(open_udp_socket(host), 2) as single,
    ):
        with trio.fail_after(60):
            near = await single.dial((host, both.address[1]), both.id)
            far = await both.accept()
            assert far.address == single.address
            back = await both.dial(single.address, single.id)
            await single.accept()
        await near.control.send(b"one way")
        assert await far.control.receive() == b"one way"
        assert back.peer == single.id


@pytest.mark.parametrize("bound", ["::", "0.0.0.0"])
async def test_answers_leave_from_where_the_peer_sent_to(bound: str) -> None:
    """Otherwise hosts with several addresses answer from another one, and the peer drops it."""
    async with (
        quic_endpoint(open_udp_socket(bound), 1) as everywhere,
        quic_endpoint(open_udp_socket("127.0.0.1"), 2) as single,
    ):
        with trio.fail_after(60):
            near = await single.dial(("127.0.0.7", everywhere.address[1]), everywhere.id)
            far = await everywhere.accept()
            assert near.address[0] == "127.0.0.7"
            await near.control.send(bytes(60_000))
            assert await far.control.receive() == bytes(60_000)


def test_wrong_addresses_are_named() -> None:
    """Otherwise a typing error in the configuration ends in a traceback."""
    with pytest.raises(LocalError, match="localhost"):
        open_udp_socket("localhost")
    taken = open_udp_socket("127.0.0.1")
    with pytest.raises(LocalError, match=str(taken.address[1])):
        open_udp_socket("127.0.0.1", taken.address[1])
    taken.close()
