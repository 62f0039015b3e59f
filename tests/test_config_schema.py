from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshsync.config import Config, json_schema, load_config, models
from meshsync.errors import ConfigError

A = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
B = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"

EXAMPLE = f"""\
name: relay-1
data_dir: /var/lib/meshsync
listen: ["0.0.0.0:4433"]
interfaces: [eth0]
trust: mesh-key
durability: full
mesh_key_file: /etc/meshsync/mesh.key
discovery: {{mdns: false, dns: [mesh.example, "other.example:5000"]}}
peers:
  - {{id: {A}, addresses: ["10.0.12.2:4433", "relay.example:4433"], name: relay-2}}
  - {B}@10.0.12.3:4433
collections:
  - {{name: notes, priority: high, where: [], history: full}}
  - telemetry
relay: true
limits: {{rate_bytes_per_s: 60000, relay_bytes: 5000, root_check_s: 10}}
http: 127.0.0.1:8080
log_format: json
log_level: warning
"""

KINDS = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "null": type(None)}

# The part of JSON Schema (2020-12) that the file uses: for each keyword and the type it applies to, whether a value
# passes.  Another keyword is a KeyError below, so that nothing passes unseen.
CHECKS: dict[str, tuple[type, Callable[[Any, Any, dict[str, Any]], bool]]] = {
    "type": (
        object,
        lambda kind, value, _: isinstance(value, KINDS[kind]) and not (kind == "integer" and isinstance(value, bool)),
    ),
    "enum": (object, lambda choices, value, _: value in choices),
    "pattern": (str, lambda pattern, value, _: re.search(pattern, value) is not None),
    "minLength": (str, lambda least, value, _: len(value) >= least),
    "maxLength": (str, lambda most, value, _: len(value) <= most),
    "minimum": (int, lambda least, value, _: value >= least),
    "minItems": (list, lambda least, value, _: len(value) >= least),
    "required": (dict, lambda keys, value, _: set(keys) <= set(value)),
    "additionalProperties": (dict, lambda _, value, schema: value.keys() <= schema["properties"].keys()),
}
NOTES = {"$schema", "$defs", "title", "description", "default"}


def complaints(root: dict[str, Any], value: Any) -> list[str]:
    """What in a value a schema does not allow."""

    def walk(schema: dict[str, Any], value: Any, at: str) -> Iterator[str]:
        for keyword, argument in schema.items():
            if keyword == "$ref":
                yield from walk(root["$defs"][argument.removeprefix("#/$defs/")], value, at)
            elif keyword == "anyOf":
                if all(list(walk(option, value, at)) for option in argument):
                    yield f"{at}: anyOf"
            elif keyword == "items":
                for item in value if isinstance(value, list) else ():
                    yield from walk(argument, item, f"{at}[]")
            elif keyword == "properties":
                for key in argument.keys() & (value.keys() if isinstance(value, dict) else set()):
                    yield from walk(argument[key], value[key], f"{at}.{key}")
            elif keyword not in NOTES:
                kind, passes = CHECKS[keyword]
                if isinstance(value, kind) and not passes(argument, value, schema):
                    yield f"{at}: {keyword}"

    return list(walk(root, value, ""))


def test_schema_file_is_the_schema_of_the_models() -> None:
    """Otherwise editors offer keys that are refused.

    Mend it with `python -m meshsync.config > meshsync/config.schema.json`.
    """
    assert json.loads((Path(models.__file__).parents[1] / "config.schema.json").read_text()) == json_schema()


def test_example_uses_every_key_and_passes_both_schema_and_models(tmp_path: Path) -> None:
    """The schema agrees with the models on what is right."""
    file = tmp_path / "mesh.yaml"
    file.write_text(EXAMPLE)
    values = yaml.safe_load(EXAMPLE)
    assert values.keys() == Config.model_fields.keys()
    assert complaints(json_schema(), values) == []
    assert load_config(file).peers[0].addresses == (("10.0.12.2", 4433), ("relay.example", 4433))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("name: relay-1", "names: relay-1"),
        ("trust: mesh-key", "trust: anyone"),
        ("mdns: false", "mdns: 3"),
        ("relay: true", "relay: 2"),
        ("relay_bytes: 5000", "relay_bytes: -1"),
        ("rate_bytes_per_s: 60000", "rate_bytes_per_s: 6e4"),
        ("rate_bytes_per_s: 60000", "rate_bytes_per_s: 999"),
        (f"id: {A}", f"id: {A[1:]}"),
        ("name: notes, ", ""),
        ('["0.0.0.0:4433"]', "[]"),
        ('["0.0.0.0:4433"]', "4433"),
        ('"10.0.12.2:4433"', "10.0.12.2"),
        ("  - telemetry", '  - ""'),
        (f"{B}@10", f"{B}"),
        ("priority: high", "priority: highest"),
    ],
)
def test_schema_and_models_refuse_the_same_slips(tmp_path: Path, right: str, wrong: str) -> None:
    """The schema agrees with the models on what is wrong, as far as a schema can say it."""
    assert EXAMPLE.count(right) == 1
    text = EXAMPLE.replace(right, wrong)
    file = tmp_path / "mesh.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        load_config(file)
    assert complaints(json_schema(), yaml.safe_load(text)) != []


def test_schema_ships_with_the_package_and_prints() -> None:
    """The command in the message above has to work."""
    done = subprocess.run([sys.executable, "-m", "meshsync.config"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json_schema()
