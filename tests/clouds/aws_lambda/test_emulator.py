"""The Lambda handler, run by awslambdaric in AWS's own emulator."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.aws_events import (
    HTTP_KINDS,
    PINGS,
    Event,
    HttpCall,
    function_url,
    load_balancer,
)
from tests.support.event_stream import events, joined_text
from tests.support.servers import Lambda, lambda_emulator

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 4}
LONG = HELLO | {"ignore_eos": True}

every_kind = pytest.mark.parametrize("wrap", HTTP_KINDS, ids=lambda wrap: wrap.__name__)
Wrap = Callable[[HttpCall], Event]


@every_kind
def test_a_chat_is_answered_through_every_kind_of_event(tiny_lambda: Lambda, wrap: Wrap) -> None:
    answer = tiny_lambda.deliver(wrap(HttpCall("POST", CHAT, json.dumps(HELLO).encode())))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["choices"] == tiny_lambda.invoke(HELLO)["choices"]


@every_kind
def test_a_query_arrives_through_every_kind_of_event(tiny_lambda: Lambda, wrap: Wrap) -> None:
    query = {"prompt": "Zürich & Genève", "max_tokens": "4"}
    answer = tiny_lambda.deliver(wrap(HttpCall("GET", "/generate", query=query)))
    assert answer.status == 200
    assert isinstance(answer.json()["response"], str)


def test_a_target_group_s_check_is_answered_at_its_default_path(tiny_lambda: Lambda) -> None:
    checks = [load_balancer(HttpCall("GET", path)) for path in ("/", "/healthz")]
    greeting, health = [tiny_lambda.deliver(check) for check in checks]
    assert (greeting.status, greeting.json()["server"]) == (200, "Kindling")
    assert health.status == 200


def test_a_base64_body_is_decoded(tiny_lambda: Lambda) -> None:
    event = function_url(HttpCall("POST", CHAT))
    event |= {"body": base64.b64encode(json.dumps(HELLO).encode()).decode()}
    answer = tiny_lambda.deliver(event | {"isBase64Encoded": True})
    assert answer.json()["choices"] == tiny_lambda.invoke(HELLO)["choices"]


def test_a_body_that_is_not_the_base64_it_claims_to_be_is_answered_400(tiny_lambda: Lambda) -> None:
    event = function_url(HttpCall("POST", CHAT)) | {"body": "?", "isBase64Encoded": True}
    assert tiny_lambda.deliver(event).status == 400


def test_an_event_that_cannot_be_read_is_logged_like_any_other(tiny_lambda: Lambda) -> None:
    event = function_url(HttpCall("POST", CHAT)) | {"body": "?", "isBase64Encoded": True}
    identity = tiny_lambda.deliver(event).headers["x-request-id"]
    [line] = [line for line in tiny_lambda.process.requests if line["id"] == identity]
    assert (line["method"], line["path"], line["status"]) == ("-", "-", 400)


def test_a_direct_invoke_gets_the_completion_itself(tiny_lambda: Lambda) -> None:
    completion = tiny_lambda.invoke(HELLO)
    assert completion["object"] == "chat.completion"
    assert completion["usage"]["completion_tokens"] == 4


def test_a_direct_invoke_that_is_wrong_gets_the_error_and_its_status(tiny_lambda: Lambda) -> None:
    answer = tiny_lambda.invoke({"messages": []})
    assert answer["status"] == 400
    assert answer["error"]["param"] == "messages"


def test_a_streamed_direct_invoke_gets_the_whole_stream_as_text(tiny_lambda: Lambda) -> None:
    text = tiny_lambda.invoke(HELLO | {"stream": True})
    whole = tiny_lambda.invoke(HELLO)
    assert joined_text(events(text.encode())) == whole["choices"][0]["message"]["content"]


def test_an_answer_that_a_stop_string_ended_runs_no_more(tiny_lambda: Lambda) -> None:
    text = tiny_lambda.invoke(LONG)["choices"][0]["message"]["content"]
    stopped = tiny_lambda.invoke(LONG | {"stop": text[0]})
    assert stopped["choices"][0]["finish_reason"] == "stop"
    assert tiny_lambda.health()["running"] == 0


@pytest.mark.parametrize("event", [{}, *PINGS], ids=json.dumps)
def test_a_ping_gets_a_word_that_the_model_is_ready_and_no_generation(
    tiny_lambda: Lambda, event: object
) -> None:
    lines = len(tiny_lambda.process.requests)
    answer = tiny_lambda.invoke(event)
    assert (answer["state"], answer["running"]) == ("ready", 0)
    [line] = tiny_lambda.process.requests[lines:]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/healthz", 200)


def test_the_event_that_an_error_offers_for_a_test_is_answered(tiny_lambda: Lambda) -> None:
    message = tiny_lambda.invoke({"key1": "value1", "key2": "value2"})["errorMessage"]
    offered = json.loads(message.partition("send ")[2].removesuffix("."))
    assert tiny_lambda.deliver(offered).json()["state"] == "ready"


def test_an_event_of_another_service_is_an_error_that_says_what_is_expected(
    tiny_lambda: Lambda,
) -> None:
    error = tiny_lambda.invoke({"Records": []})
    assert error["errorType"] == "InvalidRequest"
    assert "its keys: Records. For a test, send {" in error["errorMessage"]


def test_an_event_that_is_not_an_object_is_an_error(tiny_lambda: Lambda) -> None:
    assert tiny_lambda.invoke([])["errorMessage"] == "The event is not a JSON object."


def test_a_warm_call_loads_nothing(tiny_artifact: Path, directory: Path) -> None:
    with lambda_emulator(tiny_artifact, directory) as emulator:
        first, *later = [emulator.health() for _ in range(4)]
        emulator.invoke(HELLO)
        last = emulator.health()
    assert [health["load_ms"] for health in [*later, last]] == [first["load_ms"]] * 4
    assert last["uptime_seconds"] > later[-1]["uptime_seconds"] > first["uptime_seconds"]
    assert emulator.process.output.count("INIT START") == 1
    assert [line["cold"] for line in emulator.process.requests] == [True] + 5 * [False]


def test_a_request_is_logged_by_the_client_s_name_and_by_lambda_s(tiny_lambda: Lambda) -> None:
    unnamed = tiny_lambda.post(CHAT, HELLO).headers["x-request-id"]
    tiny_lambda.post(CHAT, HELLO, **{"x-request-id": "mine"})
    *_, first, second = tiny_lambda.process.requests
    assert first["requestId"] == first["id"] == unnamed
    assert second["id"] == "mine"
    assert second["requestId"] not in ("mine", unnamed)


def test_a_request_is_logged_by_its_envelope_alone(tiny_lambda: Lambda) -> None:
    answer = tiny_lambda.post(CHAT, HELLO)
    line = next(
        line
        for line in tiny_lambda.process.requests
        if line["id"] == answer.headers["x-request-id"]
    )
    assert (line["method"], line["path"], line["status"]) == ("POST", CHAT, 200)
    assert (line["completion_tokens"], line["level"]) == (4, "INFO")
    assert "Hello" not in json.dumps(line)


def test_a_long_answer_comes_back_cut_before_lambda_kills_it(
    demo_artifact: Path, directory: Path
) -> None:
    limits = {"AWS_LAMBDA_FUNCTION_TIMEOUT": "6", "KINDLING_CONTEXT_LENGTH": "8192"}
    with lambda_emulator(demo_artifact, directory, KINDLING_SLOTS="1", **limits) as emulator:
        emulator.health()
        completion = emulator.invoke(LONG | {"max_tokens": 8000})
        assert completion["choices"][0]["finish_reason"] == "length"
        assert 0 < completion["usage"]["completion_tokens"] < 8000
        assert emulator.health()["running"] == 0
    assert emulator.process.output.count("INIT START") == 1


def test_an_answer_over_what_its_sender_carries_is_refused_and_the_process_lives(
    tiny_artifact: Path, tmp_path: Path, directory: Path
) -> None:
    """Every event of a stream names the model: one with a name of 64 kB soon makes megabytes."""
    artifact = shutil.copytree(tiny_artifact, tmp_path / "artifact")
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["model"]["id"] = "m" * 65_536
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    with lambda_emulator(artifact, directory) as emulator:
        streamed = LONG | {"stream": True, "max_tokens": 20}
        small = emulator.post(CHAT, streamed)
        balanced = emulator.deliver(
            load_balancer(HttpCall("POST", CHAT, json.dumps(streamed).encode()))
        )
        refused = emulator.post(CHAT, LONG | {"stream": True, "max_tokens": 200})
        emulator.health()
    assert small.status == 200
    assert len(small.body) > 1_000_000
    assert balanced.status == refused.status == 413
    assert refused.json()["error"]["code"] == "response_too_large"
    assert emulator.process.output.count("INIT START") == 1


def test_with_an_api_key_a_url_needs_it_and_an_invoke_that_iam_allowed_does_not(
    tiny_artifact: Path, directory: Path
) -> None:
    with lambda_emulator(tiny_artifact, directory, KINDLING_API_KEY="secret") as emulator:
        assert emulator.post(CHAT, HELLO).status == 401
        assert emulator.post(CHAT, HELLO, Authorization="Bearer wrong").status == 401
        assert emulator.post(CHAT, HELLO, Authorization="Bearer schlüssel").status == 401
        assert emulator.post(CHAT, HELLO, Authorization="Bearer secret").status == 200
        assert emulator.invoke(HELLO)["object"] == "chat.completion"
