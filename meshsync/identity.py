"""Key files: the node's own private key, and the key that the nodes of a mesh share.

A key is written once and never changed.  Nothing here prints, logs or returns a key in an error.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshsync.datadir import DataDir, read_private_file
from meshsync.disk import sync_directory
from meshsync.errors import ConfigError
from meshsync.ids import EndpointId

# One line: what it is, and the 32-byte seed of RFC 8032 section 5.1.5 in hex.
_LABEL = "meshsync-ed25519-seed"
_KEY_FILE_BYTES_MAX = 256

_RESTORE = "restore it from a backup, or move it away to start with a new identity, which peers have to accept anew"
_MAKE_MESH_KEY = "make one with: (umask 077; openssl rand -hex 32 > FILE)"


@dataclass(frozen=True)
class Identity:
    """Who a node is."""

    private_key: Ed25519PrivateKey
    endpoint_id: EndpointId

    @classmethod
    def from_private_key(cls, private_key: Ed25519PrivateKey) -> Identity:
        """The identity that a key gives."""
        return cls(private_key, EndpointId(private_key.public_key().public_bytes_raw()))

    @classmethod
    def generate(cls) -> Identity:
        """A new identity, nowhere stored."""
        return cls.from_private_key(Ed25519PrivateKey.generate())


def load_or_create(data_dir: Path) -> Identity:
    """Load the identity of a data directory, after making both where they are missing.

    A key that this call made survives a power cut.  Of several processes that begin at once, one makes the key
    and all load it.  ConfigError: the file is there and cannot be used, or cannot be made; it is never replaced.
    """
    directory = DataDir(data_dir)
    directory.create()
    try:
        return load(data_dir)
    except FileNotFoundError:
        _create(directory.identity_key)
    return load(data_dir)


def load(data_dir: Path) -> Identity:
    """Load the identity of a data directory.  FileNotFoundError: it has none.  ConfigError: it cannot be used."""
    path = DataDir(data_dir).identity_key
    data = read_private_file(path, bytes_max=_KEY_FILE_BYTES_MAX, follow_symlink=False)
    if not data.strip(b"\0 \r\n"):
        raise ConfigError(f"{path}: is empty; {_RESTORE}")
    words = data.decode("ascii", "replace").removesuffix("\n").removesuffix("\r").split(" ")
    seed = _parse_key(words[1]) if len(words) == 2 and words[0] == _LABEL else None
    if seed is None:
        raise ConfigError(f"{path}: is damaged: expected one line, `{_LABEL}` and 64 hexadecimal digits; {_RESTORE}")
    return Identity.from_private_key(Ed25519PrivateKey.from_private_bytes(seed))


def load_mesh_key(path: Path) -> bytes:
    """Load the 32 bytes that the nodes of a mesh share, from a file of 64 hex digits.  ConfigError: it cannot be used.

    Passphrases are refused: whoever records one handshake could try them all at leisure.  A symbolic link is
    followed, because container systems and systemd hand out secrets behind links.
    """
    try:
        data = read_private_file(path, bytes_max=_KEY_FILE_BYTES_MAX, follow_symlink=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such mesh key file; {_MAKE_MESH_KEY}") from None
    key = _parse_key(data.decode("ascii", "replace").strip())
    if key is None:
        raise ConfigError(f"{path}: is no mesh key: expected 64 hexadecimal digits; {_MAKE_MESH_KEY}")
    if len(set(key)) == 1:
        raise ConfigError(f"{path}: holds one byte 32 times, which anyone can guess; {_MAKE_MESH_KEY}")
    return key


def _parse_key(text: str) -> bytes | None:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        return None
    return key if len(key) == 32 and len(text) == 64 else None


def _create(path: Path) -> None:
    """Make a key file, unless another process is faster.

    The file gets its name only when it is complete and on the disk, so a crash at any instant leaves either no
    key or a whole one; and link(), other than rename(), never replaces a file that is there.
    """
    seed = Ed25519PrivateKey.generate().private_bytes_raw()
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask took away
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(f"{_LABEL} {seed.hex()}\n".encode())
            os.fsync(descriptor)
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            os.close(descriptor)
            draft.unlink()
        sync_directory(path.parent)
    except OSError as error:
        raise ConfigError(
            f"{path}: the key cannot be stored: {error.strerror}; the data directory must be writable and on a"
            " file system with hard links"
        ) from error
