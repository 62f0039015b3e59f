from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.config import Config, load_config
from meshsync.config.document import read_document
from meshsync.core.limits import LIMITS
from meshsync.errors import ConfigError

A = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
DIGITS = "1" * 63 + "2"


def written(directory: Path, text: str | bytes) -> Path:
    path = directory / "mesh.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path: Path) -> list[str]:
    """The lines of the error, without the path."""
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}:") for line in lines)
    return [line.removeprefix(f"{path}:") for line in lines]


@pytest.mark.parametrize(
    "text", ["", "\n\n", "# nothing yet\n", "---\n", "null\n", "\ufeff# with a byte order mark", "peers:\n"]
)
def test_empty_file_means_the_defaults(tmp_path: Path, text: str) -> None:
    """A file with everything commented out is where people begin."""
    assert load_config(written(tmp_path, text)) == Config()


def test_null_means_not_set(tmp_path: Path) -> None:
    """`peers:` with every item commented out is no error, and `~` is YAML's word for nothing."""
    text = "name: ~\npeers:\n# - commented out\nhttp: null\ndiscovery:\nmesh_key_file:\n"
    assert load_config(written(tmp_path, text)) == Config()


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file must mean the same from every directory, and in a lab that was moved."""
    (tmp_path / "lab").mkdir()
    written(tmp_path / "lab", "data_dir: node-1\nmesh_key_file: ../mesh.key\ntrust: mesh-key")
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("lab/mesh.yaml"))
    assert config.data_dir == tmp_path / "lab" / "node-1"
    assert config.mesh_key_file is not None
    assert config.mesh_key_file.resolve() == tmp_path / "mesh.key"

    monkeypatch.setenv("HOME", "/srv/somebody")
    config = load_config(written(tmp_path, "data_dir: ~/mesh\nmesh_key_file: /etc/mesh.key"))
    assert config.data_dir == Path("/srv/somebody/mesh")
    assert config.mesh_key_file == Path("/etc/mesh.key")


def test_scalars_mean_what_is_written(tmp_path: Path) -> None:
    """YAML 1.1 makes false of `no`, 750 of 12:30, a date of 2024-01-01 and a number of an id of digits."""
    text = f"name: no\ncollections: [on, 12:30, 0x10, 1e3, 2024-01-01, 010, .5]\npeers: [{{id: {DIGITS}, name: 007}}]\n"
    config = load_config(written(tmp_path, text))
    assert config.name == "no"
    assert [one.name for one in config.collections] == ["on", "12:30", "0x10", "1e3", "2024-01-01", "010", ".5"]
    assert str(config.peers[0].id) == DIGITS
    assert config.peers[0].name == "007"


@pytest.mark.parametrize(
    "text", ["1e3", "0x1000", "12:30", "1_000", "010000", "+5000", "5000.0", "yes", "5 000", "٥٠٠٠"]
)
def test_number_that_is_not_plain_is_refused(tmp_path: Path, text: str) -> None:
    """Each of them is a number in one reader of YAML and another or none in the next."""
    (line,) = refused(written(tmp_path, f"limits:\n  rate_bytes_per_s: {text}\n"))
    assert line.startswith("2: limits.rate_bytes_per_s: ")
    assert line.endswith("is not a whole number; expected decimal digits, such as 60000")


@pytest.mark.parametrize("text", ["no", "yes", "on", "off", "True", "FALSE", "1", "y"])
def test_truth_is_true_or_false(tmp_path: Path, text: str) -> None:
    """YAML 1.1 and 1.2 disagree on the others."""
    (line,) = refused(written(tmp_path, f"discovery: {{mdns: {text}}}"))
    assert line == f"1: discovery.mdns: '{text}' is not a truth value; expected true or false"


def test_every_slip_of_a_file_is_reported_by_line(tmp_path: Path) -> None:
    """A transcript: each line of the file has one slip, and each slip one line, in the order of the file."""
    text = f"""\
nmae: relay-1
listen: ["4433"]
trust: all
peers:
  - {{id: 3b6a27bc}}
  - id: {A}
    adresses: ["10.0.12.2:4433"]
  - name: nobody
  - {A}@10.0.12.2:4433
  - {"00" * 32}@10.0.12.2:4433
  -
  - {{id: {DIGITS}, addresses: ["10.0.12.2"]}}
collections:
  - {{name: notes, where: ["team=="]}}
  - {{name: maps, history: some}}
  - notes
