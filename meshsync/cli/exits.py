"""Exit codes, which are part of the interface, and the errors that lead to them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from meshsync.errors import LocalError, MeshsyncError, NotSoError, PeerError, RefusedError, StoreError, TransportLost


class Exit(enum.IntEnum):
    """How a command ended."""

    DONE = 0
    NOT_SO = 1
    """Not in the state asked for: no such document, not synced in time, degraded, the node failed at it."""
    USAGE = 2
    """The command line or the configuration is wrong."""
    NO_NODE = 3
    """No node is running there."""
    REFUSED = 4
    """The node understood, and will not do it."""
    NETWORK = 5
    """The network failed."""


class CommandError(Exception):
    """Ends a command with one line on standard error."""

    def __init__(self, code: Exit, message: str, told: Mapping[str, Any] | None = None) -> None:
        """`told`: the error as the API told it, for programs."""
        super().__init__(message)
        self.code = code
        self.told = told


_EXIT_OF_API_CODE = {
    "bad_request": Exit.USAGE,
    "unauthorized": Exit.REFUSED,
    "refused": Exit.REFUSED,
    "no_document": Exit.NOT_SO,
    "not_in_part": Exit.NOT_SO,
    "no_index": Exit.NOT_SO,
    "moved_on": Exit.NOT_SO,
    "let_go": Exit.NOT_SO,
    "cursor_lost": Exit.NOT_SO,
    "no_collection": Exit.REFUSED,  # "not subscribed" is a refusal; 1 says that a collection lacks a document
    "no_peer": Exit.USAGE,
    "too_large": Exit.REFUSED,
    "network": Exit.NETWORK,
}


def exit_of_api_code(code: str) -> Exit:
    """The exit code for an error that the API told."""
    return _EXIT_OF_API_CODE.get(code, Exit.NOT_SO)


def exit_of(error: MeshsyncError) -> Exit:
    """The exit code for an error of this process."""
    match error:
        case NotSoError():
            return Exit.NOT_SO
        case RefusedError():
            return Exit.REFUSED
        case LocalError():
            return Exit.USAGE
        case TransportLost() | PeerError():
            return Exit.NETWORK
        case StoreError():
            return Exit.NOT_SO
        case _:
            return Exit.NOT_SO
