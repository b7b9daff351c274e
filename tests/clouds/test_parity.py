"""Both clouds give the same answers, on the tiny model and on the demo's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.aws_events import HttpCall
from tests.support.event_stream import events, finish_reason, joined_text
from tests.support.servers import Cloud, CloudRun, Lambda

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
QUESTION = {"messages": [{"role": "user", "content": "What is the capital of Japan?"}]}
GREEDY = {"temperature": 0, "max_tokens": 16}
SAMPLED = {"temperature": 1.5, "seed": 7, "max_tokens": 12}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "capital",
            "parameters": {"type": "object", "properties": {"of": {"type": "string"}}},
        },
    }
]


@dataclass(frozen=True)
class Clouds:
    """The same model on both."""

    cloud_run: CloudRun
    aws: Lambda


@pytest.fixture(params=["tiny", "demo"])
def clouds(request: pytest.FixtureRequest) -> Clouds:
    return Clouds(
        request.getfixturevalue(f"{request.param}_cloud_run"),
        request.getfixturevalue(f"{request.param}_lambda"),
    )


@pytest.fixture(params=["tiny_cloud_run", "tiny_lambda", "demo_cloud_run", "demo_lambda"])
def any_cloud(request: pytest.FixtureRequest) -> Cloud:
    server: Cloud = request.getfixturevalue(request.param)
    return server


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, QUESTION | GREEDY),
        (CHAT, QUESTION | SAMPLED),
        (CHAT, QUESTION | GREEDY | {"stream": True, "stream_options": {"include_usage": True}}),
        (COMPLETIONS, {"prompt": "Once upon a time"} | GREEDY),
        (COMPLETIONS, {"prompt": "Once upon a time", "stream": True} | SAMPLED),
        (CHAT, QUESTION | SAMPLED | {"n": 3}),
        (CHAT, QUESTION | GREEDY | {"logprobs": True, "top_logprobs": 3}),
        (CHAT, QUESTION | GREEDY | {"logprobs": True, "stream": True}),
        (COMPLETIONS, {"prompt": ["Once", "Twice"], "echo": True, "logprobs": 2} | GREEDY),
        (COMPLETIONS, {"prompt": "Once", "echo": True, "logprobs": 0, "max_tokens": 0}),
        (CHAT, QUESTION | SAMPLED | {"guided_regex": "(yes|no)( yes| no){3}"}),
        (CHAT, QUESTION | GREEDY | {"response_format": {"type": "json_object"}, "stream": True}),
        (CHAT, QUESTION | GREEDY | {"logit_bias": {"40": 100}, "stop_token_ids": [40]}),
        ("/generate", {"prompt": "Once upon a time"} | GREEDY),
        ("/v1/messages", QUESTION | GREEDY | {"stop_sequences": [" is"]}),
        ("/v1/messages/count_tokens", QUESTION),
        (CHAT, {"messages": []}),
        (CHAT, QUESTION | {"temperature": "hot"}),
    ],
    ids=[
        "chat",
        "sampled",
        "streamed",
        "completion",
        "its stream",
        "choices",
        "logprobs",
        "streamed logprobs",
        "echoes",
        "scored prompt",
        "regex",
        "streamed json",
        "bias",
        "generate",
        "message",
        "count",
        "empty",
        "wrong",
    ],
)
def test_the_same_request_gets_the_same_body_on_both_clouds(
    clouds: Clouds, path: str, body: dict[str, Any]
) -> None:
    one, other = clouds.cloud_run.post(path, body), clouds.aws.post(path, body)
    assert one.status == other.status
    assert one.headers["content-type"] == other.headers["content-type"]
    if body.get("stream"):
        assert anonymous(events(one.body)) == anonymous(events(other.body))
    else:
        assert anonymous([one.json()]) == anonymous([other.json()])


@pytest.mark.parametrize("params", [GREEDY, SAMPLED, GREEDY | {"n": 2}])
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_the_same_tools_get_the_same_calls_on_both_clouds(
    demo_cloud_run: CloudRun, demo_lambda: Lambda, params: dict[str, Any], choice: str
) -> None:
    """On the demo model alone: the tiny one's context has no room for what explains tools."""
    body = QUESTION | params | {"tools": TOOLS, "tool_choice": choice, "max_tokens": 30}
    one, other = demo_cloud_run.post(CHAT, body), demo_lambda.post(CHAT, body)
    assert one.status == other.status == 200
    assert anonymous([one.json()]) == anonymous([other.json()])
    streams = [cloud.post(CHAT, body | {"stream": True}) for cloud in (demo_cloud_run, demo_lambda)]
    first, second = (anonymous(events(stream.body)) for stream in streams)
    assert in_order(first) == in_order(second)


def in_order(chunks: list[Any]) -> list[Any]:
    """Choices may take turns as they like, each keeps to its own order."""
    return sorted(chunks, key=lambda chunk: chunk["choices"][0]["index"])


def test_models_are_listed_the_same_on_both_clouds(clouds: Clouds) -> None:
    call = HttpCall("GET", "/v1/models")
    assert clouds.cloud_run.send(call).json() == clouds.aws.send(call).json()


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_joined_stream_equals_the_answer_that_is_not_streamed(
    any_cloud: Cloud, params: dict[str, Any]
) -> None:
    whole = any_cloud.post(CHAT, QUESTION | params).json()
    streamed = any_cloud.post(
        CHAT, QUESTION | params | {"stream": True, "stream_options": {"include_usage": True}}
    )
    chunks = events(streamed.body)
    (choice,) = whole["choices"]
    assert joined_text(chunks) == choice["message"]["content"]
    assert finish_reason(chunks) == choice["finish_reason"]
    assert counts(chunks[-1]["usage"]) == counts(whole["usage"])


def test_the_same_seed_gives_the_same_text_and_another_seed_another(any_cloud: Cloud) -> None:
    def text(seed: int) -> str:
        answer = any_cloud.post(CHAT, QUESTION | SAMPLED | {"seed": seed}).json()
        return str(answer["choices"][0]["message"]["content"])

    assert text(1) == text(1)
    assert text(1) != text(2)


def anonymous(bodies: list[Any]) -> list[Any]:
    """Without what is drawn, read from the clock, or what the cache happened to hold."""
    return [
        {name: value for name, value in body.items() if name not in ("id", "created")}
        | ({"usage": counts(body["usage"])} if body.get("usage") else {})
        | ({"choices": [without_call_ids(choice) for choice in body.get("choices", [])]})
        for body in bodies
    ]


def without_call_ids(choice: dict[str, Any]) -> dict[str, Any]:
    said = choice.get("message") or choice.get("delta") or {}
    calls = [call | {"id": ""} for call in said.get("tool_calls", [])]
    return choice | {"said": said | {"tool_calls": calls}, "message": None, "delta": None}


def counts(usage: dict[str, Any]) -> dict[str, Any]:
    cached = ("prompt_tokens_details", "input_tokens", "cache_read_input_tokens")
    return {name: value for name, value in usage.items() if name not in cached}
