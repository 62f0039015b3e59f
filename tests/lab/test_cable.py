from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio

from meshsync.errors import LocalError
from meshsync.lab import namespaces
from meshsync.lab.cable.control import order_cable, serve_cables
from meshsync.lab.cable.kernel import require_netem
from meshsync.lab.cable.kinds import chosen
from meshsync.lab.drivers.base import LabError
from meshsync.lab.impairments import LinkImpairment, read_link_impairment
from tests.cli.processes import PATIENCE_SECONDS
from tests.lab.labs import needs_namespaces, wait_until

_PORT = 5000
_PROBES = 400


async def test_whoever_sees_the_socket_of_the_cables_can_connect(tmp_path: Path) -> None:
    """Otherwise a lab fails to come up now and then, when the process is slow between two calls."""
    path = tmp_path / "cables.sock"
    refused = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_cables, path, "user-space", random.Random(1))
        while not path.exists():
            await trio.lowlevel.checkpoint()
        with socket.socket(socket.AF_UNIX) as connection:
            refused = connection.connect_ex(str(path))
        nursery.cancel_scope.cancel()
    assert refused == 0


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root has the right")
def test_without_the_right_it_says_so_in_one_line() -> None:
    """Otherwise whoever forgets sudo gets a traceback for each direction."""
    dropped = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"] if os.geteuid() == 0 else []
    command = [*dropped, sys.executable, "-m", "meshsync", "lab", "cable", "a", "b"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == "meshsync: a cable needs the right to open packet sockets: run it as root\n"


# The real thing: two namespaces, and a cable between them in a third one.

_ECHO = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
    s.bind(("10.9.0.2", 5000))
    print("ready", flush=True)
    while True:
        data, peer = s.recvfrom(2000)
        s.sendto(data, peer)
"""
_PROBE = """
import json, socket, sys, time
count, size, gap = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
    s.bind(("10.9.0.1", 5000))
    s.setblocking(False)
    sent, trips, arrived = {}, [], []
    end = None
    number, due = 0, time.monotonic()
    while end is None or time.monotonic() < end:
        now = time.monotonic()
        if number < count and now >= due:
            s.sendto(number.to_bytes(4, "big").ljust(size, b"."), ("10.9.0.2", 5000))
            sent[number] = now
            number, due = number + 1, due + gap
            if number == count:
                end = now + float(sys.argv[4])
        try:
            data = s.recv(2000)
        except BlockingIOError:
            time.sleep(0.0005)
            continue
        arrived.append(time.monotonic())
        trips.append(arrived[-1] - sent[int.from_bytes(data[:4], "big")])
print(json.dumps({"trips": sorted(trips), "arrived": arrived}))
"""


_BUNDLES = """
import json, socket, sys, time
bundles, each, size = 10, 20, 1000
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
    s.setsockopt(socket.IPPROTO_UDP, 103, size)  # UDP_SEGMENT
    s.bind(("10.9.0.1", 5000))
    s.settimeout(float(sys.argv[1]))
    for bundle in range(bundles):
        numbers = range(bundle * each, (bundle + 1) * each)
        s.sendto(b"".join(number.to_bytes(4, "big").ljust(size, b".") for number in numbers), ("10.9.0.2", 5000))
    came = [0] * bundles
    try:
        while True:
            came[int.from_bytes(s.recv(2000)[:4], "big") // each] += 1
    except TimeoutError:
        print(json.dumps(came))
"""


@pytest.fixture(params=["user-space", "netem"])
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of cable that this kernel has."""
    found: str = request.param
    if found == "netem":
        try:
            require_netem()
        except LabError as error:
            pytest.skip(f"no netem: {error}")
    return found


@contextmanager
def cabled(kind: str, impairment: object) -> Iterator[str]:
    """Two namespaces with a cable between them and an echo in the second one; the first one's name."""
    mark = f"mstest-{secrets.token_hex(3)}"
    near, far, middle = (f"{mark}-{name}" for name in ("near", "far", "middle"))
    with ExitStack() as stack:
        for name in (near, far, middle):
            namespaces.add(name)
            stack.callback(namespaces.remove, name)
        for number, name in enumerate((near, far), 1):
            namespaces.ip("link", "add", "eth1", "netns", name, "type", "veth", "peer", f"c{number}", "netns", middle)
            namespaces.ip("-n", name, "address", "add", f"10.9.0.{number}/24", "dev", "eth1")
            namespaces.ip("-n", name, "link", "set", "eth1", "up")
            namespaces.ip("-n", middle, "link", "set", f"c{number}", "up")
        text = json.dumps(_as_arguments(read_link_impairment(impairment)))
        stack.enter_context(_process(namespaces.inside(middle, sys.executable, "-c", _CABLE, kind, text)))
        stack.enter_context(_process(namespaces.inside(far, sys.executable, "-c", _ECHO)))
        yield near


_CABLE = """
import json, random, sys, trio
from meshsync.lab.cable.kinds import make
from meshsync.lab.impairments import Impairment, LinkImpairment
forward, backward = (Impairment.from_json(one) for one in json.loads(sys.argv[2]))
async def main():
    cable = make(sys.argv[1], "c1", "c2", LinkImpairment(forward, backward), random.Random(1))
    print("ready", flush=True)
    await cable.run()
trio.run(main)
"""


def _as_arguments(impairment: LinkImpairment) -> list[dict[str, object]]:
    return [impairment.forward.as_json(), impairment.backward.as_json()]


@contextmanager
def _process(command: list[str]) -> Iterator[None]:
    """A process for the block, from when it says that it is ready."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def meet(near: str) -> None:
    """Wait until the echo answers; the first datagrams fill the neighbour tables."""
    command = namespaces.inside(near, sys.executable, "-c", _PROBE)
    end = time.monotonic() + PATIENCE_SECONDS
    while not json.loads(namespaces.run([*command, "3", "100", "0.05", "0.5"]))["trips"]:
        assert time.monotonic() < end, "nothing comes back"


def probe(near: str, count: int, size: int, gap: float, wait: float) -> tuple[list[float], list[float]]:
    """Send datagrams to the echo; the round trips in ascending order, and when each answer came."""
    meet(near)
    command = namespaces.inside(near, sys.executable, "-c", _PROBE)
    found = json.loads(namespaces.run([*command, str(count), str(size), str(gap), str(wait)]))
    return found["trips"], found["arrived"]


@needs_namespaces
def test_a_cable_delays_and_loses_as_it_says(kind: str) -> None:
    """Otherwise every figure that was measured through it is about another network."""
    with cabled(kind, {"delay": "40ms", "loss": "20%"}) as near:
        trips, _ = probe(near, _PROBES, 200, 0.005, 1.0)
    assert trips[0] >= 0.080
    assert trips[len(trips) // 2] == pytest.approx(0.080, abs=0.1)
    assert len(trips) / _PROBES == pytest.approx(0.8 * 0.8, abs=0.1)


@needs_namespaces
def test_a_cable_has_the_rate_that_it_says(kind: str) -> None:
    """Otherwise a slow radio is a fast one with delay."""
    with cabled(kind, {"forward": {"rate": "400kbit", "queue": "60s"}}) as near:
        _, arrived = probe(near, 60, 1000, 0.0, 3.0)
    assert len(arrived) == 60
    # 1000 bytes of payload make a frame of 1042.
    rate = 59 * 1042 * 8 / (arrived[-1] - arrived[0])
    assert rate == pytest.approx(400_000, rel=0.25)


@needs_namespaces
def test_a_cable_drops_what_would_wait_for_too_long(kind: str) -> None:
    """Otherwise a slow radio delays everything for minutes instead of losing it."""
    with cabled(kind, {"forward": {"rate": "100kbit", "queue": "500ms"}}) as near:
        _, arrived = probe(near, 300, 1000, 0.0, 3.0)
    # 6 of them make the queue; meanwhile 12 are sent each second, and how long it takes to hand over all is not known.
    assert 4 <= len(arrived) <= 100


@needs_namespaces
def test_a_cable_doubles_what_it_says(kind: str) -> None:
    """Otherwise a lab with duplicates has none."""
    with cabled(kind, {"forward": {"delay": "5ms", "duplicate": "100%"}}) as near:
        trips, _ = probe(near, 50, 200, 0.002, 2.0)
    assert len(trips) == 100


@needs_namespaces
def test_a_cable_loses_datagrams_and_not_bundles_of_them(kind: str) -> None:
    """A sender hands many datagrams over at once; lost together, one loss is a burst that nobody asked for."""
    with cabled(kind, {"forward": {"loss": "50%"}}) as near:
        meet(near)
        came = json.loads(namespaces.run(namespaces.inside(near, sys.executable, "-c", _BUNDLES, "3")))
    assert all(0 < count < 20 for count in came), came
    assert sum(came) / 200 == pytest.approx(0.5, abs=0.15)


@needs_namespaces
def test_a_cable_can_be_cut_and_joined_while_it_carries(tmp_path: Path, kind: str) -> None:
    """Otherwise a partition needs another lab."""
    path = tmp_path / "cables.sock"
    mark = f"mstest-{secrets.token_hex(3)}"
    with ExitStack() as stack:
        namespaces.add(mark)
        stack.callback(namespaces.remove, mark)
        process = stack.enter_context(subprocess.Popen(namespaces.inside(mark, *_with_control(kind, path))))
        stack.callback(process.kill)
        wait_until(path.exists)
        for value in ("nominal", {"down": "true"}, "jtrs"):
            reply = order_cable(path, "a-b", ("c1", "c2"), read_link_impairment(value))
            assert reply == {"v": 1, "kind": kind, "carried": [0, 0], "lost": [0, 0]}


@needs_namespaces
def test_a_cable_leaves_nothing_behind_where_it_ends(tmp_path: Path, kind: str) -> None:
    """Two interfaces that stay connected after the cable was interrupted are a leak from one network to another."""
    path = tmp_path / "cables.sock"
    mark = f"mstest-{secrets.token_hex(3)}"
    with ExitStack() as stack:
        namespaces.add(mark)
        stack.callback(namespaces.remove, mark)
        before = namespaces.ip("-n", mark, "-brief", "link")
        # As a script starts it in the background.
        command = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *_with_control(kind, path)]
        process = stack.enter_context(subprocess.Popen(namespaces.inside(mark, *command)))
        stack.callback(process.kill)
        wait_until(path.exists)
        order_cable(path, "a-b", ("c1", "c2"), read_link_impairment("nominal"))
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
        assert namespaces.ip("-n", mark, "-brief", "link") == before


@needs_namespaces
def test_auto_is_a_kind_that_this_kernel_has() -> None:
    """Otherwise a lab does not come up on every second machine."""
    if chosen("auto") == "user-space":
        with pytest.raises(LocalError, match=r"no netem here \(.+\); choose user-space cables instead"):
            chosen("netem")
    else:
        assert chosen("auto") == chosen("netem") == "netem"
    assert chosen("user-space") == "user-space"


def _with_control(kind: str, path: Path) -> list[str]:
    return [sys.executable, "-P", "-m", "meshsync", "lab", "cable", "--with", kind, "--control", str(path)]
