"""Where a node tells others that it can be reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshsync.config import Config
from meshsync.core.limits import LIMITS
from meshsync.interfaces import Interface, Interfaces
from meshsync.network import Network

LOOPBACK = Interface("lo", 1, ("127.0.0.1", "::1"), is_loopback=True)
ETHERNET = Interface("eth0", 2, ("10.0.12.2", "2001:db8::2", "fe80::2"))


@pytest.mark.parametrize(
    ("listen", "interfaces", "hosts"),
    [
        ("0.0.0.0:0", (LOOPBACK, ETHERNET), ["10.0.12.2"]),
        ("[::]:0", (LOOPBACK, ETHERNET), ["10.0.12.2", "2001:db8::2"]),
        ("0.0.0.0:0", (LOOPBACK,), ["127.0.0.1"]),
        ("127.0.0.1:0", (LOOPBACK, ETHERNET), ["127.0.0.1"]),
        ("0.0.0.0:0", (), []),
    ],
)
def test_others_are_told_addresses_that_lead_here(
    tmp_path: Path, listen: str, interfaces: tuple[Interface, ...], hosts: list[str]
) -> None:
    """Otherwise nodes dial 0.0.0.0, themselves, or an address that means another place on each machine."""
    network = Network(Config(data_dir=tmp_path, listen=[listen], discovery={"mdns": False}), LIMITS)
    try:
        network.interfaces = Interfaces(read=lambda: interfaces)
        assert [address.host for address in network.reachable_at()] == hosts
        assert {address.port for address in network.reachable_at()} <= {network.listen[0].port}
    finally:
        network.close()
