"""Why a connection ended, from what QUIC says to what meshsync says."""

from __future__ import annotations

from aioquic.quic.packet import QuicErrorCode
from aioquic.tls import AlertDescription

from meshsync.core.hello import clean_text
from meshsync.errors import CloseCode
from meshsync.transports.base import CloseReason
from meshsync.transports.quic._seam import NO_COMMON_VERSION, Machine

_TRANSPORT_CODES = {
    QuicErrorCode.NO_ERROR: CloseCode.OK,
    QuicErrorCode.INTERNAL_ERROR: CloseCode.INTERNAL,
    QuicErrorCode.CONNECTION_REFUSED: CloseCode.BUSY,
    # An application's close before the keys for its code exist (RFC 9000 section 10.2.3).
    QuicErrorCode.APPLICATION_ERROR: CloseCode.DISCONNECTED,
    QuicErrorCode.VERSION_NEGOTIATION_ERROR: CloseCode.VERSION,
    # The protocol's version is its name in ALPN.
    QuicErrorCode.CRYPTO_ERROR + AlertDescription.no_application_protocol: CloseCode.VERSION,
}
_TLS_CODES = range(QuicErrorCode.CRYPTO_ERROR, QuicErrorCode.CRYPTO_ERROR + 256)
_PATH_CODES = (QuicErrorCode.INTERNAL_ERROR, QuicErrorCode.NO_VIABLE_PATH)


def close_code_of_untrusted(error_code: int) -> CloseCode:
    """Read an application error code of a peer; one that it must not send counts as a breach of the protocol."""
    try:
        code = CloseCode(error_code)
    except ValueError:
        return CloseCode.PROTOCOL
    return CloseCode.PROTOCOL if code is CloseCode.LOST else code


def _transport_code(error_code: int) -> CloseCode:
    default = CloseCode.IDENTITY if error_code in _TLS_CODES else CloseCode.PROTOCOL
    return _TRANSPORT_CODES.get(error_code, default)


def reason_of(machine: Machine) -> CloseReason:
    """Say why the machine, which has ended by itself or by its peer, did so."""
    event = machine.close_event
    if event is None:
        return CloseReason(CloseCode.LOST, "", by_peer=False)
    text = clean_text(event.reason_phrase)
    if machine.is_draining:
        if event.frame_type is None:
            return CloseReason(close_code_of_untrusted(event.error_code), text, by_peer=True)
        return CloseReason(_transport_code(event.error_code), text, by_peer=True)
    if event.reason_phrase == NO_COMMON_VERSION:
        return CloseReason(CloseCode.VERSION, text, by_peer=False)
    if event.error_code in _PATH_CODES:
        return CloseReason(CloseCode.LOST, text, by_peer=False)
    return CloseReason(_transport_code(event.error_code), text, by_peer=False)
