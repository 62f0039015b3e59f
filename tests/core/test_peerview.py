"""What a peer is known to have."""

from __future__ import annotations

from meshsync.core.peerview import PeerView
from meshsync.core.tips import TIP_ID_BYTES
from tests.authors import Author
from tests.replicas import give, new_replica


def test_what_was_assumed_is_not_known_once_the_log_has_forked() -> None:
    """Otherwise the peer is taken to have what it lacks, and confirms what it does not hold."""
    author = Author(1)
    entries = [author.write() for _ in range(5)]
    replica = new_replica()
    give(replica, *entries)
    (branch,) = replica.branches_of(author.log)
    view = PeerView(replica)
    view.opened([])
    view.told([(author.log, 3, entries[2].id[:TIP_ID_BYTES])])
    view.told([(author.log, 9, bytes(TIP_ID_BYTES))])
    assert view.known[branch.number] == 5, "it is taken to have gone on from here"
    view.place(author.log, [])
    assert view.known[branch.number] == 3
    assert view.dirty == {branch.number}


def test_equal_roots_leave_nothing_to_send() -> None:
    """Otherwise what came to the peer by other links is sent once more."""
    author = Author(1)
    replica = new_replica()
    give(replica, *[author.write() for _ in range(5)])
    view = PeerView(replica)
    view.opened([])
    view.told([(Author(2).log, 9, bytes(TIP_ID_BYTES))])
    assert (view.dirty, view.is_ahead) == (replica.numbers(), True)
    view.level()
    assert (view.dirty, view.is_ahead, view.assumed) == (set(), False, {})


def test_what_the_peer_told_of_and_another_brought_is_not_sent_back() -> None:
    """Otherwise a lazy link that turns eager carries what both ends have."""
    author = Author(1)
    entries = [author.write() for _ in range(5)]
    replica = new_replica()
    view = PeerView(replica)
    view.opened([])
    view.told([(author.log, 5, entries[4].id[:TIP_ID_BYTES])])
    for count, entry in enumerate(entries, 1):
        view.grew(give(replica, entry).tips)
        assert view.dirty == set()
        assert view.lacks({author.log: 5}) == 5 - count
    assert view.known == {branch.number: 5 for branch in replica.branches_of(author.log)}
    assert view.assumed == {}
