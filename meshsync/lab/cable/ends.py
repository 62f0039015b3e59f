"""The end of a cable: a packet socket on an interface that may come after the process, and go."""

from __future__ import annotations

import errno
import socket
import struct

import trio

from meshsync.errors import LocalError

# asm/socket.h, linux/if_packet.h and linux/if_ether.h; Python's socket module has only some of them.
_SO_RCVBUFFORCE = 33
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP = 1
_PACKET_VNET_HDR = 15
_PACKET_IGNORE_OUTGOING = 23
_MR_PROMISC = 1
_ETH_P_ALL = 3
_FRAME_BYTES_MAX = 65_536 + 64
_BUFFER_BYTES = 4 * 1024 * 1024
_LOOK_SECONDS = 0.02
"""How often to look whether an interface has come.  Links follow the process by up to 80 ms."""

_GONE = frozenset({errno.ENETDOWN, errno.ENODEV, errno.ENXIO})


class End:
    """Receives and sends whole frames, with their headers, on one interface."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._socket: trio.socket.SocketType | None = None

    async def receive(self) -> bytes:
        """The next frame that arrives from the link; waits as long as there is no interface."""
        while True:
            bound = self._socket or await self._bind()
            try:
                return await bound.recv(_FRAME_BYTES_MAX)
            except OSError as error:
                if error.errno in _GONE:
                    # Down for now, or gone for good and to come back under the same name.
                    self.close()
                    await trio.sleep(_LOOK_SECONDS)
                elif error.errno != errno.EINVAL:  # EINVAL: a frame that this kernel cannot describe is lost
                    raise

    async def send(self, frame: bytes) -> None:
        """Send a frame; it is lost where the interface cannot take it, as on any link."""
        if self._socket is None:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._socket.send(frame)
        except OSError as error:
            if error.errno not in _GONE | {errno.ENOBUFS, errno.EMSGSIZE, errno.EINVAL}:
                raise

    def close(self) -> None:
        """Give the interface up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _bind(self) -> trio.socket.SocketType:
        while True:
            try:
                self._socket = _open(self.interface)
                return self._socket
            except OSError as error:
                if error.errno not in _GONE:
                    raise
            await trio.sleep(_LOOK_SECONDS)


def require_right() -> None:
    """LocalError: this process must not open packet sockets."""
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except PermissionError:
        raise LocalError("a cable needs the right to open packet sockets: run it as root") from None


def _open(interface: str) -> trio.socket.SocketType:
    """A packet socket that gets every frame of an interface.  OSError: there is no such interface now."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        opened.setblocking(False)
        opened.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        _enlarge(opened)
        opened.bind((interface, _ETH_P_ALL))
        index = socket.if_nametoindex(interface)
        opened.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, struct.pack("=iHH8x", index, _MR_PROMISC, 0))
    except OSError:
        opened.close()
        raise
    return trio.socket.from_stdlib_socket(opened)


def _enlarge(opened: socket.socket) -> None:
    """Give it a buffer for as long as this process does not get to run: what is lost there, nobody asked for."""
    try:
        # Beyond what the system lets everyone have, a tenth of a second of a busy link; with CAP_NET_ADMIN.
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
