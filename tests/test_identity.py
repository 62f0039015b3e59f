from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from meshsync import identity
from meshsync.errors import ConfigError
from meshsync.identity import Identity, load, load_mesh_key, load_or_create

# RFC 8032 section 7.1, test 1.
RFC_SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
RFC_PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def put_key(directory: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path = directory / "identity.key"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def test_identity_is_made_once_and_stays(tmp_path: Path) -> None:
    """Otherwise a node is somebody else after each start, and no peer knows it."""
    first = load_or_create(tmp_path / "node")
    again = load_or_create(tmp_path / "node")
    assert again.endpoint_id == first.endpoint_id
    assert first.private_key.public_key().public_bytes_raw() == first.endpoint_id


def test_directory_and_key_are_for_the_owner_only(tmp_path: Path) -> None:
    """Otherwise any user of the machine can be this node; the umask must not matter either way."""
    for umask in (0o000, 0o777):
        directory = tmp_path / f"{umask:o}"
        directory.mkdir()
        before = os.umask(umask)
        try:
            load_or_create(directory)
        finally:
            os.umask(before)
        assert stat.S_IMODE((directory / "identity.key").stat().st_mode) == 0o600
    load_or_create(tmp_path / "made")
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700


def test_key_file_is_one_line_that_says_what_it_is(tmp_path: Path) -> None:
    """A golden value: a release that read the file otherwise would change who the node is."""
    put_key(tmp_path, f"meshsync-ed25519-seed {RFC_SEED}\n")
    assert str(load(tmp_path).endpoint_id) == RFC_PUBLIC

    load_or_create(tmp_path / "new")
    label, seed = (tmp_path / "new" / "identity.key").read_text().split()
    assert label == "meshsync-ed25519-seed"
    assert len(bytes.fromhex(seed)) == 32


def test_key_edited_on_windows_is_read(tmp_path: Path) -> None:
    """Copying the file through a tool that changes the end of the line must not cost the identity."""
    for end in ("", "\n", "\r\n"):
        put_key(tmp_path, f"meshsync-ed25519-seed {RFC_SEED}{end}")
        assert str(load(tmp_path).endpoint_id) == RFC_PUBLIC


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (bytes(80), "is empty"),
        (f"meshsync-ed25519-seed {RFC_SEED[:-1]}\n", "is damaged"),
        (f"meshsync-ed25519-seed {RFC_SEED}00\n", "is damaged"),
        (f"meshsync-ed25519-seed {RFC_SEED}\n\n", "is damaged"),
        (f"meshsync-x25519-seed {RFC_SEED}\n", "is damaged"),
        (RFC_SEED, "is damaged"),
        (b"\xff" * 80, "is damaged"),
        (f"meshsync-ed25519-seed {RFC_SEED}\n" * 10, "more than 256 bytes"),
    ],
)
def test_damaged_key_is_refused_and_never_replaced(tmp_path: Path, content: str | bytes, says: str) -> None:
    """A node that made a new key here would be unknown to its peers, and the old key would be gone for good."""
    path = put_key(tmp_path, content)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=says) as caught:
        load_or_create(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert RFC_SEED[:-1] not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_key_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    """Somebody may have read it already; the owner has to know."""
    path = put_key(tmp_path, f"meshsync-ed25519-seed {RFC_SEED}\n", mode)
    with pytest.raises(ConfigError, match=f"others may use it .mode {mode:04o}.; run: chmod 600 {path}"):
        load_or_create(tmp_path)


def test_key_on_a_read_only_mount_may_have_any_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Container systems mount secrets read-only with a mode of their own, which nobody could mend."""
    put_key(tmp_path, f"meshsync-ed25519-seed {RFC_SEED}\n", 0o444)
    real = os.fstatvfs

    def read_only(descriptor: int) -> os.statvfs_result:
        fields = list(real(descriptor))
        fields[8] |= os.ST_RDONLY  # f_flag
        return os.statvfs_result(fields)

    monkeypatch.setattr(os, "fstatvfs", read_only)
    assert str(load_or_create(tmp_path).endpoint_id) == RFC_PUBLIC


def test_link_directory_and_pipe_are_refused(tmp_path: Path) -> None:
    """A link may lead out of the directory, and opening a named pipe would wait for ever."""
    outside = put_key(tmp_path, f"meshsync-ed25519-seed {RFC_SEED}\n")
    cases: list[tuple[str, Callable[[Path], object], str]] = [
        ("link", lambda path: path.symlink_to(outside), "symbolic link"),
        ("dangling", lambda path: path.symlink_to(tmp_path / "nowhere"), "symbolic link"),
        ("directory", lambda path: path.mkdir(), "not a regular file"),
        ("pipe", lambda path: os.mkfifo(path, 0o600), "not a regular file"),
    ]
    for name, make, says in cases:
        (tmp_path / name).mkdir()
        make(tmp_path / name / "identity.key")
        with pytest.raises(ConfigError, match=says):
            load_or_create(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everything")
def test_unreadable_key_and_read_only_directory_are_named(tmp_path: Path) -> None:
    """Otherwise the owner sees a traceback and no path."""
    put_key(tmp_path, "", 0o000)
    with pytest.raises(ConfigError, match="cannot be opened: Permission denied"):
        load_or_create(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(0o500)
    with pytest.raises(ConfigError, match="cannot be stored: Permission denied"):
        load_or_create(closed)


def test_data_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    """A slip in --data-dir must read as one."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not a directory"):
        load_or_create(tmp_path / "file")
    with pytest.raises(ConfigError, match="cannot be made: Not a directory"):
        load_or_create(tmp_path / "file" / "below")


