"""Tests what a browser needs of every answer before a page may read it."""

from __future__ import annotations

import pytest

from handlers.api.http import Response
from handlers.config import Settings
from handlers.errors import SettingsError
from tests.api.client import Client, saying
from tests.support.scripted_engine import ScriptedEngine

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hello"}]}
PAGE = "https://page.example"
LISTED = {"KINDLING_CORS_ORIGINS": f"http://localhost:3000, {PAGE}"}
ANYONE = {"KINDLING_CORS_ORIGINS": "*"}
PREFLIGHT = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os",
}


def cors_headers(client: Client, method: str = "POST", **headers: str) -> dict[str, str]:
    answer = client.send(method, CHAT, BODY, headers=headers)
    return {
        name.removeprefix("access-control-"): value
        for name, value in answer.headers.items()
        if name.startswith("access-control-") or name == "vary"
    }


def test_nothing_is_sent_where_nothing_is_configured() -> None:
    assert cors_headers(Client(saying("yes")), origin=PAGE) == {}
    assert cors_headers(Client(saying("yes")), "OPTIONS", **PREFLIGHT) == {}


def test_a_listed_origin_may_read_the_answer() -> None:
    assert cors_headers(Client(saying("yes"), LISTED), origin=PAGE) == {
        "allow-origin": PAGE,
        "expose-headers": "x-request-id, request-id, x-kindling-cold, server-timing, retry-after",
        "vary": "Origin",
    }


@pytest.mark.parametrize("origin", [{}, {"origin": "https://other.example"}, {"origin": "null"}])
def test_any_other_origin_may_not_and_caches_are_told_so(origin: dict[str, str]) -> None:
    assert cors_headers(Client(saying("yes"), LISTED), **origin) == {"vary": "Origin"}
    preflight = PREFLIGHT | {"origin": origin.get("origin", "")}
    assert cors_headers(Client(saying("yes"), LISTED), "OPTIONS", **preflight) == {"vary": "Origin"}


@pytest.mark.parametrize("origin", [{}, {"origin": PAGE}])
def test_with_a_star_everybody_may(origin: dict[str, str]) -> None:
    sent = cors_headers(Client(saying("yes"), ANYONE), **origin)

    assert (sent["allow-origin"], "vary" in sent) == ("*", False)


@pytest.mark.parametrize(
    "engine", [saying("yes"), ScriptedEngine(refusal=RuntimeError("a bug"))], ids=["200", "500"]
)
@pytest.mark.parametrize("stream", [False, True])
def test_streams_and_errors_carry_the_headers_too(engine: ScriptedEngine, stream: bool) -> None:
    answer = Client(engine, LISTED).send(
        "POST", CHAT, BODY | {"stream": stream}, headers={"origin": PAGE}
    )

    assert answer.headers["access-control-allow-origin"] == PAGE


def test_a_preflight_is_answered_without_the_api_key() -> None:
    answer = Client(saying("yes"), LISTED | {"KINDLING_API_KEY": "sesame"}).send(
        "OPTIONS", CHAT, headers=PREFLIGHT
    )

    assert isinstance(answer, Response)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "POST" in answer.headers["access-control-allow-methods"]
    asked = PREFLIGHT["access-control-request-headers"]
    assert answer.headers["access-control-allow-headers"] == asked


def test_header_names_that_are_none_are_not_sent_back() -> None:
    names = PREFLIGHT | {"access-control-request-headers": "x\r\nset-cookie: a"}

    assert "allow-headers" not in cors_headers(Client(saying("yes"), LISTED), "OPTIONS", **names)


@pytest.mark.parametrize(
    "origins", ["page.example", f"{PAGE}/", "*,https://a.example", "https://A.example", "null"]
)
def test_what_no_browser_sends_as_its_origin_is_refused_at_start(origins: str) -> None:
    with pytest.raises(SettingsError, match="KINDLING_CORS_ORIGINS"):
        Settings.from_environ({"KINDLING_CORS_ORIGINS": origins})


def test_no_origins_are_the_default() -> None:
    assert Settings.from_environ({"KINDLING_CORS_ORIGINS": " "}).cors_origins == ()


def test_a_page_may_send_the_headers_of_anthropics_client() -> None:
    names = "anthropic-dangerous-direct-browser-access,anthropic-version,content-type,x-api-key"
    asked = PREFLIGHT | {"access-control-request-headers": names}

    assert cors_headers(Client(saying("yes"), LISTED), "OPTIONS", **asked)["allow-headers"] == names
