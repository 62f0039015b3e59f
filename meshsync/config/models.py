"""What can be configured: frozen models, and what each key accepts.

What is declared but not available yet is refused: nothing is accepted and then ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator as After
from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from meshsync.addresses import DEFAULT_PORT, HostPort, parse_peer
from meshsync.config import values
from meshsync.config.problems import InvalidConfigError, Problem, key_of, problems_of
from meshsync.core.limits import Limits
from meshsync.datadir import default_data_dir
from meshsync.errors import LocalError
from meshsync.ids import EndpointId

Trust = Literal["closed", "mesh-key", "open"]
Durability = Literal["full", "normal"]
History = Literal["full", "latest"]
PriorityName = Literal["critical", "high", "medium", "low"]
Conflicts = Literal["latest", "greatest", "least", "manual"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

T = TypeVar("T")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PeerConfig(_Model):
    """A peer that is trusted, and dialled where it has addresses.  HEX@HOST:PORT in short."""

    id: values.Id
    """The peer's endpoint id: the 64 hexadecimal digits that `meshsync id` prints there."""
    addresses: Annotated[tuple[values.PeerAddress, ...], After(values.distinct)] = ()
    """Where it can be reached, as HOST:PORT; none where it is the peer that dials."""
    name: values.Name = ""
    """What people call it."""
    rate_bytes_per_s: values.Rate | None = None
    """How much is sent to it in a second, in the place of `limits.peer_rate_bytes_per_s`."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: object) -> object:
        if not isinstance(data, str):
            return data
        try:
            peer = parse_peer(data)
        except LocalError as error:
            raise ValueError(str(error)) from None
        return {"id": peer.id, "addresses": (peer.address,)}


class CollectionConfig(_Model):
    """A collection that this node replicates.  Its bare name in short.

    `where`, `priority`, `conflicts`, `retain` and `history` count at each start where they are given.  Those that are
    not are as `meshsync collections join` set them last, or else by default.
    """

    name: values.CollectionName
    """Its name: the same on all nodes that share it."""
    priority: PriorityName = "medium"
    """Which collection goes first when there is more to send than the network takes."""
    conflicts: Conflicts | None = None
    """What decides between writes that did not know of each other: the same on all nodes that share it.  Without it, as
    the collection is held here, and `latest` for a new one."""
    indexes: Annotated[tuple[values.IndexedField, ...], After(values.distinct)] = ()
    """Fields by which documents are found at once, such as `team` or `position.lat`; at this node only."""
    where: Annotated[tuple[str, ...], After(values.query)] = ()
    """Which documents: those of which all of the conditions hold, as in `team=blue`; `[]` for all."""
    retain: Annotated[str, After(values.retention)] = "all"
    """What is kept here of what was overwritten: `all`, `latest`, what was written within a time such as `30d` or
    `12h`, or what arrived last, as `10000 entries`."""
    history: History | None = None
    """How much of the past is fetched: `full`, or `latest` for only what the documents are made of now.  Without it,
    `full`, or `latest` where `retain` is."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: object) -> object:
        return {"name": data} if isinstance(data, str) else data


class DiscoveryConfig(_Model):
    """How peers are found, besides those that are named."""

    mdns: values.Truth = True
    """Announce this node on the local network by mDNS, and look for peers there."""
    dns: Annotated[tuple[values.LookedUpName, ...], After(values.distinct)] = ()
    """Names that stand for peers, as NAME or NAME:PORT: Kubernetes' headless services, zones with our records."""
    exchange: values.Truth = True
    """Tell those who share a collection where this node can be reached, and dial others of whom they tell."""


class LimitsConfig(_Model):
    """Bounds that an owner sets."""

    rate_bytes_per_s: values.Rate | None = None
    """How much this node sends in a second, over all peers; without it, as much as the network takes."""
    peer_rate_bytes_per_s: values.Rate | None = None
    """How much this node sends in a second to each peer that has no rate of its own."""
    relay_bytes: values.Bytes | None = None
    """How much disk the collections take that are relayed for others; without it, 1 GiB."""
    root_check_s: values.Seconds | None = None
    """How often the ends of an idle connection compare what they hold, in seconds; without it, every 30."""

    def over(self, limits: Limits) -> Limits:
        """The limits with what the owner set."""
        quota = self.relay_bytes
        return replace(
            limits,
            root_check_seconds=self.root_check_s or limits.root_check_seconds,
            send_bytes_per_second_max=self.rate_bytes_per_s or limits.send_bytes_per_second_max,
            peer_send_bytes_per_second_max=self.peer_rate_bytes_per_s or limits.peer_send_bytes_per_second_max,
            relay_bytes_max=limits.relay_bytes_max if quota is None else quota,
        )


