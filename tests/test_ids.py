from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from meshsync.errors import LocalError
from meshsync.ids import CollectionId, EndpointId, EntryId, Id32, LogId

P = 2**255 - 19

# The 14 encodings of points of small order that decoders accept: five y coordinates (0, 1, -1 and two of order 8),
# two of them also as y + p, each with either sign bit.  Written out, so that a slip in the derivation shows.
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]


def endpoint(seed: int) -> EndpointId:
    return EndpointId(Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big")).public_key().public_bytes_raw())


@pytest.mark.parametrize("encoding", SMALL_ORDER)
def test_key_of_small_order_is_refused(encoding: str) -> None:
    """Otherwise OpenSSL accepts signatures under it that nobody made."""
    with pytest.raises(LocalError, match="no usable Ed25519 public key"):
        EndpointId.parse(encoding)
    with pytest.raises(LocalError, match="no usable Ed25519 public key"):
        EndpointId(bytes.fromhex(encoding))


def test_openssl_still_accepts_a_forgery_under_a_small_order_key() -> None:
    """The reason for the refusal: R = identity and S = 0 verify any message under the key 01 00 ... 00.

    When this fails, OpenSSL has begun to refuse, and the vectors above are a second line of defence.
    """
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(SMALL_ORDER[2]))
    key.verify(bytes.fromhex(SMALL_ORDER[2]) + bytes(32), b"never signed")


@given(st.integers(min_value=P, max_value=2**255 - 1), st.booleans())
def test_non_canonical_key_is_refused(y: int, sign: bool) -> None:
    """Otherwise two strings name one key, and a ban of one does not reach the other."""
    with pytest.raises(LocalError):
        EndpointId((y | sign << 255).to_bytes(32, "little"))


@given(st.integers(min_value=0, max_value=2**64))
def test_every_real_key_is_accepted(seed: int) -> None:
    """Otherwise some nodes could never join."""
    assert EndpointId.parse(str(endpoint(seed))) == endpoint(seed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ab",
        "ab" * 31,
        "ab" * 33,
        "ab" * 31 + "a",
        "zz" * 32,
        "ab " * 32,
        " " + "ab" * 32,
        "ab" * 32 + "\n",
        "0x" + "ab" * 31,
        "\N{FULLWIDTH DIGIT ONE}" * 64,
    ],
)
def test_anything_but_64_hex_digits_is_refused(text: str) -> None:
    """bytes.fromhex skips blanks, so a length check alone would accept two spellings of one id."""
    with pytest.raises(LocalError, match="64 hexadecimal digits"):
        EntryId.parse(text)


def test_hex_of_either_case_names_the_same_id() -> None:
    """Otherwise an id copied from a tool that prints capitals is another peer."""
    assert EntryId.parse("AB" * 32) == EntryId.parse("ab" * 32)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_an_id_is_32_bytes(length: int) -> None:
    """Otherwise a truncated hash passes for an id."""
    with pytest.raises(LocalError, match="must be 32 bytes"):
        EntryId(bytes(length))


def test_an_id_is_its_bytes_and_shows_as_hex() -> None:
    """Ids are sorted, hashed and encoded as bytes everywhere; people see hex."""
    one = EntryId(bytes(range(32)))
    assert one == bytes(range(32))
    assert hash(one) == hash(bytes(range(32)))
    assert str(one) == bytes(range(32)).hex()
    assert one.short == "00010203"
    assert repr(one) == "EntryId(00010203…)"
    assert EntryId.parse(str(one)) == one
    assert isinstance(one, Id32)


def test_the_id_of_an_open_collection_is_fixed() -> None:
    """A golden value: two releases that derived it differently would never meet."""
    # printf 'meshsync/collection/1\0notes' | sha256sum
    assert str(CollectionId.of_name("notes")) == "b1fdb2a86771aae9281957f6e36bdef9f0dc9843d73f2e4d3ad6020513e467fd"
    assert CollectionId.of_name("notes") != CollectionId.of_name("Notes")


def test_a_log_is_named_by_author_and_incarnation() -> None:
    """Logs are keys of dictionaries and are sorted for the root: both must follow the bytes."""
    first, second = sorted([endpoint(1), endpoint(2)])
    logs = [LogId(second, bytes(8)), LogId(first, b"\1" * 8), LogId(first, bytes(8))]
    assert sorted(logs) == [LogId(first, bytes(8)), LogId(first, b"\1" * 8), LogId(second, bytes(8))]
    assert str(logs[0]) == f"{second}/0000000000000000"
