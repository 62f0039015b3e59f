"""The data directory of a node: where it is, what lies in it, and who uses it.

Nothing here knows what the files mean; their owners do.  Light to import: every command does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from meshsync.disk import sync_directory
from meshsync.errors import ConfigError

# sockaddr_un.sun_path: 108 bytes on Linux (unix(7)), 104 on macOS and the BSDs, with a final NUL in both.
SOCKET_PATH_BYTES_MAX = 107 if sys.platform == "linux" else 103


class DataDir:
    """The directory of one node, 0700 where this class makes it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"DataDir({str(self.path)!r})"

    @property
    def identity_key(self) -> Path:
        """The node's private key; see `meshsync.identity`."""
        return self.path / "identity.key"

    @property
    def database(self) -> Path:
        """The store."""
        return self.path / "meshsync.db"

    @property
    def api_socket(self) -> Path:
        """The control API's Unix socket.  To bind or connect, use `api_socket_address`."""
        return self.path / "api.sock"

    @property
    def lock_file(self) -> Path:
        """Locked while a node runs here; holds its process id."""
        return self.path / "node.lock"

    def create(self) -> None:
        """Make the directory if it is missing, 0700, and make that last.  ConfigError: it cannot be."""
        try:
            self.path.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            if not self.path.is_dir():
                raise ConfigError(f"{self.path}: is not a directory; name another data directory") from None
        except OSError as error:
            raise ConfigError(
                f"{self.path}: the data directory cannot be made: {error.strerror}; name another with --data-dir"
            ) from error
        else:
            sync_directory(self.path.parent)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory for this process.  ConfigError: another process does; the message names it.

        The kernel drops the lock with the process, however that ends, so a stale file does not matter.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self.lock_file, flags, 0o600)
        except OSError as error:
            raise ConfigError(
                f"{self.lock_file}: cannot be opened: {error.strerror}; the data directory must be writable"
            ) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                raise ConfigError(
                    f"{self.path}: the data directory is in use by process {owner};"
                    " stop that node, or give this one its own --data-dir"
                ) from None
            except OSError as error:
                raise ConfigError(f"{self.lock_file}: cannot be locked: {error.strerror}") from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
            # The file stays: removing it would let two processes lock two files of one name.
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def api_socket_address(self) -> Iterator[str]:
        """What to bind or connect to in place of `api_socket`; valid inside the block.

        The address of a Unix socket has about 100 bytes, and a data directory may lie deeper.  The socket itself
        is in the data directory in any case; only the way to it is shortened.
        """
        if len(os.fsencode(self.api_socket)) <= SOCKET_PATH_BYTES_MAX:
            yield str(self.api_socket)
        elif Path("/proc/self/fd").is_dir():
            with _through_descriptor(self.path) as short:
                yield f"{short}/{self.api_socket.name}"
        else:
            with _through_link(self.path) as short:
                yield f"{short}/{self.api_socket.name}"

    def listen_api(self, backlog: int) -> socket.socket:
        """Bind and listen on `api_socket`, 0600.  Only for the holder of the lock: it replaces an old socket.

        ConfigError: the file system does not take a socket.
        """
        with contextlib.suppress(FileNotFoundError):
            self.api_socket.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with self.api_socket_address() as address:
                listener.bind(address)
            # Nobody connects before listen(), so there is no moment at which others could.
            self.api_socket.chmod(0o600)
            listener.listen(backlog)
        except OSError as error:
            listener.close()
            raise ConfigError(f"{self.api_socket}: cannot listen here: {error.strerror}") from error
        return listener


def resolve_data_dir(flag: Path | None, environ: Mapping[str, str]) -> DataDir:
    """`--data-dir` over MESHSYNC_DATA_DIR over the platform's default.  ConfigError: there is no home directory."""
    if flag is not None:
        return DataDir(flag)
    if environ.get("MESHSYNC_DATA_DIR"):
        return DataDir(Path(environ["MESHSYNC_DATA_DIR"]).expanduser())
    return DataDir(default_data_dir(environ))


def default_data_dir(environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Where the platform keeps an application's data.  ConfigError: there is no home directory.

    https://specifications.freedesktop.org/basedir-spec/ says that XDG_DATA_HOME counts only when it is absolute.
    """
    if platform != "darwin" and Path(environ.get("XDG_DATA_HOME", "")).is_absolute():
        return Path(environ["XDG_DATA_HOME"]) / "meshsync"
    try:
        home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    except RuntimeError:
        raise ConfigError("no home directory is known; name the data directory with --data-dir") from None
    if platform == "darwin":
        return home / "Library" / "Application Support" / "meshsync"
    return home / ".local" / "share" / "meshsync"


def boot_id() -> str | None:
    """What stays the same until this machine boots again; None where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def read_private_file(path: Path, *, bytes_max: int, follow_symlink: bool) -> bytes:
    """Read a file that holds a secret.  FileNotFoundError: there is none.  ConfigError: it cannot or must not be used.

    A file that others may read is refused, unless it lies on a read-only mount: that is how container systems
    hand out secrets, and there the mode is not the owner's to change.
    """
    # O_NONBLOCK: opening a named pipe must not wait for a writer.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_symlink else os.O_NOFOLLOW)
    if not follow_symlink and path.is_symlink():
        raise ConfigError(f"{path}: is a symbolic link; put the file itself there")
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be opened: {error.strerror}; this user must be able to read it") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{path}: is not a regular file; remove it or name another")
        if found.st_mode & 0o077 and not os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
            mode = stat.S_IMODE(found.st_mode)
            raise ConfigError(f"{path}: others may use it (mode {mode:04o}); run: chmod 600 {path}")
        data = os.read(descriptor, bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(data) > bytes_max:
        raise ConfigError(f"{path}: has more than {bytes_max} bytes and so is no key file")
    return data


@contextlib.contextmanager
def _through_descriptor(directory: Path) -> Iterator[str]:
    """A short path of a directory, by way of a descriptor (Linux)."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _through_link(directory: Path) -> Iterator[str]:
    """A short path of a directory, by way of a symbolic link that only this user can reach."""
    with tempfile.TemporaryDirectory(prefix="meshsync-", dir="/tmp") as private:
        link = Path(private) / "d"
        link.symlink_to(directory.absolute())
        yield str(link)
