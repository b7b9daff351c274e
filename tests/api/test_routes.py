from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from handlers import __version__, errors
from handlers.api.error_responses import error_response
from handlers.api.http import Request, Response, run_sync
from handlers.api.routes import ROUTES
from handlers.api.routing import Match, match
from handlers.artifact.manifest import DraftInfo
from handlers.errors import MethodNotAllowed, RequestError, UnsupportedMediaType
from tests.api.client import MANIFEST, Client, saying
from tests.support.scripted_engine import ScriptedEngine, subclasses

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hello"}]}
REQUEST_ERRORS = list(subclasses(RequestError))
DECODER_ROUTES = ROUTES["text-generation"]
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
        "type": "model",
        "display_name": "Tiny",
        "created_at": "2023-11-14T22:13:20Z",
        "max_input_tokens": 256,
    }

    assert client().json("GET", "/v1/models") == {
        "object": "list",
        "data": [described],
        "has_more": False,
        "first_id": "Tiny",
        "last_id": "Tiny",
    }
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
        "version": __version__,
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


def test_health_says_how_often_a_draft_model_is_right() -> None:
    draft = DraftInfo("Tiny", 2, "fp32", acceptance=0.5, measured={})
    engine = ScriptedEngine()
    manifest = replace(MANIFEST, draft=draft)
    assert "draft" not in Client(engine, manifest=manifest).json("GET", "/healthz")  # off

    engine.guess_rate = 0.61234
    body = Client(engine, manifest=manifest).json("GET", "/healthz")

    assert body["draft"] == {"model": "Tiny", "layers": 2, "rate": 0.612}


def test_health_tells_a_server_that_drains() -> None:
    engine = ScriptedEngine()
    engine.accepting = False

    assert Client(engine).json("GET", "/healthz")["state"] == "draining"


@pytest.mark.parametrize(
    "path",
    [
        *("/x", "/v1/x", "/v1/v1/x", "/V1/models", "/v2/models", "/chat", "/\ud800"),
        *("/v1/chat", "/v1/chat/completions/v1", "/v1.0/models", "/chat/v1/completions"),
    ],
)
def test_an_unknown_path_is_not_found(path: str) -> None:
    status, error = client().error("GET", path)

    assert (status, error["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/", "", "//", "/v1", "/v1/", "/v1/v1/", "/api/hello"])
def test_agents_that_probe_a_server_are_greeted_without_a_key(path: str) -> None:
    served = client(**KEY)

    assert served.json("GET", path) == {
        "server": "Kindling",
        "version": __version__,
        "model": "Tiny",
        "openapi": "/openapi.json",
    }
    head = served.send("HEAD", path)
    assert isinstance(head, Response)
    assert (head.status, head.body) == (200, b"")


def spellings(path: str) -> list[str]:
    """Returns the path as clients write it whose base URL ends in a slash, has /v1 or lacks it."""
    bare = path.removeprefix("/v1")
    every = [path, f"/v1{path}", f"/v1/v1{path}", bare, f"/v1{bare}", f"/v1/v1{bare}"]
    return [*every, *(f"{one}/" for one in every), *(one.replace("/", "//") for one in every)]


@pytest.mark.parametrize("path", [path for path in DECODER_ROUTES if "{" not in path])
def test_a_path_is_served_however_a_base_url_spells_it(path: str) -> None:
    route = DECODER_ROUTES[path]

    for spelling in spellings(path):
        assert match([spelling], DECODER_ROUTES) == Match(route, path)
    assert all(answer("OPTIONS", spelling).status == 204 for spelling in spellings(path))


@pytest.mark.parametrize("spelling", spellings("/v1/models/Tiny"))
def test_a_model_is_found_however_a_base_url_spells_its_path(spelling: str) -> None:
    assert client().json("GET", spelling)["id"] == "Tiny"


@pytest.mark.parametrize(
    "identity", ["a/b", "a%2Fb", "a%252Fb", "é", "\ud800", "v1", "..", "x" * 9999]
)
def test_the_id_of_a_model_may_be_any_text(identity: str) -> None:
    status, error = client().error("GET", f"/v1/models/{identity}")

    assert (status, error["code"]) == (404, "not_found")
    assert len(error["message"]) <= 1024


