"""Expressions: the conditions that people type, such as `team=blue and not (age<18 or note?)`.

    any    = all ("or" all)*
    all    = one ("and" one)*
    one    = "not" one | "(" any ")" | ("and" | "or") "(" [any ("," any)*] ")" | test
    test   = path ("=" | "!=" | "<" | "<=" | ">" | ">=" | "~") value
           | path "?"
           | path "in" "[" [value ("," value)*] "]"
           | [path] ("within_radius" | "within_bounds") "(" name "=" number ("," name "=" number)* ")"

A value is JSON, or a bare word that stands for a string.  `and()` is everything and `or()` nothing, as in JSON.  The
words of the grammar are names of fields all the same where an operator follows (`not=1`), and in quotes.

Whatever is doubtful is refused with its column, because a query that silently means something else shows the
wrong documents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

from meshsync.core.conditions import (
    And,
    Compare,
    Condition,
    Exists,
    In,
    Not,
    Or,
    Path,
    Prefix,
    WithinBounds,
    WithinRadius,
    scan_path,
)
from meshsync.core.limits import LIMITS
from meshsync.core.strictjson import decode_untrusted_json
from meshsync.errors import LocalError

_Item = TypeVar("_Item")

_PLACES = {kind.WORD: kind for kind in (WithinRadius, WithinBounds)}

KEYWORDS = frozenset({"and", "or", "not", *_PLACES})
"""Words that begin something else than a path, unless an operator follows."""

_OPERATOR = re.compile(r"!=|<=|>=|=|<|>|~|\?")
_PREFIX_WORD = re.compile(r"(not)(?![^\s(\"])(?!\s*[=!<>~?])|(and|or|within_radius|within_bounds)\s*(?=\()")
_PLACE_WORD = re.compile(r"(within_radius|within_bounds)\s*(?=\()")
_IN = re.compile(r"in(?=[\s\[(]|$)")
_BARE_WORD = re.compile(r'[^\s(){}\[\],"]+')
_JSON_WORD = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false|null")
# RFC 8259 section 6 allows no leading zero, so 007 is a word (a serial number, a postcode) and not the number 7.
_LEADING_ZERO = re.compile(r"-?0[0-9]")
_NUMBER_NAME = re.compile(r"[a-z_]+")
_DOUBTFUL_STARTS = "=<>~!?'"


def parse_expression(text: str) -> Condition:
    """Read one expression.  LocalError: names the expression, the column and what was expected there."""
    if len(text.encode(errors="replace")) > LIMITS.query_text_bytes_max:
        raise LocalError(f"a query of more than {LIMITS.query_text_bytes_max} bytes is too long")
    try:
        return _Reader(text).whole()
    except LocalError as error:
        raise LocalError(f"query {text!r:.200}: {error}") from None


def is_bare_word(text: str) -> bool:
    """Whether a text can be typed without quotes."""
    return _BARE_WORD.fullmatch(text) is not None and text[0] not in _DOUBTFUL_STARTS


def is_bare_string(text: str) -> bool:
    """Whether a text that is typed without quotes is read as this string."""
    return is_bare_word(text) and not _is_json(text)


def _is_json(word: str) -> bool:
    return _JSON_WORD.fullmatch(word) is not None and not _LEADING_ZERO.match(word)


class _Reader:
    """One reading: a text, and how far it has been read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def whole(self) -> Condition:
        condition = self._any(LIMITS.query_depth_max)
        if self._at < len(self._text):
            raise self._expected("and, or, or the end", "; a value with spaces needs double quotes")
        return condition

    # Conditions

    def _any(self, depth: int) -> Condition:
        parts = [self._all(depth)]
        while self._take_word("or"):
            parts.append(self._all(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _all(self, depth: int) -> Condition:
        parts = [self._one(depth)]
        while self._take_word("and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _one(self, depth: int) -> Condition:
        if depth == 0:
            raise LocalError(f"column {self._at + 1}: nested deeper than {LIMITS.query_depth_max} levels")
        self._skip_space()
        if self._take("("):
            condition = self._any(depth - 1)
            self._require(")", "and, or, or )")
            return condition
        word = _PREFIX_WORD.match(self._text, self._at)
        if word is None:
            return self._test()
        if word[0] == "not":
            self._at = word.end()
            return Not(self._one(depth - 1))
        if word[2] in _PLACES:
            return self._place(())
        self._at = word.end()
        parts = tuple(self._listed("()", lambda: self._any(depth - 1)))
        return And(parts) if word[2] == "and" else Or(parts)

    def _test(self) -> Condition:
        path, self._at = scan_path(self._text, self._at)
        self._skip_space()
        if _PLACE_WORD.match(self._text, self._at):
            return self._place(path)
        if found := _IN.match(self._text, self._at):
            self._at = found.end()
            return In(path, tuple(self._listed("[]", lambda: self._value_of(path))))
        found = _OPERATOR.match(self._text, self._at)
        if found is None:
            raise self._expected("one of = != < <= > >= ~ ? in within_radius within_bounds")
        self._at = found.end()
        if found[0] == "?":
            after = self._at
            self._skip_space()
            if self._at == after and not self._is_end():
                raise LocalError(f"column {self._at + 1}: nothing may follow ? without a space")
            return Exists(path)
        self._skip_space()
        begin = self._at
        try:
            return Prefix(path, self._prefix()) if found[0] == "~" else Compare(path, found[0], self._value_of(path))
        except LocalError as error:
            raise self._at_column(error, begin) from None

    def _place(self, path: Path) -> Condition:
        begin, found = self._at, _PLACE_WORD.match(self._text, self._at)
        assert found is not None
        self._at = found.end()
        kind = _PLACES[found[1]]
        numbers: dict[str, float] = {}
        self._listed("()", lambda: self._take_number(kind, numbers))
        if len(numbers) < len(kind.KEYS):
            lacking = ", ".join(name for name in kind.KEYS if name not in numbers)
            raise LocalError(f"column {begin + 1}: {kind.WORD} lacks {lacking}")
        try:
            return kind(path, **numbers)
        except LocalError as error:
            raise self._at_column(error, begin) from None

    def _take_number(self, kind: type[WithinRadius | WithinBounds], numbers: dict[str, float]) -> None:
        """Read one `name=number` into `numbers`."""
        self._skip_space()
        name = _NUMBER_NAME.match(self._text, self._at)
        if name is None:
            raise self._expected("a name such as lat")
        if name[0] not in kind.KEYS or name[0] in numbers:
            takes = f"{kind.WORD} takes each of {', '.join(kind.KEYS)} once"
            raise LocalError(f"column {self._at + 1}: {takes}; a field stands before it")
        self._at = name.end()
        self._require("=", "=")
        self._skip_space()
        begin, value = self._at, self._value()
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise LocalError(f"column {begin + 1}: a number is expected for {name[0]}")
        numbers[name[0]] = value

    def _listed(self, brackets: str, item: Callable[[], _Item]) -> list[_Item]:
        """Items between brackets, with commas between them."""
        self._require(brackets[0], brackets[0])
        items: list[_Item] = []
        if self._take(brackets[1]):
            return items
        while True:
            items.append(item())
            if self._take(brackets[1]):
                return items
            self._require(",", f", or {brackets[1]}")

    # Values

    def _value(self) -> Any:
        """JSON, or a bare word."""
        self._skip_space()
        if self._text[self._at : self._at + 1] in ('"', "[", "{"):
            return self._json()
        word = self._bare_word()
        return decode_untrusted_json(word, "value") if _is_json(word) else word

    def _value_of(self, path: Path) -> Any:
        """A value to compare a field with.  An id is text: `id=7` would find nothing, and nobody would know why."""
        self._skip_space()
        begin, value = self._at, self._value()
        if path == ("id",) and not isinstance(value, str):
            text = self._text[begin : self._at]
            raise LocalError(f'column {begin + 1}: an id is text: in double quotes "{text:.40}" would be one')
        return value

    def _prefix(self) -> str:
        return str(self._json()) if self._text.startswith('"', self._at) else self._bare_word()

    def _json(self) -> Any:
        begin = self._at
        try:
            _, self._at = json.JSONDecoder().raw_decode(self._text, begin)
        except (json.JSONDecodeError, RecursionError):
            self._at = len(self._text)  # the strict reader finds the same fault, and names it better
        return decode_untrusted_json(self._text[begin : self._at], "value")

    def _bare_word(self) -> str:
        found = _BARE_WORD.match(self._text, self._at)
        if found is None:
            if self._is_end():
                raise self._expected("a value", '; an empty string is ""')
            raise self._quotes(f"a value that begins with {self._text[self._at]}")
        if found[0][0] in _DOUBTFUL_STARTS:
            raise self._quotes(f"a value that begins with {found[0][0]}")
        self._at = found.end()
        if not self._is_end():
            raise self._quotes(f"a value with {self._text[self._at]}")
        return found[0]

    def _is_end(self) -> bool:
        """Whether a bare word may end here."""
        following = self._text[self._at : self._at + 1]
        return not following or following.isspace() or following in "),]"

    # Text

    def _skip_space(self) -> None:
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1

    def _take(self, text: str) -> bool:
        """Read `text` if it comes next."""
        self._skip_space()
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _take_word(self, word: str) -> bool:
        """Read a word if it comes next, and ends there."""
        self._skip_space()
        end = self._at + len(word)
        following = self._text[end : end + 1]
        if not self._text.startswith(word, self._at) or not (not following or following.isspace() or following in '("'):
            return False
        self._at = end
        return True

    def _require(self, text: str, what: str) -> None:
        if not self._take(text):
            raise self._expected(what)

    def _expected(self, what: str, hint: str = "") -> LocalError:
        found = self._text[self._at : self._at + 12]
        instead = f", not {found!r}" if found else ", not the end"
        return LocalError(f"column {self._at + 1}: {what} is expected{instead}{hint}")

    def _quotes(self, what: str) -> LocalError:
        return LocalError(f"column {self._at + 1}: {what} needs double quotes")

    def _at_column(self, error: LocalError, begin: int) -> LocalError:
        text = str(error)
        return error if text.startswith("column") else LocalError(f"column {begin + 1}: {text}")
