from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

from meshsync.addresses import HostPort
from meshsync.config import (
    CollectionConfig,
    Config,
    InvalidConfigError,
    PeerConfig,
    models,
    resolve_settings,
)
from meshsync.datadir import default_data_dir
from meshsync.errors import ConfigError
from meshsync.ids import EndpointId

A = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
B = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"


def test_short_forms_mean_what_the_long_forms_say() -> None:
    """The first program that anyone writes has Config(collections=["notes"])."""
    short = Config(name="n", collections=["notes"], peers=[f"{A}@[::1]:4433"], listen=["127.0.0.1:0"])
    long = Config(
        name="n",
        collections=[CollectionConfig(name="notes", priority="medium", where=(), history=None)],
        peers=[PeerConfig(id=EndpointId.parse(A), addresses=(HostPort("::1", 4433),), name="")],
        listen=[HostPort("127.0.0.1", 0)],
    )
    assert short == long
    assert short.peers[0].id == bytes.fromhex(A)


def test_defaults_are_the_documented_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A node that nobody configured must be closed, durable and silent on TCP."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    config = Config()
    assert config.trust == "closed"
    assert config.durability == "full"
    assert config.listen == (HostPort("0.0.0.0", 4433),)
    assert config.http is None
    assert config.discovery.mdns is True
    assert config.data_dir == default_data_dir({"XDG_DATA_HOME": str(tmp_path), "HOME": str(tmp_path)})


def test_configuration_is_frozen() -> None:
    """Whoever holds it relies on it; changing it would change nothing, or half of something."""
    with pytest.raises(ValueError, match="frozen"):
        Config().name = "other"


