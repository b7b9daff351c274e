"""Tests what clients get wrong, sent to both clouds: a clear error, and the process serves on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.aws_events import HttpCall
from tests.support.servers import Cloud

CHAT = "/v1/chat/completions"
GREETING = {"role": "user", "content": "Hello"}


def chat(**fields: object) -> bytes:
    return json.dumps(
        {"messages": [GREETING], "max_tokens": 2, "ignore_eos": True} | fields
    ).encode()


def message(**fields: object) -> bytes:
    return chat(messages=[GREETING | fields])


BAD_BODIES: dict[str, tuple[bytes, str | None]] = {
    "empty": (b"", None),
    "not JSON": (b"What is the capital of France?", None),
    "cut short": (chat()[:-1], None),
    "not UTF-8": (b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}', None),
    "NaN": (chat().replace(b"2", b"NaN"), None),
    "a list": (b"[]", None),
    "a number": (b"3", None),
    "null": (b"null", None),
    "100,000 brackets": (b"[" * 100_000, None),
    "no messages": (b"{}", "messages"),
    "messages of null": (chat(messages=None), "messages"),
    "messages of text": (chat(messages="Hello"), "messages"),
    "empty messages": (chat(messages=[]), "messages"),
    "unknown role": (message(role="narrator"), "messages[0].role"),
    "role of a number": (message(role=1), "messages[0].role"),
    "content of a number": (message(content=1), "messages[0].content"),
    "lone surrogate": (message(content="\ud800"), None),
    "null byte": (message(content="a\0b"), "messages"),
    "temperature of text": (chat(temperature="hot"), "temperature"),
    "temperature below zero": (chat(temperature=-1), "temperature"),
    "temperature beyond double": (chat(temperature=7).replace(b"7", b"1e999"), "temperature"),
    "max_tokens of 0": (chat(max_tokens=0), "max_tokens"),
    "max_tokens of a fraction": (chat(max_tokens=1.5), "max_tokens"),
    "max_tokens of 4,000 digits": (chat(max_tokens=int("9" * 4000)), "max_tokens"),
    "seed of 30 digits": (chat(seed=10**30), "seed"),
    "top_p above 1": (chat(top_p=2), "top_p"),
    "stop of a number": (chat(stop=1), "stop"),
    "stream of text": (chat(stream="yes"), "stream"),
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_bad_body_is_answered_400_with_the_field_at_fault(
    cloud: Cloud, body: tuple[bytes, str | None]
) -> None:
    content, param = body
    answer = cloud.send(HttpCall("POST", CHAT, content))
    assert answer.status == 400
    error = answer.json()["error"]
    assert error["code"] == "invalid_request_error"
    assert error["param"] == param
    assert_serves(cloud)


@pytest.mark.parametrize(
    "content", ["word " * 200_000, "one two three four " * 60], ids=["1 MB", "300 tokens"]
)
def test_a_prompt_beyond_the_context_is_answered_400(cloud: Cloud, content: str) -> None:
    answer = cloud.send(HttpCall("POST", CHAT, message(content=content)))
    assert answer.status == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert_serves(cloud)


def test_an_unknown_path_is_answered_404(cloud: Cloud) -> None:
    answer = cloud.send(HttpCall("GET", "/v1/engines"))
    assert answer.status == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_a_wrong_method_is_answered_405_with_those_allowed(cloud: Cloud) -> None:
    answer = cloud.send(HttpCall("PUT", CHAT, chat()))
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"
    assert answer.json()["error"]["code"] == "method_not_allowed"


def test_a_body_over_the_limit_is_answered_413(cloud: Cloud) -> None:
    answer = cloud.send(HttpCall("POST", CHAT, message(content="x" * (4 * 1024 * 1024))))
    assert answer.status == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    assert_serves(cloud)


def assert_serves(cloud: Cloud) -> None:
    answer = cloud.send(HttpCall("POST", CHAT, chat()))
    assert answer.status == 200
    completion: dict[str, Any] = answer.json()
    assert completion["usage"]["completion_tokens"] == 2
