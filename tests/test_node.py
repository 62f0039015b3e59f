"""open_node: a directory, a key, a port, and nothing left behind."""

from __future__ import annotations

import threading
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio

import meshsync
from meshsync.errors import ConfigError, LocalError
from meshsync.ids import EndpointId
from meshsync.launch import CLOCK_OFFSET, KEY_LOG, open_node, wall_clock

NAMED = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
OTHER = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
"""Public keys of RFC 8032 section 7.1."""


def config(directory: Path, **settings: object) -> meshsync.Config:
    """A node on loopback with one collection."""
    defaults = {"listen": ["127.0.0.1:0"], "collections": ["notes"], "trust": "open", "discovery": {"mdns": False}}
    return meshsync.Config.model_validate({"data_dir": directory, **defaults, **settings})


def descriptors() -> set[str]:
    """What this process has open, but for what the interpreter itself comes and goes with."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(link.readlink()))
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return {name for name in found if "/proc/" not in name}


async def test_two_nodes_on_real_sockets_and_disks_leave_nothing_open(tmp_path: Path) -> None:
    """Otherwise a program that opens nodes in turn runs out of descriptors or threads."""
    await trio.to_thread.run_sync(int)  # trio's own worker thread comes first
    before, threads = descriptors(), set(threading.enumerate())
    for _ in range(2):
        async with open_node(config(tmp_path / "a")) as a:
            peer = f"{a.id}@{a.listen[0]}"
            async with open_node(config(tmp_path / "b", peers=[peer])) as b:
                await a.collection("notes").put("n1", {"title": "hello"})
                with trio.fail_after(20):
                    await b.sync.wait_synced()
                    await a.sync.wait_synced()
                found = b.collection("notes").get("n1")
                assert found is not None
                assert found.body == {"title": "hello"}
    assert descriptors() <= before
    assert {thread for thread in threading.enumerate() if "meshsync" in thread.name} <= threads


async def test_what_the_owner_raises_comes_out_as_it_is(tmp_path: Path) -> None:
    """Otherwise every caller has to take groups of exceptions apart."""
    with pytest.raises(ZeroDivisionError):
        async with open_node(config(tmp_path)):
            raise ZeroDivisionError
    async with open_node(config(tmp_path)) as node:
        assert node.collections() == ["notes"]


async def test_a_port_that_is_taken_is_named_and_the_others_are_given_back(tmp_path: Path) -> None:
    """Otherwise the message does not say what to do, or the first port stays taken after the second failed."""
    async with open_node(config(tmp_path / "a")) as a:
        taken = a.listen[0]
        before = descriptors()
        with pytest.raises(ConfigError, match="--listen") as refused:
            async with open_node(config(tmp_path / "b", listen=["127.0.0.1:0", taken])):
                pass
        assert taken.rpartition(":")[2] in str(refused.value)
        assert descriptors() <= before


async def test_a_data_directory_belongs_to_one_node(tmp_path: Path) -> None:
    """Otherwise two processes write to one store and one log."""
    async with open_node(config(tmp_path)):
        with pytest.raises(LocalError):
            async with open_node(config(tmp_path)):
                pass


async def test_the_own_id_among_the_peers_is_refused(tmp_path: Path) -> None:
    """Otherwise a node dials itself for ever."""
    async with open_node(config(tmp_path)) as node:
        own = node.id
    with pytest.raises(ConfigError):
        async with open_node(config(tmp_path, peers=[f"{own}@127.0.0.1:4433"])):
            pass


async def test_the_rates_of_the_configuration_hold(tmp_path: Path) -> None:
    """Otherwise a key that was checked and documented bounds nothing."""
    named, other = (EndpointId.parse(text) for text in (NAMED, OTHER))
    settings = {
        "limits": {"rate_bytes_per_s": 90_000, "peer_rate_bytes_per_s": 20_000},
        "peers": [{"id": NAMED, "rate_bytes_per_s": 5_000}, {"id": OTHER}],
    }
    async with open_node(config(tmp_path, **settings)) as node:
        rates = node.sync.rates
        batches = [rates.of_link(peer).limits(node.limits).batch_bytes_soft for peer in (named, other)]
        assert batches == [5_000, 20_000]
        assert node.limits.send_bytes_per_second_max == 90_000


async def test_a_mesh_key_is_needed_where_trust_says_so(tmp_path: Path) -> None:
    """Otherwise a mesh that was meant to be closed is open."""
    key = tmp_path / "mesh.key"
    with pytest.raises(ConfigError):
        async with open_node(config(tmp_path / "a", trust="mesh-key", mesh_key_file=key)):
            pass
    key.write_text("0123456789abcdef" * 4 + "\n")
    key.chmod(0o600)
    settings = {"trust": "mesh-key", "mesh_key_file": key}
    async with (
        open_node(config(tmp_path / "a", **settings)) as a,
        open_node(config(tmp_path / "b", **settings)) as b,
    ):
        with trio.fail_after(20):
            assert await b.sync.connect_to_peer(a.id.hex(), [a.listen[0]])
            await b.sync.wait_synced()


async def test_the_identity_and_the_log_survive_a_restart(tmp_path: Path) -> None:
    """Otherwise a node is another one after each start."""
    found: set[tuple[EndpointId, int]] = set()
    for number in range(2):
        async with open_node(config(tmp_path)) as node:
            await node.collection("notes").put(f"n{number}", {})
            found.add((node.id, node.status()["collections"][0]["logs"]))
    assert len(found) == 1


async def test_a_cancelled_node_ends_in_order(tmp_path: Path) -> None:
    """Otherwise a signal leaves a store that was not closed, and peers that are not told."""
    async with open_node(config(tmp_path / "a")) as a:
        peer = f"{a.id}@{a.listen[0]}"
        with trio.CancelScope() as scope:
            async with open_node(config(tmp_path / "b", peers=[peer])) as b:
                with trio.fail_after(20):
                    await b.sync.wait_synced()
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        with trio.fail_after(5):
            async with aclosing(a.events.follow(1)) as events:
                while (event := await anext(events)).type != "disconnected":
                    pass
        assert "SHUTDOWN" in event.facts["reason"]


def test_a_lab_can_have_the_clock_wrong() -> None:
    """Otherwise no lab can try what a wrong clock does, and a slip in the variable is a right clock."""
    behind = wall_clock({CLOCK_OFFSET: "-3600"})() - wall_clock({})()
    assert behind == pytest.approx(-3_600_000, abs=60_000)
    with pytest.raises(ConfigError, match="'soon' is no number"):
        wall_clock({CLOCK_OFFSET: "soon"})


async def test_the_secrets_of_connections_go_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them nobody can read a capture of this traffic; in a file that others may read, anybody could."""
    keys = tmp_path / "keys"
    async with open_node(config(tmp_path / "a")) as a:
        monkeypatch.setenv(KEY_LOG, str(keys))
        async with open_node(config(tmp_path / "b", peers=[f"{a.id}@{a.listen[0]}"])) as b:
            with trio.fail_after(20):
                await b.sync.wait_synced()
    labels = [line.split()[0] for line in keys.read_text().splitlines()]
    assert {"CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"} <= set(labels)
    assert keys.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv(KEY_LOG, str(tmp_path))
    with pytest.raises(ConfigError, match=r"SSLKEYLOGFILE: .* cannot be written: Is a directory"):
        async with open_node(config(tmp_path / "c")):
            pass


async def test_peers_are_named_by_ids_or_their_text(tmp_path: Path) -> None:
    """Who has the text of an id, as `meshsync id` prints it, would get a fault of the disk, or wait for ever."""
    async with open_node(config(tmp_path / "n", trust="closed")) as node:
        await node.accept_peer(OTHER)
        assert EndpointId.parse(OTHER) in node.trust.known()
        await node.ban_peer(OTHER)
        assert node.trust.is_banned(EndpointId.parse(OTHER))
        await node.forget_peer(OTHER)
        assert not node.sync.is_synced(["notes"], [OTHER])
        wrong: Any
        for wrong in ("anna", 7):
            for decide in (node.accept_peer, node.ban_peer, node.forget_peer):
                with pytest.raises(LocalError, match="EndpointId"):
                    await decide(wrong)
            with pytest.raises(LocalError, match="EndpointId"):
                await node.sync.wait_synced(peers=[wrong])
