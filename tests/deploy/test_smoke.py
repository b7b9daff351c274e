"""The smoke test: it passes on what works, on both clouds, and says what is broken where it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from deploy.smoke.__main__ import main
from tests.support.aws_events import HttpCall
from tests.support.http_stand_in import http_server
from tests.support.lambda_runtime import own_runtime
from tests.support.servers import HttpAnswer, cloud_run, free_port, lambda_emulator

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
CHAT = "/v1/chat/completions"


def test_it_passes_on_cloud_run_and_prints_time_to_first_token_and_speed(
    demo_artifact: Path, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with cloud_run(demo_artifact, directory) as server:
        main([server.url])
    said = lines(capsys.readouterr().out)
    assert said["health"].startswith("SmolLM2-135M-Instruct is ready, ")
    assert said["chat"].startswith("64 tokens: ")
    assert " ms, then " in said["stream"]
    assert said["stream"].endswith(" tokens/s")
    assert said["error"].startswith("400: ")


def test_it_passes_on_a_function_url_that_answers_whole(
    demo_artifact: Path, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with lambda_emulator(demo_artifact, directory) as function:

        def respond(call: HttpCall) -> HttpAnswer:
            return function.send(call)

        with http_server(respond) as url:
            main([url])
    assert "all 64 at once: " in lines(capsys.readouterr().out)["stream"]


def test_it_passes_on_a_function_url_that_streams(
    tiny_artifact: Path, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stand-in takes nothing but streams, as a URL in RESPONSE_STREAM mode may."""
    with own_runtime(tiny_artifact, directory) as function, http_server(function.send) as url:
        main([url])
    assert lines(capsys.readouterr().out)["error"].startswith("400: ")


