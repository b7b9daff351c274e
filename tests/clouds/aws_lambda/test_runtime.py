"""Our own Lambda runtime with a Runtime API that holds every byte to the protocol."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.aws_events import (
    HTTP_KINDS,
    PINGS,
    Event,
    HttpCall,
    function_url,
    http_api,
    rest_api,
)
from tests.support.event_stream import events, joined_text
from tests.support.lambda_runtime import OwnRuntime, http_answer, own_runtime
from tests.support.servers import (
    INVOCATIONS,
    NULS,
    OWN_RUNTIME,
    PATIENCE_SECONDS,
    CloudRun,
    HttpAnswer,
    Lambda,
    lambda_emulator,
    wait_until,
)

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 4}
STREAMED = HELLO | {"stream": True}
ENDLESS = STREAMED | {"max_tokens": 200, "ignore_eos": True}


PAGE = "https://page.example"


@pytest.fixture(scope="module")
def runtime(tiny_artifact: Path, directory: Path) -> Iterator[OwnRuntime]:
    pages = {"KINDLING_CORS_ORIGINS": PAGE}
    with own_runtime(tiny_artifact, directory, variables=pages) as runtime:
        yield runtime


@pytest.fixture
def own(tiny_artifact: Path, directory: Path) -> Iterator[OwnRuntime]:
    """One that a test may harm."""
    with own_runtime(tiny_artifact, directory) as runtime:
        yield runtime


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, STREAMED | {"stream_options": {"include_usage": True}}),
        (CHAT, STREAMED | {"logprobs": True, "top_logprobs": 2, "n": 2}),
        (CHAT, STREAMED | {"messages": [{"role": "user", "content": "Zürich 東京"}]}),
        (COMPLETIONS, {"prompt": "Once", "stream": True, "seed": 3, "temperature": 1.5}),
        ("/v1/responses", {"input": "Hello", "stream": True, "temperature": 0}),
        (CHAT, HELLO),
        (CHAT, HELLO | {"temperature": "hot", "stream": True}),
        (CHAT, {}),
        ("/nowhere", {}),
    ],
    ids=[
        "usage",
        "logprobs",
        "beyond ascii",
        "sampled",
        "responses",
        "whole",
        "wrong field",
        "empty",
        "nowhere",
    ],
)
def test_a_client_gets_the_bytes_that_cloud_run_sends(
    runtime: OwnRuntime, tiny_cloud_run: CloudRun, path: str, body: dict[str, Any]
) -> None:
    one, other = tiny_cloud_run.post(path, body), runtime.post(path, body)
    assert one.status == other.status
    assert one.headers["content-type"] == other.headers["content-type"]
    assert anonymous(one) == anonymous(other)


def anonymous(answer: HttpAnswer) -> bytes:
    """The bytes, but for what is drawn, read from a clock, or left by what was asked before."""
    drawn = rb'"(?:id|item_id|created|created_at|completed_at|cached_tokens)":(?:"[^"]*"|[\d.]+)'
    return re.sub(drawn, b'"drawn"', answer.body)


def test_a_stream_leaves_while_it_is_made(runtime: OwnRuntime) -> None:
    invoked = runtime.begin(CHAT, ENDLESS)
    prelude = invoked.chunk()
    assert prelude.endswith(NULS)
    assert json.loads(prelude.removesuffix(NULS))["statusCode"] == 200
    assert invoked.chunk().startswith(b"data: ")
    assert invoked.posted.empty()
    assert events(http_answer(invoked.answer()).body)


def test_each_event_is_a_chunk(runtime: OwnRuntime) -> None:
    invoked = runtime.begin(CHAT, STREAMED)
    invoked.answer()
    chunks = [invoked.chunk() for _ in range(invoked.chunks.qsize())]
    assert [chunk.count(b"\n\n") for chunk in chunks[1:]] == [1] * (len(chunks) - 1)


@pytest.mark.parametrize("wrap", HTTP_KINDS[1:], ids=lambda wrap: wrap.__name__)
def test_a_sender_that_cannot_pass_a_stream_on_gets_it_whole(
    runtime: OwnRuntime, wrap: Any
) -> None:
    call = HttpCall("POST", CHAT, json.dumps(STREAMED).encode(), {"x-a": "b"})
    posted = runtime.api.send(wrap(call)).answer()
    assert not posted.streamed
    assert events(json.loads(posted.body)["body"].encode())


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (HttpCall("GET", "/healthz"), 200),
        (HttpCall("POST", CHAT, json.dumps(HELLO).encode()), 200),
        (HttpCall("POST", CHAT, b"{}"), 400),
        (HttpCall("GET", "/nowhere"), 404),
    ],
    ids=["health", "chat", "error", "nowhere"],
)
def test_a_url_gets_a_whole_answer_as_a_stream_of_one_part(
    runtime: OwnRuntime, call: HttpCall, status: int
) -> None:
    invoked = runtime.api.send(function_url(call))
    posted = invoked.answer()
    assert posted.streamed
    assert http_answer(posted).status == status
    prelude, body = [invoked.chunk() for _ in range(invoked.chunks.qsize())]
    assert json.loads(prelude.removesuffix(NULS))["headers"]["content-type"] == "application/json"
    assert isinstance(json.loads(body), dict)


def test_a_rest_api_that_is_set_so_gets_streams_and_an_http_api_does_not(
    tiny_artifact: Path, directory: Path
) -> None:
    call = HttpCall("POST", CHAT, json.dumps(STREAMED).encode())
    streams = {"KINDLING_REST_API": "stream"}
    with own_runtime(tiny_artifact, directory, variables=streams) as runtime:
        invoked = runtime.api.send(rest_api(call))
        streamed = invoked.answer()
        head = http_answer(runtime.api.send(rest_api(HttpCall("HEAD", "/healthz"))).answer())
        wrong = http_answer(runtime.api.send(rest_api(HttpCall("POST", CHAT, b"{}"))).answer())
        whole = [runtime.api.send(event).answer() for event in (http_api(call), payload_1(call))]
    assert streamed.streamed
    assert invoked.chunks.qsize() > 4
    assert joined_text(events(http_answer(streamed).body))
    assert (head.status, head.body) == (200, b"\n")
    assert (wrong.status, wrong.json()["error"]["param"]) == (400, "messages")
    assert [posted.streamed for posted in whole] == [False, False]


def payload_1(call: HttpCall) -> Event:
    """An HTTP API's event in the older form."""
    return rest_api(call) | {"version": "1.0"}


