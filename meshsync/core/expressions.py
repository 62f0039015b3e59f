"""Expressions: the conditions that people type, such as `team=blue`, `age>=18`, `name~Ad`, `note?`.

One expression is a path, an operator and a value.  The value is JSON, or a bare word that stands for a string.
Whatever is doubtful is refused with its column, because a query that silently means something else shows the
wrong documents.
"""

from __future__ import annotations

import re
from typing import Any

from meshsync.core.conditions import Compare, Condition, Exists, Path, Prefix, scan_path
from meshsync.core.limits import LIMITS
from meshsync.core.strictjson import decode_untrusted_json
from meshsync.errors import LocalError

_OPERATOR = re.compile(r"!=|<=|>=|=|<|>|~|\?")
_JSON_WORD = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false|null")
# RFC 8259 section 6 allows no leading zero, so 007 is a word (a serial number, a postcode) and not the number 7.
_LEADING_ZERO = re.compile(r"-?0[0-9]")
_SPACE = re.compile(r"\s")


def parse_expression(text: str) -> Condition:
    """Read one expression.  LocalError: names the expression, the column and what was expected there."""
    if len(text.encode(errors="replace")) > LIMITS.query_text_bytes_max:
        raise LocalError(f"a query of more than {LIMITS.query_text_bytes_max} bytes is too long")
    try:
        return _parse(text)
    except LocalError as error:
        raise LocalError(f"query {text!r}: {error}") from None


def _parse(text: str) -> Condition:
    path, position = scan_path(text, _skip_space(text, 0))
    position = _skip_space(text, position)
    found = _OPERATOR.match(text, position)
    if found is None:
        raise LocalError(f"column {position + 1}: one of = != < <= > >= ~ ? is expected after the field")
    operator, position = found.group(), _skip_space(text, found.end())
    value = text[position:].rstrip()
    if operator == "?":
        if value:
            raise LocalError(f"column {position + 1}: nothing may follow ?")
        return Exists(path)
    if not value:
        raise LocalError(f'column {position + 1}: a value is expected (an empty string is "")')
    if value[0] in "=<>~!?":
        raise LocalError(f"column {position + 1}: a value that begins with {value[0]} needs double quotes")
    try:
        return _condition(path, operator, value)
    except LocalError as error:
        raise LocalError(f"value at column {position + 1}: {error}") from None


def _condition(path: Path, operator: str, value: str) -> Condition:
    if operator == "~":
        text = _read_value(value) if value[0] == '"' else value
        if _SPACE.search(value) and value[0] != '"':
            raise _needs_quotes(value)
        return Prefix(path, str(text))
    return Compare(path, operator, _read_value(value))


def _read_value(value: str) -> Any:
    if value[0] in '"[{' or (_JSON_WORD.fullmatch(value) and not _LEADING_ZERO.match(value)):
        return decode_untrusted_json(value, "value")
    if _SPACE.search(value):
        raise _needs_quotes(value)
    return value


def _needs_quotes(value: str) -> LocalError:
    return LocalError(f'a value with spaces needs double quotes: "{value}"; several conditions are several expressions')


def _skip_space(text: str, position: int) -> int:
    while text[position : position + 1].isspace():
        position += 1
    return position
