"""What is announced, and what is made of what others announce."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.discovery.advert import Advert, mesh_hint, parse_untrusted_txt, usable_addresses
from meshsync.errors import PeerError
from meshsync.ids import EndpointId

A = EndpointId.parse("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
B = EndpointId.parse("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
KEY = bytes(range(32))


def raw(advert: Advert, **changed: bytes) -> dict[bytes, bytes | None]:
    """The TXT record as it arrives."""
    found: dict[bytes, bytes | None] = {key.encode(): value.encode() for key, value in advert.txt().items()}
    return found | {key.encode(): value for key, value in changed.items()}


def test_what_is_announced_is_what_is_read() -> None:
    """Otherwise nobody finds anybody."""
    for advert in (Advert(A), Advert(A, "relay ä", mesh_hint(KEY, A))):
        assert parse_untrusted_txt(advert.label, raw(advert)) == advert


def test_the_form_is_the_one_that_other_versions_read() -> None:
    """A change of it parts a mesh in two, in silence."""
    advert = Advert(A, "relay", mesh_hint(KEY, A))
    assert advert.label == "d75a980182b10ab7d54bfed3c964073a"
    assert advert.txt() == {"v": "1", "id": A.hex(), "name": "relay", "mesh": "ff968ed88da82d27"}


@given(st.text(max_size=100))
def test_every_string_fits_its_record(name: str) -> None:
    """RFC 6763 section 6.1: 255 octets; a name of 64 characters may have more."""
    for key, value in Advert(A, name).txt().items():
        assert len(f"{key}={value}".encode()) <= 255


def test_only_holders_of_the_key_make_the_hint() -> None:
    """Otherwise two meshes on one network dial each other."""
    hints = {mesh_hint(KEY, A), mesh_hint(KEY, B), mesh_hint(bytes(32), A)}
    assert len(hints) == 3
    assert all(len(hint) == 16 for hint in hints)


@pytest.mark.parametrize(
    "changed",
    [
        {"v": b"2"},
        {"v": b""},
        {"id": b""},
        {"id": A.hex().upper().encode()},
        {"id": A.hex().encode() + b"\n"},
        {"id": A.hex()[:-1].encode()},
        {"id": b"00" * 32},
        {"id": B.hex().encode()},
        {"id": b"\xff" * 64},
    ],
)
def test_what_is_no_announcement_of_that_endpoint_is_refused(changed: dict[str, bytes]) -> None:
    """Anybody on the network may say anything."""
    with pytest.raises(PeerError):
        parse_untrusted_txt(Advert(A).label, raw(Advert(A), **changed))


def test_names_are_cleaned() -> None:
    """The name is shown in terminals and logs before its owner proved anything."""
    advert = parse_untrusted_txt(Advert(A).label, raw(Advert(A), name=b"\x1b[2Jr\xc3\xa4d\xff\x00" + b"x" * 200))
    assert advert.name.startswith("[2Jräd\N{REPLACEMENT CHARACTER}x")
    assert len(advert.name) == 64


@given(st.text(max_size=40), st.dictionaries(st.binary(max_size=20), st.one_of(st.none(), st.binary(max_size=300))))
def test_no_record_does_worse_than_to_be_refused(label: str, txt: dict[bytes, bytes | None]) -> None:
    """One exception of another kind would end discovery for everybody."""
    for record in (txt, raw(Advert(A)) | txt):
        try:
            parse_untrusted_txt(label, record)
        except PeerError:
            pass


def test_addresses_of_nobody_else_are_left_out() -> None:
    """A node would dial itself, a group, or a link that it cannot tell; and one record could fill the list."""
    said = ["10.0.0.1", "0.0.0.0", "224.0.0.251", "ff02::fb", "::", "127.0.0.1", "::1", "fe80::1", "fe80::1%3", "x"]
    said += ["10.0.0.1", "fd00::1"]
    assert usable_addresses(said, loopback=False, addresses_max=8) == ("10.0.0.1", "fe80::1%3", "fd00::1")
    assert "127.0.0.1" in usable_addresses(said, loopback=True, addresses_max=8)
    many = [f"10.0.0.{number}" for number in range(1, 100)]
    assert usable_addresses(many, loopback=False, addresses_max=8) == tuple(many[:8])
