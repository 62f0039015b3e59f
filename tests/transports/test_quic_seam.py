"""The private names of aioquic that the seam uses: a new release that changes them fails here first."""

from __future__ import annotations

import ast
import inspect
from importlib import metadata
from pathlib import Path

import pytest
from aioquic import tls
from aioquic.quic import recovery, stream
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionState
from aioquic.quic.packet_builder import QuicPacketBuilder

from meshsync.core.limits import LIMITS
from meshsync.transports.quic import _seam, _seam_recovery, _seam_reset
from meshsync.transports.quic.certificate import make_certificate
from meshsync.transports.quic.congestion import Controller
from meshsync.transports.quic.doorman import Doorman
from tests.transports.support import key

KINDS = (_seam.Machine, _seam_recovery.Recovery, _seam_recovery.Pacer, _seam_reset.ResettableConnection)


def machine() -> _seam.Machine:
    configuration = QuicConfiguration(
        alpn_protocols=["test"],
        certificate=make_certificate(key(1)),
        private_key=key(1),
        supported_versions=_seam.SUPPORTED_VERSIONS,
        verify_mode=_seam.CERTIFICATE_NOT_VERIFIED,
    )
    made = _seam.Machine(configuration=configuration, limits=LIMITS, reset_token=lambda cid: cid.ljust(16))
    made.connect(("127.0.0.1", 1), 0.0)
    return made


def test_release_is_one_that_was_looked_at() -> None:
    """Otherwise private names may mean something else."""
    assert metadata.version("aioquic").split(".")[:2] == ["1", "7"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_initialize", ["self", "peer_cid"]),
        ("_write_application", ["self", "builder", "network_path", "now"]),
        ("_write_handshake", ["self", "builder", "epoch", "now"]),
        ("_write_ack_frame", ["self", "builder", "space", "now"]),
        ("_write_stream_frame", ["self", "builder", "space", "stream", "max_offset"]),
        ("_write_connection_limits", ["self", "builder", "space"]),
        ("_write_stream_limits", ["self", "builder", "space", "stream"]),
        ("_on_max_stream_data_delivery", ["self", "delivery", "stream"]),
        ("receive_datagram", ["self", "data", "addr", "now"]),
        ("datagrams_to_send", ["self", "now"]),
        ("handle_timer", ["self", "now"]),
        ("_replenish_connection_ids", ["self"]),
        ("_idle_timeout", ["self"]),
        ("_flush_builder", ["self", "builder", "network_path", "peer_cid", "now"]),
    ],
)
def test_overridden_methods_have_not_changed(name: str, parameters: list[str]) -> None:
    """Otherwise an override is never called, or called with something else."""
    assert list(inspect.signature(getattr(QuicConnection, name)).parameters) == parameters


@pytest.mark.parametrize("name", ["on_ack_received", "on_loss_detection_timeout", "_detect_loss", "_on_packets_lost"])
def test_overridden_methods_of_recovery_have_not_changed(name: str) -> None:
    """Otherwise the same, where losses are found."""
    base = inspect.signature(getattr(recovery.QuicPacketRecovery, name)).parameters
    assert list(inspect.signature(getattr(_seam_recovery.Recovery, name)).parameters) == list(base)
    assert f"self.{name}(" in inspect.getsource(recovery) + inspect.getsource(QuicConnection).replace("_loss.", "")


def test_library_still_says_that_no_version_fits() -> None:
    """Otherwise a peer of another version looks like a network that lost the connection."""
    assert f'"{_seam.NO_COMMON_VERSION}"' in inspect.getsource(QuicConnection)


def test_library_still_calls_what_is_overridden() -> None:
    """Otherwise an override is dead code and the library's own behaviour is back."""
    source = inspect.getsource(QuicConnection)
    for name in (
        "_initialize",
        "_replenish_connection_ids",
        "_write_application",
        "_write_handshake",
        "_write_ack_frame",
    ):
        assert f"self.{name}(" in source
    application = inspect.getsource(QuicConnection._write_application)
    for name in ("_write_connection_limits", "_write_stream_limits", "_write_stream_frame"):
        assert f"self.{name}(" in application