def test_the_api_key_is_sent_and_a_stranger_refused(
    tiny_artifact: Path,
    directory: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KINDLING_API_KEY", "sesame")
    with cloud_run(tiny_artifact, directory, KINDLING_API_KEY="sesame") as server:
        main([server.url])
    assert lines(capsys.readouterr().out)["stranger"] == "401 without credentials"


def test_a_wrong_api_key_is_told_at_the_first_question(
    tiny_artifact: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINDLING_API_KEY", "wrong")
    with (
        cloud_run(tiny_artifact, directory, KINDLING_API_KEY="sesame") as server,
        pytest.raises(SystemExit, match=r"chat +FAILED: .* answered 401"),
    ):
        main([server.url])


def test_each_request_is_signed_as_aws_checks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")

    def respond(call: HttpCall) -> HttpAnswer:
        given = call.headers.get("authorization", "")
        return working(call) if given and given == signature(call) else refusal(403)

    with http_server(respond) as url:
        main([url, "--auth", "aws"])


def signature(call: HttpCall) -> str:
    """Made anew out of the request, as AWS does."""
    headers = {name: call.headers[name] for name in ("content-type", "host", "x-amz-date")}
    url = f"http://{call.headers['host']}{call.path}"
    request = AWSRequest(call.method, url, headers, call.body)
    request.context["timestamp"] = call.headers["x-amz-date"]
    auth = SigV4Auth(Credentials("testing", "secret"), "lambda", "eu-west-1")
    signed = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    names = auth.signed_headers(auth.headers_to_sign(request))
    scope = auth.scope(request)
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signed}"


def test_an_identity_token_leaves_authorization_to_the_api_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IDENTITY_TOKEN", "a.b.c")
    monkeypatch.setenv("KINDLING_API_KEY", "sesame")

    def respond(call: HttpCall) -> HttpAnswer:
        shown = call.headers.get("x-serverless-authorization"), call.headers.get("authorization")
        return working(call) if shown == ("Bearer a.b.c", "Bearer sesame") else refusal(401)

    with http_server(respond) as url:
        main([url, "--auth", "google"])


def test_no_gcloud_and_no_token_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("IDENTITY_TOKEN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="set IDENTITY_TOKEN"):
        main(["http://127.0.0.1:1", "--auth", "google"])


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(SystemExit, match=r"health +FAILED: the connection to .* failed"):
        main([f"http://127.0.0.1:{free_port()}"])


def test_what_is_no_url_is_told() -> None:
    with pytest.raises(SystemExit, match="kindling is no URL"):
        main(["kindling"])


Breaks = Callable[[HttpCall], HttpAnswer | None]
"""An answer in place of the right one, or None."""


def on(path: str, answer: HttpAnswer, stream: bool | None = None) -> Breaks:
    def broken(call: HttpCall) -> HttpAnswer | None:
        asked = call.path == path and (stream is None or stream == is_stream(call))
        return answer if asked and not is_bad(call) else None

    return broken


def on_bad_requests(answer: HttpAnswer) -> Breaks:
    return lambda call: answer if is_bad(call) else None


def is_stream(call: HttpCall) -> bool:
    return b'"stream": true' in call.body


def is_bad(call: HttpCall) -> bool:
    return b"not a list" in call.body


def refusal(status: int) -> HttpAnswer:
    return HttpAnswer(status, JSON, b'{"error": {"message": "No."}}')


def events(*parts: str) -> bytes:
    return "".join(f"data: {part}\n\n" for part in parts).encode()


def delta(text: str) -> str:
    return json.dumps({"choices": [{"delta": {"content": text}}]})


USAGE = json.dumps({"choices": [], "usage": {"completion_tokens": 2}})
RIGHT = events(delta("Mer"), delta("cury"), USAGE, "[DONE]")


def completion(text: str) -> bytes:
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": {"completion_tokens": 2}}).encode()


def working(call: HttpCall) -> HttpAnswer:
    """What all the broken ones are but for one thing."""
    if is_bad(call):
        return refusal(400)
    if call.path == "/health":
        return HttpAnswer(200, JSON, b'{"state": "ready", "model": "m"}')
    if is_stream(call):
        return HttpAnswer(200, EVENTS, RIGHT)
    return HttpAnswer(200, JSON, completion("Mercury"))


def streams(body: bytes, headers: Mapping[str, str] = EVENTS) -> Breaks:
    return on(CHAT, HttpAnswer(200, headers, body), stream=True)


def chats(body: bytes, status: int = 200) -> Breaks:
    return on(CHAT, HttpAnswer(status, JSON, body), stream=False)


def health(body: bytes, status: int = 200) -> Breaks:
    return on("/health", HttpAnswer(status, JSON, body))


# What RESPONSE_STREAM mode makes of an answer that is not streamed.
UNREAD = json.dumps({"statusCode": 200, "body": completion("Mercury").decode()}).encode()

BROKEN: dict[str, tuple[Breaks, str]] = {
    "unhealthy": (health(b"", 503), "health +FAILED: /health answered 503: an empty body"),
    "draining": (health(b'{"state": "draining"}'), "health +FAILED: .* not ready"),
    "another program": (health(b"<html>Hello</html>"), "health +FAILED: got no JSON"),
    "a list": (health(b"[]"), "health +FAILED: .* not ready"),
    "a crash": (chats(b"Internal Server Error", 500), "chat +FAILED: .* answered 500: Internal"),
    "no text": (chats(completion("")), "chat +FAILED: the completion is empty"),
    "no completion": (chats(b"{}"), "chat +FAILED: .* no completion"),
    "an answer within an answer": (chats(UNREAD), "chat +FAILED: .* no completion"),
    "a stream that is none": (streams(completion("x"), JSON), "stream +FAILED: asked for a stream"),
    "an empty stream": (streams(events("[DONE]")), "stream +FAILED: .* no text in it"),
    "no end": (streams(events(delta("a"), USAGE)), "stream +FAILED: .* not .DONE"),
    "half an event": (streams(RIGHT[:-20]), "stream +FAILED: .* within an event"),
    "a cut chunk": (
        on(CHAT, HttpAnswer(200, EVENTS | {"content-length": "9999"}, RIGHT[:40]), stream=True),
        "stream +FAILED: ",
    ),
    "an error in the stream": (
        streams(events(delta("a"), '{"error": {"message": "Out of memory."}}')),
        "stream +FAILED: .*Out of memory",
    ),
    "no JSON in the stream": (streams(events("hello")), "stream +FAILED: .* is no JSON"),
    "a bad request served": (
        on_bad_requests(HttpAnswer(200, JSON, completion("Mercury"))),
        "error +FAILED: .* answered 200, not 400",
    ),
    "an error without a reason": (
        on_bad_requests(HttpAnswer(400, JSON, b"{}")),
        "error +FAILED: .* no message",
    ),
}


def test_the_stand_in_works_where_nothing_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    with http_server(working) as url:
        main([url])
    assert lines(capsys.readouterr().out)["stranger"].startswith("not tried")


@pytest.mark.parametrize(("breaks", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_server_is_found_out(breaks: Breaks, sentence: str) -> None:
    with (
        http_server(lambda call: breaks(call) or working(call)) as url,
        pytest.raises(SystemExit, match=f"^{sentence}"),
    ):
        main([url])


def test_a_door_that_is_open_to_strangers_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINDLING_API_KEY", "sesame")
    with (
        http_server(working) as url,
        pytest.raises(SystemExit, match=r"stranger +FAILED: .* answered 200, not 401 or 403"),
    ):
        main([url])


def test_a_server_that_falls_silent_is_found_out() -> None:
    silent = replace(working(HttpCall("GET", "/health")), headers=JSON | {"content-length": "99"})

    def respond(call: HttpCall) -> HttpAnswer:
        return silent

    with http_server(respond) as url, pytest.raises(SystemExit, match=r"health +FAILED: the conn"):
        main([url, "--timeout", "1"])


def lines(output: str) -> dict[str, str]:
    """A check's name -> what it said."""
    parted = (line.partition(" ") for line in output.splitlines())
    return {name: said.strip() for name, _, said in parted}
