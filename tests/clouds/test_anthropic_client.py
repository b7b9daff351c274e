"""Anthropic's own client, talking to both clouds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pydantic
import pytest

from tests.support.anthropic_clients import anthropic_client
from tests.support.aws_events import HttpCall
from tests.support.openai_clients import openai_client
from tests.support.servers import Cloud, CloudRun, cloud_run, wait_until

HELLO: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Hello"}]
# Newer versions of the client know no temperature any more.
GREEDY = {"temperature": 0}
WEATHER: anthropic.types.ToolParam = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}
QUESTION = "What is the weather in Paris?"


@pytest.fixture(params=["tiny_cloud_run", "tiny_lambda", "demo_cloud_run", "demo_lambda"])
def server(request: pytest.FixtureRequest) -> Cloud:
    running: Cloud = request.getfixturevalue(request.param)
    return running


@pytest.fixture
def client(server: Cloud) -> Iterator[anthropic.Anthropic]:
    with anthropic_client(server) as client:
        yield client


@pytest.fixture(params=["demo_cloud_run", "demo_lambda"])
def demo(request: pytest.FixtureRequest) -> Iterator[anthropic.Anthropic]:
    """The tiny model's context has no room for what explains tools."""
    with anthropic_client(request.getfixturevalue(request.param)) as client:
        yield client


def test_a_message(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model="any", max_tokens=8, messages=HELLO, extra_body=GREEDY)
    (block,) = message.content
    assert block.type == "text"
    assert block.text
    assert message.role == "assistant"
    assert message.stop_reason in {"end_turn", "max_tokens"}
    assert message.usage.output_tokens > 0
    assert message._request_id


def test_a_stream_joins_to_the_message(client: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {
        "model": "any",
        "max_tokens": 8,
        "extra_body": GREEDY,
        "messages": HELLO,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    }
    client.messages.create(**asked)  # so that both find the same prompt in the cache
    whole = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        text = "".join(stream.text_stream)
        joined = stream.get_final_message()
    assert text_of(joined) == text_of(whole) == text
    assert (joined.stop_reason, joined.usage) == (whole.stop_reason, whole.usage)
    usage = whole.usage
    assert usage.cache_read_input_tokens
    counted = client.messages.count_tokens(
        model="any", messages=HELLO, system=asked["system"]
    ).input_tokens
    assert usage.input_tokens + usage.cache_read_input_tokens == counted


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_the_events_arrive_as_they_are_sent(client: anthropic.Anthropic) -> None:
    with client.messages.create(
        model="any", max_tokens=4, messages=HELLO, extra_body=GREEDY, stream=True
    ) as stream:
        kinds = [event.type for event in stream]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}


