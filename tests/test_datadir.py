from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from meshsync import datadir
from meshsync.datadir import DataDir, boot_id, default_data_dir, resolve_data_dir
from meshsync.errors import ConfigError


def test_second_process_is_told_who_uses_the_directory(tmp_path: Path) -> None:
    """Two nodes on one store would fork its logs."""
    program = (
        "import sys, pathlib; from meshsync.datadir import DataDir\n"
        "with DataDir(pathlib.Path(sys.argv[1])).lock(): print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match=rf"in use by process {other.pid};"), DataDir(tmp_path).lock():
            pass
        other.kill()
        other.wait()
    # The lock dies with its process, although the file is still there.
    with DataDir(tmp_path).lock():
        assert (tmp_path / "node.lock").read_text() == f"{os.getpid()}\n"
    assert (tmp_path / "node.lock").read_text() == ""
    assert stat.S_IMODE((tmp_path / "node.lock").stat().st_mode) == 0o600


def test_lock_does_not_follow_a_link(tmp_path: Path) -> None:
    """It would truncate the file behind the link."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "node.lock").symlink_to(victim)
    with pytest.raises(ConfigError, match="cannot be opened"), DataDir(tmp_path).lock():
        pass
    assert victim.read_text() == "precious"


def exchange(data_dir: DataDir) -> bytes:
    """Listen, connect, and carry a word across."""
    listener = data_dir.listen_api(backlog=1)
    with listener, socket.socket(socket.AF_UNIX) as client:
        with data_dir.api_socket_address() as address:
            client.connect(address)
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(b"word")
        return client.recv(16)


@pytest.mark.parametrize("depth", [0, 1, 12])
def test_api_socket_works_however_deep_the_directory_lies(tmp_path: Path, depth: int) -> None:
    """Unix addresses end at about 100 bytes; data directories of labs and tests are often longer."""
    path = tmp_path.joinpath(*["directory-with-a-long-name"] * depth)
    data_dir = DataDir(path)
    data_dir.create()
    assert exchange(data_dir) == b"word"
    assert stat.S_IMODE(data_dir.api_socket.stat().st_mode) == 0o600
    # A socket that a killed process left behind is replaced.
    assert exchange(data_dir) == b"word"
    assert [one.name for one in path.iterdir() if not one.is_dir()] == ["api.sock"]


@pytest.mark.parametrize("way", [datadir._through_descriptor, datadir._through_link])
def test_both_ways_to_a_deep_socket_work(
    tmp_path: Path, way: Callable[[Path], AbstractContextManager[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is for systems without /proc/self/fd, where the first would fail at the first deep directory."""
    if way is datadir._through_descriptor and not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc/self/fd")
    monkeypatch.setattr(datadir, "_through_descriptor", way)
    data_dir = DataDir(tmp_path.joinpath(*["directory-with-a-long-name"] * 6))
    data_dir.create()
    with data_dir.api_socket_address() as address:
        assert len(address) <= datadir.SOCKET_PATH_BYTES_MAX
    assert exchange(data_dir) == b"word"


def test_address_leaves_nothing_behind(tmp_path: Path) -> None:
    """A descriptor or a link a command adds up in a long-lived program."""
    data_dir = DataDir(tmp_path.joinpath(*["directory-with-a-long-name"] * 6))
    data_dir.create()
    for way in (datadir._through_descriptor, datadir._through_link):
        with way(data_dir.path) as short:
            assert Path(short).samefile(data_dir.path)
        assert not Path(short).exists()


def test_socket_that_cannot_be_bound_is_named(tmp_path: Path) -> None:
    """Otherwise a data directory that went away shows as a traceback."""
    with pytest.raises(ConfigError, match=r"api\.sock: cannot listen here: No such file"):
        DataDir(tmp_path / "missing").listen_api(backlog=1)


def test_default_directory_follows_the_platform(tmp_path: Path) -> None:
    """Users look for their data where the platform keeps it."""
    home = {"HOME": str(tmp_path)}
    assert default_data_dir(home, "linux") == tmp_path / ".local/share/meshsync"
    assert default_data_dir({**home, "XDG_DATA_HOME": "/data"}, "linux") == Path("/data/meshsync")
    assert default_data_dir({**home, "XDG_DATA_HOME": "relative"}, "linux") == tmp_path / ".local/share/meshsync"
    assert default_data_dir({**home, "XDG_DATA_HOME": ""}, "linux") == tmp_path / ".local/share/meshsync"
    assert default_data_dir(home, "darwin") == tmp_path / "Library/Application Support/meshsync"


def test_flag_over_environment_over_default(tmp_path: Path) -> None:
    """Commands and the node must agree on where the node is."""
    environ = {"HOME": str(tmp_path), "MESHSYNC_DATA_DIR": "/from/environment"}
    assert resolve_data_dir(Path("/from/flag"), environ).path == Path("/from/flag")
    assert resolve_data_dir(None, environ).path == Path("/from/environment")
    assert resolve_data_dir(None, {**environ, "MESHSYNC_DATA_DIR": ""}).path == tmp_path / ".local/share/meshsync"


def test_boot_id_is_the_same_until_the_next_boot() -> None:
    """A node that took every start for a boot would open a new log each time."""
    assert boot_id() == boot_id()


def test_missing_boot_id_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every system has one; a node then takes a new incarnation, and must not fail."""

    def read_text(self: Path, **_: object) -> str:
        raise FileNotFoundError(str(self))

    monkeypatch.setattr(Path, "read_text", read_text)
    assert boot_id() is None


def test_commands_do_not_pay_for_what_they_do_not_use() -> None:
    """Every command imports these; pydantic, trio or yaml would double the time to a prompt."""
    program = (
        "import sys, meshsync.addresses, meshsync.datadir;"
        "print(*sorted({'pydantic', 'yaml', 'trio', 'cryptography', 'aioquic', 'apsw', 'httpx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