def test_the_typed_constructor_names_every_key() -> None:
    """It stands beside the fields for type checkers only, and must not fall behind them."""
    tree = ast.parse(inspect.getsource(models))
    found = [
        [argument.arg for argument in function.args.kwonlyargs]
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name == "__init__"
    ]
    assert found == [list(Config.model_fields)]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"collection": ["notes"]}, "collection: unknown key; did you mean collections?"),
        ({"data-dir": "x"}, "data-dir: unknown key; did you mean data_dir?"),
        ({"zzz": 1}, "zzz: unknown key; expected one of collections, data_dir, "),
        ({"peers": [{"id": A, "adresses": []}]}, "peers[0].adresses: unknown key; did you mean addresses?"),
        ({"peers": [{"addresses": []}]}, "peers[0].id: is missing; expected as id: The peer's endpoint id"),
        ({"peers": [{"id": A[:-1]}]}, f"peers[0].id: '{A[:-1]}' is no endpoint id; expected 64 hexadecimal digits"),
        ({"peers": [{"id": 12}]}, "peers[0].id: 12 is no endpoint id"),
        ({"peers": [{"id": "00" * 32}]}, f"peers[0].id: {'00' * 32} is no usable Ed25519 public key: small order"),
        ({"peers": [f"{'00' * 32}@h:1"]}, f"peers[0]: {'00' * 32} is no usable Ed25519 public key: small order"),
        ({"peers": [{"id": A, "addresses": ["h"]}]}, "peers[0].addresses[0]: 'h' has no port; expected HOST:PORT"),
        ({"peers": [{"id": A, "addresses": ["h:0"]}]}, "peers[0].addresses[0]: 'h:0' has port 0; expected a port"),
        ({"peers": [{"id": A, "addresses": [5]}]}, "peers[0].addresses[0]: 5 is not an address; expected HOST:PORT"),
        ({"peers": [{"id": A, "addresses": ["h:1"] * 2}]}, "peers[0].addresses: 'h:1' is listed twice"),
        ({"peers": [{"id": A, "name": "a\nb"}]}, "peers[0].name: 'a\\nb' has control characters"),
        ({"peers": [f"{A}@h:1", {"id": A.upper()}]}, "peers[1].id: the same peer as peers[0]; expected one item"),
        ({"peers": f"{A}@h:1"}, f"peers: '{A}@h:1' is not a list; expected a list"),
        ({"peers": [7]}, "peers[0]: 7 is not a mapping; expected keys and values, of addresses, id, name"),
        ({"collections": ["n", {"name": "n"}]}, "collections[1].name: the same collection as collections[0]"),
        ({"collections": [""]}, "collections[0].name: '' is no name; expected 1 to 128 bytes"),
        ({"collections": ["é" * 65]}, "is no name; expected 1 to 128 bytes of UTF-8"),
        ({"collections": [" n"]}, "collections[0].name: ' n' has control characters or outer blanks"),
        ({"collections": [{"name": "n", "where": ["a"]}]}, "collections[0].where: "),
        ({"collections": [{"name": "n", "history": "some"}]}, "collections[0].history: "),
        (
            {"collections": [{"name": "n", "retain": "30"}]},
            "retain: '30' does not say what to keep; expected",
        ),
        ({"collections": [{"name": "n", "retain": 30}]}, "collections[0].retain: 30 is not a text; expected a text"),
        ({"collections": [{"name": "n", "priority": "HIGH"}]}, "collections[0].priority: 'HIGH' is not one of the ch"),
        ({"discovery": {"mdns": 1}}, "discovery.mdns: 1 is not a truth value; expected true or false"),
        ({"discovery": True}, "discovery: True is not a mapping; expected keys and values, of dns, exchange, mdns"),
        ({"discovery": {"dns": ["10.0.0.1"]}}, "discovery.dns[0]: '10.0.0.1' is no name to look up; expected NAME or"),
        ({"discovery": {"dns": ["a b"]}}, "discovery.dns[0]: 'a b' has the host 'a b'; expected an IP address or"),
        ({"discovery": {"dns": ["m", "m:4433"]}}, "discovery.dns: 'm' is listed twice; expected each once"),
        ({"relay": 1}, "relay: 1 is not a truth value; expected true"),
        ({"limits": {"rate_bytes_per_s": True}}, "limits.rate_bytes_per_s: True is not a whole number"),
        ({"limits": {"rate_bytes_per_s": 1.5}}, "limits.rate_bytes_per_s: 1.5 is not a whole number"),
        ({"limits": {"rate_bytes_per_s": 999}}, "limits.rate_bytes_per_s: 999 is too small; expected at least 1000"),
        ({"limits": {"peer_rate_bytes_per_s": "1k"}}, "limits.peer_rate_bytes_per_s: '1k' is not a whole number"),
        ({"peers": [{"id": A, "rate_bytes_per_s": 9}]}, "peers[0].rate_bytes_per_s: 9 is too small; expected at least"),
        ({"limits": {"root_check_s": 0}}, "limits.root_check_s: 0 is too small; expected at least 1"),
        ({"limits": {"rate_bytes_per_s": -1}}, "limits.rate_bytes_per_s: -1 is too small"),
        ({"interfaces": ["eth0", "eth0"]}, "interfaces: 'eth0' is listed twice; expected each once"),
        ({"interfaces": ["eth 0"]}, "interfaces[0]: 'eth 0' is no name of an interface; expected one that `ip link`"),
        ({"interfaces": ["a-name-too-long!"]}, "interfaces[0]: 'a-name-too-long!' is no name of an interface"),
        ({"limits": {"relay_bytes": "1 GiB"}}, "limits.relay_bytes: '1 GiB' is not a whole number"),
        ({"limits": {"relay_bytes": -1}}, "limits.relay_bytes: -1 is too small; expected at least 0"),
        ({"trust": "everyone"}, "trust: 'everyone' is not one of the choices; expected 'closed', 'mesh-key' or 'open'"),
        ({"trust": "mesh-key"}, "trust: mesh-key needs the key of the mesh; expected its file as mesh_key_file"),
        ({"listen": []}, "listen: an empty list; expected at least one item"),
        ({"listen": ["relay.example:4433"]}, "listen[0]: 'relay.example:4433' names a host; expected an IP address"),
        ({"http": "0.0.0.0:8080"}, "http: '0.0.0.0:8080' is not on localhost; expected 127.0.0.1:PORT"),
        ({"name": "x" * 65}, "is too long; expected at most 64 characters"),
        ({"name": 5}, "name: 5 is not a text; expected a text"),
        ({"data_dir": ""}, "data_dir: '' is not a path"),
        ({"data_dir": "~nobody-of-that-name/x"}, "expected a path without ~"),
        ({"mesh_key_file": "a\0b"}, "mesh_key_file: 'a\\x00b' is not a path"),
    ],
)
def test_bad_value_is_refused_with_its_key_and_what_was_expected(values: dict[str, Any], line: str) -> None:
    """A slip in a configuration must read as one, and must never be a setting that is silently not there."""
    with pytest.raises(InvalidConfigError) as caught:
        Config(**values)
    assert len(caught.value.problems) == 1
    assert line in str(caught.value)


