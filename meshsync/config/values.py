"""The kinds of values in a configuration.

YAML scalars arrive here as the text that was written (see `document`), and flags and variables are text anyway, so
numbers and truth values are read here, in one way for all sources: YAML 1.1 would read 010 as 8, 0x10 as 16, 12:30 as
750 and `no` as false.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from meshsync.addresses import DnsName, HostPort, parse_address, parse_dns_name, parse_listen
from meshsync.config.problems import shown
from meshsync.core.naming import check_collection_name, is_plain_text
from meshsync.core.ordering import check_indexed
from meshsync.core.query import Query
from meshsync.core.retention import Retention
from meshsync.core.sieve import encode_query
from meshsync.errors import LocalError
from meshsync.ids import EndpointId

NAME_CHARACTERS_MAX = 64

T = TypeVar("T")


def distinct(items: tuple[T, ...]) -> tuple[T, ...]:
    """Refuse a list that names something twice: one of the two is most likely a slip."""
    for position, item in enumerate(items):
        if item in items[:position]:
            raise ValueError(f"{str(item)!r} is listed twice; expected each once")
    return items


def some(items: tuple[T, ...]) -> tuple[T, ...]:
    """Refuse an empty list where leaving the key out means something else."""
    if not items:
        raise ValueError("an empty list; expected at least one item, or no such key")
    return items


def query(expressions: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is no query, or more of one than a peer takes."""
    try:
        encode_query(Query.parse(expressions))
    except LocalError as error:
        raise ValueError(str(error)) from None
    return expressions


def retention(text: str) -> str:
    """Refuse what does not say what is kept."""
    try:
        Retention.parse(text)
    except LocalError as error:
        raise ValueError(str(error)) from None
    return text


def _whole_number(value: object) -> int:
    # int() would also take blanks, signs, underscores and the digits of other scripts.
    if isinstance(value, str) and re.fullmatch(r"0|[1-9][0-9]{0,17}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"{shown(value)} is not a whole number; expected decimal digits, such as 60000")


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value in {"true", "false"}:
        return value == "true"
    raise ValueError(f"{shown(value)} is not a truth value; expected true or false")


def _plain_text(value: str) -> str:
    """Text that goes to terminals, logs and peers."""
    if not is_plain_text(value):
        raise ValueError(f"{shown(value)} has control characters or outer blanks; expected visible characters")
    return value


def _name(value: str) -> str:
    if len(value) > NAME_CHARACTERS_MAX:
        raise ValueError(f"{shown(value)} is too long; expected at most {NAME_CHARACTERS_MAX} characters")
    return _plain_text(value)


def _interface_name(value: str) -> str:
    # What Linux takes (dev_valid_name in net/core/dev.c), whose limit is the shortest.
    if not 1 <= len(value.encode()) <= 15 or value in {".", ".."} or re.search(r"[/:\s]", value):
        raise ValueError(f"{shown(value)} is no name of an interface; expected one that `ip link` shows, such as eth0")
    return _plain_text(value)


def _collection_name(value: str) -> str:
    try:
        check_collection_name(value)
    except LocalError as error:
        raise ValueError(str(error)) from None
    return value


def _indexed_field(value: str) -> str:
    try:
        check_indexed(value)
    except LocalError as error:
        raise ValueError(str(error)) from None
    return value


def _path(value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value) or not str(value).isprintable():
        raise ValueError(f"{shown(value)} is not a path; expected the path of a file or directory")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{shown(value)}: {error}; expected a path without ~") from None


def _endpoint_id(value: object) -> EndpointId:
    if isinstance(value, EndpointId):
        return value
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise ValueError(f"{shown(value)} is no endpoint id; expected 64 hexadecimal digits, as `meshsync id` prints")
    try:
        return EndpointId.parse(value)
    except LocalError as error:
        raise ValueError(f"{error}; expected the id that `meshsync id` prints there") from None


def _parsed(kind: type[T], parse: Callable[[str], T], expected: str) -> Callable[[object], T]:
    """`expected`: what a value is not that is no text, and how one is written."""

    def read(value: object) -> T:
        if isinstance(value, kind):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError(f"{shown(value)} is not {expected}")  # noqa: TRY004  pydantic's way
        try:
            return parse(value)
        except LocalError as error:
            raise ValueError(str(error)) from None

    return read


def _address(parse: Callable[[str], HostPort]) -> PlainValidator:
    return PlainValidator(_parsed(HostPort, parse, "an address; expected HOST:PORT"))


def _parse_local(text: str) -> HostPort:
    address = parse_listen(text)
    if address.host != "::1" and not address.host.startswith("127."):
        raise LocalError(
            f"{text!r} is not on localhost; expected 127.0.0.1:PORT or [::1]:PORT, and an SSH tunnel from elsewhere"
        )
    return address


def _schema(**keywords: object) -> tuple[PlainSerializer, WithJsonSchema]:
    return PlainSerializer(str), WithJsonSchema({"type": "string", **keywords}, mode="validation")


_ADDRESS: Any = {"pattern": "^.+:[0-9]{1,5}$"}

Rate = Annotated[int, Field(ge=1000), BeforeValidator(_whole_number)]
Bytes = Annotated[int, Field(ge=0), BeforeValidator(_whole_number)]
Seconds = Annotated[int, Field(ge=1), BeforeValidator(_whole_number)]
Truth = Annotated[bool, BeforeValidator(_truth)]
Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "maxLength": NAME_CHARACTERS_MAX})]
InterfaceName = Annotated[str, AfterValidator(_interface_name), WithJsonSchema({"type": "string", "minLength": 1})]
IndexedField = Annotated[str, AfterValidator(_indexed_field), WithJsonSchema({"type": "string", "minLength": 1})]
CollectionName = Annotated[str, AfterValidator(_collection_name), WithJsonSchema({"type": "string", "minLength": 1})]
FilePath = Annotated[Path, PlainValidator(_path), *_schema()]
Id = Annotated[EndpointId, PlainValidator(_endpoint_id), *_schema(pattern="^[0-9a-fA-F]{64}$")]
PeerAddress = Annotated[HostPort, _address(parse_address), *_schema(**_ADDRESS)]
ListenAddress = Annotated[HostPort, _address(parse_listen), *_schema(**_ADDRESS)]
LookedUpName = Annotated[
    DnsName,
    PlainValidator(_parsed(DnsName, parse_dns_name, "a name; expected NAME or NAME:PORT")),
    *_schema(pattern="^[A-Za-z0-9_.-]+(:[0-9]{1,5})?$"),
]
LocalAddress = Annotated[HostPort, _address(_parse_local), *_schema(**_ADDRESS)]
