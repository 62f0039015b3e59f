"""A cable in the kernel: bridges and pairs of virtual interfaces, with netem where frames leave them.

    first ═ b0 ═ cut0 ── rate0 ═ b1 ═ rate1 ── cut1 ═ b2 ═ second

`═` is a bridge's port, `──` a virtual cable.  A frame from first to second leaves by `cut0`, which takes bundles of
datagrams apart, by `rate1`, where it is sent at the link's rate, and by `second`, where it travels; and the other way
by `cut1`, `rate0` and `first`.  So nothing is asked of the interfaces at the far ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Iterable, Iterator

import trio

from meshsync.lab.cable import netem
from meshsync.lab.impairments import Impairment, LinkImpairment
from meshsync.lab.namespaces import CommandFailedError, run

_LOOK_SECONDS = 0.02
"""How often to look whether an interface has come.  Links follow the process by up to 80 ms."""
_MTU = 65_535
"""Inside: whatever the ends let through."""
_BRIDGE = "stp_state 0 mcast_snooping 0 ageing_time 0 group_fwd_mask 0xfff8"
"""What makes a bridge a piece of cable: it learns nothing, and forwards what bridges keep to themselves (IEEE 802.1D
table 7-10), of which Linux excepts two groups."""


class Direction:
    """One direction of a cable.  All of its methods block as long as a command takes."""

    def __init__(self, rate: str, impairment: Impairment) -> None:
        self._rate = rate
        """The interface that has the link's rate."""
        self.impairment = impairment
        self._since = trio.current_time()
        self._changed = trio.Event()

    def impair(self, impairment: Impairment) -> None:
        """From now on do this to what is sent; `travelling` is up to the caller."""
        # What netem cannot do changes nothing.
        netem.travelling(impairment)
        self.impairment, self._since = impairment, trio.current_time()
        self.send()
        self._changed.set()
        self._changed = trio.Event()

    def send(self) -> None:
        """Have frames sent as they are now to be sent."""
        is_down = self.impairment.is_down_after(trio.current_time() - self._since)
        _tc(self._rate, netem.sending(self.impairment, is_down=is_down))

    async def flap(self) -> None:
        """Go down and come up for ever, while that is what the link does."""
        while True:
            changed = self._changed
            if (flap := self.impairment.flap_seconds) is None or self.impairment.down:
                await changed.wait()
                continue
            up, down = flap
            phase = (trio.current_time() - self._since) % (up + down)
            with trio.move_on_after((up if phase < up else up + down) - phase):
                await changed.wait()
            self.send()


