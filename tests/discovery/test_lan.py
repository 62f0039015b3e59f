"""Machines on one Ethernet that nobody told an address, with cables that are pulled and addresses that change."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from meshsync.lab.namespaces import is_privileged
from tests.cli.processes import COMMAND, PATIENCE_SECONDS, ROOT, RunningNode, running
from tests.discovery.test_processes import mesh_key, options
from tests.netns import Machine, lan, network

pytestmark = pytest.mark.skipif(not is_privileged(), reason="network namespaces need root")


@contextmanager
def impatient(node: RunningNode) -> Iterator[None]:
    """End the node, and with it every wait for its events, when nothing comes for too long."""
    timer = threading.Timer(PATIENCE_SECONDS, node.process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def following(node: RunningNode) -> Iterator[Callable[[str, str], None]]:
    """A function that waits for the next event of a type that is about a peer; each event is looked at once."""
    with node.streaming("events", "--since", "1", "--json") as events, impatient(node):
        assert events.stdout is not None

        def wait(kind: str, peer: str) -> None:
            assert events.stdout is not None
            for line in events.stdout:
                event = json.loads(line)
                if (event["type"], event.get("peer")) == (kind, peer):
                    return
            raise AssertionError("the events ended")

        yield wait


def start(stack: ExitStack, machine: Machine, directory: Path, key: Path, *arguments: object) -> RunningNode:
    """A node as people start it, on a machine."""
    made = running(directory / machine.name, *options(key), *arguments, listen=None, on=machine)
    return stack.enter_context(made)


def test_three_machines_find_each_other_and_again_after_a_cable_was_pulled(tmp_path: Path) -> None:
    """What happens in every hall and on every boat, and nobody is there to restart anything."""
    key = mesh_key(tmp_path)
    with lan("anna", "boris", "clara") as machines, ExitStack() as stack:
        anna, boris, clara = (start(stack, machine, tmp_path, key) for machine in machines)
        assert [node.ready["listen"] for node in (anna, boris, clara)] == [["0.0.0.0:4433"]] * 3
        with following(anna) as wait:
            wait("connected", boris.id)
        with following(boris) as wait:
            wait("connected", clara.id)
        with following(clara) as wait:
            wait("connected", anna.id)
            machines[2].ports[0].unplug()
            wait("disconnected", anna.id)
            clara.out("put", "notes", "n1", "{}")
            machines[2].ports[0].plug()
            wait("connected", anna.id)
        clara.out("wait", "synced", "--timeout", "30s")
        assert json.loads(anna.out("get", "notes", "n1")) == {}
        for node in (anna, boris, clara):
            assert node.stop() == 0


@pytest.mark.parametrize("is_lower", [True, False])
def test_an_address_that_changes_is_followed(tmp_path: Path, is_lower: bool) -> None:
    """DHCP gives another address; the others only know the old one, and may be those who began the connection."""
    key = mesh_key(tmp_path)
    with lan("anna", "boris") as machines, ExitStack() as stack:
        nodes = [(start(stack, machine, tmp_path, key), machine) for machine in machines]
        (moving, machine), (staying, _) = sorted(nodes, key=lambda one: one[0].id, reverse=not is_lower)
        with following(staying) as wait:
            wait("connected", moving.id)
            machine.run("ip", "address", "del", f"{machine.address}/24", "dev", "eth0")
            machine.run("ip", "address", "add", "10.77.1.99/24", "dev", "eth0")
        # The connection may move along (RFC 9000 section 9) or be made anew.
        moving.out("put", "notes", "n1", "{}")
        moving.out("wait", "synced", "--timeout", "60s")
        assert json.loads(staying.out("get", "notes", "n1")) == {}


def test_an_interface_may_come_later_than_the_node(tmp_path: Path) -> None:
    """In a lab, and on a robot whose radio starts slowly: interface, address and carrier come one after the other."""
    key = mesh_key(tmp_path)
    with network() as made, ExitStack() as stack:
        switch, anna, boris = made.switch(), made.machine("anna"), made.machine("boris")
        anna.join(switch)
        a = start(stack, anna, tmp_path, key)
        b = start(stack, boris, tmp_path, key, "--interface", "eth0")
        with following(b) as wait:
            boris.join(switch)
            wait("connected", a.id)
        log = (tmp_path / "boris.log").read_text()
        assert "there is no interface eth0 yet: waiting for it" in log
        assert "using interface eth0 with 10.77.1.2" in log


def test_machines_with_nothing_but_addresses_of_one_link_find_each_other(tmp_path: Path) -> None:
    """A cable between two laptops without a DHCP server: all there is are link-local addresses, with their zones."""
    key = mesh_key(tmp_path)
    with lan("anna", "boris") as machines, ExitStack() as stack:
        for machine in machines:
            machine.run("ip", "address", "del", f"{machine.address}/24", "dev", "eth0")
        anna, boris = (start(stack, machine, tmp_path, key, "--listen", "[::]:4433") for machine in machines)
        with following(anna) as wait:
            wait("connected", boris.id)
        boris.out("put", "notes", "n1", "{}")
        boris.out("wait", "synced", "--timeout", "30s")
        assert json.loads(anna.out("get", "notes", "n1")) == {}
        found = anna.json("status")
        [peer] = found["peers"]
        assert peer["address"].startswith("[fe80::")
        [interface] = found["discovery"]["interfaces"]
        assert interface["name"] == "eth0"
        assert all(address.startswith("fe80::") for address in interface["addresses"])


def test_several_nodes_on_one_machine_need_no_port(tmp_path: Path) -> None:
    """Whoever tries it out starts a second node beside the first, and would meet a port that is taken."""
    key = mesh_key(tmp_path)
    with lan("anna") as (machine,), ExitStack() as stack:
        first = start(stack, machine, tmp_path, key)
        second = stack.enter_context(running(tmp_path / "second", *options(key), listen=None, on=machine))
        assert first.ready["listen"] == ["0.0.0.0:4433"]
        [listen] = second.ready["listen"]
        assert listen != "0.0.0.0:4433"
        log = (tmp_path / "second.log").read_text()
        assert f"port 4433/udp is taken: listening on port {listen.rpartition(':')[2]} instead" in log
        with following(first) as wait:
            wait("connected", second.id)
        named = machine.command(*COMMAND, "node", "--data-dir", str(tmp_path / "third"), "--listen", "0.0.0.0:4433")
        done = subprocess.run(named, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False, cwd=ROOT)
        assert done.returncode == 2
        assert "name another with --listen" in done.stderr


def test_status_says_why_nobody_can_be_found(tmp_path: Path) -> None:
    """An interface that is misspelt looks like a network without peers."""
    key = mesh_key(tmp_path)
    with lan("anna") as (machine,), ExitStack() as stack:
        anna = start(stack, machine, tmp_path, key, "--interface", "eht0")
        found = anna.json("status")["discovery"]
        assert found["interfaces"] == []
        assert "there is no interface eht0 yet" in found["fault"]
        assert [way["via"] for way in found["ways"]] == ["mdns", "mesh"]
        assert "there is no interface eht0 yet" in anna.out("status")


def test_a_machine_in_two_networks_stays_out_of_the_one_that_was_not_chosen(tmp_path: Path) -> None:
    """Whoever names the interface of the fleet does not want to be seen in the guests' network."""
    key = mesh_key(tmp_path)
    with network() as made, ExitStack() as stack:
        fleet, guests = made.switch(), made.switch()
        anna, boris, clara = (made.machine(name) for name in ("anna", "boris", "clara"))
        boris.join(fleet)
        boris.join(guests)
        anna.join(fleet)
        clara.join(guests)
        b = start(stack, boris, tmp_path, key, "--interface", "eth0")
        c = start(stack, clara, tmp_path, key)
        a = start(stack, anna, tmp_path, key)
        with following(b) as wait:
            wait("connected", a.id)
        assert [peer["id"] for peer in b.json("status")["peers"]] == [a.id]
        assert c.json("status")["peers"] == []
        refused = b.run("connect", f"{c.id}@{clara.address}:4433")
        assert refused.returncode == 5
        assert f"the way to {clara.address} does not lead through eth0" in refused.stderr
        refused = c.run("connect", f"{b.id}@{boris.ports[1].address}:4433")
        assert refused.returncode == 5, "what comes in by the guests' network is refused as well"
        assert [peer["id"] for peer in b.json("status")["peers"] if peer["state"] == "connected"] == [a.id]
        assert b.json("peers", "pending")["peers"] == []


def test_whoever_was_killed_is_found_again_at_another_port(tmp_path: Path) -> None:
    """A process that dies says no goodbye, and the next one may not get its port."""
    key = mesh_key(tmp_path)
    with lan("anna", "boris") as machines, ExitStack() as stack:
        anna = start(stack, machines[0], tmp_path, key)
        with running(tmp_path / "boris", *options(key), listen="0.0.0.0:5000", on=machines[1]) as boris:
            with following(anna) as wait:
                wait("connected", boris.id)
            boris.stop(signal.SIGKILL)
        with (
            following(anna) as wait,
            running(tmp_path / "boris", *options(key), listen="0.0.0.0:5001", on=machines[1]) as boris,
        ):
            wait("connected", boris.id)
            wait("connected", boris.id)