def test_library_goes_through_its_queue_of_streams_for_each_packet() -> None:
    """Otherwise the order of the queue, made just before, decides nothing."""
    application = inspect.getsource(QuicConnection._write_application)
    order = ("start_packet(", "_write_connection_limits(", "for stream in self._streams_queue", "_write_stream_frame(")
    positions = [application.index(text) for text in order]
    assert positions == sorted(positions)
    made = machine()
    assert isinstance(made._streams_queue, list)
    assert isinstance(made._loss._cc, Controller)


def test_every_private_attribute_exists() -> None:
    """Otherwise an assignment in the seam makes a new attribute that nobody reads."""
    holders: list[object] = [
        machine(),
        machine()._loss,
        machine()._loss._cc,
        machine()._loss._pacer,
        machine().tls,
        stream.QuicStream(stream_id=0),
        stream.QuicStream(stream_id=0).sender,
        stream.QuicStream(stream_id=0).receiver,
        recovery.QuicPacketSpace(),
        QuicPacketBuilder(host_cid=b"", peer_cid=b"", version=1, is_client=True, max_datagram_size=1200),
    ]
    own = {name for kind in KINDS for name in vars(kind)}
    library = set()
    for module in (_seam, _seam_recovery, _seam_reset):
        tree = ast.parse(Path(inspect.getfile(module)).read_text(encoding="utf-8"))
        library |= {
            node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_")
        }
        assigned_in_init = {
            target.attr
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef) and function.name == "__init__"
            for node in ast.walk(function)
            if isinstance(node, (ast.Assign, ast.AnnAssign))
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Attribute)
        }
        own |= assigned_in_init - {"_loss", "_pacer", "_local_active_connection_id_limit"}
    missing = {name for name in library - own if not any(hasattr(holder, name) for holder in holders)}
    assert not missing


def test_options_take_effect() -> None:
    """Otherwise clients are not asked for certificates, or stream limits are the library's."""
    made = machine()
    assert made.tls._request_client_certificate
    assert made.tls._supported_groups == [tls.Group.X25519]
    assert made._local_max_streams_bidi.value == LIMITS.streams_per_connection_max
    assert made._local_max_streams_uni.value == 0
    assert made._state is QuicConnectionState.FIRSTFLIGHT
    assert isinstance(made._loss._pacer, _seam_recovery.Pacer)


def test_datagrams_grow_everywhere_at_once() -> None:
    """Otherwise the congestion window or the pacer still counts small datagrams."""
    made = machine()
    made.raise_datagram_bytes(100_000)
    assert made._max_datagram_size == _seam.DATAGRAM_BYTES_MAX
    assert made._loss._cc.congestion_window == 10 * _seam.DATAGRAM_BYTES_MAX
    made.raise_datagram_bytes(1200)
    assert made._max_datagram_size == _seam.DATAGRAM_BYTES_MAX


def test_path_that_takes_only_short_datagrams_begins_anew() -> None:
    """Otherwise ten long datagrams' worth of short ones fills the queue of a narrow path for seconds."""
    made = machine()
    made.raise_datagram_bytes(_seam.DATAGRAM_BYTES_MAX)
    for _ in range(3):
        made._loss.on_loss_detection_timeout(now=0.0)
    made.handle_timer(0.0)
    assert made._max_datagram_size == LIMITS.datagram_bytes
    assert made._loss.congestion_window == 10 * LIMITS.datagram_bytes


def test_other_versions_of_quic_are_answered() -> None:
    """Otherwise a future client waits for a timeout instead of falling back."""
    client = machine()
    ((datagram, _),) = client.datagrams_to_send(0.0)
    foreign = datagram[:1] + b"\x1a\x2a\x3a\x4a" + datagram[5:]
    answer = Doorman(LIMITS).judge_untrusted(foreign, ("10.0.0.1", 1), 0.0)
    assert isinstance(answer, bytes)
    assert answer[1:5] == bytes(4)
    assert answer.endswith(b"\0\0\0\1")
