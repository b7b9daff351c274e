"""The headers that both clouds' answers carry: ids of requests, times, and CORS."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.aws_events import HttpCall, function_url
from tests.support.servers import Cloud, cloud_run, lambda_emulator, wait_until

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 2}
PAGE = "https://page.example"
LIMITS = {"KINDLING_CORS_ORIGINS": PAGE, "KINDLING_MAX_BODY_BYTES": "1000"}


@pytest.fixture(scope="module", params=["cloud_run", "lambda"])
def open_cloud(
    request: pytest.FixtureRequest, tiny_artifact: Path, directory: Path
) -> Iterator[Cloud]:
    """A server that a page may call."""
    if request.param == "lambda":
        with lambda_emulator(tiny_artifact, directory, **LIMITS) as emulator:
            yield emulator
    else:
        with cloud_run(tiny_artifact, directory, **LIMITS) as server:
            yield server


def wait_until_logged(cloud: Cloud, identity: str) -> None:
    """The line of a request is written once its answer has left, so the client may be ahead."""
    wait_until(lambda: identity in [line["id"] for line in cloud.process.requests])


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_keeps_its_id_in_the_answer_and_in_the_log(cloud: Cloud, stream: bool) -> None:
    identity = f"mine/{stream}"

    answer = cloud.post(CHAT, HELLO | {"stream": stream}, **{"X-Request-Id": identity})

    assert answer.headers["x-request-id"] == identity
    wait_until_logged(cloud, identity)


@pytest.mark.parametrize("identity", ["two words", "x" * 129])
def test_an_id_that_cannot_be_kept_is_replaced(cloud: Cloud, identity: str) -> None:
    answer = cloud.post(CHAT, HELLO, **{"x-request-id": identity})

    given = answer.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f-]{32,36}", given)
    wait_until_logged(cloud, given)


def test_an_error_keeps_the_id_too(cloud: Cloud) -> None:
    answer = cloud.post(CHAT, {}, **{"x-request-id": "wrong-1"})

    assert (answer.status, answer.headers["x-request-id"]) == (400, "wrong-1")


def test_the_times_are_told(cloud: Cloud) -> None:
    number = r"\d+\.\d"

    whole = cloud.post(CHAT, HELLO).headers["server-timing"]
    head = cloud.post(CHAT, HELLO | {"stream": True}).headers["server-timing"]

    assert re.fullmatch(f"queue;dur={number}, prefill;dur={number}, decode;dur={number}", whole)
    assert re.fullmatch(f"queue;dur={number}, prefill;dur={number}", head)


@pytest.mark.parametrize(
    ("body", "status"),
    [(HELLO, 200), (HELLO | {"stream": True}, 200), ({}, 400), ({"x": "x" * 2000}, 413)],
    ids=["whole", "streamed", "wrong", "too large"],
)
def test_a_page_may_read_every_answer(open_cloud: Cloud, body: object, status: int) -> None:
    answer = open_cloud.post(CHAT, body, origin=PAGE)

    assert answer.status == status
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    assert answer.headers["vary"] == "Origin"


def test_a_browser_that_asks_first_is_told(open_cloud: Cloud) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "a,b"}

    answer = open_cloud.send(HttpCall("OPTIONS", CHAT, headers={"origin": PAGE} | asked))

    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-headers"] == "a,b"


def test_where_no_page_may_call_no_header_says_otherwise(cloud: Cloud) -> None:
    answer = cloud.post(CHAT, HELLO, origin=PAGE)

    assert not any(name.lower().startswith("access-control") for name in answer.headers)


def test_an_event_that_cannot_be_read_is_answered_to_any_page(
    tiny_artifact: Path, directory: Path
) -> None:
    event = function_url(HttpCall("POST", CHAT, json.dumps(HELLO).encode()))
    with lambda_emulator(tiny_artifact, directory, KINDLING_CORS_ORIGINS="*") as emulator:
        answer = emulator.deliver(event | {"body": "?", "isBase64Encoded": True})

    assert (answer.status, answer.headers["access-control-allow-origin"]) == (400, "*")