class NetemCable:
    """Both directions between two interfaces.  As `meshsync.lab.cable.cable.Cable`, which any kernel can carry."""

    KIND = "netem"

    def __init__(self, first: str, second: str, impairment: LinkImpairment) -> None:
        """Lays it between those of the interfaces that are there.  LabError: a command failed, and nothing is laid."""
        self._ends = first, second
        self._attached = [0, 0]
        """The index of each interface, once it is in its bridge."""
        mark = hashlib.sha256(f"{first}\0{second}".encode()).hexdigest()[:8]
        self._bridges = [f"ms{mark}b{number}" for number in range(3)]
        self._cuts, self._rates = ([f"ms{mark}{kind}{number}" for number in range(2)] for kind in "cr")
        self.forward = Direction(self._rates[1], impairment.forward)
        self.backward = Direction(self._rates[0], impairment.backward)
        # What a process left that was killed.
        self._remove()
        try:
            _ip(*self._inside())
            self.impair(impairment)
            self._attach()
        except BaseException:
            self._remove()
            raise

    def impair(self, impairment: LinkImpairment) -> None:
        """From now on do this to what goes in.  LabError, LocalError: netem cannot."""
        self.forward.impair(impairment.forward)
        self.backward.impair(impairment.backward)
        for number, attached in enumerate(self._attached):
            if attached:
                self._travel(number)

    def counts(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """How many frames were carried, and how many lost, in each direction, since both interfaces are there."""
        shown = json.loads(run(["tc", "-s", "-j", "qdisc", "show"]))
        found = {one["dev"]: one for one in shown if one["kind"] == "netem"}
        nothing = {"packets": 0, "drops": 0}

        def counted(rate: str, end: str) -> tuple[int, int]:
            sent, travelled = found.get(rate, nothing), found.get(end, nothing)
            return travelled["packets"], sent["drops"] + travelled["drops"]

        return counted(self._rates[1], self._ends[1]), counted(self._rates[0], self._ends[0])

    async def run(self) -> None:
        """Follow interfaces that come and go until cancelled; then nothing of the cable stays."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.forward.flap)
                nursery.start_soon(self.backward.flap)
                while True:
                    await trio.sleep(_LOOK_SECONDS)
                    self._attach()
        finally:
            self._remove()

    def _inside(self) -> Iterator[str]:
        """The orders that make all but the ends."""
        for cut, rate in zip(self._cuts, self._rates, strict=True):
            yield f"link add {cut} mtu {_MTU} type veth peer name {rate} mtu {_MTU}"
            # netem would take many datagrams that a sender handed over as one for one; see `frames`.
            yield f"link set dev {cut} gso_max_segs 1"
        for bridge in self._bridges:
            yield f"link add {bridge} type bridge {_BRIDGE}"
        for interface, number in zip((*self._cuts, *self._rates), (0, 2, 1, 1), strict=True):
            yield f"link set dev {interface} master {self._bridges[number]}"
        for interface in (*self._bridges, *self._cuts, *self._rates):
            # Else it would speak for itself: neighbour discovery and multicast listeners.
            yield f"link set dev {interface} addrgenmode none"
            yield f"link set dev {interface} up"

    def _attach(self) -> None:
        """Take in the interfaces that have come, or come again under their name."""
        for number, end in enumerate(self._ends):
            index = _index(end)
            if index and index != self._attached[number]:
                try:
                    _ip(
                        f"link set dev {end} addrgenmode none",
                        f"address flush dev {end} scope link",
                        f"link set dev {end} master {self._bridges[2 * number]}",
                    )
                    self._travel(number)
                except CommandFailedError:
                    if _index(end) == index:
                        raise
                    index = 0  # it went meanwhile
            self._attached[number] = index

    def _travel(self, number: int) -> None:
        """Have what leaves by an end travel as it is to."""
        direction = (self.backward, self.forward)[number]
        _tc(self._ends[number], netem.travelling(direction.impairment))

    def _remove(self) -> None:
        made = [f"link delete {interface}" for interface in (*self._bridges, *self._cuts)]
        given = [f"qdisc delete dev {end} root" for end in self._ends]
        for command, orders in (("ip", made), ("tc", given)):
            # Of what is not there each order fails, and the next one is followed.
            with contextlib.suppress(CommandFailedError):
                run([command, "-force", "-batch", "-"], given=_lines(orders))


def require_netem() -> None:
    """LabError: this kernel has no netem, this process must not use it, or a command is missing; which."""
    # Of its own and removed with it: `lo` may have what somebody else gave it.
    name = f"msprobe{os.getpid()}"
    run(["ip", "link", "add", name, "type", "veth"])
    try:
        _tc(name, ["limit", "1"])
    finally:
        run(["ip", "link", "delete", name])


def _tc(interface: str, arguments: list[str]) -> None:
    run(["tc", "qdisc", "replace", "dev", interface, "root", "netem", *arguments])


def _ip(*orders: str) -> None:
    run(["ip", "-batch", "-"], given=_lines(orders))


def _lines(orders: Iterable[str]) -> str:
    return "".join(f"{order}\n" for order in orders)


def _index(interface: str) -> int:
    """The index of an interface; 0 where there is none."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0
