"""The smoke test: it passes on what works, on both clouds, and says what is broken where it is."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from deploy.smoke.__main__ import main
from tests.deploy.broken_servers import BROKEN, JSON, Breaks, refusal, working
from tests.support.aws_events import HttpCall
from tests.support.http_stand_in import http_server
from tests.support.lambda_runtime import own_runtime
from tests.support.servers import (
    PATIENCE_SECONDS,
    HttpAnswer,
    cloud_run,
    free_port,
    lambda_emulator,
)


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
    said = capsys.readouterr().out
    assert lines(said)["error"].startswith("400: ")
    assert "no body  HEAD 200, OPTIONS 200" in said


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


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_an_answer_without_a_body_that_never_ends_is_found_out(method: str) -> None:
    """As a function URL in RESPONSE_STREAM mode holds the connection, by reports."""
    found = threading.Event()

    def respond(call: HttpCall) -> HttpAnswer:
        if call.method == method:
            found.wait(PATIENCE_SECONDS)
        return working(call)

    with http_server(respond) as url:
        with pytest.raises(SystemExit, match=f"no body +FAILED: {method} hangs: nothing came for"):
            main([url, "--timeout", "1"])
        found.set()


def lines(output: str) -> dict[str, str]:
    """A check's name -> what it said."""
    parted = (line.partition(" ") for line in output.splitlines())
    return {name: said.strip() for name, _, said in parted}
