"""Shapes of networks: who is linked with whom, and who dials whom."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meshsync.errors import LocalError

NODES_MAX = 200
SWITCH = "sw"
"""Of a LAN: the node whose bridge the others are plugged into."""


@dataclass(frozen=True)
class Shape:
    """A network of so many nodes, `n1` and so on."""

    nodes: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    """Pairs of nodes; empty for a LAN."""
    dials: Mapping[str, tuple[str, ...]]
    """Whom each node names as its peers; nobody where discovery finds them."""
    is_lan: bool = False
    """All nodes are plugged into one switch."""


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"n{number}" for number in range(1, count + 1))


def _shape(count: int, pairs: list[tuple[int, int]]) -> Shape:
    """From pairs of positions; the first of each dials the second."""
    names = _names(count)
    links = tuple((names[a], names[b]) for a, b in pairs)
    return Shape(names, links, {name: tuple(b for a, b in links if a == name) for name in names})


def line(count: int) -> Shape:
    """Each dials the next."""
    return _shape(count, [(number, number + 1) for number in range(count - 1)])


def ring(count: int) -> Shape:
    """A line whose last node dials the first."""
    pairs = [(number, (number + 1) % count) for number in range(count)]
    return _shape(count, pairs if count > 2 else pairs[: count - 1])


def star(count: int) -> Shape:
    """All others dial the first."""
    return _shape(count, [(number, 0) for number in range(1, count)])


def tree(count: int) -> Shape:
    """Each has two children; only they name their parent."""
    return _shape(count, [(number, (number - 1) // 2) for number in range(1, count)])


def clique(count: int) -> Shape:
    """Everyone is linked with everyone."""
    return _shape(count, list(itertools.combinations(range(count), 2)))


def lan(count: int) -> Shape:
    """All on one switch; nobody names a peer."""
    names = _names(count)
    return Shape(names, (), dict.fromkeys(names, ()), is_lan=True)


def web(count: int, seed: int = 1) -> Shape:
    """A ring with chords: three to four neighbours each, no two networks alike but for their seed."""
    rng = random.Random(seed)
    pairs = [(number, (number + 1) % count) for number in range(count)]
    taken = {frozenset(pair) for pair in pairs}
    for a in range(0, count, 2):
        b = rng.choice([one for one in range(count) if one != a and frozenset((a, one)) not in taken] or [a])
        if b != a:
            taken.add(frozenset((a, b)))
            pairs.append((a, b))
    return _shape(count, pairs if count > 3 else list(itertools.combinations(range(count), 2)))


SHAPES: Mapping[str, Callable[[int], Shape]] = {
    "pair": line,
    "line": line,
    "ring": ring,
    "star": star,
    "tree": tree,
    "clique": clique,
    "lan": lan,
    "web": web,
}


_DRAWINGS: Mapping[str, str] = {
    "pair": "n1 ---- n2",
    "line": "n1 ---- n2 ---- n3 - . . . - {last}",
    "ring": """\
n1 ---- n2 ---- n3 - . . .
 |                       |
{last} ---- . . . ---------""",
    "star": """\
n2   n3   . . .   {last}
  \\   |         /
   +--+-- n1 --+""",
    "tree": """\
        n1
      /    \\
    n2      n3
   /  \\    /  \\
  n4  n5  n6  . . .  {last}""",
    "clique": """\
n1 ---- n2
 |  \\/  |
 |  /\\  |
n3 - . . . - {last}      each with each""",
    "lan": """\
n1   n2   n3   . . .   {last}
 |    |    |           |
 ========== sw ==========""",
    "web": """\
n1 ---- n2 ---- n3 - . . .       a ring, and from every second node a chord
 |  \\_____________  .   |
{last} ---- . . . ----\\----""",
}


def drawing(name: str, shape: Shape) -> str:
    """A network as a picture made of characters."""
    return _DRAWINGS[name].format(last=shape.nodes[-1])


def make_shape(name: str, count: int) -> Shape:
    """A network by the name of its shape.  LocalError: no such shape, or too few or too many nodes."""
    if name not in SHAPES:
        raise LocalError(f"{name!r} is no shape; expected one of {', '.join(SHAPES)}")
    if name == "pair" and count != 2:
        raise LocalError(f"a pair of {count} nodes; expected 2, or the shape line")
    if not 2 <= count <= NODES_MAX:
        raise LocalError(f"{count} nodes; expected 2 to {NODES_MAX}")
    return SHAPES[name](count)