def test_everything_that_is_wrong_is_reported_together() -> None:
    """Otherwise a file with ten slips takes ten starts."""
    with pytest.raises(InvalidConfigError) as caught:
        Config.model_validate({"nam": "x", "peers": [f"{A}@h", f"{A}@h:1"], "trust": "mesh-key", "http": "h:1"})
    assert {problem.location for problem in caught.value.problems} == {
        ("nam",),
        ("peers", 0),
        ("peers", 1),
        ("trust",),
        ("http",),
    }


def test_long_values_are_cut_in_messages() -> None:
    """A file given as a name must not fill the terminal."""
    with pytest.raises(InvalidConfigError) as caught:
        Config(name="x" * 100_000)
    assert len(str(caught.value)) < 200


def test_this_node_is_no_peer_of_itself() -> None:
    """It would dial itself for ever."""
    config = Config(peers=[f"{A}@h:1", f"{B}@h:1"])
    with pytest.raises(ConfigError, match=r"peers\[1\].id: is this node's own id; expected the id of another node"):
        config.refuse_self(EndpointId.parse(B))
    Config(peers=[f"{A}@h:1"]).refuse_self(EndpointId.parse(B))


def test_flag_over_environment_over_file_over_default(tmp_path: Path) -> None:
    """The order that every program keeps; an empty variable is none."""
    file = tmp_path / "mesh.yaml"
    file.write_text("name: file\ntrust: open\ndurability: normal\ncollections: [a, b]")
    environ = {"MESHSYNC_NAME": "environment", "MESHSYNC_TRUST": "closed", "MESHSYNC_DURABILITY": ""}
    config = resolve_settings({"name": "flag", "trust": None, "peer": ()}, environ, file).config
    assert config.name == "flag"
    assert config.trust == "closed"
    assert config.durability == "normal"
    assert config.log_format == "text"
    assert [collection.name for collection in config.collections] == ["a", "b"]

    config = resolve_settings({"collection": ("c",)}, {"MESHSYNC_COLLECTIONS": "d,e"}, file).config
    assert [collection.name for collection in config.collections] == ["c"]


