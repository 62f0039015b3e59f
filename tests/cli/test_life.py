"""How a node's process begins and ends, and the commands that need none."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

from tests.cli.processes import COMMAND, PATIENCE_SECONDS, environment, meshsync, running


def test_the_ready_line_says_where_the_node_is(tmp_path: Path) -> None:
    """Labs and supervisors wait for this line and read it."""
    with running(tmp_path / "n", "--name", "relay") as node:
        assert set(node.ready) == {"v", "event", "id", "listen", "api"}
        assert (node.ready["v"], node.ready["event"]) == (1, "ready")
        assert node.ready["api"] == str(tmp_path / "n" / "api.sock")
        host, _, port = node.ready["listen"][0].rpartition(":")
        assert host == "127.0.0.1"
        assert int(port) > 0
        # The line is not said before the API answers.
        assert node.json("status")["name"] == "relay"


def test_a_supervisor_is_told(tmp_path: Path) -> None:
    """Systemd's Type=notify, and whoever passes a descriptor."""
    read_end, write_end = os.pipe()
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, os.fdopen(read_end) as ready:
        notified.bind(address)
        notified.settimeout(PATIENCE_SECONDS)
        command = [sys.executable, "-m", "meshsync", "node", "--data-dir", str(tmp_path / "n")]
        command += ["--listen", "127.0.0.1:0", "--ready-fd", str(write_end)]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[write_end],
            env=environment(NOTIFY_SOCKET=address),
        ) as process:
            os.close(write_end)
            # To the end of the file: the node must also close it.
            assert json.loads(ready.read())["event"] == "ready"
            assert notified.recv(1000) == f"READY=1\nMAINPID={process.pid}".encode()
            process.terminate()
            assert notified.recv(1000) == b"STOPPING=1"
            assert process.wait(PATIENCE_SECONDS) == 0


def test_a_descriptor_that_is_not_open_is_refused_before_the_node_starts(tmp_path: Path) -> None:
    """Otherwise a slip in a unit's file ends a node that was ready, with a traceback."""
    done = meshsync("node", "--data-dir", tmp_path / "n", "--listen", "127.0.0.1:0", "--ready-fd", 99)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--ready-fd 99: Bad file descriptor; open it, such as by 99>FILE" in done.stderr
    assert not (tmp_path / "n").exists()


def test_a_supervisor_that_cannot_be_told_does_not_end_the_node(tmp_path: Path) -> None:
    """A descriptor that can only be read, or a supervisor that is gone, is no fault of the node's."""
    command = [*COMMAND, "node", "--data-dir", str(tmp_path / "n"), "--listen", "127.0.0.1:0"]
    with Path(os.devnull).open("rb") as file, (tmp_path / "log").open("w") as log:
        number = file.fileno()
        with subprocess.Popen(
            [*command, "--ready-fd", str(number)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            pass_fds=[number],
            env=environment(),
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("node ")
            process.terminate()
            assert process.wait(PATIENCE_SECONDS) == 0
    said = (tmp_path / "log").read_text()
    assert f"--ready-fd {number}: the supervisor cannot be told: Bad file descriptor\n" in said
    assert "Traceback" not in said


def test_either_signal_ends_it_cleanly(tmp_path: Path) -> None:
    """Ctrl-C and `systemctl stop` must not look like a crash, nor leave a socket behind."""
    for how in (signal.SIGTERM, signal.SIGINT):
        with running(tmp_path / "n") as node:
            assert node.stop(how) == 0
            assert not (tmp_path / "n" / "api.sock").exists()
            assert node.run("status").returncode == 3
    log = (tmp_path / "n.log").read_text()
    assert "Traceback" not in log
    assert [json.loads(line)["event"] for line in log.splitlines()] == ["ready", "stopping"] * 2


def test_a_killed_node_comes_back_with_everything(tmp_path: Path) -> None:
    """SIGKILL is how containers stop."""
    with running(tmp_path / "n") as node:
        node.out("put", "notes", "n1", '{"n":1}')
        assert node.stop(signal.SIGKILL) == -signal.SIGKILL
        done = node.run("get", "notes", "n1")
        assert (done.returncode, done.stderr.partition(";")[0]) == (
            3,
            f"meshsync: no node is running at {node.data_dir}",
        )
    with running(tmp_path / "n") as again:
        assert again.id == node.id
        assert again.out("get", "notes", "n1") == '{"n":1}\n'


def test_a_second_signal_ends_it_at_once() -> None:
    """A node that hangs while it ends could only be killed from another terminal."""
    script = (
        "import trio\n"
        "from meshsync.cli.node import _end_on_signal\n"
        "async def main():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        await nursery.start(_end_on_signal, nursery.cancel_scope)\n"
        "        print('ready', flush=True)\n"
        "        try:\n"
        "            await trio.sleep_forever()\n"
        "        finally:\n"
        "            print('ending', flush=True)\n"
        "            with trio.CancelScope(shield=True):\n"
        "                await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.readline() == "ending\n"
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM


def test_a_second_node_in_one_directory_is_refused(tmp_path: Path) -> None:
    """Two processes with one key would fork its logs."""
    with running(tmp_path / "n") as node:
        done = meshsync("node", "--data-dir", node.data_dir, "--listen", "127.0.0.1:0")
        assert done.returncode == 2
        assert f"is in use by process {node.process.pid}" in done.stderr
        assert node.run("status").returncode == 0


def test_a_data_directory_may_lie_deep(tmp_path: Path) -> None:
    """The address of a Unix socket has about 100 bytes."""
    deep = tmp_path / ("d" * 100) / "n"
    deep.parent.mkdir()
    with running(deep) as node:
        assert node.run("status").returncode == 0


def test_id_needs_no_node_and_stays(tmp_path: Path) -> None:
    """The ids are exchanged before the nodes are started for the first time."""
    directory = tmp_path / "n"
    first = meshsync("id", "--data-dir", directory).stdout
    assert len(first) == 65
    assert stat.S_IMODE((directory / "identity.key").stat().st_mode) == 0o600
    assert meshsync("--data-dir", directory, "id").stdout == first
    assert meshsync("id", MESHSYNC_DATA_DIR=str(directory)).stdout == first
    assert meshsync("id", "--data-dir", directory, "--address", "relay:4433").stdout == f"{first.strip()}@relay:4433\n"
    assert json.loads(meshsync("id", "--json", "--data-dir", directory).stdout) == {"v": 1, "id": first.strip()}
    assert meshsync("id", "--data-dir", directory, "--address", "relay").returncode == 2


def test_no_node_is_a_code_of_its_own(tmp_path: Path) -> None:
    """A script starts the node on 3, and on nothing else."""
    for arguments in (["status"], ["get", "notes", "x"], ["wait", "synced"], ["load", "notes", os.devnull]):
        done = meshsync(*arguments, "--data-dir", tmp_path / "none")
        assert done.returncode == 3
        assert done.stderr.startswith(f"meshsync: no node is running at {tmp_path / 'none'}; start one with: ")


def test_a_configuration_is_checked_without_running(tmp_path: Path) -> None:
    """A slip should show before the restart, with file, line and key."""
    file = tmp_path / "meshsync.yaml"
    file.write_text("name: relay\ncollections: [notes]\n")
    done = meshsync("node", "--config", file, "--check-config")
    assert (done.returncode, done.stderr) == (0, "")
    file.write_text("name: relay\ncolections: [notes]\n")
    done = meshsync("node", "--config", file, "--check-config")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"meshsync: {file}:2: colections: ")
