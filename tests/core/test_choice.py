"""Which of many discovered endpoints to connect to."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsync.core.choice import POINTS, choose
from meshsync.ids import EndpointId

FEW = 8
Views = dict[EndpointId, set[EndpointId]]


def endpoints(rng: random.Random, count: int) -> list[EndpointId]:
    return [EndpointId(rng.randbytes(32)) for _ in range(count)]


def links(views: Views) -> Views:
    """Who is connected with whom when everybody connects to its choice."""
    found: Views = {one: set() for one in views}
    for one, view in views.items():
        for other in choose(one, view, all_up_to=FEW):
            found[one].add(other)
            found[other].add(one)
    return found


def pieces(graph: Views) -> int:
    """Into how many pieces a graph falls."""
    left, count = set(graph), 0
    while left:
        count += 1
        queue = [left.pop()]
        while queue:
            near = graph[queue.pop()] & left
            left -= near
            queue.extend(near)
    return count


def both_ways(views: Views) -> Views:
    """Whom one sees, or is seen by."""
    found: Views = {one: set(view) for one, view in views.items()}
    for one, view in views.items():
        for other in view:
            found[other].add(one)
    return found


@pytest.mark.parametrize("count", [2, 3, 8, 9, 10, 17, 50, 200])
def test_those_who_all_see_each_other_stay_in_one_piece(count: int) -> None:
    """Otherwise a LAN with more than eight nodes falls apart."""
    for seed in range(20):
        everyone = endpoints(random.Random(seed), count)
        graph = links({one: set(everyone) - {one} for one in everyone})
        assert pieces(graph) == 1, f"seed {seed}"
        if count > FEW + 1:
            assert sum(map(len, graph.values())) / count <= 2 * POINTS


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 200), st.floats(0.2, 1.0), st.integers(0, 2**32))
def test_views_with_holes_that_hold_together_stay_in_one_piece(count: int, share: float, seed: int) -> None:
    """Otherwise lost announcements part a mesh that could hold together."""
    rng = random.Random(seed)
    everyone = endpoints(rng, count)
    views = {one: {other for other in everyone if other != one and rng.random() < share} for one in everyone}
    assert pieces(links(views)) == pieces(both_ways(views))


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 6), st.integers(2, 40), st.integers(1, 3), st.integers(0, 2**32))
def test_networks_that_are_joined_by_few_nodes_stay_in_one_piece(lans: int, size: int, joints: int, seed: int) -> None:
    """Otherwise the one machine that is on two networks chooses nobody on one of them, and nobody there chooses it."""
    rng = random.Random(seed)
    members = [set(endpoints(rng, size)) for _ in range(lans)]
    for near, far in pairwise(members):
        for joint in rng.sample(sorted(near), min(joints, size)):
            far.add(joint)
    views: Views = {}
    for lan in members:
        for one in lan:
            views.setdefault(one, set()).update(lan - {one})
    assert pieces(links(views)) == 1


def test_few_are_all_chosen_and_the_own_id_never() -> None:
    """Otherwise small meshes have fewer links than they could, or a node dials itself."""
    rng = random.Random(1)
    own, *others = endpoints(rng, FEW + 2)
    assert choose(own, [own, *others[:FEW]], all_up_to=FEW) == set(others[:FEW])
    chosen = choose(own, [own, *others], all_up_to=FEW)
    assert len(chosen) == POINTS
    assert own not in chosen


@pytest.mark.parametrize("count", range(2 * POINTS))
def test_fewer_than_there_are_points_are_all_chosen(count: int) -> None:
    """Otherwise a node that wants only few peers looks for another one for ever."""
    own, *others = endpoints(random.Random(1), count + 1)
    assert len(choose(own, others, all_up_to=0)) == min(count, POINTS)


def test_the_choice_hardly_changes_with_who_comes_and_goes() -> None:
    """Otherwise every node that joins makes all others dial anew."""
    rng = random.Random(1)
    own, *others = endpoints(rng, 101)
    before = choose(own, others, all_up_to=FEW)
    for newcomer in endpoints(rng, 50):
        after = choose(own, [*others, newcomer], all_up_to=FEW)
        assert len(after - before) <= 1
        assert after - before <= {newcomer}
    for gone in others:
        after = choose(own, set(others) - {gone}, all_up_to=FEW)
        assert len(after - before) == (gone in before)


def test_the_successor_is_chosen_also_across_the_end_of_the_ring() -> None:
    """Otherwise the ring has a gap at its end."""
    ids = [EndpointId(bytes([number]) * 32) for number in range(5, 250, 5)]
    for own, successor in zip(ids, [*ids[1:], ids[0]], strict=True):
        assert successor in choose(own, ids, all_up_to=FEW)
