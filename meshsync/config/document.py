"""YAML into plain values, with the line of each.

Scalars stay the text that was written: what it means is decided by the key (see `values`), so that `name: no` is
a name and an id of digits is an id.  Only an empty value, `~` or `null` means "not set".  Refused, because
they surprise or blow up: duplicate keys, aliases, tags, several documents, deep nesting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml
from yaml import AliasEvent, MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

from meshsync.config.problems import Location, Problem, shown
from meshsync.core.limits import LIMITS
from meshsync.errors import ConfigError

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True)
class Document:
    """What a file says."""

    path: Path
    values: dict[str, object] = field(default_factory=dict)
    """Texts, lists and mappings."""
    lines: dict[Location, int] = field(default_factory=dict)
    """The line of each key and list item, counted from 1."""
    problems: list[tuple[int, Problem]] = field(default_factory=list)
    """What is wrong with the form, with its line."""

    def line_of(self, location: Location) -> int:
        """The line of a value, or of what it is missing in."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


def read_document(path: Path) -> Document:
    """Read a configuration file.  ConfigError: it cannot be read or is not YAML; `problems` has the rest."""
    try:
        with path.open("rb") as file:
            data = file.read(LIMITS.config_bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; expected a configuration file") from error
    if len(data) > LIMITS.config_bytes_max:
        raise ConfigError(f"{path}: is too large; expected at most {LIMITS.config_bytes_max} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not text; expected YAML in UTF-8") from None
    try:
        root = _compose(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{path}:{line}: has a character that YAML does not allow; expected plain text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{path}:{line}: is not understood as YAML: {error.problem}") from None

    document = Document(path)
    if isinstance(root, MappingNode):
        document.values.update(_mapping(root, (), document))
    elif root is not None and not _is_null(root):
        raise ConfigError(f"{path}:{root.start_mark.line + 1}: has no keys; expected lines such as `name: relay-1`")
    return document


class _Loader(yaml.SafeLoader):
    """Composes nodes, without what makes YAML surprising."""

    depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, AliasEvent):
            self._refuse(event, "aliases (*name) are not supported; write the value again")
        if getattr(event, "tag", None) is not None:
            self._refuse(event, "tags (!name) are not supported; write the value without")
        if self.depth == LIMITS.config_depth_max:
            self._refuse(event, f"more than {LIMITS.config_depth_max} levels")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _refuse(self, event: yaml.Event, problem: str) -> None:
        raise yaml.MarkedYAMLError(None, None, problem, event.start_mark)  # type: ignore[arg-type]


def _compose(text: str) -> Node | None:
    loader = _Loader(text)
    try:
        if not loader.check_node():
            return None
        node = loader.get_node()
        if loader.check_node():
            mark = loader.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(None, None, "a second document begins here; expected one", mark)
        return node
    except (OverflowError, ValueError):
        # PyYAML lets these out for an escape past the end of Unicode and for a version of thousands of digits.
        mark = loader.get_mark()
        raise yaml.MarkedYAMLError(None, None, "an escape or a version that does not exist", mark) from None
    finally:
        loader.dispose()


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.style is None and node.value in _NULLS


def _value(node: Node, location: Location, document: Document) -> object:
    if isinstance(node, MappingNode):
        return _mapping(node, location, document)
    if isinstance(node, SequenceNode):
        return _items(node, location, document)
    return node.value


def _items(node: SequenceNode, location: Location, document: Document) -> list[object]:
    found: list[object] = []
    for item in node.value:
        line = item.start_mark.line + 1
        if _is_null(item):
            problem = Problem(location, "has an empty list item; expected a value, or no item")
            document.problems.append((line, problem))
            continue
        here = (*location, len(found))
        document.lines[here] = line
        found.append(_value(item, here, document))
    return found


def _mapping(node: MappingNode, location: Location, document: Document) -> dict[str, object]:
    found: dict[str, object] = {}
    first: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode):
            document.problems.append((line, Problem(location, "a key is a list or a mapping; expected a plain word")))
            continue
        name = key.value
        here = (*location, name)
        if name in first:
            problem = Problem(here, f"the key {shown(name)} is there already, in line {first[name]}; expected it once")
            document.problems.append((line, problem))
            continue
        first[name] = line
        document.lines[here] = line
        if not _is_null(value):
            found[name] = _value(value, here, document)
    return found