class Config(_Model):
    """All of a node's configuration.

    Lists take the short forms too: `Config(collections=["notes"], peers=["HEX@10.0.12.2:4433"])`.
    InvalidConfigError (a ConfigError) lists everything that is wrong.
    """

    name: values.Name = ""
    """What people call this node."""
    data_dir: values.FilePath = Field(default_factory=lambda: default_data_dir(os.environ))
    """The directory with the key and the store; by default the platform's.  Relative to the configuration file."""
    listen: Annotated[tuple[values.ListenAddress, ...], After(values.distinct), After(values.some)] = (
        HostPort("0.0.0.0", DEFAULT_PORT),
    )
    """Where to listen, as IP:PORT; port 0 lets the system choose, and so does this key left out while 4433 is taken."""
    interfaces: Annotated[tuple[values.InterfaceName, ...], After(values.distinct)] = ()
    """The network interfaces for discovery and dialling; all where none is named.  One that is not there is awaited."""
    trust: Trust = "closed"
    """Who may connect: named and accepted peers, whoever holds the mesh key, or anyone."""
    durability: Durability = "full"
    """When a write is acknowledged: on the disk, or committed."""
    mesh_key_file: values.FilePath | None = None
    """The file with the key that the mesh shares: 64 hexadecimal digits.  Relative to the configuration file."""
    discovery: DiscoveryConfig = DiscoveryConfig()
    """How peers are found, besides those that are named."""
    peers: tuple[PeerConfig, ...] = ()
    """The peers that are trusted."""
    collections: tuple[CollectionConfig, ...] = ()
    """The collections that are replicated."""
    relay: values.Truth = False
    """Store and forward the collections of peers for those that cannot reach each other."""
    limits: LimitsConfig = LimitsConfig()
    """Bounds that the owner sets."""
    http: values.LocalAddress | None = None
    """Where to serve the dashboard and the control API, as IP:PORT on localhost; not at all by default."""
    log_format: LogFormat = "text"
    """Logs for people or for programs."""
    log_level: LogLevel = "info"
    """The least important message that is logged."""

    if TYPE_CHECKING:
        # What type checkers should let callers write; pydantic's own constructor does the work.
        def __init__(
            self,
            *,
            name: str = ...,
            data_dir: str | Path = ...,
            listen: Iterable[str | HostPort] = ...,
            interfaces: Iterable[str] = ...,
            trust: Trust = ...,
            durability: Durability = ...,
            mesh_key_file: str | Path | None = ...,
            discovery: DiscoveryConfig | Mapping[str, object] = ...,
            peers: Iterable[str | PeerConfig | Mapping[str, object]] = ...,
            collections: Iterable[str | CollectionConfig | Mapping[str, object]] = ...,
            relay: bool = ...,
            limits: LimitsConfig | Mapping[str, object] = ...,
            http: str | HostPort | None = ...,
            log_format: LogFormat = ...,
            log_level: LogLevel = ...,
        ) -> None: ...

    @model_validator(mode="wrap")
    @classmethod
    def _report_everything(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        # The checks across keys look at the raw input, so that they report also where a single key is wrong.
        problems = list(_problems_across_keys(data)) if isinstance(data, Mapping) else []
        try:
            config = handler(data)
        except ValidationError as error:
            raise InvalidConfigError([*problems_of(error, cls), *problems]) from None
        if problems:
            raise InvalidConfigError(problems)
        return config

    def refuse_self(self, own: EndpointId) -> None:
        """Check that no peer is this node itself.  InvalidConfigError: one is."""
        problems = [
            Problem(("peers", position, "id"), "is this node's own id; expected the id of another node")
            for position, peer in enumerate(self.peers)
            if peer.id == own
        ]
        if problems:
            raise InvalidConfigError(problems)


def _problems_across_keys(data: Mapping[str, object]) -> Iterator[Problem]:
    yield from _repeated(data, "peers", "id", "the same peer as {}; expected one item with all its addresses")
    yield from _repeated(data, "collections", "name", "the same collection as {}; expected each once")
    if data.get("trust") == "mesh-key" and not data.get("mesh_key_file"):
        yield Problem(("trust",), "mesh-key needs the key of the mesh; expected its file as mesh_key_file")


def _repeated(data: Mapping[str, object], key: str, part: str, message: str) -> Iterator[Problem]:
    items = data.get(key)
    if not isinstance(items, list | tuple):
        return
    first: dict[str, int] = {}
    for position, item in enumerate(items):
        match item:
            case str():
                found: object = item.partition("@")[0] if key == "peers" else item
            case Mapping():
                found = item.get(part)
            case _:
                found = getattr(item, part, None)
        if not isinstance(found, str | EndpointId):
            continue
        text = str(found).lower() if key == "peers" else str(found)
        if text in first:
            location = (key, position) if isinstance(item, str) else (key, position, part)
            yield Problem(location, message.format(key_of((key, first[text]))))
        first.setdefault(text, position)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a configuration file, for editors.  `meshsync/config.schema.json` holds it."""
    schema: dict[str, Any] = _without_titles(Config.model_json_schema())
    schema["description"] = "A node's configuration."
    schema["properties"]["listen"]["minItems"] = 1
    schema["properties"]["listen"]["default"] = [str(address) for address in Config.model_fields["listen"].default]
    # The short forms, which pydantic does not know of.
    for name, pattern in (("PeerConfig", "^[0-9a-fA-F]{64}@.+:[0-9]{1,5}$"), ("CollectionConfig", "^.+$")):
        schema["$defs"][name] = {"anyOf": [{"type": "string", "pattern": pattern}, schema["$defs"][name]]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "meshsync configuration", **schema}


def _without_titles(schema: Any) -> Any:
    """The titles that pydantic derives from names say nothing."""
    if isinstance(schema, dict):
        return {k: _without_titles(v) for k, v in schema.items() if k != "title" or not isinstance(v, str)}
    return [_without_titles(item) for item in schema] if isinstance(schema, list) else schema
