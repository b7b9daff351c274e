"""SIGTERM and Ctrl-C: nobody new, those within finish, and the process ends with status 0."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest

from tests.support.event_stream import events, finish_reason
from tests.support.servers import PATIENCE_SECONDS, CloudRun, cloud_run

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
ENDLESS = {
    "messages": [{"role": "user", "content": "Hello"}],
    "temperature": 0,
    "max_tokens": 1900,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}


# A second or so of compiling, at the end of which it is refused.
TOO_LARGE: dict[str, object] = {
    "type": "object",
    "properties": {f"property_{number}": {"type": "integer"} for number in range(5_000)},
}


def wait_until_refused(server: CloudRun) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        try:
            httpx.get(f"{server.url}/healthz", trust_env=False)
        except httpx.ConnectError:
            return
        except httpx.TransportError:
            continue  # accepted, but closed before it was answered
    pytest.fail("The server still accepts connections.")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once(
    tiny_artifact: Path, directory: Path, number: signal.Signals
) -> None:
    with cloud_run(tiny_artifact, directory) as server:
        server.health()
        server.process.popen.send_signal(number)
        assert server.process.wait() == 0
    assert "Traceback" not in server.process.output


def test_a_running_stream_is_finished(demo_artifact: Path, directory: Path) -> None:
    with cloud_run(demo_artifact, directory, KINDLING_DRAIN_SECONDS="100") as server:
        with server.client.stream("POST", CHAT, json=ENDLESS | {"max_tokens": 60}) as answer:
            body = answer.iter_bytes()
            received = next(body)
            server.process.popen.send_signal(signal.SIGTERM)
            wait_until_refused(server)
            chunks = events(received + b"".join(body))
        assert chunks[-1]["usage"]["completion_tokens"] == 60
        assert server.process.wait() == 0
    assert "Traceback" not in server.process.output


def test_a_stream_that_outlasts_the_drain_ends_with_what_it_has(
    demo_artifact: Path, directory: Path
) -> None:
    with cloud_run(demo_artifact, directory, KINDLING_DRAIN_SECONDS="1") as server:
        with server.client.stream("POST", CHAT, json=ENDLESS) as answer:
            body = answer.iter_bytes()
            received = next(body)
            server.process.popen.send_signal(signal.SIGTERM)
            assert_cut(received, body)
        assert server.process.wait() == 0
    assert "Traceback" not in server.process.output


def test_a_second_signal_ends_the_drain(demo_artifact: Path, directory: Path) -> None:
    with cloud_run(demo_artifact, directory, KINDLING_DRAIN_SECONDS="100") as server:
        with server.client.stream("POST", CHAT, json=ENDLESS) as answer:
            body = answer.iter_bytes()
            received = next(body)
            server.process.popen.send_signal(signal.SIGTERM)
            wait_until_refused(server)
            server.process.popen.send_signal(signal.SIGTERM)
            assert_cut(received, body)
        assert server.process.wait() == 0


def test_grammars_in_the_queue_hold_up_neither_other_requests_nor_the_end(
    tiny_artifact: Path, directory: Path
) -> None:
    with (
        cloud_run(tiny_artifact, directory, KINDLING_DRAIN_SECONDS="10") as server,
        ThreadPoolExecutor(30) as pool,
    ):
        body = {"prompt": "Hello", "max_tokens": 2}
        compiling = [
            pool.submit(server.post, COMPLETIONS, body | {"guided_json": TOO_LARGE})
            for _ in range(30)
        ]
        wait(compiling, return_when=FIRST_COMPLETED)
        assert server.post(COMPLETIONS, body).status == 200
        assert sum(one.done() for one in compiling) < 15
        server.process.popen.send_signal(signal.SIGTERM)
        statuses = {one.result().status for one in compiling}
        assert server.process.wait() == 0
    assert statuses == {400, 503}
    assert "Traceback" not in server.process.output


def assert_cut(received: bytes, rest: Iterator[bytes]) -> None:
    chunks = events(received + b"".join(rest))
    assert finish_reason(chunks) == "length"
    assert 0 < chunks[-1]["usage"]["completion_tokens"] < 1900