PREFLIGHT = {"origin": PAGE, "access-control-request-method": "POST"}


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (HttpCall("HEAD", "/healthz"), 200),
        (HttpCall("HEAD", "/nowhere"), 404),
        (HttpCall("HEAD", CHAT), 405),
        (HttpCall("OPTIONS", CHAT), 200),
        (HttpCall("OPTIONS", CHAT, headers=PREFLIGHT), 200),
    ],
    ids=["HEAD", "HEAD of nothing", "HEAD where there is none", "OPTIONS", "preflight"],
)
def test_an_answer_without_a_body_is_given_one_in_the_form_of_a_stream(
    runtime: OwnRuntime, call: HttpCall, status: int
) -> None:
    """Without one Lambda leaves the client waiting; the stand-in refuses it."""
    answer = runtime.send(call)
    assert (answer.status, answer.body) == (status, b"\n")
    assert "content-length" not in answer.headers
    assert ("allow" in answer.headers) == (call.headers == {} and call.path == CHAT)
    assert (answer.headers.get("access-control-allow-methods") is None) == (not call.headers)


def test_an_error_repeats_no_more_of_an_event_than_fits_a_line(runtime: OwnRuntime) -> None:
    posted = runtime.api.send({"long" * 100_000: 1}).answer()
    assert len(posted.body) < 2_000
    assert max(map(len, runtime.process.output.splitlines())) < 2_000


def test_a_direct_invocation_gets_the_bare_answer(runtime: OwnRuntime) -> None:
    assert runtime.invoke(HELLO)["object"] == "chat.completion"
    assert runtime.invoke(STREAMED).startswith("data: ")


@pytest.mark.parametrize("event", [{}, *PINGS], ids=json.dumps)
def test_a_ping_gets_a_word_that_the_model_is_ready(runtime: OwnRuntime, event: object) -> None:
    posted = runtime.api.send(event).answer()
    assert (posted.what, json.loads(posted.body)["state"]) == ("response", "ready")


def test_text_beyond_ascii_leaves_as_it_is(runtime: OwnRuntime) -> None:
    posted = runtime.api.send({"messages": [{"role": "Zürich"}]}).answer()
    assert "Zürich" in posted.body.decode()


# The last one's key is what UTF-8 cannot carry, and an error repeats keys.
NO_REQUESTS: tuple[object, ...] = ({"Records": []}, [], "text", None, {"x\ud800": 1})


@pytest.mark.parametrize("event", NO_REQUESTS)
def test_an_event_of_another_service_is_an_error_and_the_next_one_is_answered(
    runtime: OwnRuntime, event: object
) -> None:
    posted = runtime.api.send(event).answer()
    assert posted.what == "error"
    assert posted.headers["lambda-runtime-function-error-type"] == "Function.InvalidRequest"
    assert json.loads(posted.body)["errorType"] == "InvalidRequest"
    assert runtime.health()["state"] == "ready"


