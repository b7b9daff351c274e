"""Anthropic's clients drive a tool loop with a model that thinks, on both clouds.

The demo has no thoughts of its own: a template opens them, and a budget closes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import anthropic
import pydantic
import pytest
from anthropic.types import Message, MessageParam, ToolParam
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage

from tests.support.anthropic_clients import anthropic_client, anthropic_url
from tests.support.servers import Cloud, CloudRun

BUDGET = 4
ENABLED: dict[str, Any] = {"type": "enabled", "budget_tokens": BUDGET}
PARIS = "How many people live in Paris?"
GAVE = "Paris has 2.1 million inhabitants."
POPULATION: ToolParam = {
    "name": "population",
    "description": "Tells how many people live in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
NAMED = {"type": "tool", "name": "population"}


@pytest.fixture
def client(thinker: Cloud) -> Iterator[anthropic.Anthropic]:
    with anthropic_client(thinker) as client:
        yield client


def ask(client: anthropic.Anthropic, messages: list[MessageParam], **options: Any) -> Message:
    asked: dict[str, Any] = {"thinking": ENABLED, "extra_body": {"temperature": 0}} | options
    message: Message = client.messages.create(
        model="any", max_tokens=80, messages=messages, **asked
    )
    return message


def kinds(message: Message) -> list[str]:
    return [block.type for block in message.content]


def test_a_tool_is_called_after_thoughts_which_go_back(client: anthropic.Anthropic) -> None:
    messages: list[MessageParam] = [{"role": "user", "content": PARIS}]
    first = ask(client, messages, tools=[POPULATION], tool_choice=NAMED)

    assert (kinds(first), first.stop_reason) == (["thinking", "tool_use"], "tool_use")
    thoughts, call = first.content
    assert thoughts.type == "thinking"
    assert call.type == "tool_use"
    assert thoughts.thinking
    assert list(call.input) == ["city"]
    assert first.usage.output_tokens_details is not None
    # With those of the mark, which is no word of this vocabulary.
    assert BUDGET <= first.usage.output_tokens_details.thinking_tokens < BUDGET + 8

    messages += [
        {"role": "assistant", "content": first.content},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": call.id, "content": GAVE}],
        },
    ]
    second = ask(client, messages, tools=[POPULATION], tool_choice={"type": "none"})
    assert kinds(second) == ["thinking", "text"]
    assert "think>" not in str(second.content)


def test_streamed_thoughts_join_to_the_thoughts(client: anthropic.Anthropic) -> None:
    messages: list[MessageParam] = [{"role": "user", "content": PARIS}]
    whole = ask(client, messages, tools=[POPULATION], tool_choice=NAMED)
    asked: dict[str, Any] = {"thinking": ENABLED, "tools": [POPULATION], "tool_choice": NAMED}
    with client.messages.stream(
        model="any", max_tokens=80, messages=messages, extra_body={"temperature": 0}, **asked
    ) as stream:
        pieces = [event.thinking for event in stream if event.type == "thinking"]
        joined = stream.get_final_message()

    thoughts, call = joined.content
    assert thoughts == whole.content[0]
    assert thoughts.type == "thinking"
    assert "".join(pieces) == thoughts.thinking != ""
    assert thoughts.signature
    assert call.type == whole.content[1].type == "tool_use"
    assert call.input == whole.content[1].input


def test_thinking_can_be_turned_off_or_left_out(client: anthropic.Anthropic) -> None:
    messages: list[MessageParam] = [{"role": "user", "content": "What is the capital of Japan?"}]
    off = ask(client, messages, thinking={"type": "disabled"})
    hidden = ask(client, messages, thinking=ENABLED | {"display": "omitted"})

    assert (kinds(off), kinds(hidden)) == (["text"], ["text"])
    assert off.usage.output_tokens_details is not None
    assert hidden.usage.output_tokens_details is not None
    assert off.usage.output_tokens_details.thinking_tokens == 0
    assert hidden.usage.output_tokens_details.thinking_tokens >= BUDGET


def test_langchain_reads_thoughts_and_sends_them_back(
    thinker: Cloud, client: anthropic.Anthropic
) -> None:
    options: dict[str, Any] = {"max_tokens": 80, "max_retries": 0, "thinking": ENABLED}
    model = ChatAnthropic(
        base_url=anthropic_url(thinker),
        api_key=pydantic.SecretStr("none"),
        model_name="any",
        **options,
    )
    model.__dict__["_client"] = client  # it makes its own of an address alone
    first = model.invoke(PARIS)
    second = model.invoke([HumanMessage(PARIS), first, HumanMessage("And in Rome?")])

    for answer in (first, second):
        assert [block["type"] for block in answer.content_blocks] == ["reasoning", "text"]
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["output_token_details"]["reasoning"] >= BUDGET


def test_litellm_drives_a_tool_loop(litellm: ModuleType, thinking_server: CloudRun) -> None:
    asked = {
        "model": "anthropic/any",
        "api_base": anthropic_url(thinking_server),
        "api_key": "none",
        "max_tokens": 80,
        "thinking": ENABLED,
        "max_retries": 0,
        "allowed_openai_params": ["thinking"],  # it knows which of Anthropic's models think
    }
    function = {"name": "population", "parameters": POPULATION["input_schema"]}
    messages: list[Any] = [{"role": "user", "content": PARIS}]
    first = litellm.completion(
        **asked,
        messages=messages,
        tools=[{"type": "function", "function": function}],
        tool_choice={"type": "function", "function": {"name": "population"}},
    ).choices[0]
    assert first.finish_reason == "tool_calls"
    assert first.message.reasoning_content
    (call,) = first.message.tool_calls
    gave = {"role": "tool", "tool_call_id": call.id, "content": GAVE}
    chunks = list(
        litellm.completion(**asked, messages=[*messages, first.message, gave], stream=True)
    )
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas)
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
