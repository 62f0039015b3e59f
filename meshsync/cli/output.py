"""What commands print: JSON for programs, text for people, and nothing of a peer's that could drive a terminal."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from meshsync.cli.exits import CommandError, Exit

# C0 and C1 control characters, and the marks that turn the direction of text (Unicode UAX #9): with either, a
# peer's name could rewrite what stands before it.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CONTROL_BUT_NEWLINE = re.compile(_CONTROL.pattern.replace("\x00-", "\x00-\x09\x0b-"))


def printable(text: object, characters_max: int = 120) -> str:
    """Text that came from elsewhere, on one line, with escapes for control characters, bounded.

    Escapes, because without them the id of one document would be printed as that of another.
    """
    clean = _CONTROL.sub(_escape, str(text))
    return clean if len(clean) <= characters_max else clean[: characters_max - 1] + "…"


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON as text that is safe on a terminal: what could drive one stands as an escape."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":" if indent is None else ": "), indent=indent)
    # Inside of JSON such a character can only stand in a string, where its escape means the same.
    return _CONTROL_BUT_NEWLINE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found.group()):04x}"


def print_json(value: Mapping[str, Any]) -> None:
    """One object on one line, flushed."""
    write_line(to_json(value))


def write_line(text: str) -> None:
    """One line, flushed, so that a reader on the other side of a pipe sees it at once."""
    write_bytes(f"{text}\n".encode(errors="backslashreplace"))


def write_bytes(data: bytes) -> None:
    """Bytes to standard output, flushed.  Where nobody reads any more (`| head`) the command is done.

    CommandError: it ends there; what was printed before may be a part of the whole.
    """
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        # Python flushes once more when it ends, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise CommandError(Exit.DONE, "") from None
        raise CommandError(
            Exit.NOT_SO, f"standard output: {error.strerror}; what was printed before it is not the whole"
        ) from None


def styled() -> bool:
    """Whether standard output is a terminal that wants colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def colour(text: str, name: str | None) -> str:
    """Colour a text where that is wanted."""
    return click.style(text, fg=name) if name and styled() else text


def print_table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table: drawn on a terminal, columns of plain text elsewhere."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(titles, cells)
        return
    table = [list(titles), *cells]
    widths = [max(len(row[column]) for row in table) for column in range(len(titles))]
    for row in table:
        write_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _draw(titles: Sequence[str], cells: Iterable[Sequence[str]]) -> None:
    # Only here: rich takes longer to import than a short command to run.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*titles, box=None, pad_edge=False, header_style="bold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console(no_color=not styled(), highlight=False).print(table)


def relayed_text(collection: Mapping[str, Any]) -> str:
    """What stands in the place of a collection's documents where it is only carried for others; else nothing."""
    if not collection["relayed"]:
        return ""
    return "(relayed, idle)" if collection["idle"] else "(relayed)"


def query_text(collection: Mapping[str, Any]) -> str:
    """Which documents of a collection this node wants; nothing where it wants all."""
    return printable(collection["where"] or "", characters_max=1000)


def lacking_text(collection: Mapping[str, Any]) -> str:
    """Why not all that is known to be written to a collection is shown; nothing where it is."""
    if not collection["settled"]:
        return f"{printable(collection['name'])} is still being looked through for what is wanted"
    lacking = counted(collection["lacking"], "payload")
    return f"{printable(collection['name'])} lacks {lacking} of what was written" if collection["lacking"] else ""


def past_text(collection: Mapping[str, Any]) -> str:
    """What is not here of the past though it is wanted; nothing where it is all here."""
    if collection["history"] != "full" or collection["retain"] != "all" or not collection["superseded"]:
        return ""
    text = f"{printable(collection['name'])} lacks {counted(collection['superseded'], 'payload')} of its past"
    is_synced = all(session["state"] == "synced" for session in collection["peers"])
    return f"{text}, which no connected peer has" if is_synced and collection["peers"] else text


def part_text(collection: Mapping[str, Any]) -> str:
    """What is to be known of a part besides its query; nothing where all is well."""
    name, went = printable(collection["name"]), collection["unwanted"]
    texts = []
    if any(session["state"] == "synced" for session in collection["peers"]) and not collection["certain"]:
        texts.append(f"{name}: no connected peer has all of it, so what only others can tell to match may be missing")
    if went["payloads"]:
        dropped = f"{counted(went['payloads'], 'payload')} that are not wanted"
        texts.append(f"{name} dropped {dropped}, {size(went['bytes'])}")
    return "\n".join(texts)


def retained_text(collection: Mapping[str, Any]) -> str:
    """What a collection keeps of its past, and what went."""
    went = collection["let_go"]
    kept = "nothing" if collection["retain"] == "latest" else collection["retain"]
    text = f"{printable(collection['name'])} keeps {kept} of what was overwritten"
    if went["payloads"]:
        text += f"; {counted(went['payloads'], 'payload')} let go, {size(went['bytes'])}"
    if went["waiting"]:
        text += f"; {went['waiting']} wait until a peer that has all of it took them, or a conflict is settled"
    return text


def counted(count: int, noun: str, nouns: str = "") -> str:
    """A number of things: `1 document`, `2 documents`, and with `nouns` `2 entries`."""
    return f"{count} {noun if count == 1 else nouns or noun + 's'}"


def duration(seconds: float) -> str:
    """A duration for people."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 48 * 3600:
        return f"{whole // 3600} h"
    return f"{whole // 86400} d"


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
