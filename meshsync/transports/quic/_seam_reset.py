"""The part of the seam that concerns stateless resets: the tokens that the library makes, keeps, and never looks at.

The library draws its tokens at random and forgets them with the process, and a reset that it is given is a packet of
nobody to it.  Here they come from the endpoint, which makes the same ones after a restart, and a reset ends the
connection at once (RFC 9000 section 10.3).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from aioquic.quic import events
from aioquic.quic.connection import END_STATES, QuicConnection
from aioquic.quic.packet import QuicErrorCode, QuicFrameType

RESET = "the peer was started anew, or has forgotten this connection"


class ResettableConnection(QuicConnection):
    """The library's connection with tokens of ours, which takes notice of resets."""

    def __init__(self, *, reset_token: Callable[[bytes], bytes], **options: Any) -> None:
        super().__init__(**options)
        self._reset_token = reset_token
        self._make_tokens()

    def _replenish_connection_ids(self) -> None:
        super()._replenish_connection_ids()
        self._make_tokens()

    def _make_tokens(self) -> None:
        """Put our tokens in the place of the library's; for one id it is always the same."""
        for connection_id in self._host_cids:
            # A client has no way to tell the token of its first id (RFC 9000 section 18.2).
            if connection_id.stateless_reset_token:
                connection_id.stateless_reset_token = self._reset_token(connection_id.cid)

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        """Take one datagram."""
        super().receive_datagram(data, addr, now)
        # So a server goes on to an id whose token it was told as soon as it can.
        if self._handshake_confirmed and not self._peer_cid.stateless_reset_token and self._state not in END_STATES:
            self.change_connection_id()

    def is_reset_by_untrusted(self, token: bytes) -> bool:
        """Whether this is the peer's token for the id that its packets carry at present."""
        known: bytes = self._peer_cid.stateless_reset_token
        return bool(known) and hmac.compare_digest(known, token)

    def lose(self) -> None:
        """The peer knows nothing of this connection: end it without another packet (RFC 9000 section 10.3.1)."""
        if self._state in END_STATES or self._close_event is not None:
            return
        self._close_event = events.ConnectionTerminated(
            error_code=QuicErrorCode.INTERNAL_ERROR, frame_type=QuicFrameType.PADDING, reason_phrase=RESET
        )
        self._close_end()
