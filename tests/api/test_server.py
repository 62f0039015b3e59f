from __future__ import annotations

import stat
from pathlib import Path

import httpx
import pytest
import trio

from meshsync.api.errors import STATUS_OF_CODE, NotHereError, TooLargeError, UnauthorizedError, describe
from meshsync.api.server import TOKEN_NAME, load_or_create_token
from meshsync.datadir import DataDir
from meshsync.errors import ConfigError, LocalError, PeerError, RefusedError, StoreError, TransportLost
from tests.api.support import Served, serving


def mode_of(path: Path) -> int:
    """The permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


async def test_the_socket_is_the_owners_and_goes_with_the_node(tmp_path: Path) -> None:
    """Another user of the machine could read and write everything."""
    async with serving(tmp_path / "n") as served:
        assert mode_of(served.addresses.socket) == 0o600
    assert not served.addresses.socket.exists()


async def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    """After a kill -9 the node could not be started."""
    async with serving(tmp_path / "n"):
        pass
    DataDir(tmp_path / "n").listen_api(1).close()
    assert (tmp_path / "n" / "api.sock").exists()
    async with serving(tmp_path / "n") as served:
        assert (await served.get("/v1/health"))["healthy"]


async def test_a_running_node_keeps_its_socket(tmp_path: Path) -> None:
    """A second node in the same directory would take the API away from the first."""
    async with serving(tmp_path / "n") as served:
        with pytest.raises(ConfigError, match="in use by process"):
            async with serving(tmp_path / "n"):
                pass
        assert (await served.get("/v1/health"))["healthy"]


async def test_localhost_needs_the_token_and_its_own_name(tmp_path: Path) -> None:
    """Every program and every web page on the machine can open the port."""
    async with serving(tmp_path / "n", http="127.0.0.1:0") as served:
        url, token_file = served.addresses.http, served.addresses.token_file
        assert url is not None
        assert token_file is not None
        assert mode_of(token_file) == 0o600
        right = {"Authorization": f"Bearer {token_file.read_text().strip()}"}
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/v1/health", headers=right)).status_code == 200
            for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic x"}):
                refused = await client.get("/v1/health", headers=headers)
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"] == "Bearer"
                assert refused.json()["error"]["code"] == "unauthorized"
            port = url.rpartition(":")[2]
            for host in ("evil.example", f"evil.example:{port}", "localhost", f"127.0.0.2:{port}"):
                assert (await client.get("/v1/health", headers={**right, "Host": host})).status_code == 401
            assert (await client.get("/v1/health", headers={**right, "Host": f"localhost:{port}"})).status_code == 200
            answer = await client.options("/v1/status", headers={**right, "Origin": "http://evil.example"})
            assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_token_stays_and_must_be_secret(tmp_path: Path) -> None:
    """A bookmark would break at each restart; a token that others can read protects nothing."""
    token = load_or_create_token(DataDir(tmp_path))
    assert len(token) >= 32
    assert load_or_create_token(DataDir(tmp_path)) == token
    (tmp_path / TOKEN_NAME).chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_or_create_token(DataDir(tmp_path))


async def test_a_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    """The second of two nodes with one --http would end in a traceback."""
    async with serving(tmp_path / "a", http="127.0.0.1:0") as served:
        assert served.addresses.http is not None
        with pytest.raises(ConfigError, match=r"cannot listen there: .*; choose another port"):
            async with serving(tmp_path / "b", http=served.addresses.http.removeprefix("http://")):
                pass


async def test_nonsense_on_the_socket_does_not_end_the_node(served: Served) -> None:
    """One confused client would take the node down."""
    for data in (b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 50, b"GET"):
        async with await trio.open_unix_socket(str(served.addresses.socket)) as stream:
            await stream.send_all(data)
            await stream.send_eof()
            while await stream.receive_some():
                pass
    assert (await served.get("/v1/health"))["healthy"]


async def test_a_client_that_does_not_read_cannot_keep_the_node_from_ending(tmp_path: Path) -> None:
    """`meshsync dump | less`, paused, and then a SIGTERM to the node."""
    with trio.fail_after(30):
        async with serving(tmp_path / "n") as served:
            notes = served.node.collection("notes")
            for n in range(40):
                await notes.put(f"n{n}", {"text": "x" * 100_000})
            stream = await trio.open_unix_socket(str(served.addresses.socket))
            await stream.send_all(b"GET /v1/collections/notes/documents HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await stream.receive_some(1)
    await stream.aclose()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (LocalError("a; b"), 400, "bad_request"),
        (ConfigError("a; b"), 400, "bad_request"),
        (RefusedError("a; b"), 403, "refused"),
        (TooLargeError("a; b"), 413, "too_large"),
        (UnauthorizedError("a; b"), 401, "unauthorized"),
        (NotHereError("no_document", "a; b"), 404, "no_document"),
        (NotHereError("no_collection", "a; b"), 404, "no_collection"),
        (StoreError("a; b"), 507, "store_failed"),
        (TransportLost("a; b"), 502, "network"),
        (PeerError("a; b"), 502, "network"),
    ],
)
def test_errors_say_whose_fault_it_is(error: Exception, status: int, code: str) -> None:
    """A caller that is told "internal" for its own slip files a bug; one that is told of its slip mends it."""
    assert describe(error) == {"code": code, "message": "a", "hint": "b"}
    assert STATUS_OF_CODE[code] == status


def test_a_fault_of_our_own_tells_no_details() -> None:
    """They may hold what this caller must not see, and the log has them."""
    described = describe(KeyError("secret"))
    assert described["code"] == "internal"
    assert "secret" not in str(described)