def test_the_beta_client_and_its_headers_are_taken(client: anthropic.Anthropic) -> None:
    message = client.beta.messages.create(
        model="any",
        max_tokens=4,
        messages=[{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        betas=["context-management-2025-06-27", "interleaved-thinking-2025-05-14"],
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        metadata={"user_id": "u"},
        thinking={"type": "adaptive"},
        output_config={"effort": "low"},
    )
    assert message.content
    counted = client.beta.messages.count_tokens(
        model="any", messages=[{"role": "user", "content": "Hello"}]
    )
    assert counted.input_tokens > 0


def test_a_stop_sequence_is_named(client: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {
        "model": "any",
        "messages": HELLO,
        "extra_body": GREEDY,
        "max_tokens": 8,
    }
    (block,) = client.messages.create(**asked).content
    assert block.type == "text"
    stop = block.text.strip()[-1]
    message = client.messages.create(**asked, stop_sequences=["\x00", stop])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
    assert all(stop not in each.text for each in message.content if each.type == "text")


def test_a_begun_answer_is_continued(demo: anthropic.Anthropic) -> None:
    message = demo.messages.create(
        model="any",
        max_tokens=4,
        extra_body=GREEDY,
        messages=[
            {"role": "user", "content": "What is the capital of Japan?"},
            {"role": "assistant", "content": "The capital of Japan is"},
        ],
    )
    (block,) = message.content
    assert block.type == "text"
    assert block.text.startswith(" Tokyo")


def test_a_tool_is_called_and_its_result_is_read(demo: anthropic.Anthropic) -> None:
    tools: list[anthropic.types.ToolUnionParam] = [
        WEATHER,
        {"type": "web_search_20250305", "name": "web_search"},
    ]
    asked = demo.messages.create(
        model="any",
        max_tokens=100,
        extra_body=GREEDY,
        messages=[{"role": "user", "content": QUESTION}],
        tools=tools,
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
    )
    assert asked.stop_reason == "tool_use"
    (call,) = [block for block in asked.content if block.type == "tool_use"]
    assert call.name == "get_weather"
    assert set(call.input) == {"city", "unit"}
    result: anthropic.types.ToolResultBlockParam = {
        "type": "tool_result",
        "tool_use_id": call.id,
        "content": [{"type": "text", "text": "It is 18 degrees and sunny."}],
    }
    for failed in (False, True):
        answer = demo.messages.create(
            model="any",
            max_tokens=30,
            extra_body=GREEDY,
            messages=[
                {"role": "user", "content": QUESTION},
                {"role": "assistant", "content": asked.content},
                {"role": "user", "content": [{**result, "is_error": failed}]},
            ],
            tools=tools,
            tool_choice={"type": "none"},
        )
        assert [block.type for block in answer.content] == ["text"]


def test_a_streamed_call_joins_to_the_call(demo: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {
        "model": "any",
        "max_tokens": 60,
        "extra_body": GREEDY,
        "messages": [{"role": "user", "content": QUESTION}],
        "tools": [WEATHER],
        "tool_choice": {"type": "tool", "name": "get_weather"},
    }
    (whole,) = demo.messages.create(**asked).content
    with demo.messages.stream(**asked) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        (joined,) = stream.get_final_message().content
    assert joined.type == whole.type == "tool_use"
    assert joined.input == whole.input == json.loads("".join(pieces))


def test_a_runner_of_tools_learns_that_nothing_is_stored(demo: anthropic.Anthropic) -> None:
    called: list[str] = []

    @anthropic.beta_tool
    def population(city: str) -> str:
        """How many people live in a city."""
        called.append(city)
        return f"{city} has 2.1 million inhabitants."

    runner = demo.beta.messages.tool_runner(
        model="any",
        max_tokens=40,
        tools=[population],
        tool_choice={"type": "tool", "name": "population"},
        messages=[{"role": "user", "content": "How many people live in Paris?"}],
        max_iterations=2,
        extra_body=GREEDY,
    )
    turns = [message.stop_reason for message in runner]
    assert turns == ["tool_use", "tool_use"]
    assert called


class Person(pydantic.BaseModel):
    """A person, as the answer is parsed into it."""

    name: str
    age: int


def test_an_answer_is_parsed_into_a_model(demo: anthropic.Anthropic) -> None:
    message = demo.messages.parse(
        model="any",
        max_tokens=60,
        extra_body=GREEDY,
        messages=[{"role": "user", "content": "Ada is 36 years old. Who is she?"}],
        output_format=Person,
    )
    assert isinstance(message.parsed_output, Person)


def test_the_models_are_read_by_both_clients(server: Cloud) -> None:
    with anthropic_client(server) as client, openai_client(server) as openais:
        (model,) = client.models.list()
        (same,) = openais.models.list()
        assert model.id == model.display_name == same.id
        assert int(model.created_at.timestamp()) == same.created
        assert client.models.retrieve(model.id) == model
        with pytest.raises(anthropic.NotFoundError):
            client.models.retrieve("claude-opus-5")


def test_what_is_wrong_is_said_in_anthropics_shape(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(
            model="any",
            max_tokens=8,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image",
                            "source": {"type": "url", "url": "https://example.com/a.png"},
                        }
                    ],
                }
            ],
        )
    error = caught.value
    assert error.type == "invalid_request_error"
    assert (error.api_message or "").startswith("messages[0].content[0] is of type 'image'")
    assert isinstance(error.body, dict)
    assert error.body["request_id"] == error.request_id == error.response.headers["x-request-id"]


def test_a_prompt_beyond_the_context_is_a_bad_request(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        client.messages.create(
            model="any", max_tokens=8, messages=[{"role": "user", "content": "word " * 5000}]
        )


@pytest.mark.parametrize("path", ["/", "/api/hello"])
def test_a_probe_is_answered(server: Cloud, path: str) -> None:
    answer = server.send(HttpCall("HEAD", path))
    assert (answer.status, answer.body) == (200, b"")


def test_a_timeout_of_the_client_frees_the_slot(demo_cloud_run: CloudRun) -> None:
    with (
        anthropic_client(demo_cloud_run, timeout=1.0) as client,
        pytest.raises(anthropic.APITimeoutError),
    ):
        client.messages.create(
            model="any", max_tokens=1900, messages=HELLO, extra_body={"ignore_eos": True}
        )
    wait_until(lambda: demo_cloud_run.health()["running"] == 0)


def test_a_key_may_come_in_either_header(tiny_artifact: Path, directory: Path) -> None:
    with cloud_run(tiny_artifact, directory, KINDLING_API_KEY="secret") as server:
        with anthropic_client(server, "wrong") as client:
            with pytest.raises(anthropic.AuthenticationError) as caught:
                client.messages.count_tokens(model="any", messages=HELLO)
            assert caught.value.type == "authentication_error"
            by_header = client.with_options(default_headers={"x-api-key": "secret"})
            assert by_header.messages.count_tokens(model="any", messages=HELLO).input_tokens
        with anthropic_client(server, "secret") as client:
            assert len(client.models.list().data) == 1
        with anthropic_client(server, None, "secret") as client:
            assert len(client.models.list().data) == 1
