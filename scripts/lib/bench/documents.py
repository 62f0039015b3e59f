"""The documents of the benchmarks: about 200 bytes of JSON each, the same in every process and every run."""

from __future__ import annotations

import base64
import random
from typing import Any

_WORDS = (
    "alder anvil auburn barley bellows birdsong bramble brook burrow canal carbon chalk cinder clay compass cotton "
    "cricket current damson dawn dew dome drift dune dusk eagle easel elder engine fable feather fennel ferry field "
    "fjord flax foam forge fountain frost furrow gable gale gate geyser ginger glade glen grain gravel grove gull "
    "harvest hatch heather hedge heron hill hollow"
).split()
_TEXT_CHARACTERS = 100
MESSAGE_BYTES = 1000


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
    """A document with a text of MESSAGE_BYTES bytes that does not compress below three quarters."""
    raw = random.Random(number).randbytes(MESSAGE_BYTES * 3 // 4)
    return {"text": base64.b64encode(raw).decode()}
