"""Three real processes: two subscribers that know only the relay between them."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.cli.processes import running
from tests.process.support import collection, free_port, ids, put, settle

QUIET = ("--no-mdns",)


def test_a_relay_carries_what_its_owner_cannot_read(tmp_path: Path) -> None:
    """Otherwise the switch, its words or its memory fail where people use them."""
    listen = ("--listen", f"127.0.0.1:{free_port()}")
    relay = (*QUIET, "--relay", "--trust", "open", *listen)
    with running(tmp_path / "r", *relay, collections=()) as r:
        with running(tmp_path / "a", *QUIET, "--peer", r.peer) as a:
            with running(tmp_path / "b", *QUIET, "--peer", r.peer) as b:
                put(a, "n1")
                assert a.run("wait", "synced", "--timeout", "60s").returncode == 0
                assert b.run("wait", "synced", "--timeout", "60s").returncode == 0
                settle(a, b, r)
                assert ids(b) == {"n1"}
                assert [peer["id"] for peer in b.json("peers")["peers"]] == [r.id]
            put(a, "n2")
            settle(a, r)
        r.stop(signal.SIGKILL)
    with running(tmp_path / "r", *relay, collections=()) as r:
        with running(tmp_path / "b", *QUIET, "--peer", r.peer) as b:
            settle(b, r)
            assert ids(b) == {"n1", "n2"}
        carried = collection(r)
        assert carried["relayed"] is True
        short = carried["id"][:8]
        assert "(relayed)" in r.out("collections")
        assert "(relayed)" in r.out("status")
        refused = r.run("ls", short)
        assert refused.returncode == 4
        assert "only relayed for others" in refused.stderr
        assert r.run("get", short, "n1").returncode == 4
        r.out("collections", "leave", short)
        assert r.json("collections")["collections"] == []
        assert r.json("status")["relay"]["bytes"] == 0


def test_a_quota_that_is_reached_is_said_and_can_be_raised(tmp_path: Path) -> None:
    """Otherwise the owner of a relay does not learn why nothing arrives, or what to do."""
    config = tmp_path / "relay.yaml"
    port = free_port()
    config.write_text(f"relay: true\ntrust: open\nlisten: ['127.0.0.1:{port}']\nlimits: {{relay_bytes: 50000}}\n")
    lines = "".join(f'{{"id": "n{number}", "text": "{"x" * 900}"}}\n' for number in range(1000))
    start = (*QUIET, "--listen", f"127.0.0.1:{port}", "--config", config)
    with (
        running(tmp_path / "r", *start, collections=()) as r,
        # At the port that the relay has again when it comes back.
        running(tmp_path / "a", *QUIET, "--peer", f"{r.id}@127.0.0.1:{port}") as a,
    ):
        a.out("load", "notes", text=lines)
        late = a.run("wait", "synced", "--timeout", "3s")
        assert late.returncode == 1
        assert "what it may carry for others is full" in late.stderr
        check = r.run("status", "--check")
        assert check.returncode == 1
        assert "limits.relay_bytes" in check.stderr
        r.stop()
        config.write_text("relay: true\ntrust: open\n")
        with running(tmp_path / "r", *start, collections=()) as again:
            settle(a, again)
            assert again.run("status", "--check").returncode == 0
