from __future__ import annotations

import pytest

from meshsync.addresses import HostPort, parse_address, parse_listen, parse_peer
from meshsync.errors import LocalError

ID = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.12.2:4433", "10.0.12.2", 4433),
        ("relay.example:1", "relay.example", 1),
        ("relay.example.:65535", "relay.example.", 65535),
        ("Relay-2_b:4433", "relay-2_b", 4433),
        ("[::1]:4433", "::1", 4433),
        ("[2001:DB8:0::1]:4433", "2001:db8::1", 4433),
        ("[fe80::1%eth0]:4433", "fe80::1%eth0", 4433),
        ("clab-mesh-n1:04433", "clab-mesh-n1", 4433),
    ],
)
def test_address_is_read_and_written_alike(text: str, host: str, port: int) -> None:
    """What one node prints, another must take."""
    address = parse_address(text)
    assert address == (host, port)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no port"),
        ("10.0.12.2", "has no port; expected HOST:PORT, such as 10.0.12.2:4433"),
        ("relay.example", "has no port"),
        ("::1", r"has no port; expected \[IPV6\]:PORT, such as \[::1\]:4433"),
        ("fe80::1:4433", r"expected \[IPV6\]:PORT"),
        ("[::1]", "has no port"),
        ("host:", "has the port ''; expected a port from 1 to 65535"),
        ("host:0", "port 0"),
        ("host:65536", "65535"),
        ("host:-1", "65535"),
        ("host:+80", "65535"),
        ("host: 80", "65535"),
        ("host:8_0", "65535"),
        ("host:\N{ARABIC-INDIC DIGIT FOUR}", "65535"),
        ("host:http", "65535"),
        (":4433", "expected an IP address or a host name"),
        ("*:4433", "expected an IP address or a host name"),
        ("-host:4433", "expected an IP address or a host name"),
        ("ho st:4433", "expected an IP address or a host name"),
        ("host/path:4433", "expected an IP address or a host name"),
        ("käse.example:4433", "expected an IP address or a host name in ASCII"),
        ("a" * 64 + ":4433", "expected an IP address or a host name"),
        ("10.1:4433", "expected four numbers"),
        ("10.0.0.256:4433", "expected four numbers"),
        ("012.0.0.1:4433", "expected four numbers"),
        ("[10.0.0.1]:4433", "no valid IPv6 address"),
        ("[::1:4433", "has no port|expected"),
        ("0.0.0.0:4433", "no place to reach a peer"),
        ("[::]:4433", "no place to reach a peer"),
    ],
)
def test_bad_address_is_refused_with_the_reason(text: str, says: str) -> None:
    """An address that is read as another one is a peer that is never reached, without a word."""
    with pytest.raises(LocalError, match=says):
        parse_address(text)


def test_where_to_listen_is_an_ip_address() -> None:
    """A name may stand for several addresses, or for another machine's."""
    assert parse_listen("0.0.0.0:4433") == ("0.0.0.0", 4433)
    assert parse_listen("[::]:0") == ("::", 0)
    assert parse_listen("localhost:80") == ("127.0.0.1", 80)
    with pytest.raises(LocalError, match="expected an IP address of this machine"):
        parse_listen("relay.example:4433")


def test_peer_is_an_id_and_an_address() -> None:
    """`meshsync id --address` prints what `--peer` takes."""
    peer = parse_peer(f"{ID.upper()}@[::1]:4433")
    assert peer.id == bytes.fromhex(ID)
    assert peer.address == HostPort("::1", 4433)
    assert str(peer) == f"{ID}@[::1]:4433"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ID, "has no @; expected HEX@HOST:PORT"),
        ("host:4433", "has no @"),
        (f"{ID[:-1]}@host:4433", "64 hexadecimal digits"),
        (f"{'00' * 32}@host:4433", "small order"),
        (f"{ID}@host", "has no port"),
        (f"{ID}@", "has no port"),
        (f"{ID}@user@host:4433", "host name"),
    ],
)
def test_bad_peer_is_refused_with_the_reason(text: str, says: str) -> None:
    """It is typed and pasted by hand; the message has to say which half is wrong."""
    with pytest.raises(LocalError, match=says):
        parse_peer(text)
