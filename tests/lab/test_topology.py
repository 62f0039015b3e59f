from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshsync.errors import ConfigError
from meshsync.lab.drivers.base import read_lab
from meshsync.lab.drivers.namespaces import NamespaceLab
from meshsync.lab.generate import write_lab
from meshsync.lab.shapes import SHAPES, make_shape
from meshsync.lab.topology import End, find_topology, read_topology
from tests.lab.labs import PAIR, TOPOLOGIES, write_files

SCHEMA = Path(__file__).parents[2] / "../shared/containerlab/clab.schema.json"
"""containerlab's own, where it is beside the checkout."""
SHIPPED = sorted(path.parent for path in TOPOLOGIES.glob("*/scenario.yml"))


def test_a_topology_is_read(tmp_path: Path) -> None:
    """Nodes, links, addresses."""
    topology = read_topology(find_topology(write_files(tmp_path / "pair")))
    assert topology.name == "pair"
    assert [str(link.a) + " " + str(link.b) for link in topology.links] == ["a:eth1 b:eth1"]
    assert [str(address) for address in topology.addresses_towards("a", "b")] == ["10.0.0.1/30"]


def test_defaults_and_kinds_are_merged_as_containerlab_does_it(tmp_path: Path) -> None:
    """Otherwise the same file means two things."""
    folder = write_files(
        tmp_path / "merged",
        """
        name: merged
        topology:
          defaults: {kind: linux, env: {A: all, B: all}, exec: [first], sysctls: {net.ipv4.ip_forward: 1}}
          kinds:
            linux: {image: one, env: {B: kind}, exec: [second]}
          nodes:
            a: {image: two, env: {C: own}, exec: [third]}
        """,
    )
    node = read_topology(find_topology(folder)).nodes["a"]
    assert (node.image, node.env, node.exec) == (
        "two",
        {"A": "all", "B": "kind", "C": "own"},
        ("first", "second", "third"),
    )
    assert node.sysctls == {"net.ipv4.ip_forward": "1"}


def test_a_bridge_joins_its_links_to_one_segment(tmp_path: Path) -> None:
    """Otherwise nodes on one switch do not know where the others are."""
    folder = tmp_path / "lan"
    write_lab(folder, "lan", make_shape("lan", 3), "nominal")
    topology = read_topology(find_topology(folder))
    assert set(topology.segment(End("n1", "eth1"))) == {End("n1", "eth1"), End("n2", "eth1"), End("n3", "eth1")}
    assert [str(address.ip) for address in topology.addresses_towards("n3", "n1")] == ["10.0.0.3"]
    assert [link.name for link in topology.links] == ["n1-sw", "n2-sw", "n3-sw"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"b:eth1"]', '"b:eth1", "a:eth2"]'), "3 ends"),
        (('"a:eth1", "b:eth1"', '"a:eth1", "a:eth1"'), r"a:eth1 is used by links\[0\] already"),
        (('"b:eth1"', '"c:eth1"'), "'c' is no node of this file; expected one of a, b"),
        (('"b:eth1"', '"b:an-interface-too-long"'), "no name of an interface"),
        (('"b:eth1"', '"b"'), "no end of a link"),
        (('"b:eth1"', '"host:veth1"'), "leave the lab"),
        (('"b:eth1"', '"b:lo"'), "lo is taken"),
        (("kind: linux, exec: [ip address add 10.0.0.1", "kind: srl, exec: [ip address add 10.0.0.1"), "kind 'srl'"),
        (("name: pair", "name: 'a b'"), "no name of a lab"),
        (("    a: {", "    a_: {"), "'a' is no node"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    """Neither the schema nor containerlab itself checks most of these before it deploys."""
    folder = write_files(tmp_path / "pair", PAIR.replace(*change))
    with pytest.raises(ConfigError, match=rf"pair\.clab\.yml:\d+: .*{message}"):
        read_topology(find_topology(folder))


WAITS = """
name: waits
topology:
  defaults: {kind: linux}
  nodes:
    a: {stages: {create: {wait-for: [{node: b, stage: healthy}]}}}
    b: {stages: {create: {wait-for: [{node: c, stage: healthy}]}}}
    c: {stages: {create: {wait-for: [{node: END, stage: healthy}]}}}
"""


def test_a_cycle_of_waiting_nodes_is_found(tmp_path: Path) -> None:
    """Otherwise nothing would ever start."""
    folder = write_files(tmp_path / "waits", WAITS.replace("END", "a"))
    with pytest.raises(ConfigError, match="waits for itself: a -> b -> c -> a"):
        read_topology(find_topology(folder))


def test_a_node_that_nobody_knows_is_waited_for(tmp_path: Path) -> None:
    """Otherwise the lab never starts, and does not say why."""
    with pytest.raises(ConfigError, match="waits for 'd', which is no node"):
        read_topology(find_topology(write_files(tmp_path / "waits", WAITS.replace("END", "d"))))


def test_nodes_may_wait_for_each_other_in_any_order_without_a_cycle(tmp_path: Path) -> None:
    """Otherwise a diamond is taken for a cycle."""
    text = WAITS.replace("[{node: END, stage: healthy}]", "[]").replace(
        "[{node: b, stage: healthy}]", "[{node: b, stage: healthy}, {node: c, stage: healthy}]"
    )
    assert len(read_topology(find_topology(write_files(tmp_path / "waits", text))).nodes) == 3


def test_a_folder_without_a_topology_is_named(tmp_path: Path) -> None:
    """The first thing that goes wrong for a newcomer."""
    with pytest.raises(ConfigError, match=r"has no files \*\.clab\.yml"):
        find_topology(tmp_path)
    with pytest.raises(ConfigError, match="is no folder"):
        find_topology(tmp_path / "nowhere")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [2, 3, 12])