name: a
name: b
discovery: {{mdns: 1}}
? [a, list]
: as a key
"""
    assert [line.split(";")[0].split(" '")[0] for line in refused(written(tmp_path, text))] == [
        "1: nmae: unknown key",
        "2: listen[0]:",
        "3: trust:",
        "5: peers[0].id:",
        "7: peers[1].adresses: unknown key",
        "8: peers[2].id: is missing",
        "9: peers[3]: the same peer as peers[1]",
        f"10: peers[4]: {'00' * 32} is no usable Ed25519 public key: small order or not canonical",
        "11: peers: has an empty list item",
        "12: peers[5].addresses[0]:",
        "14: collections[0].where: query",
        "15: collections[1].history:",
        "16: collections[2]: the same collection as collections[0]",
        "18: name: the key",
        "19: discovery.mdns:",
        "20: a key is a list or a mapping",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: a\nname: b", "2: name: the key 'name' is there already, in line 1; expected it once"),
        ("peers: [{id: x, id: x}]", "1: peers[0].id: the key 'id' is there already, in line 1; expected it once"),
        ("name: &a x\ntrust: *a", "2: is not understood as YAML: aliases (*name) are not supported; write the value"),
        ("name: !!python/object:os.system x", "1: is not understood as YAML: tags (!name) are not supported"),
        ("name: !!str x", "1: is not understood as YAML: tags"),
        ("name: a\n---\nname: b", "2: is not understood as YAML: a second document begins here; expected one"),
        ("<<: {name: a}", "1: <<: unknown key"),
        ("a: " + "[" * 1000, "1: is not understood as YAML: more than 16 levels"),
        ("name: [a", "1: is not understood as YAML: "),
        ("name:\n\t- x", "2: is not understood as YAML: "),
        ("name: a\n  trust: b", "2: is not understood as YAML: "),
        ("name: 'open", "1: is not understood as YAML: "),
        ("- name: a", "1: has no keys; expected lines such as `name: relay-1`"),
        ("\nname", "2: has no keys; expected lines such as"),
        (r'name: "\UFFFFFFFF"', "1: is not understood as YAML"),
        ("%YAML 1." + "1" * 5000, "1: is not understood as YAML"),
        (r'name: "\uD800"', r"1: name: '\ud800' has control characters"),
        (r'data_dir: "/\uD800"', r"1: data_dir: '/\ud800' is not a path"),
        (r'collections: ["\uD800"]', r"1: collections[0].name: '\ud800' has control characters"),
        (r'"\e[2J\n": x', r"1: '\x1b[2J\n': unknown key"),
        ("%YAML 1.2\n---\nnames: a", "3: names: unknown key"),
        ("name: a\n\nx: \x07", "3: has a character that YAML does not allow"),
    ],
)
def test_what_makes_yaml_surprising_is_refused(tmp_path: Path, text: str, line: str) -> None:
    """Duplicate keys and merges hide settings, aliases and depth blow up, tags run code elsewhere."""
    assert any(found.startswith(line) for found in refused(written(tmp_path, text))), refused(tmp_path / "mesh.yaml")


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: Path) -> None:
    """Somebody gave the wrong file, or an editor another encoding."""
    assert refused(written(tmp_path, b"name: a\ntrust: \xe9")) == ["2: is not text; expected YAML in UTF-8"]


def test_billion_laughs_end_at_the_first_alias(tmp_path: Path) -> None:
    """Nine lines would else become a billion strings."""
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))]
    (line,) = refused(written(tmp_path, "\n".join(lines)))
    assert line.startswith("2: ")


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Otherwise the owner sees a traceback."""
    for path, says in [(tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")]:
        with pytest.raises(ConfigError, match=f"^{path}: cannot be read: {says}"):
            load_config(path)
    with pytest.raises(ConfigError, match="is too large"):
        load_config(written(tmp_path, b"#" * (LIMITS.config_bytes_max + 1)))


def test_lines_lead_to_keys_and_items(tmp_path: Path) -> None:
    """What comes after reading has to find the place again."""
    document = read_document(written(tmp_path, "name: x\npeers:\n  - id: a\n    addresses:\n      - b\n"))
    assert document.lines == {
        ("name",): 1,
        ("peers",): 2,
        ("peers", 0): 3,
        ("peers", 0, "id"): 3,
        ("peers", 0, "addresses"): 4,
        ("peers", 0, "addresses", 0): 5,
    }
    assert document.line_of(("peers", 0, "name")) == 3
    assert document.line_of(("trust",)) == 1


# What YAML and the models give a meaning to, and what neither expects.
PIECES = r"name peers listen : - [ ] { } , ~ &a *a !t # ' \" | > ? --- ... % <<  0x1 @h:1 h:99999".split()
PIECES += [A, " ", "\n", "\n  ", "\t", "\0", "\x85", "\u2028", "🙂", "\ud7ff"]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join).map(str.encode) | st.binary(max_size=200))
def test_any_bytes_give_a_configuration_or_an_error_with_the_path(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    """A traceback in place of a message is what a broken file must never give."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    try:
        load_config(path)
    except ConfigError:
        refused(path)
