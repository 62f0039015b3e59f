"""Configuration: a YAML file, environment variables and flags become one frozen `Config`.

`models` says what there is and what is accepted, `document` reads YAML, `resolve` lays the sources over each other.
Every error is a ConfigError that names where the value came from, the key, and what was expected; all errors are
reported together.

This package imports pydantic, which takes as long as everything else that a command imports.  So only `node` imports
it; what every command needs is in `meshsync.addresses` and `meshsync.datadir`.
"""

from __future__ import annotations

from meshsync.config.models import (
    CollectionConfig,
    Config,
    DiscoveryConfig,
    Durability,
    History,
    LimitsConfig,
    LogFormat,
    LogLevel,
    PeerConfig,
    PriorityName,
    Trust,
    json_schema,
)
from meshsync.config.problems import InvalidConfigError, Problem
from meshsync.config.resolve import Resolved, load_config, resolve_settings

__all__ = [
    "CollectionConfig",
    "Config",
    "DiscoveryConfig",
    "Durability",
    "History",
    "InvalidConfigError",
    "LimitsConfig",
    "LogFormat",
    "LogLevel",
    "PeerConfig",
    "PriorityName",
    "Problem",
    "Resolved",
    "Trust",
    "json_schema",
    "load_config",
    "resolve_settings",
]
