"""Phrasing: writes a condition as the expression that means it; `parse_expression` reads back the very same tree."""

from __future__ import annotations

import json
from typing import Any

from meshsync.core.conditions import (
    And,
    Compare,
    Condition,
    Exists,
    In,
    Not,
    OnField,
    Or,
    Path,
    Prefix,
    WithinBounds,
    WithinRadius,
    format_path,
)
from meshsync.core.expressions import KEYWORDS, is_bare_string, is_bare_word
from meshsync.core.strictjson import encode_json


def phrase(condition: Condition) -> str:
    """The expression of a condition."""
    match condition:
        case And(parts) | Or(parts):
            word = "and" if isinstance(condition, And) else "or"
            if len(parts) < 2:
                return f"{word}({''.join(map(phrase, parts))})"
            return f" {word} ".join(map(_operand, parts))
        case Not(part):
            return f"not {_operand(part)}"
        case _:
            return _phrase_test(condition)


def _operand(condition: Condition) -> str:
    text = phrase(condition)
    return f"({text})" if isinstance(condition, And | Or) and len(condition.parts) > 1 else text


def _phrase_test(condition: OnField) -> str:
    path = _phrase_path(condition.path)
    match condition:
        case Compare(_, op, value):
            return f"{path}{op}{_phrase_value(value)}"
        case In(_, values):
            return f"{path} in [{','.join(map(_phrase_value, values))}]"
        case Prefix(_, text):
            return f"{path}~{text if is_bare_word(text) else encode_json(text)}"
        case Exists():
            return f"{path}?"
        case WithinRadius() | WithinBounds():
            numbers = ", ".join(f"{key}={encode_json(getattr(condition, key))}" for key in condition.KEYS)
            return f"{path} {condition.WORD}({numbers})".lstrip()


def _phrase_path(path: Path) -> str:
    if path and path[0] in KEYWORDS:
        return ".".join([json.dumps(path[0]), *map(format_path, ((name,) for name in path[1:]))])
    return format_path(path)


def _phrase_value(value: Any) -> str:
    return value if isinstance(value, str) and is_bare_string(value) else encode_json(value)
