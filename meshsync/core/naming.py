"""What can be the name of a collection: its id is derived from it, and it stands in tables, logs and paths of URLs.

And what can name a document to whoever reads, and one of a few choices.
"""

from __future__ import annotations

import unicodedata
from enum import Enum
from typing import TypeVar

from meshsync.core.limits import COLLECTION_NAME_BYTES_MAX
from meshsync.errors import LocalError

_SHOWN_CHARACTERS_MAX = 80
_Choice = TypeVar("_Choice", bound=Enum)


def is_plain_text(value: str) -> bool:
    """Whether a text can go to terminals, logs and peers: visible from its first character to its last."""
    return value == value.strip() and not any(unicodedata.category(character)[0] == "C" for character in value)


def check_collection_name(name: str) -> None:
    """LocalError: two people could not tell it from another name, or it is no text, too long or empty."""
    if not isinstance(name, str):
        raise LocalError(f"{name!r:.80} is no name of a collection; expected text")
    shown = repr(name if len(name) <= _SHOWN_CHARACTERS_MAX else name[: _SHOWN_CHARACTERS_MAX - 1] + "…")
    if not is_plain_text(name):
        raise LocalError(f"{shown} has control characters or outer blanks; expected visible characters")
    if not 1 <= len(name.encode()) <= COLLECTION_NAME_BYTES_MAX:
        raise LocalError(f"{shown} is no name; expected 1 to {COLLECTION_NAME_BYTES_MAX} bytes of UTF-8")


def check_named_document(id: str) -> None:
    """LocalError: it is no text that any document could have as its id."""
    if not isinstance(id, str):
        raise LocalError(f"{id!r:.80} is no id of a document; expected text")
    try:
        id.encode()
    except UnicodeEncodeError:
        raise LocalError(f"{id!r:.80} is no id of a document: it holds half a surrogate pair") from None


def named_choice(choices: type[_Choice], said: _Choice | str, what: str) -> _Choice:
    """A choice as callers give it: as such, or by its name in small letters.  LocalError: there is none such."""
    if isinstance(said, choices):
        return said
    names = {one.name.lower(): one for one in choices}
    if isinstance(said, str) and said in names:
        return names[said]
    raise LocalError(f"there is no {what} {said!r:.40}; there are {', '.join(names)}")
