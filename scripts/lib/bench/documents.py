"""The documents of the benchmarks: about 200 bytes of JSON each, the same in every process and every run."""

from __future__ import annotations

import base64
import random
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
    characters = MESSAGE_BYTES - _MESSAGE_FRAME_BYTES
    raw = random.Random(number).randbytes(characters)
    return {"text": base64.b64encode(raw).decode()[:characters]}


def block(number: int) -> dict[str, Any]:
    """A document of a little more than BLOCK_BYTES bytes."""
    return {"text": random.Random(number).randbytes(BLOCK_BYTES // 2).hex()}
