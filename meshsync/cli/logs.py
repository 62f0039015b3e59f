"""Logs of a running node: structlog on standard error, text for people or JSON lines for programs."""

from __future__ import annotations

import logging
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

import structlog

from meshsync.cli.output import printable

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

    from meshsync.events import Event, EventLog

_WARNINGS = frozenset({"fork", "held", "damaged", "store_failed", "peer_error", "failed", "clock_differs"})
_QUIET = frozenset({"dial_failed", "pending", "synced"})
"""For who looks for a fault.  Of who is pending the log tells in words, with the command that lets them in."""


def configure_logs(log_format: str, log_level: str) -> None:
    """Send every log of the process, those of libraries included, to standard error."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _strip_control_characters,
    ]
    renderer: list[structlog.typing.Processor]
    if log_format == "json":
        # Plain tracebacks in both forms: the others of structlog print local variables, and those may hold a key.
        renderer = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    else:
        formatter = structlog.dev.plain_traceback
        renderer = [structlog.dev.ConsoleRenderer(colors=_wants_colours(), exception_formatter=formatter)]
    level = logging.getLevelNamesMapping()[log_level.upper()]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # A library's own chatter is of use only to those who look for a fault in it.
    for name in ("quic", "zeroconf", "hypercorn"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


class EventLogger:
    """Logs every event of a node."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._next = 1
        self._logger = structlog.get_logger("meshsync")

    async def run(self) -> None:
        """Log them as they happen, until cancelled."""
        async with aclosing(self._events.follow(self._next)) as following:
            async for event in following:
                self._log(event)

    def finish(self) -> None:
        """Log what happened since: a node tells that it stops when nobody follows it any more."""
        for event in self._events.read(self._next):
            self._log(event)

    def _log(self, event: Event) -> None:
        self._next = event.n + 1
        if event.type in _WARNINGS:
            self._logger.warning(event.type, **event.facts)
        elif event.type in _QUIET:
            self._logger.debug(event.type, **event.facts)
        else:
            self._logger.info(event.type, **event.facts)


def _wants_colours() -> bool:
    import os

    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def _strip_control_characters(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """What a peer calls itself must not drive the terminal of whoever reads the log."""
    return {key: printable(value, 2000) if isinstance(value, str) else value for key, value in event.items()}
