"""The Cloud Run handler in uvicorn, over a socket: streams, clients that leave, too many clients.

The demo model takes seconds for a long answer, so that there is a middle to do something in.
"""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.aws_events import HttpCall
from tests.support.raw_http import connect, post_bytes, read_chunks, read_head
from tests.support.servers import CloudRun, HttpAnswer, cloud_run, wait_until

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 8}
ENDLESS = HELLO | {"max_tokens": 1900, "ignore_eos": True}


def logged(server: CloudRun, status: int) -> list[dict[str, Any]]:
    return [line for line in server.process.requests if line["status"] == status]


def test_each_event_of_a_stream_leaves_as_a_chunk_of_its_own(tiny_cloud_run: CloudRun) -> None:
    with connect(tiny_cloud_run) as client, client.makefile("rb") as stream:
        client.sendall(post_bytes(CHAT, HELLO | {"stream": True}))
        head, chunks = read_head(stream), read_chunks(stream)
    assert head[0] == "HTTP/1.1 200 OK"
    assert "content-type: text/event-stream; charset=utf-8" in head
    assert len(chunks) > 4
    assert all(chunk.startswith(b"data: ") and chunk.count(b"\n\n") == 1 for chunk in chunks)


def test_tokens_arrive_while_the_answer_is_still_being_made(demo_cloud_run: CloudRun) -> None:
    with demo_cloud_run.client.stream("POST", CHAT, json=ENDLESS | {"stream": True}) as answer:
        lines = answer.iter_lines()
        received = [next(lines) for _ in range(6)]
        assert demo_cloud_run.health()["running"] == 1
    assert all(line.startswith("data: ") for line in received[::2])
    wait_until(lambda: demo_cloud_run.health()["running"] == 0)


def test_a_client_that_leaves_a_stream_frees_its_slot(demo_cloud_run: CloudRun) -> None:
    with demo_cloud_run.client.stream("POST", CHAT, json=ENDLESS | {"stream": True}) as answer:
        lines = answer.iter_lines()  # kept: when it is collected, httpx closes the connection
        next(lines)
        wait_until(lambda: demo_cloud_run.health()["running"] == 1)
    wait_until(lambda: demo_cloud_run.health()["running"] == 0)
    left = answer.headers["x-request-id"]
    wait_until(lambda: left in [line["id"] for line in logged(demo_cloud_run, 499)])


def test_a_client_that_leaves_before_its_answer_frees_its_slot(demo_cloud_run: CloudRun) -> None:
    already = len(logged(demo_cloud_run, 499))
    with connect(demo_cloud_run) as client:
        client.sendall(post_bytes(CHAT, ENDLESS))
        wait_until(lambda: demo_cloud_run.health()["running"] == 1)
    wait_until(lambda: demo_cloud_run.health()["running"] == 0)
    wait_until(lambda: len(logged(demo_cloud_run, 499)) == already + 1)


def test_a_client_that_leaves_while_it_waits_in_the_queue_leaves_the_queue(
    demo_artifact: Path, directory: Path
) -> None:
    with (
        cloud_run(demo_artifact, directory, KINDLING_SLOTS="1") as server,
        connect(server) as first,
    ):
        first.sendall(post_bytes(CHAT, ENDLESS))
        wait_until(lambda: server.health()["running"] == 1)
        with connect(server) as second:
            second.sendall(post_bytes(CHAT, ENDLESS))
            wait_until(lambda: server.health()["waiting"] == 1)
        wait_until(lambda: server.health()["waiting"] == 0)
        assert server.health()["running"] == 1


def test_a_client_that_leaves_during_its_body_leaves_the_server_serving(
    tiny_cloud_run: CloudRun,
) -> None:
    already = len(logged(tiny_cloud_run, 499))
    with connect(tiny_cloud_run) as client:
        client.sendall(post_bytes(CHAT, HELLO, content_length=10_000))
    wait_until(lambda: len(logged(tiny_cloud_run, 499)) == already + 1)
    assert tiny_cloud_run.post(CHAT, HELLO).status == 200


def test_a_body_over_the_limit_is_refused_before_it_has_all_arrived(
    tiny_artifact: Path, directory: Path
) -> None:
    body = {"prompt": "x" * 200_000}
    with (
        cloud_run(tiny_artifact, directory, KINDLING_MAX_BODY_BYTES="1000") as server,
        connect(server) as client,
        client.makefile("rb") as stream,
    ):
        client.sendall(post_bytes(CHAT, body, content_length=10_000_000))
        assert read_head(stream)[0].startswith("HTTP/1.1 413")
        assert server.post(CHAT, HELLO).status == 200


def test_fifty_clients_at_once_are_answered_or_told_to_come_back(
    demo_artifact: Path, directory: Path
) -> None:
    """Four run and eight wait: of fifty at once at least these twelve get their answer."""
    wanted = HELLO | {"max_tokens": 16, "ignore_eos": True}
    with cloud_run(demo_artifact, directory, KINDLING_QUEUE_LIMIT="8") as server:
        with ThreadPoolExecutor(50) as clients:
            answers = list(clients.map(lambda _: server.post(CHAT, wanted), range(50)))
        assert_served(answers)
        health = server.health()
        assert (health["running"], health["waiting"]) == (0, 0)
        assert server.post(CHAT, wanted).status == 200


