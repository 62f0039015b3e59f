"""A document as a JSON line: what `ls --json` and `dump` print and `load` reads.

A line has the document's fields, its `id`, and, where it expires, `"$expires"`: when.  A document may have a field of
that name.  The key then holds both, [when or null, what the field holds], so that neither is taken for the other.
Elsewhere, such as in what `put` is given, `$expires` is a field like any other.

Light to import: commands do.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from meshsync.errors import LocalError
from meshsync.moments import moment_text

EXPIRES = "$expires"


def line_of(id: str, body: Mapping[str, Any], expires: datetime | None) -> dict[str, Any]:
    """The line of a document."""
    line = {**body, "id": id}
    if EXPIRES in body:
        line[EXPIRES] = [moment_text(expires), body[EXPIRES]]
    elif expires is not None:
        line[EXPIRES] = moment_text(expires)
    return line


def take_expiry(line: dict[str, Any]) -> str | None:
    """Take out of a line what it says of when its document expires, so that the fields are left; None: nothing.

    LocalError: it says something else there.
    """
    if EXPIRES not in line:
        return None
    said = line.pop(EXPIRES)
    if isinstance(said, list) and len(said) == 2:
        said, line[EXPIRES] = said
        if said is None:
            return None
    if not isinstance(said, str):
        raise LocalError(
            f"{EXPIRES} says when the document expires, as a string such as 2026-12-01T00:00Z, not {said!r:.40}; write"
            f' a field of that name as "{EXPIRES}": [null, …]'
        )
    return said
