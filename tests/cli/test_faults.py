"""What is wrong with a node, from what it says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from meshsync.cli.faults import connected_text, find_faults, why_not_synced

A, B = "ab" * 32, "cd" * 32


def peer(state: str, via: str = "static", id: str = A, **facts: object) -> dict[str, object]:
    """A peer as status tells it."""
    known = {"id": id, "name": "", "state": state, "via": via, "last_error": None, "banned": state == "down"}
    return {**known, **facts}


def collection(*states: str, name: str = "notes", relayed: bool = False) -> dict[str, object]:
    """A collection with a session with A, as status tells it, or with none."""
    sessions = [{"id": A, "state": state, "missing": 3, "unsent": 0, "stall": None} for state in states]
    return {"name": name, "id": f"{name}-id", "relayed": relayed, "differing": [], "peers": sessions}


def status(
    peers: list[Any], collections: list[Any], fault: str | None = None, relay: str | None = None
) -> dict[str, Any]:
    """What a node says of itself."""
    return {"store": {"fault": fault}, "peers": peers, "collections": collections, "relay": {"fault": relay}}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (status([], []), []),
        (status([peer("connected")], [collection("synced")]), []),
        (status([peer("connected")], [collection()]), []),
        (status([peer("waiting")], []), ["abababab is not connected (waiting)"]),
        (status([peer("waiting", "accepted")], []), []),
        (status([peer("down")], []), []),
        (
            status([peer("connected")], [collection("pulling")]),
            ["notes is not synced with abababab: pulling, 3 entries to come"],
        ),
        (status([], [], "disk full"), ["the store fails: disk full; free space or mend the disk"]),
        (status([], [], None, "raise limits.relay_bytes"), ["raise limits.relay_bytes"]),
    ],
)
def test_the_check_of_status_finds_what_the_interface_promises(said: dict[str, Any], expected: list[str]) -> None:
    """`status --check` is what a monitor asks: it must fail exactly when something is wrong."""
    assert find_faults(said) == expected


TWO = [collection("pulling"), collection(name="todo")]


@pytest.mark.parametrize(
    ("said", "collections", "peers", "expected"),
    [
        (status([], [collection()]), [], [], "no peer is connected; meshsync peers"),
        (
            status([peer("waiting", last_error="no answer")], [collection()]),
            [],
            [],
            "abababab is not connected (waiting): no answer",
        ),
        (status([peer("connected")], TWO), [], [], "notes is not synced with abababab: pulling, 3 entries to come"),
        (
            status([peer("connected")], TWO),
            ["todo"],
            [],
            "no connected peer has todo: `meshsync collections join todo` there",
        ),
        (
            status([peer("connected"), peer("connected", id=B)], [collection("synced")]),
            [],
            ["cdcdcdcd"],
            "cdcdcdcd does not have notes: `meshsync collections join notes` there",
        ),
        (
            status([peer("connected"), peer("down", "accepted", B)], [collection("pulling")]),
            [],
            [B],
            "cdcdcdcd is not connected (down)",
        ),
        (status([peer("connected")], [collection("synced")]), [], [B], "cdcdcdcd is not connected; meshsync connect"),
        (status([peer("connected")], []), [], [], "there are no collections; meshsync collections join NAME"),
        (status([peer("connected")], [collection(relayed=True)]), [], [], "no connected peer shares it"),
        (status([peer("connected")], [collection("synced")]), [], [], "by now it is"),
    ],
)
def test_why_it_is_not_synced_is_about_what_was_waited_for(
    said: dict[str, Any], collections: list[str], peers: list[str], expected: str
) -> None:
    """Who reads that no peer is connected, with two that are, looks for the fault in the network."""
    assert why_not_synced(said, collections, peers).startswith(expected)


def test_in_sync_is_not_said_of_what_nobody_shares() -> None:
    """Two nodes, one with `notes` and one with `nots`, would both report that all is well."""
    alone = "no connected peer has todo: `meshsync collections join todo` there"
    assert connected_text(status([peer("connected")], [collection("synced")])) == ["in sync with every connected peer"]
    assert connected_text(status([peer("connected")], [collection(name="todo")])) == [alone]
    mixed = [collection("synced"), collection(name="todo")]
    assert connected_text(status([peer("connected")], mixed)) == ["in sync with every connected peer", alone]