def assert_served(answers: list[HttpAnswer]) -> None:
    counts = Counter(answer.status for answer in answers)
    assert set(counts) == {200, 429}
    assert counts[200] >= 12
    for answer in answers:
        if answer.status == 200:
            assert answer.json()["usage"]["completion_tokens"] == 16
        else:
            assert answer.json()["error"]["code"] == "overloaded"
            assert int(answer.headers["retry-after"]) > 0


def test_a_request_that_waited_past_its_deadline_is_answered_504(
    demo_artifact: Path, directory: Path
) -> None:
    """The second gets the slot just before its deadline, and has seconds of prompt to read."""
    long = HELLO | {"messages": [{"role": "user", "content": "word " * 1800}]}
    with (
        cloud_run(
            demo_artifact, directory, KINDLING_SLOTS="1", KINDLING_TIMEOUT_SECONDS="3"
        ) as server,
        ThreadPoolExecutor(1) as other,
    ):
        first = other.submit(server.post, CHAT, ENDLESS)
        wait_until(lambda: server.health()["running"] == 1)
        second = server.post(CHAT, long)
        cut = first.result().json()
    assert cut["choices"][0]["finish_reason"] == "length"
    assert 0 < cut["usage"]["completion_tokens"] < 1900
    assert (second.status, second.json()["error"]["code"]) == (504, "deadline_exceeded")


@pytest.mark.parametrize("path", ["/v1/models", "/openapi.json", "/nowhere"])
def test_head_has_the_length_of_what_get_would_bring(tiny_cloud_run: CloudRun, path: str) -> None:
    head, get = (tiny_cloud_run.send(HttpCall(method, path)) for method in ("HEAD", "GET"))
    assert (head.status, head.body) == (get.status, b"")
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.body))


def test_a_body_in_chunks_is_read_and_one_of_two_lengths_is_not(tiny_cloud_run: CloudRun) -> None:
    body = json.dumps(HELLO).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n".encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    two = b"content-length: 3\r\ncontent-length: 4\r\n\r\n{}  "
    for rest, status in [(b"transfer-encoding: chunked\r\n\r\n" + chunks, "200"), (two, "400")]:
        with connect(tiny_cloud_run) as client, client.makefile("rb") as stream:
            client.sendall(head + rest)
            assert read_head(stream)[0].split()[1] == status


def test_a_body_that_nobody_asked_for_is_no_matter(tiny_cloud_run: CloudRun) -> None:
    for method, path, status in [("GET", "/v1/models", 200), ("OPTIONS", "/nowhere", 404)]:
        assert tiny_cloud_run.send(HttpCall(method, path, b"{")).status == status


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_methods_pass_through_to_the_api(tiny_cloud_run: CloudRun, method: str) -> None:
    answer = tiny_cloud_run.send(HttpCall(method, "/v1/models"))
    assert answer.status == {"GET": 200, "HEAD": 200, "OPTIONS": 204}[method]
    assert (answer.body != b"") == (method == "GET")


def test_a_path_and_a_query_are_decoded(tiny_cloud_run: CloudRun) -> None:
    url = f"{tiny_cloud_run.url}/%67enerate?prompt=Z%C3%BCrich%20%26+Bern&max_tokens=2"
    assert httpx.get(url, trust_env=False).status_code == 200


def test_an_api_key_is_asked_for_where_one_is_set(tiny_artifact: Path, directory: Path) -> None:
    with cloud_run(tiny_artifact, directory, KINDLING_API_KEY="secret") as server:
        refused = server.post(CHAT, HELLO)
        assert refused.status == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert server.post(CHAT, HELLO, Authorization="Bearer wrong").status == 401
        assert server.post(CHAT, HELLO, Authorization="Bearer secret").status == 200
        assert server.health()["state"] == "ready"


def test_a_request_is_logged_by_its_envelope_alone(tiny_cloud_run: CloudRun) -> None:
    answer = tiny_cloud_run.post(CHAT, HELLO)
    line = next(
        line
        for line in tiny_cloud_run.process.requests
        if line["id"] == answer.headers["x-request-id"]
    )
    assert (line["method"], line["path"], line["status"]) == ("POST", CHAT, 200)
    assert (line["completion_tokens"], line["severity"]) == (8, "INFO")
    assert "Hello" not in json.dumps(line)


def test_the_log_is_as_whole_with_execution_ids_as_without(
    tiny_artifact: Path, directory: Path
) -> None:
    with cloud_run(tiny_artifact, directory, LOG_EXECUTION_ID="true") as server:
        identity = server.post(CHAT, HELLO).headers["x-request-id"]
        assert '"message": "ready"' in server.process.output
        assert [line["id"] for line in logged(server, 200)] == [identity]


def test_the_model_is_loaded_once_and_before_the_port_opens(
    tiny_artifact: Path, directory: Path
) -> None:
    with cloud_run(tiny_artifact, directory) as server:
        first = server.health()
        server.post(CHAT, HELLO)
        second = server.health()
    assert first["state"] == "ready"
    assert first["load_ms"] == second["load_ms"]
    assert first["load_ms"]["process"] > first["load_ms"]["session"] > 0
    assert second["uptime_seconds"] > first["uptime_seconds"]


def test_the_first_answer_that_is_not_a_probes_is_marked_as_cold(
    tiny_artifact: Path, directory: Path
) -> None:
    with cloud_run(tiny_artifact, directory) as server:
        paths = ["/healthz", "/health", "/v1/models", "/v1/models"]
        answers = [server.send(HttpCall("GET", path)) for path in paths]
    marks = [answer.headers.get("x-kindling-cold") for answer in answers]
    assert marks == [None, None, "true", None]