def test_interrupted_creation_leaves_no_half_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut at first start must not leave a file that every later start refuses."""

    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for call in ("link", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, cut)
            with pytest.raises(KeyboardInterrupt):
                load_or_create(tmp_path)
        assert list(tmp_path.iterdir()) == []
    assert load_or_create(tmp_path).endpoint_id == load(tmp_path).endpoint_id


def test_file_is_complete_and_synced_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is the promise: content to the disk, then the name, then the directory to the disk."""
    calls: list[str] = []
    real_link, real_fsync = os.link, os.fsync

    def link(source: Path, target: Path) -> None:
        calls.append(f"link {target.name}")
        real_link(source, target)

    def fsync(descriptor: int) -> None:
        calls.append("sync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "fsync", fsync)
    load_or_create(tmp_path)
    assert calls == ["sync file", "link identity.key", "sync directory"]


def test_starting_together_agrees_on_one_identity(tmp_path: Path) -> None:
    """`meshsync id` beside the first `meshsync node` must print the id that the node then has."""
    program = (
        "import sys, pathlib; from meshsync.identity import load_or_create;"
        "print(load_or_create(pathlib.Path(sys.argv[1])).endpoint_id)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "node")], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    printed = {process.communicate(timeout=60)[0] for process in processes}
    assert printed == {f"{load(tmp_path / 'node').endpoint_id}\n"}
    assert [path.name for path in (tmp_path / "node").iterdir()] == ["identity.key"]


def test_slower_of_two_takes_the_key_of_the_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same race, at its narrowest: the other key appears between looking and linking."""
    real_link = os.link

    def link(source: Path, target: Path) -> None:
        put_key(tmp_path, f"meshsync-ed25519-seed {RFC_SEED}\n")
        real_link(source, target)

    monkeypatch.setattr(os, "link", link)
    assert str(load_or_create(tmp_path).endpoint_id) == RFC_PUBLIC


def test_identity_does_not_show_its_key() -> None:
    """A key in a log or a traceback is a key in the hands of others."""
    one = Identity.generate()
    assert one.private_key.private_bytes_raw().hex() not in repr(one)
    assert identity.Identity.from_private_key(one.private_key) == one


def test_mesh_key_is_64_hex_digits(tmp_path: Path) -> None:
    """All nodes of a mesh must derive the same bytes from the same file."""
    path = tmp_path / "mesh.key"
    path.write_text(RFC_SEED.upper() + "\n")
    path.chmod(0o600)
    assert load_mesh_key(path) == bytes.fromhex(RFC_SEED)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert load_mesh_key(link) == bytes.fromhex(RFC_SEED)


@pytest.mark.parametrize(
    "content", ["", "correct horse battery staple", RFC_SEED[:-2], RFC_SEED + "00", "g" * 64, "00" * 32]
)
def test_weak_mesh_key_is_refused_with_the_way_to_make_one(tmp_path: Path, content: str) -> None:
    """One recorded handshake is enough to try passphrases at leisure."""
    path = tmp_path / "mesh.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="openssl rand -hex 32"):
        load_mesh_key(path)


def test_mesh_key_file_keeps_the_rules_of_secrets(tmp_path: Path) -> None:
    """It lets anyone who reads it join."""
    path = tmp_path / "mesh.key"
    with pytest.raises(ConfigError, match="no such mesh key file; make one with"):
        load_mesh_key(path)
    path.write_text(RFC_SEED)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="others may use it"):
        load_mesh_key(path)
    with pytest.raises(ConfigError, match="not a regular file"):
        load_mesh_key(tmp_path)