def test_every_variable_is_read(tmp_path: Path) -> None:
    """Containers are configured by variables alone."""
    environ = {
        "MESHSYNC_NAME": "n",
        "MESHSYNC_DATA_DIR": str(tmp_path),
        "MESHSYNC_LISTEN": "127.0.0.1:1, [::1]:2",
        "MESHSYNC_INTERFACES": "eth0, wlan0,",
        "MESHSYNC_TRUST": "mesh-key",
        "MESHSYNC_DURABILITY": "normal",
        "MESHSYNC_MESH_KEY_FILE": "/run/key",
        "MESHSYNC_MDNS": "false",
        "MESHSYNC_DISCOVER": "dns:mesh.example, dns:other.example:5000",
        "MESHSYNC_PEERS": f"{A}@h:1, {B}@[::1]:2",
        "MESHSYNC_COLLECTIONS": "a, b",
        "MESHSYNC_RATE_BYTES_PER_S": "60000",
        "MESHSYNC_HTTP": "localhost:8080",
        "MESHSYNC_RELAY": "true",
        "MESHSYNC_RELAY_BYTES": "5000",
        "MESHSYNC_ROOT_CHECK_S": "10",
        "MESHSYNC_LOG_FORMAT": "json",
        "MESHSYNC_LOG_LEVEL": "debug",
        "MESHSYNC_PORT_4433_UDP": "made up by Kubernetes for a service of this name",
    }
    assert resolve_settings({}, environ, None).config == Config(
        name="n",
        data_dir=tmp_path,
        listen=["127.0.0.1:1", "[::1]:2"],
        interfaces=["eth0", "wlan0"],
        trust="mesh-key",
        durability="normal",
        mesh_key_file="/run/key",
        discovery={"mdns": False, "dns": ["mesh.example", "other.example:5000"]},
        peers=[f"{A}@h:1", f"{B}@[::1]:2"],
        collections=["a", "b"],
        relay=True,
        limits={"rate_bytes_per_s": 60000, "relay_bytes": 5000, "root_check_s": 10},
        http="127.0.0.1:8080",
        log_format="json",
        log_level="debug",
    )


def test_error_names_the_variable_the_flag_or_the_line(tmp_path: Path) -> None:
    """`peers[1]` helps nobody who never wrote a list."""
    file = tmp_path / "mesh.yaml"
    file.write_text("log_level: loud\ntrust: anyone\ndiscovery: [1]")
    with pytest.raises(ConfigError) as caught:
        resolve_settings(
            {"peer": [f"{A}@h"], "mdns": True, "trust": "open"},
            {"MESHSYNC_COLLECTIONS": "a,a", "MESHSYNC_PEERS": "ignored, since there is a flag"},
            file,
        )
    assert [line.split("; expected")[0] for line in str(caught.value).splitlines()] == [
        f"{file}:1: log_level: 'loud' is not one of the choices",
        f"{file}:3: discovery: ['1'] is not a mapping",
        "--peer: 'h' has no port",
        "MESHSYNC_COLLECTIONS: the same collection as collections[0]",
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mesh.example", "'mesh.example' does not say how to look; expected dns:NAME"),
        ("srv:mesh.example", "'srv:mesh.example' does not say how to look; expected dns:NAME"),
        ("dns:", "'' is no name to look up; expected NAME or NAME:PORT, such as mesh.example"),
        ("dns:a..b", "'a..b' has the host 'a..b'; expected an IP address or a host name in ASCII"),
    ],
)
def test_a_name_to_look_up_is_quoted_as_it_was_given(name: str, says: str) -> None:
    """Who reads of a port that they never wrote looks for the fault elsewhere; one fault is told once."""
    with pytest.raises(ConfigError) as caught:
        resolve_settings({"discover": [name]}, {}, None)
    assert str(caught.value) == f"--discover: {says}"


def test_own_id_is_reported_where_it_was_given(tmp_path: Path) -> None:
    """The own id is known only after the data directory is, so the places have to be remembered until then."""
    file = tmp_path / "mesh.yaml"
    file.write_text(f"peers:\n  - {A}@h:1\n  - id: {B}\n")
    with pytest.raises(ConfigError, match=rf"^{file}:3: peers\[1\].id: is this node's own id"):
        resolve_settings({}, {}, file).refuse_self(EndpointId.parse(B))
    with pytest.raises(ConfigError, match=r"^MESHSYNC_PEERS: is this node's own id"):
        resolve_settings({}, {"MESHSYNC_PEERS": f"{B}@h:1"}, file).refuse_self(EndpointId.parse(B))


def test_flag_that_does_not_exist_is_a_bug_of_the_caller() -> None:
    """A misspelt name in the command line's code would be a flag that does nothing."""
    with pytest.raises(TypeError, match="no such flags"):
        resolve_settings({"peers": []}, {}, None)