def test_a_generation_ends_before_lambda_kills_the_process(runtime: OwnRuntime) -> None:
    call = HttpCall("POST", CHAT, json.dumps(ENDLESS | {"stream": False}).encode())
    answer = http_answer(runtime.api.send(function_url(call), seconds=0.01).answer())
    assert answer.status == 504 or answer.json()["usage"]["completion_tokens"] < 200
    assert runtime.health()["running"] == 0


def test_an_error_during_a_stream_leaves_in_the_trailers_too_and_the_next_one_is_answered(
    runtime: OwnRuntime, tiny_cloud_run: CloudRun
) -> None:
    """A grammar that outgrows its limits does so in mid-answer."""
    sampled = {"temperature": 1.5, "seed": 1, "max_tokens": 40}
    body = STREAMED | sampled | {"guided_regex": "[a-z]{10}(a{1000}){1000}"}
    posted = runtime.begin(CHAT, body).answer()
    error = json.loads(base64.b64decode(posted.trailers["lambda-runtime-function-error-body"]))
    assert posted.trailers["lambda-runtime-function-error-type"] == "Function.GrammarTooComplex"
    assert error["errorType"] == "GrammarTooComplex"
    assert error["errorMessage"] in http_answer(posted).body.decode()
    assert anonymous(http_answer(posted)) == anonymous(tiny_cloud_run.post(CHAT, body))
    assert runtime.post(CHAT, HELLO).status == 200


def test_a_client_that_leaves_takes_its_generation_with_it(own: OwnRuntime) -> None:
    invoked = own.begin(CHAT, ENDLESS)
    invoked.stop_after = 3
    invoked.stopped.wait(PATIENCE_SECONDS)
    assert own.health()["running"] == 0
    assert own.process.requests[0]["status"] == 499
    answer = own.post(CHAT, STREAMED)
    assert joined_text(events(answer.body))


def test_a_start_that_fails_is_reported_with_a_sentence(tmp_path: Path, directory: Path) -> None:
    with own_runtime(tmp_path, directory) as runtime:
        kind, body = runtime.api.start_errors.get(timeout=PATIENCE_SECONDS)
        assert runtime.process.wait() == 1
    assert (kind, json.loads(body)["errorType"]) == ("Runtime.ArtifactError", "ArtifactError")
    assert json.loads(body)["errorMessage"].startswith("No model at ")
    assert "Traceback" not in runtime.process.output


def test_settings_that_cannot_be_used_are_reported_too(
    tiny_artifact: Path, directory: Path
) -> None:
    wrong = {"KINDLING_SLOTS": "some"}
    with own_runtime(tiny_artifact, directory, variables=wrong) as runtime:
        kind, _ = runtime.api.start_errors.get(timeout=PATIENCE_SECONDS)
        assert runtime.process.wait() == 1
    assert kind == "Runtime.SettingsError"


def test_only_the_first_answer_is_marked_as_cold(own: OwnRuntime) -> None:
    answers = [own.post(CHAT, HELLO | {"stream": stream}) for stream in (True, True, False)]
    assert [answer.headers.get("x-kindling-cold") for answer in answers] == ["true", None, None]
    wait_until(lambda: len(own.process.requests) == 3)
    assert [line["cold"] for line in own.process.requests] == [True, False, False]


@pytest.fixture(scope="module")
def emulated(tiny_artifact: Path, directory: Path) -> Iterator[Lambda]:
    """In AWS's emulator, which buffers streams and hands them over with their prelude."""
    with lambda_emulator(tiny_artifact, directory, OWN_RUNTIME) as emulator:
        yield emulator


def test_the_emulator_takes_whole_answers_and_errors(emulated: Lambda) -> None:
    assert emulated.post(CHAT, HELLO).json()["usage"]["completion_tokens"] == 4
    assert emulated.post(CHAT, {}).status == 400
    assert emulated.invoke({"Records": []})["errorType"] == "InvalidRequest"
    assert emulated.invoke(HELLO)["object"] == "chat.completion"
    assert emulated.process.output.count("INIT START") == 1


def test_the_emulator_takes_streams(emulated: Lambda) -> None:
    event = function_url(HttpCall("POST", CHAT, json.dumps(STREAMED).encode()))
    for _ in range(2):
        whole = emulated.client.post(INVOCATIONS, content=json.dumps(event)).content
        prelude, _, body = whole.partition(NULS)
        assert json.loads(prelude)["statusCode"] == 200
        assert joined_text(events(body))
    assert emulated.process.output.count("INIT START") == 1
