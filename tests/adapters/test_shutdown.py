"""SIGTERM and Ctrl-C: nobody new, those within finish, and the process ends with status 0."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.event_stream import events, finish_reason
from tests.support.servers import PATIENCE_SECONDS, CloudRun, cloud_run

CHAT = "/v1/chat/completions"
ENDLESS = {
    "messages": [{"role": "user", "content": "Hello"}],
    "temperature": 0,
    "max_tokens": 1900,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
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


def assert_cut(received: bytes, rest: Iterator[bytes]) -> None:
    chunks = events(received + b"".join(rest))
    assert finish_reason(chunks) == "length"
    assert 0 < chunks[-1]["usage"]["completion_tokens"] < 1900
