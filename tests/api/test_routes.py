from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from handlers import errors
from handlers.api import error_body
from handlers.api.messages import Response
from handlers.api.table import TABLES
from handlers.errors import MethodNotAllowed, RequestError
from tests.api.client import Client, saying
from tests.support.scripted_engine import ScriptedEngine, subclasses

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hello"}]}
REQUEST_ERRORS = list(subclasses(RequestError))
ROUTES = TABLES["text-generation"]
KEY = {"KINDLING_API_KEY": "sesame"}


def client(**environ: str) -> Client:
    return Client(saying("yes"), environ)


def answer(*arguments: Any, **more: Any) -> Response:
    response = client().send(*arguments, **more)
    assert isinstance(response, Response)
    return response


def test_models_lists_the_one_model() -> None:
    described = {
        "id": "Tiny",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "kindling",
        "context_length": 256,
    }

    assert client().json("GET", "/v1/models") == {"object": "list", "data": [described]}
    assert client().json("GET", "/v1/models/Tiny") == described


def test_a_model_that_is_not_served_is_not_found() -> None:
    status, error = client().error("GET", "/v1/models/gpt-4o")

    assert (status, error["code"]) == (404, "not_found")
    assert "Tiny" in error["message"]


def test_health_says_what_runs_and_how_busy_it_is() -> None:
    body = client().json("GET", "/healthz")

    assert body.pop("uptime_seconds") >= 0
    assert body == {
        "state": "ready",
        "model": "Tiny",
        "task": "text-generation",
        "precision": "fp32",
        "context_length": 256,
        "slots": 4,
        "sampling_defaults": {
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        },
        "running": 1,
        "waiting": 2,
        "load_ms": {"process": 5.0},
    }


def test_health_tells_a_server_that_drains() -> None:
    engine = ScriptedEngine()
    engine.accepting = False

    assert Client(engine).json("GET", "/healthz")["state"] == "draining"


@pytest.mark.parametrize(
    "path", ["/", "", "/v1", "/v1/models/", "/V1/models", "/v1/chat/completions/", "/\ud800"]
)
def test_an_unknown_path_is_not_found(path: str) -> None:
    status, error = client().error("GET", path)

    assert (status, error["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ROUTES)
def test_another_method_is_answered_with_the_ones_that_the_path_takes(path: str) -> None:
    response = answer("DELETE", path)

    assert response.status == 405
    assert response.headers["allow"] == ", ".join(ROUTES[path].methods)
    assert msgspec.json.decode(response.body)["error"]["code"] == "method_not_allowed"


def test_options_says_what_a_path_takes() -> None:
    response = answer("OPTIONS", "/generate")

    assert (response.status, response.body) == (204, b"")
    assert response.headers["allow"] == "GET, POST, OPTIONS"


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/v1/models/Tiny", "/nowhere"])
def test_head_is_get_without_the_body(path: str) -> None:
    head, get = answer("HEAD", path), answer("GET", path)

    assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "sesame",
        "Bearer",
        "Bearer ",
        "Bearer sesam",
        "Bearer sesame!",
        "Bearer sésame",
        "Bearer \udcff",
        "Basic sesame",
    ],
)
def test_a_wrong_key_is_refused(authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization}

    response = client(**KEY).send("POST", CHAT, BODY, headers=headers)

    assert isinstance(response, Response)
    assert response.status == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert msgspec.json.decode(response.body)["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("authorization", ["Bearer sesame", "bearer sesame", "Bearer  sesame"])
def test_the_right_key_is_let_in(authorization: str) -> None:
    response = client(**KEY).send("POST", CHAT, BODY, headers={"authorization": authorization})

    assert response.status == 200


def test_health_needs_no_key() -> None:
    assert client(**KEY).send("GET", "/healthz").status == 200
    assert client(**KEY).send("GET", "/health").status == 200
    assert client(**KEY).send("GET", "/v1/models").status == 401


def test_without_a_key_configured_any_key_is_let_in() -> None:
    assert client().send("POST", CHAT, BODY, headers={"authorization": "Bearer x"}).status == 200


def test_a_body_over_the_limit_is_refused() -> None:
    status, error = client(KINDLING_MAX_BODY_BYTES="10").error("POST", CHAT, BODY)

    assert (status, error["code"]) == (413, "request_too_large")


@pytest.mark.parametrize("kind", REQUEST_ERRORS)
def test_every_error_of_a_request_is_rendered_with_its_status_and_code(
    kind: type[RequestError],
) -> None:
    raised = (
        MethodNotAllowed("Why.", allowed=("GET",))
        if kind is MethodNotAllowed
        else kind("Why.", param="seed")
    )

    response = Client(ScriptedEngine(refusal=raised)).send("POST", CHAT, BODY)

    assert isinstance(response, Response)
    assert response.status == kind.status
    error = msgspec.json.decode(response.body)["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["type"], error["code"]) == (kind.type, kind.code)
    retry_after = None if kind.retry_after is None else str(kind.retry_after)
    assert response.headers.get("retry-after") == retry_after


@pytest.mark.parametrize("bug", [RuntimeError("secret"), errors.EngineFault("secret"), KeyError(1)])
def test_a_bug_is_logged_and_nothing_of_it_is_sent(
    bug: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        status, error = Client(ScriptedEngine(refusal=bug)).error("POST", CHAT, BODY)

    assert (status, error["code"]) == (500, "internal_error")
    assert "secret" not in str(error)
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [bug]


def test_an_error_that_repeats_what_utf8_cannot_carry_is_still_an_answer() -> None:
    response = error_body.render(errors.NotFound("no \udcff", param="\ud800"))

    assert msgspec.json.decode(response.body)["error"]["message"] == "no ?"


def test_what_most_processes_never_serve_is_imported_by_its_first_request() -> None:
    names = ["responses.endpoint", "responses.events", "openapi.document", "openapi.shapes"]
    late = [f"handlers.api.{name}" for name in [*names, "tokenize"]]
    code = (
        f"import sys, handlers.api.routes; print([name for name in {late} if name in sys.modules])"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert loaded.stdout == "[]\n"