def test_a_path_that_a_route_has_takes_precedence_over_one_that_is_made_to_fit() -> None:
    both = {"/v1/rerank": DECODER_ROUTES["/tokenize"], "/rerank": DECODER_ROUTES["/detokenize"]}

    assert match(["/rerank/"], both) == Match(both["/rerank"], "/rerank")
    assert match(["/v1/v1/rerank"], both) == Match(both["/v1/rerank"], "/v1/rerank")
    assert match(["/v1//rerank", "/rerank"], both) == Match(both["/v1/rerank"], "/v1/rerank")
    assert match(["/v1/v1/rerank", "/rerank"], both) == Match(both["/rerank"], "/rerank")


@pytest.mark.parametrize("base", ["/llm", "llm", "/llm/", "/a/llm", "/v1"])
def test_a_base_path_is_taken_off(base: str) -> None:
    served = client(KINDLING_BASE_PATH=base)
    before = "/" + base.strip("/")

    for path in (f"{before}/v1/models", f"{before}//models/", "/v1/models"):
        assert served.json("GET", path)["object"] == "list"
    assert served.error("GET", f"{before}x/v1/models")[0] == 404
    assert served.json("GET", before)["server"] == "Kindling"


@pytest.mark.parametrize("base", ["/llm?x=1", "a b", "/%20", "#"])
def test_a_base_path_that_no_path_begins_with_is_refused(base: str) -> None:
    with pytest.raises(errors.SettingsError, match="KINDLING_BASE_PATH must be a path"):
        client(KINDLING_BASE_PATH=base)


def test_a_path_after_an_unknown_prefix_is_answered_with_what_to_do() -> None:
    status, error = client().error("POST", "/llm/v1/chat/completions", BODY)

    assert status == 404
    assert error["message"].startswith(
        "There is no /llm/v1/chat/completions. If /llm is a base path, name it in "
        "KINDLING_BASE_PATH or map the API at the root. Paths: /v1/chat/completions, "
    )
    assert "base path" not in client().error("GET", "/nowhere")[1]["message"]


@pytest.mark.parametrize(
    ("path", "inner"),
    [
        ("/v1/messages/batches/msgbatch_1/results", ()),
        ("/responses/resp_1", ()),
        ("/v1/v1/responses/resp_1", ()),
        ("//v1//responses//resp_1/", ()),
        ("/conversations", ()),
        ("/llm/v1/responses/resp_1/cancel", ()),
        ("/llm/chat/completions/chatcmpl-1", ()),
        ("/prod/v1/responses/resp_1", ("/v1/responses/resp_1",)),
        ("/prod/llm//conversations/conv_1", ("/llm//conversations/conv_1",)),
    ],
)
def test_what_would_be_stored_is_known_in_every_spelling(path: str, inner: tuple[str, ...]) -> None:
    request = Request("GET", path, {}, {}, b"", inner_paths=inner)

    response = run_sync(client(KINDLING_BASE_PATH="/llm").api.handle(request))

    assert isinstance(response, Response)
    assert response.status == 404
    assert f"There is no {path}: nothing is stored here".encode() in response.body


def test_a_path_of_megabytes_is_answered_in_time_and_in_short() -> None:
    long = ("/v1" * 100_000, "/" * 200_000, "/v1/models/" * 20_000, "/v1///" * 20_000)
    for path in (f"{start}/x" for start in long):
        started = time.process_time()
        status, error = client().error("GET", path)
        assert (status, len(error["message"]) <= 1024) == (404, True)
        assert time.process_time() - started < 1


@pytest.mark.parametrize("path", DECODER_ROUTES)
def test_another_method_is_answered_with_the_ones_that_the_path_takes(path: str) -> None:
    response = answer("DELETE", path)

    assert response.status == 405
    assert response.headers["allow"] == ", ".join(DECODER_ROUTES[path].methods)
    assert response.failure is not None
    assert response.failure.code == "method_not_allowed"
    error = msgspec.json.decode(response.body)["error"]
    anthropics = path.startswith("/v1/messages")
    assert error.get("code") == (None if anthropics else "method_not_allowed")
    assert error["type"] == "invalid_request_error"


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
    assert client(**KEY).send("GET", "//healthz/").status == 200
    assert client(**KEY).send("GET", "/v1/models/healthz").status == 401
    assert client(**KEY).send("GET", "/v1/models").status == 401


def test_without_a_key_configured_any_key_is_let_in() -> None:
    assert client().send("POST", CHAT, BODY, headers={"authorization": "Bearer x"}).status == 200


def test_a_body_over_the_limit_is_refused() -> None:
    status, error = client(KINDLING_MAX_BODY_BYTES="10").error("POST", CHAT, BODY)

    assert (status, error["code"]) == (413, "request_too_large")


