"""The private names of zeroconf that the seam uses: a new release that changes them fails here first."""

from __future__ import annotations

import ast
import inspect
from importlib import metadata
from pathlib import Path

import pytest
from zeroconf import ServiceInfo, Zeroconf

from meshsync.discovery.mdns import _seam

PACKAGE = Path(_seam.__file__).parents[2]


def test_release_is_one_that_was_looked_at() -> None:
    """Otherwise private names may mean something else."""
    assert metadata.version("zeroconf").split(".")[0] == "0"


def test_the_seam_names_all_that_is_private_and_nothing_else_does() -> None:
    """Otherwise a release that moves a module is met in the middle of a session, in a thread, on somebody's machine."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            private = [name for name in names if name.startswith("zeroconf._")]
            assert not private or path == Path(_seam.__file__), f"{path.name} names {private}"
    assert set(_seam.__all__) <= set(vars(_seam))


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (_seam.DNSOutgoing.add_question, ["record"]),
        (_seam.DNSRecord.is_expired, ["now"]),
        (Zeroconf.async_send, ["out"]),
        (Zeroconf.generate_service_broadcast, ["info", "ttl"]),
        (ServiceInfo.load_from_cache, ["zc"]),
    ],
)
def test_what_is_called_takes_what_it_is_given(function: object, parameters: list[str]) -> None:
    """A renamed parameter is found before it is called."""
    found = list(inspect.signature(function).parameters)  # type: ignore[arg-type]
    assert [name for name in found if name != "self"][: len(parameters)] == parameters


def test_records_tell_what_is_read_of_them() -> None:
    """The kinds are told apart by type, and by these names."""
    pointer = _seam.DNSPointer("service.local.", 12, 1, 120, "instance.service.local.")
    service = _seam.DNSService("instance.service.local.", 33, 1, 120, 0, 0, 5, "host.local.")
    address = _seam.DNSAddress("host.local.", 1, 1, 120, bytes(4))
    assert (pointer.alias, pointer.ttl, service.name, address.name) == (
        "instance.service.local.",
        120,
        "instance.service.local.",
        "host.local.",
    )
    assert all(isinstance(record, _seam.DNSRecord) for record in (pointer, service, address))


def test_a_record_can_be_told_to_run_out_sooner() -> None:
    """Otherwise whoever says that his records are good for hours takes the room of all others."""
    record = _seam.DNSAddress("host.local.", 1, 1, 4500, bytes(4), created=1.0)
    record.ttl = 120
    assert (record.is_expired(119_000.0), record.is_expired(121_000.0)) == (False, True)


def test_a_question_is_put_into_a_packet() -> None:
    """Otherwise nobody is asked who is there."""
    question = _seam.DNSOutgoing(0)
    question.add_question(_seam.DNSQuestion("service.local.", 12, 1))
    [packet] = question.packets()
    assert b"\x07service\x05local\x00\x00\x0c\x00\x01" in packet
