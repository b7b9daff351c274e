"""Clients that keep the Cloud Run process waiting, with the key and without: what they may hold."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from handlers.cloud_run.slow_clients import BodyReader
from handlers.config import Settings
from handlers.errors import RequestTimeout
from tests.support.raw_http import connect, post_bytes, read_head
from tests.support.servers import CloudRun, cloud_run

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 2}
KEY = {"authorization": "Bearer secret"}
LIMIT = 1_000_000


@pytest.fixture(scope="module")
def server(tiny_artifact: Path, directory: Path) -> Iterator[CloudRun]:
    limits = {"KINDLING_REQUEST_SECONDS": "2", "KINDLING_MAX_BODY_BYTES": str(LIMIT)}
    with cloud_run(tiny_artifact, directory, KINDLING_API_KEY="secret", **limits) as server:
        yield server


def head(length: int, **headers: str) -> bytes:
    """The head of a POST whose body is still to come."""
    lines = {"host": "localhost", "content-length": str(length), **headers}
    return "\r\n".join(
        [f"POST {CHAT} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items()), "", ""]
    ).encode()


def answered(client: socket.socket) -> tuple[int, list[str], str]:
    """Status, headers and code of the error, of which nothing may have been asked for yet."""
    with client.makefile("rb") as stream:
        status, *headers = read_head(stream)
        length = next(line for line in headers if line.startswith("content-length"))
        body = json.loads(stream.read(int(length.split()[1])))
    return int(status.split()[1]), headers, body["error"]["code"]


def is_closed(client: socket.socket) -> bool:
    """Once the server has closed it; waits for that."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    ("length", "headers", "status"),
    [
        (LIMIT, {}, 401),
        (LIMIT + 1, KEY, 413),
        (10**17, KEY, 413),
        (LIMIT, KEY | {"content-encoding": "br"}, 415),
    ],
)
def test_what_the_head_decides_is_answered_before_the_body(
    server: CloudRun, length: int, headers: dict[str, str], status: int
) -> None:
    with connect(server) as client:
        client.sendall(head(length, **headers))
        assert answered(client)[0] == status


def test_a_client_that_sends_its_body_all_the_same_keeps_its_connection(server: CloudRun) -> None:
    url = httpx.URL(server.url)
    client = http.client.HTTPConnection(url.host, url.port)
    sockets = set()
    for headers, status in [({}, 401), (KEY | {"content-encoding": "br"}, 415), (KEY, 400)]:
        client.request("POST", CHAT, b"x" * LIMIT, headers)
        answer = client.getresponse()
        assert (answer.status, "error" in json.loads(answer.read())) == (status, True)
        sockets.add(client.sock)
    assert len(sockets) == 1
    client.close()
    with httpx.Client(base_url=server.url, trust_env=False) as pool:
        assert pool.post(CHAT, content=b"x" * LIMIT).status_code == 401
        assert pool.post(CHAT, json=HELLO, headers=KEY).status_code == 200


def test_a_client_that_asks_whether_to_send_its_body_is_told(server: CloudRun) -> None:
    body = json.dumps(HELLO).encode()
    with connect(server) as client:
        client.sendall(head(len(body), expect="100-continue"))
        status, headers, _ = answered(client)
        assert (status, "connection: close" in headers) == (401, True)
        assert is_closed(client)
    with connect(server) as client, client.makefile("rb") as stream:
        client.sendall(head(len(body), expect="100-continue", **KEY))
        assert read_head(stream) == ["HTTP/1.1 100 Continue"]
        client.sendall(body)
        assert read_head(stream)[0] == "HTTP/1.1 200 OK"


def test_a_body_that_does_not_arrive_in_time_is_answered_408(server: CloudRun) -> None:
    with connect(server) as client:
        client.sendall(head(100, **KEY) + b"{")
        status, headers, code = answered(client)
        assert (status, code) == (408, "request_timeout")
        assert "connection: close" in headers
        assert is_closed(client)
    assert server.post(CHAT, HELLO, **KEY).status == 200


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /v1/chat", head(LIMIT), head(LIMIT) + b"x" * 1000],
    ids=["nothing", "half a head", "a body that never comes", "a body that stops"],
)
def test_a_connection_without_a_request_is_closed(server: CloudRun, sent: bytes) -> None:
    with connect(server) as client:
        client.sendall(sent)
        if sent.startswith(head(LIMIT)):
            assert answered(client)[0] == 401
        assert is_closed(client)


def memory_bytes(server: CloudRun) -> int:
    status = Path(f"/proc/{server.process.popen.pid}/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def test_slow_clients_hold_no_bodies_without_the_key_and_few_with_it(server: CloudRun) -> None:
    before = memory_bytes(server)
    part = b" " * (LIMIT - 100_000)
    with ExitStack() as stack:
        strangers = [stack.enter_context(connect(server)) for _ in range(60)]
        for client in strangers:
            client.sendall(head(LIMIT) + part)
        assert {answered(client)[0] for client in strangers} == {401}
        assert memory_bytes(server) - before < 20 * LIMIT

        friends = [stack.enter_context(connect(server)) for _ in range(20)]
        for client in friends:
            client.sendall(head(LIMIT, **KEY) + part)
        assert server.post(CHAT, HELLO, **KEY).status == 200
        statuses = Counter(answered(client)[0] for client in friends)
    assert set(statuses) == {408, 429}
    assert 8 <= statuses[408] <= 9
    assert server.post(CHAT, HELLO, **KEY).status == 200


def test_an_idle_connection_is_closed_after_its_time_which_is_longer_than_a_proxys(
    tiny_artifact: Path, directory: Path
) -> None:
    with (
        cloud_run(tiny_artifact, directory, KINDLING_KEEP_ALIVE_SECONDS="1") as server,
        connect(server) as client,
        client.makefile("rb") as stream,
    ):
        client.sendall(b"HEAD /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert read_head(stream)[0] == "HTTP/1.1 200 OK"
        assert is_closed(client)
    assert Settings.from_environ({}).keep_alive_seconds > 600


def test_neither_idle_connections_nor_slow_bodies_hold_up_the_end(
    tiny_artifact: Path, directory: Path
) -> None:
    with (
        cloud_run(tiny_artifact, directory, KINDLING_DRAIN_SECONDS="1") as server,
        connect(server) as idle,
        connect(server) as unused,
        connect(server) as slow,
        idle.makefile("rb") as stream,
    ):
        idle.sendall(post_bytes("/nowhere", {}))
        assert read_head(stream)[0] == "HTTP/1.1 404 Not Found"
        slow.sendall(head(100) + b"{")
        server.health()
        server.process.popen.send_signal(signal.SIGTERM)
        assert answered(slow)[0] == 408
        assert is_closed(unused)
        assert server.process.wait() == 0
    assert "Traceback" not in server.process.output


class Silent:
    """A client's request whose body never comes."""

    async def stream(self) -> AsyncGenerator[bytes]:
        await asyncio.Event().wait()
        yield b""


def test_a_process_may_be_stopped_at_the_moment_when_a_body_is_late() -> None:
    """asyncio moves no timeout that has just run out, and says so by an error."""

    async def stopped() -> None:
        bodies = BodyReader(max_bytes=10, seconds=0)
        reading = asyncio.create_task(bodies.read(Silent()))  # type: ignore[arg-type]
        for _ in range(2):  # it begins, and its time is over
            await asyncio.sleep(0)
        assert not reading.done()
        bodies.end_within(0)
        await reading

    with pytest.raises(RequestTimeout):
        asyncio.run(stopped())
