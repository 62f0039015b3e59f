"""Two processes with one identity: refused loudly, and only where both are alive."""

from __future__ import annotations

import pytest
import trio

from meshsync.errors import RefusedError
from tests.simnet import LinkProfile
from tests.stack.sightings import Sightings
from tests.stack.world import World, events, level, simulate, until, write


def test_a_second_process_with_the_same_identity_is_refused_loudly() -> None:
    """Otherwise two machines with one key push each other out for ever, and fork the log."""

    async def scenario(world: World) -> None:
        c = await world.start(3)
        a = await world.start(1, peers=[3])
        await level(a, c)
        clone = await world.start(2, twin_of=1, peers=[3])
        refused = await until(clone, "peer_error")
        assert refused.facts["code"] == "INSTANCE"
        assert (await until(c, "peer_error")).facts["code"] == "INSTANCE"
        await trio.sleep(60)
        assert c.peers()[0]["address"] == world.machine(1).address
        assert len(events(c, "connected")) == 1
        await write(a, "still here")
        await level(a, c)

    simulate(scenario)


def test_two_processes_with_one_identity_that_meet_refuse_each_other_loudly() -> None:
    """Otherwise the owner of a cloned card never learns of it."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        c = await world.start(3, twin_of=1, peers=[f"{world.id(9)}@{world.machine(1).address}"])
        await until(c, "dial_failed")
        world.machine(9)
        d = await world.start(4, twin_of=1)
        with pytest.raises(RefusedError):
            await d.sync.connect_to_peer(a.id.hex(), [world.machine(1).address])

    simulate(scenario)


def test_a_twin_at_an_address_of_unknown_identity_is_told_of() -> None:
    """Otherwise a clone that is found by name is taken for this node itself, and nobody learns of it."""

    async def scenario(world: World) -> None:
        names = Sightings(world, "dns")
        a = await world.start(1, discoveries=[names])
        names.records("10.0.0.1", "10.0.0.2")
        await trio.sleep(60)
        assert not events(a, "peer_error")
        await world.start(2, twin_of=1)
        told = await until(a, "peer_error")
        assert (told.facts["peer"], told.facts["code"]) == (a.id.hex(), "INSTANCE")
        assert a.peers() == []

    simulate(scenario)


@pytest.mark.parametrize("seconds_up", [0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("lower_restarts", [False, True])
def test_whoever_starts_anew_again_and_again_is_no_twin(
    seconds_up: float, is_killed: bool, lower_restarts: bool
) -> None:
    """A device that a supervisor restarts within a second would be accused, and its owner look for a clone."""

    async def scenario(world: World) -> None:
        stays, restarts = sorted((1, 2), key=world.id, reverse=lower_restarts)
        a = await world.start(stays, peers=[restarts])
        b = await world.start(restarts, peers=[stays])
        await level(a, b)
        await trio.sleep(3)  # from here on the connection is settled
        await world.kill(restarts)
        await trio.sleep(1)
        for _ in range(2):
            b = await world.start(restarts, peers=[stays])
            await trio.sleep(seconds_up)
            await (world.kill(restarts) if is_killed else world.stop(restarts))
        b = await world.start(restarts, peers=[stays])
        await level(a, b)
        await trio.sleep(3)
        assert not events(a, "peer_error")
        assert not events(b, "peer_error")

    simulate(scenario, profile=LinkProfile(0.01))