def test_what_is_generated_is_right(tmp_path: Path, shape: str, count: int) -> None:
    """`lab new` must never write what `lab check` refuses."""
    if shape == "pair" and count != 2:
        return
    folder = tmp_path / f"{shape}-{count}"
    write_lab(folder, shape, make_shape(shape, count), "tactical-radio")
    lab = read_lab(folder)
    assert len(lab.scenario.nodes) == count
    assert all(lab.scenario.links[link.name].forward.loss == 0.05 for link in lab.topology.links)
    readme = (folder / "README.md").read_text()
    assert readme.startswith(f"# {folder.name}: {count} nodes, {shape}\n")
    assert f"    sudo meshsync lab run {folder.name}\n" in readme


@pytest.mark.parametrize("name", ["a b", "-x", "x" * 64, "lab\n"])
def test_a_folder_that_cannot_name_a_lab_is_refused(tmp_path: Path, name: str) -> None:
    """Otherwise `lab check` refuses it afterwards, or the kernel does: it bounds the names of namespaces."""
    with pytest.raises(ConfigError, match="is no name of a lab; expected at most 63 letters"):
        write_lab(tmp_path / name, "pair", make_shape("pair", 2), "nominal")
    assert not (tmp_path / name).exists()


def test_the_longest_names_make_a_name_that_a_file_may_have(tmp_path: Path) -> None:
    """A namespace is a file, and its name has at most 255 bytes."""
    node, folder = "n" * 63, tmp_path / ("l" * 63)
    text = (
        PAIR.replace("name: pair", f"name: {folder.name}").replace("    a:", f"    {node}:").replace('"a:', f'"{node}:')
    )
    lab = read_lab(
        write_files(folder, text, "defaults: {collections: [notes], trust: open}\nexpect: [delivered >= 1%]\n")
    )
    assert len(NamespaceLab(lab).namespace(node).encode()) <= 255


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in TOPOLOGIES.glob("*/scenario.yml")), ids=lambda p: p.name
)
def test_the_topologies_that_ship_are_right(folder: Path) -> None:
    """They are the first that a newcomer runs."""
    assert read_lab(folder).name == folder.name
    assert (folder / "README.md").is_file()


@pytest.mark.skipif(not SCHEMA.is_file(), reason="containerlab's schema is not beside this checkout")
@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*/*.clab.yml")), ids=lambda p: p.stem)
def test_the_topologies_that_ship_are_valid_containerlab(path: Path) -> None:
    """Otherwise they run here and nowhere else."""
    import jsonschema
    import yaml

    # Python's `re` knows no Unicode properties; \w is what they come to.
    schema = json.loads(SCHEMA.read_text(encoding="utf-8").replace(r"[\\p{N}\\p{L}]", r"\\w"))
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), schema)
