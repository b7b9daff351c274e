"""A silent request gets the model's own recommendation, on every path that answers."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from handlers.artifact.manifest import SamplingDefaults
from tests.api.client import MANIFEST, Client, saying

OWN = SamplingDefaults(temperature=0.6, top_p=0.95, top_k=20, min_p=0.1, repetition_penalty=1.1)
RECOMMENDING = replace(MANIFEST, sampling=OWN)
SILENT = {
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "min_p": None,
    "repetition_penalty": None,
}
GIVEN = {"temperature": 1.5, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
OPENAIS: dict[str, Any] = GIVEN | {"temperature": 1.0}
PATHS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
    "/v1/completions": {"prompt": "a"},
    "/v1/responses": {"input": "a"},
    "/v1/messages": {"max_tokens": 9, "messages": [{"role": "user", "content": "a"}]},
    "/generate": {"prompt": "a"},
}


def sampled_with(path: str, more: dict[str, Any], **environ: str) -> dict[str, Any]:
    engine = saying("b")
    Client(engine, environ, manifest=RECOMMENDING).json("POST", path, PATHS[path] | more)
    return {name: getattr(engine.params, name) for name in OWN.given}


@pytest.mark.parametrize("path", PATHS)
def test_a_request_wins_over_the_model_and_silence_does_not(path: str) -> None:
    own = OWN.given | ({"temperature": 0.0} if path == "/generate" else {})

    assert sampled_with(path, {}) == own
    assert sampled_with(path, SILENT) == own
    assert sampled_with(path, GIVEN) == GIVEN
    assert sampled_with(path, {"top_k": -1}) == own | {"top_k": 0}


@pytest.mark.parametrize("path", PATHS)
def test_a_setting_turns_them_off(path: str) -> None:
    temperature = 0.0 if path == "/generate" else 1.0

    off = sampled_with(path, {}, KINDLING_SAMPLING_DEFAULTS="off")

    assert off == OPENAIS | {"temperature": temperature}


def test_a_response_and_healthz_tell_what_holds() -> None:
    client = Client(saying("b"), manifest=RECOMMENDING)
    silent = Client(saying("b"), {"KINDLING_SAMPLING_DEFAULTS": "off"}, manifest=RECOMMENDING)

    response = client.json("POST", "/v1/responses", PATHS["/v1/responses"] | {"top_p": 0.5})

    assert (response["temperature"], response["top_p"]) == (0.6, 0.5)
    assert client.json("GET", "/healthz")["sampling_defaults"] == OWN.given
    assert silent.json("GET", "/healthz")["sampling_defaults"] == OPENAIS


def test_a_default_is_nothing_that_a_request_could_not_send() -> None:
    least = {"temperature": 0, "top_p": 0.001, "top_k": 0, "min_p": 0, "repetition_penalty": 0.01}
    most = {
        "temperature": 2,
        "top_p": 1,
        "top_k": 2**31 - 1,
        "min_p": 1,
        "repetition_penalty": 10,
    }
    for bounds in (least, most):
        assert sampled_with("/v1/completions", bounds) == bounds