def test_a_length_over_the_limit_is_refused_before_the_body_is_there() -> None:
    api = client(KINDLING_MAX_BODY_BYTES="10").api
    heads = [Request("POST", CHAT, {}, {"content-length": length}, b"") for length in ("11", "10")]

    answers = [api.admit(head) for head in heads]

    assert [isinstance(one, Response) and one.status for one in answers] == [413, False]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", CHAT, {}, 401),
        ("POST", "/nowhere", {}, 401),
        ("POST", CHAT, {"authorization": "Bearer sesame"}, None),
        ("POST", "/nowhere", {"authorization": "Bearer sesame"}, 404),
        ("PUT", CHAT, {"authorization": "Bearer sesame"}, 405),
        ("POST", CHAT, {"authorization": "Bearer sesame", "content-encoding": "br"}, 415),
        ("POST", "/healthz", {}, 405),
        ("OPTIONS", CHAT, {"access-control-request-method": "POST", "origin": "http://a.b"}, 204),
    ],
)
def test_what_the_head_alone_decides_is_answered_without_the_body(
    method: str, path: str, headers: dict[str, str], status: int | None
) -> None:
    request = Request(method, path, {}, headers, b"")
    api = client(**KEY, KINDLING_CORS_ORIGINS="*").api

    early = api.admit(request)

    assert (early.status if isinstance(early, Response) else None) == status
    if isinstance(early, Response):
        whole = run_sync(api.handle(request))
        assert isinstance(whole, Response)
        assert (early.status, early.headers, early.body) == (
            whole.status,
            whole.headers,
            whole.body,
        )


@pytest.mark.parametrize("kind", REQUEST_ERRORS)
def test_every_error_of_a_request_is_rendered_with_its_status_and_code(
    kind: type[RequestError],
) -> None:
    own: dict[type[RequestError], dict[str, Any]]
    own = {MethodNotAllowed: {"allowed": ("GET",)}, UnsupportedMediaType: {"accepted": ("gzip",)}}
    raised = kind("Why.", **own.get(kind, {"param": "seed"}))

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


class PanicException(BaseException):
    """As pyo3 raises one in place of a panic in Rust."""


@pytest.mark.parametrize("fault", [PanicException("secret"), MemoryError("secret")])
def test_what_is_no_error_of_a_request_ends_that_request_alone(fault: BaseException) -> None:
    engine = saying("yes", refusal=fault)
    served = Client(engine)

    status, error = served.error("POST", CHAT, BODY)
    engine.refusal = None

    assert (status, error["code"]) == (500, "internal_error")
    assert "secret" not in str(error)
    assert served.send("POST", CHAT, BODY).status == 200


@pytest.mark.parametrize(
    "end", [KeyboardInterrupt(), SystemExit(), GeneratorExit(), asyncio.CancelledError()]
)
def test_what_ends_a_process_or_a_task_is_passed_on(end: BaseException) -> None:
    with pytest.raises(type(end)):
        Client(ScriptedEngine(refusal=end)).send("POST", CHAT, BODY)


def test_an_error_that_repeats_what_utf8_cannot_carry_is_still_an_answer() -> None:
    response = error_response(errors.NotFound("no \udcff", param="\ud800"))

    assert msgspec.json.decode(response.body)["error"]["message"] == "no ?"


def test_an_error_that_repeats_what_a_client_sent_stays_short_and_keeps_its_ends() -> None:
    long = "x" * 100_000
    raised = errors.InvalidRequest(f"There is no {long}: leave it out.", param=f"tools.{long}.name")

    error = msgspec.json.decode(error_response(raised).body)["error"]

    assert (len(error["message"]), len(error["param"])) == (1024, 256)
    assert error["message"].startswith("There is no x")
    assert error["message"].endswith("x: leave it out.")


@pytest.mark.parametrize("characters", [1, 2, 3, 4, 5, 9, 10])
def test_a_shortened_text_has_as_many_characters_as_it_may(characters: int) -> None:
    assert len(errors.shortened("0123456789", characters)) == characters


def test_what_most_processes_never_serve_is_imported_by_its_first_request() -> None:
    names = ["endpoints.responses", "endpoints.responses_items", "openapi"]
    names += ["endpoints.messages", "endpoints.messages_stream", "anthropic_errors"]
    late = [f"handlers.api.{name}" for name in [*names, "endpoints.tokenize_chat"]]
    code = f"import sys, handlers.api.app; print([name for name in {late} if name in sys.modules])"

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert loaded.stdout == "[]\n"
