"""The documents of the benchmarks: about 200 bytes of JSON each, the same in every process and every run."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from typing import Any

COLLECTION = "bench"
"""Where they are."""

_WORDS = (
    "alder anvil auburn barley bellows birdsong bramble brook burrow canal carbon chalk cinder clay compass cotton "
    "cricket current damson dawn dew dome drift dune dusk eagle easel elder engine fable feather fennel ferry field "
    "fjord flax foam forge fountain frost furrow gable gale gate geyser ginger glade glen grain gravel grove gull "
    "harvest hatch heather hedge heron hill hollow"
).split()
_TEXT_CHARACTERS = 100
MESSAGE_BYTES = 1000
BLOCK_BYTES = 50_000
_MESSAGE_FRAME_BYTES = 27  # of an operation around the text: kind, document id, name of the field, lengths
CHOSEN = "team=blue"
"""The query of whoever wants a part."""
MEMBERS_PER_CHOSEN = 100
_MEMBER_FRAME_BYTES = 37
_OTHERS = ("pink", "grey", "gold", "lime")  # of the length of the one that is chosen


def document_id(number: int) -> str:
    """The id of a document."""
    return f"record-{number:07d}"


def document(number: int, generation: int = 0) -> dict[str, Any]:
    """The fields of a document as they are after its `generation`-th update."""
    rng = random.Random(number << 8 | generation)
    text = " ".join(rng.choices(_WORDS, k=24))
    return {
        "title": " ".join(rng.choices(_WORDS, k=2)),
        "text": text[:_TEXT_CHARACTERS],
        "count": number * 100 + generation,
        "labels": rng.choices(_WORDS, k=2),
    }


def message(number: int) -> dict[str, Any]:
    """A document whose payload has MESSAGE_BYTES bytes and does not compress below three quarters."""
    return {"text": _incompressible(number, MESSAGE_BYTES - _MESSAGE_FRAME_BYTES)}


def block(number: int) -> dict[str, Any]:
    """A document of a little more than BLOCK_BYTES bytes."""
    return {"text": random.Random(number).randbytes(BLOCK_BYTES // 2).hex()}


def member(number: int) -> dict[str, Any]:
    """As `message`, with a team: one in MEMBERS_PER_CHOSEN is of the chosen one."""
    team = _OTHERS[number % len(_OTHERS)] if number % MEMBERS_PER_CHOSEN else "blue"
    return {"team": team, "text": _incompressible(number, MESSAGE_BYTES - _MEMBER_FRAME_BYTES)}


def track(number: int, generation: int = 0) -> dict[str, Any]:
    """As `document`, with a team: every other one is of the chosen one, and each update changes that."""
    return {"team": ("blue", "pink")[(number + generation) % 2], **document(number, generation)}


def _incompressible(number: int, characters: int) -> str:
    return base64.b64encode(random.Random(number).randbytes(characters)).decode()[:characters]


KINDS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "document": document,
    "message": lambda number, _: message(number),
    "block": lambda number, _: block(number),
    "member": lambda number, _: member(number),
    "track": track,
}
"""By the names that the commands of a driver have for them: from the number of a document and of its update."""
