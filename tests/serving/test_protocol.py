"""Headers that are too slow, too large or too many, against a worker that others want to use."""

import contextlib
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from recvae.serving import protocol
from tests.contracts import one_thread as one_thread
from tests.http_service import item_id, running, save

HEAD = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
STARTS = (b"", b"\r\n", b"POST /rec", HEAD, HEAD + b"X-Slow: ")
"""Beginnings of a request that goes no further."""
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("protocol") / "model"
    save(path)
    with running(path, RECVAE_API_KEY="secret") as (address, _):
        yield address


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def answer(connection: socket.socket) -> bytes:
    """Everything the server sends until it closes; a reset counts as closing."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(4096):
            received += data
    return received


def send_all(connection: socket.socket, data: bytes, times: int) -> int:
    """Send until the server has had enough; how many bytes it took."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        for _ in range(times):
            connection.sendall(data)
            sent += len(data)
    return sent


def is_served(address: str) -> bool:
    body = {"history": [item_id(1)], "n": 2}
    return httpx.post(f"{address}/recommend", json=body, headers={"x-api-key": "secret"}, timeout=5).is_success


def test_headers_have_a_deadline(address: str) -> None:
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(address)) for _ in STARTS]
        for connection, sent in zip(connections, STARTS, strict=True):
            connection.sendall(sent)
        for connection, sent in zip(connections, STARTS, strict=True):
            assert answer(connection).startswith(b"HTTP/1.1 408 "), sent
            assert protocol.HEADER_SECONDS * 0.8 < time.monotonic() - started < protocol.HEADER_SECONDS + 10


def test_headers_that_drip_have_the_same_deadline(address: str) -> None:
    with connect(address) as connection:
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - started < 60:
                connection.sendall(b"G" if time.monotonic() - started < 0.1 else b"E")
                time.sleep(0.2)
        assert time.monotonic() - started < protocol.HEADER_SECONDS + 10


def test_the_headers_of_a_second_request_have_a_deadline_too(address: str) -> None:
    with connect(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /heal")
        started = time.monotonic()
        assert answer(connection).count(b"HTTP/1.1 200 ") == 1
        assert time.monotonic() - started < protocol.HEADER_SECONDS + 10


@pytest.mark.parametrize(
    "start",
    [HEAD + b"X-Large: ", b"GET /", HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: ", b""],
    ids=["header", "path", "trailer", "lines"],
)
def test_large_headers_are_cut_off(address: str, start: bytes) -> None:
    with connect(address) as connection:
        connection.sendall(start)
        started = time.monotonic()
        sent = send_all(connection, (b"x" if start else b"\r\n") * (MEGABYTE // 2), 256)
        assert sent < 32 * MEGABYTE  # as far as the buffers of the system take it
        assert time.monotonic() - started < 5
    assert is_served(address)


def test_a_refused_body_is_not_read_for_ever(address: str) -> None:
    with connect(address) as connection:
        connection.sendall(HEAD + b"Content-Length: 999999999999\r\n\r\n")
        started = time.monotonic()
        while time.monotonic() - started < 60 and send_all(connection, b"x" * 1000, 1):
            time.sleep(0.01)
        assert time.monotonic() - started < protocol.HEADER_SECONDS + 10


def test_usual_requests_pass(address: str) -> None:
    with httpx.Client(base_url=address, headers={"x-api-key": "secret"}, timeout=60) as http:
        for size in (10, 30_000, 60_000):
            assert http.get("/model", headers={"x-filler": "x" * size}).status_code == 200
        chunks = (b"%c" % byte for byte in b'{"history": []' + b" " * 1000 + b"}")
        assert http.post("/recommend", content=chunks, headers={"content-type": "application/json"}).is_success
        too_large = http.post("/recommend", content=b" " * (MEGABYTE + 1), headers={"content-type": "application/json"})
        assert too_large.status_code == 413


def test_hundreds_of_half_sent_headers_keep_nobody_out(address: str) -> None:
    with contextlib.ExitStack() as stack:
        attackers = [stack.enter_context(connect(address)) for _ in range(4 * protocol.MOST_WAITING)]
        for connection in attackers:
            with contextlib.suppress(ConnectionError):
                connection.sendall(HEAD)
        started = time.monotonic()
        assert all(is_served(address) for _ in range(10))
        assert time.monotonic() - started < 4
