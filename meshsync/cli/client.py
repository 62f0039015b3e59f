"""The client of a running node: HTTP over the Unix socket of its data directory.

It is the standard library's http.client over another kind of socket.  httpx would take longer to import than a
whole `meshsync get` takes to run.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote, urlencode

from meshsync.cli.exits import CommandError, Exit, exit_of_api_code
from meshsync.datadir import DataDir

Parameters = Iterable[tuple[str, str]]

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 60.0
_READ_BYTES = 64 * 1024
_ERROR_LINE = b'{"v":1,"error":{'
"""How a line begins that ends a stream.  A document's line can begin so, too, and has its id besides."""


class Client:
    """Requests to one node."""

    def __init__(self, data_dir: DataDir) -> None:
        self._data_dir = data_dir

    def get(self, *path: str, parameters: Parameters = ()) -> dict[str, Any]:
        """The JSON object at a path.  CommandError: as `request`."""
        return self.request("GET", *path, parameters=parameters)

    def request(
        self,
        method: str,
        *path: str,
        parameters: Parameters = (),
        body: bytes | Mapping[str, Any] | None = None,
        answer_seconds: float | None = _ANSWER_SECONDS,
    ) -> dict[str, Any]:
        """One request and its JSON object.  CommandError: no node, an error of the API, no answer in time.

        The parts of `path` may hold any character; None for `answer_seconds` waits as long as it takes.
        """
        with self._open(answer_seconds) as connection:
            response = self._send(connection, method, path, parameters, body)
            return _object(response)

    @contextmanager
    def lines(
        self, *path: str, method: str = "GET", parameters: Parameters = (), body: Any = None
    ) -> Iterator[Iterator[dict[str, Any]]]:
        """A stream of JSON lines, each given as it arrives.  CommandError: as `request`, or the stream broke off."""
        with self.raw_lines(*path, method=method, parameters=parameters, body=body) as lines:
            yield map(json.loads, lines)

    @contextmanager
    def raw_lines(
        self, *path: str, method: str = "GET", parameters: Parameters = (), body: Any = None
    ) -> Iterator[Iterator[bytes]]:
        """The same without decoding them."""
        with self._open(None) as connection:
            response = self._send(connection, method, path, parameters, body)
            if response.status != 200:
                _object(response)
            yield _whole(response)

    @contextmanager
    def upload(
        self, *path: str, parameters: Parameters = (), body: Iterator[bytes]
    ) -> Iterator[Iterator[dict[str, Any]]]:
        """Send a body of any length, and give the lines that the node answers meanwhile.  CommandError: as `lines`."""
        import threading

        with self._open(None) as connection:
            connection.putrequest("POST", _target(path, parameters))
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()
            # A thread of its own: the node reports, and may refuse, while we are still sending.  It is a daemon
            # because it may wait for standard input when everything else is over.
            threading.Thread(target=_send_chunks, args=(connection.sock, body), daemon=True).start()
            response = self._answer(connection)
            if response.status != 200:
                _object(response)
            yield map(json.loads, _whole(response))

    @contextmanager
    def _open(self, answer_seconds: float | None) -> Iterator[_UnixConnection]:
        connection = _UnixConnection(self._data_dir, answer_seconds)
        with closing(connection):
            connection.connect()
            yield connection

    def _send(
        self, connection: _UnixConnection, method: str, path: tuple[str, ...], parameters: Parameters, body: Any
    ) -> http.client.HTTPResponse:
        headers = {}
        if isinstance(body, Mapping):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, _target(path, parameters), body, headers)
        except (BrokenPipeError, ConnectionResetError):
            # The node answered before it had read everything, and the answer says why.
            pass
        except OSError as error:
            raise _broken(error) from None
        return self._answer(connection)

    def _answer(self, connection: _UnixConnection) -> http.client.HTTPResponse:
        try:
            return connection.getresponse()
        except TimeoutError:
            raise CommandError(Exit.NOT_SO, f"the node at {self._data_dir.path} does not answer; see its log") from None
        except (OSError, http.client.HTTPException) as error:
            raise _broken(error) from None


class _UnixConnection(http.client.HTTPConnection):
    """A connection to the API's socket."""

    def __init__(self, data_dir: DataDir, answer_seconds: float | None) -> None:
        super().__init__("localhost", timeout=_CONNECT_SECONDS)
        self._data_dir = data_dir
        self._answer_seconds = answer_seconds

    def connect(self) -> None:
        """Connect.  CommandError: no node is running there."""
        directory = self._data_dir.path
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_CONNECT_SECONDS)
            with self._data_dir.api_socket_address() as address:
                connection.connect(address)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            connection.close()
            raise CommandError(
                Exit.NO_NODE,
                f"no node is running at {directory}; start one with: meshsync node --data-dir {directory}",
            ) from None
        except PermissionError:
            connection.close()
            raise CommandError(
                Exit.NO_NODE, f"the node at {directory} belongs to another user; run this command as that user"
            ) from None
        except OSError as error:
            connection.close()
            raise CommandError(Exit.NO_NODE, f"the node at {directory} cannot be reached: {error}") from None
        connection.settimeout(self._answer_seconds)
        self.sock = connection


def _target(path: tuple[str, ...], parameters: Parameters) -> str:
    """The target of a request.  CommandError: an argument is empty where something is named, or is no text."""
    if "" in path:
        raise CommandError(Exit.USAGE, "an empty argument names nothing; is a variable of a script not set?")
    try:
        target = "/" + "/".join(quote(part, safe="") for part in path)
        pairs = list(parameters)
        return f"{target}?{urlencode(pairs)}" if pairs else target
    except UnicodeEncodeError as error:
        raise CommandError(Exit.USAGE, f"the argument {error.object!r:.100} is not UTF-8") from None


def _send_chunks(connection: socket.socket, chunks: Iterator[bytes]) -> None:
    """Send a body in chunks (RFC 9112 section 7.1) until its end, or until the node closes the connection."""
    try:
        for chunk in chunks:
            connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        connection.sendall(b"0\r\n\r\n")
    except OSError:
        # The node has answered and closed; whoever reads the answer learns why.
        return


def _whole(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The lines of a response.  CommandError: it broke off before its end, or a line tells an error."""
    rest = b""
    try:
        # Not by iterating: that ends without a word where the response broke off.
        while data := response.read1(_READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for text in lines:
                if text.startswith(_ERROR_LINE) and "id" not in (told := json.loads(text)):
                    raise_error(told)
                yield text + b"\n"
    except (OSError, http.client.HTTPException):
        said = "the node ended in the middle of its answer; start it and ask again: watch goes on with --since"
        raise CommandError(Exit.NO_NODE, said) from None
    if rest:
        yield rest


def _object(response: http.client.HTTPResponse) -> dict[str, Any]:
    """The JSON object of an answer.  CommandError: it broke off, tells an error, or is no answer of a node."""
    try:
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException) as error:
        raise _broken(error) from None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise CommandError(Exit.NOT_SO, f"the node gave no JSON but HTTP status {response.status}; see its log")
    raise_error(answer)
    return answer


def raise_error(answer: Mapping[str, Any]) -> None:
    """CommandError when an answer, or the line of a stream, tells an error."""
    error = answer.get("error")
    if isinstance(error, dict):
        text = "; ".join(part for part in (error.get("message"), error.get("hint")) if part)
        raise CommandError(exit_of_api_code(str(error.get("code"))), text, error)


def _broken(error: Exception) -> CommandError:
    return CommandError(Exit.NO_NODE, f"the node ended before it had answered ({type(error).__name__}); see its log")
