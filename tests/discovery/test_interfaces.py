"""Which interfaces there are, which are chosen, and when that changes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest
import structlog.testing
import trio

from meshsync.errors import LocalError
from meshsync.interfaces import Interface, Interfaces, read_interfaces
from meshsync.lab.namespaces import is_privileged
from tests.cli.processes import ROOT
from tests.netns import network

LO = Interface("lo", 1, ("127.0.0.1", "::1"), is_loopback=True)
ETH = Interface("eth0", 2, ("10.0.0.1", "fe80::1"))
WLAN = Interface("wlan0", 3, ("10.1.0.1",))


class Machine:
    """Interfaces that come and go."""

    def __init__(self, *interfaces: Interface) -> None:
        self.interfaces = list(interfaces)

    def read(self) -> Sequence[Interface]:
        return list(self.interfaces)


def names(interfaces: Interfaces) -> list[str]:
    return [one.name for one in interfaces.chosen]


def test_this_machine_has_loopback() -> None:
    """Otherwise the real list is not understood, and everything else here is about a made-up one."""
    [loopback] = [one for one in read_interfaces() if one.is_loopback]
    assert "127.0.0.1" in loopback.addresses
    assert loopback.is_usable


@pytest.mark.parametrize(
    ("there", "wanted", "chosen"),
    [
        ([LO, ETH, WLAN], [], ["eth0", "wlan0"]),
        ([LO], [], ["lo"]),
        ([LO, Interface("eth0", 2, ("10.0.0.1",), is_up=False)], [], ["lo"]),
        ([LO, Interface("eth0", 2, ())], [], ["lo"]),
        ([LO, ETH, WLAN], ["wlan0"], ["wlan0"]),
        ([LO, ETH], ["lo"], ["lo"]),
        ([LO, ETH], ["wlan0"], []),
        ([LO, ETH], ["eth0", "wlan0"], ["eth0"]),
        ([], [], []),
    ],
)
def test_choice(there: list[Interface], wanted: list[str], chosen: list[str]) -> None:
    """All but loopback, unless the owner says otherwise or there is nothing else; never one that was not named."""
    assert names(Interfaces(wanted, read=Machine(*there).read)) == chosen


def test_a_node_on_loopback_stays_there() -> None:
    """It cannot be reached from elsewhere, and must not be announced there."""
    assert names(Interfaces(only_loopback=True, read=Machine(LO, ETH).read)) == ["lo"]


def test_each_state_of_a_named_interface_is_told_once() -> None:
    """An owner who mistyped a name sees it, and a log is not filled by one that flaps."""
    machine = Machine(LO)
    with structlog.testing.capture_logs() as logs:
        interfaces = Interfaces(["eth0"], read=machine.read)
        for state in (
            Interface("eth0", 2, (), is_up=False),
            Interface("eth0", 2, (), is_up=False),
            Interface("eth0", 2, ()),
            ETH,
        ):
            machine.interfaces = [LO, state]
            interfaces.refresh()
    assert [entry["event"] for entry in logs] == [
        "there is no interface eth0 yet: waiting for it (there are: lo)",
        "interface eth0 is down or has no carrier: waiting for it",
        "interface eth0 has no address yet: waiting for one",
        "using interface eth0 with 10.0.0.1, fe80::1",
    ]


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        (["0.0.0.0"], ("10.0.0.1", "10.1.0.1")),
        (["::"], ("10.0.0.1", "10.1.0.1", "fe80::1")),
        (["10.1.0.1"], ("10.1.0.1",)),
        (["fe80::1%eth0"], ("fe80::1",)),
        (["127.0.0.1"], ()),
        (["0.0.0.0", "::"], ("10.0.0.1", "10.1.0.1", "fe80::1")),
    ],
)
def test_only_addresses_that_are_listened_on_are_announced(listen: list[str], expected: tuple[str, ...]) -> None:
    """Others would try the rest in vain, each for seconds."""
    interfaces = Interfaces(read=Machine(LO, ETH, WLAN).read)
    assert interfaces.reachable_at(listen, 8) == expected
    assert interfaces.reachable_at(listen, 1) == expected[:1]


def test_the_way_to_an_address_leads_through_a_chosen_interface_or_not_at_all() -> None:
    """Whoever names an interface pays for the other one by the byte."""
    Interfaces(read=Machine(LO, ETH).read).check_route("127.0.0.1")
    Interfaces(["lo"]).check_route("127.0.0.1")
    Interfaces(["lo"]).check_route("::1")
    with pytest.raises(LocalError, match=r"the way to 127\.0\.0\.1 does not lead through eth9"):
        Interfaces(["eth9"]).check_route("127.0.0.1")


async def test_without_news_from_the_system_it_is_looked_at_again(autojump_clock: object) -> None:
    """Not every system has netlink, and not every container may listen to it."""
    del autojump_clock
    machine = Machine(LO)
    interfaces = Interfaces(read=machine.read)
    changes: list[list[str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "platform", "unknown")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interfaces.follow, lambda: changes.append(names(interfaces)))
            for there in ([LO, ETH], [LO, ETH], [LO]):
                machine.interfaces = there
                await trio.sleep(10)
            nursery.cancel_scope.cancel()
    assert changes == [["eth0"], ["lo"]]


@pytest.fixture
def in_a_namespace() -> Iterator[str]:
    if not is_privileged():
        pytest.skip("network namespaces need root")
    with network() as made:
        yield made.machine("alone").namespace


FOLLOW = """
import structlog, sys, trio
from meshsync.interfaces import Interfaces
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
async def main():
    interfaces = Interfaces(["eth7"])
    def tell():
        print(*[f"{one.name} {' '.join(one.addresses)}" for one in interfaces.chosen] or ["none"], flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(interfaces.follow, tell)
        await trio.sleep(0.5)
        print("ready", flush=True)
trio.run(main)
"""


def test_an_interface_is_followed_through_all_of_its_life(in_a_namespace: str) -> None:
    """In a lab it appears after the process began, is renamed, and gets its address and its carrier later still."""

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", "-n", in_a_namespace, *arguments], check=True)

    command = ["ip", "netns", "exec", in_a_namespace, sys.executable, "-c", FOLLOW]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        ip("link", "add", "late", "type", "veth", "peer", "name", "far")
        ip("link", "set", "late", "name", "eth7")
        ip("address", "add", "10.0.0.1/24", "dev", "eth7")
        ip("link", "set", "eth7", "addrgenmode", "none", "up")
        ip("link", "set", "far", "up")
        assert process.stdout.readline() == "eth7 10.0.0.1\n"
        ip("address", "add", "10.0.0.2/24", "dev", "eth7")
        assert process.stdout.readline() == "eth7 10.0.0.1 10.0.0.2\n"
        ip("link", "set", "far", "down")
        assert process.stdout.readline() == "none\n"
        ip("link", "set", "far", "up")
        assert process.stdout.readline() == "eth7 10.0.0.1 10.0.0.2\n"
        ip("link", "del", "eth7")
        assert process.stdout.readline() == "none\n"
        process.kill()
