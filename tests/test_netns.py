"""The machines that tests, labs and the demonstration are run on, and that nothing is left of them."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from meshsync.lab.namespaces import CommandFailedError, is_privileged
from tests.netns import existing, lan, network, remove_stale

pytestmark = pytest.mark.skipif(not is_privileged(), reason="network namespaces need root")

PATIENCE = "30"
REACH = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))"
LISTEN = """
import socket, sys
server = socket.create_server(("", 7777))
print("ready", flush=True)
while True:
    server.accept()
"""


def names() -> set[str]:
    return {name for name, _ in existing()}


def test_machines_reach_each_other_until_a_cable_is_pulled() -> None:
    """Otherwise a test of a cut proves nothing: there was no link, or it was never cut."""
    with (
        lan("a", "b") as (a, b),
        subprocess.Popen(b.command(sys.executable, "-c", LISTEN), stdout=subprocess.PIPE, text=True) as server,
    ):
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        reach = (sys.executable, "-c", REACH, b.address, "7777")
        a.run(*reach, PATIENCE)
        b.ports[0].unplug()
        with pytest.raises(CommandFailedError, match=r"timed out|No route to host"):
            a.run(*reach, "0.2")
        b.ports[0].plug()
        a.run(*reach, PATIENCE)
        server.kill()


def test_networks_are_apart_and_a_machine_may_be_in_both() -> None:
    """Otherwise an island that is joined to one machine only cannot be built."""
    with network() as made:
        left, right = made.switch(), made.switch()
        a, b, c = (made.machine(name) for name in "abc")
        a.join(left)
        assert [port.address for port in (b.join(left), b.join(right), c.join(right))] == [
            "10.77.1.2",
            "10.77.2.2",
            "10.77.2.3",
        ]
        with pytest.raises(CommandFailedError, match="unreachable"):
            a.run(sys.executable, "-c", REACH, c.address, "7777", PATIENCE)
        with pytest.raises(CommandFailedError, match="refused"):
            a.run(sys.executable, "-c", REACH, b.address, "7777", PATIENCE)


def test_nothing_is_left_behind() -> None:
    """Otherwise a test that fails leaves its nodes running, and the next one meets them."""
    before = names()
    with lan("a") as (a,):
        process = subprocess.Popen(a.command(sys.executable, "-c", LISTEN), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    with process:
        assert process.wait(float(PATIENCE)) == -signal.SIGKILL
    assert names() == before


def test_what_a_killed_run_left_is_removed_by_the_next_one() -> None:
    """Otherwise each run that is killed costs namespaces and processes until somebody looks."""
    script = "import signal, subprocess, sys\nfrom tests.netns import lan\nwith lan('a') as (a, ):\n"
    script += " sleeper = subprocess.Popen(a.command('sleep', '1000'), stdout=subprocess.DEVNULL)\n"
    script += " print(a.namespace, flush=True)\n signal.pause()\n"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        namespace = killed.stdout.readline().strip()
        remove_stale()
        assert namespace in names(), "one that is in use must stay"
        killed.kill()
    remove_stale()
    assert namespace not in names()
    assert not [name for name in names() if name.startswith(namespace.rpartition("-")[0])]
