"""Clients drive a tool loop with a model that thinks, on both clouds.

The demo has no thoughts of its own: a template opens them, and a budget closes them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import openai
import pydantic
import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from agents.items import ReasoningItem, ToolCallItem
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.messages import ModelResponse, ThinkingPart, ToolCallPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.openai import OpenAIResponsesModel as PydanticResponses
from pydantic_ai.providers.openai import OpenAIProvider

from tests.support.openai_clients import async_openai_client, base_url, http_client, openai_client
from tests.support.servers import Cloud, CloudRun

# litellm reads a deprecated attribute of pydantic's models when it streams from a vLLM.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince211")

BUDGET = 4
PARIS = "How many people live in Paris?"
POPULATION = {
    "type": "function",
    "function": {
        "name": "population",
        "description": "Tells how many people live in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
NAMED = {"type": "function", "function": {"name": "population"}}
SHORT: dict[str, Any] = {"model": "any", "temperature": 0, "max_tokens": 80}
THINKING: dict[str, Any] = {"thinking_budget": BUDGET}
# Agents take no answer that was cut, and the demo may go on for long.
ONE_SENTENCE = THINKING | {"stop": "."}
GAVE = "Paris has 2.1 million inhabitants."


@pytest.fixture
def client(thinker: Cloud) -> Iterator[openai.OpenAI]:
    with openai_client(thinker) as client:
        yield client


def ask(client: openai.OpenAI, messages: list[Any], **options: Any) -> Any:
    return client.chat.completions.create(
        **SHORT | {"messages": messages, "extra_body": THINKING} | options
    )


def test_openais_chat_calls_a_tool_after_thoughts_and_answers(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": PARIS}]
    first = ask(client, messages, tools=[POPULATION], tool_choice=NAMED)

    (choice,) = first.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.reasoning == choice.message.reasoning_content != ""
    # With those of the mark, which is no word of this vocabulary.
    assert BUDGET <= first.usage.completion_tokens_details.reasoning_tokens < BUDGET + 8
    (call,) = choice.message.tool_calls
    assert list(json.loads(call.function.arguments)) == ["city"]

    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": GAVE}]
    second = ask(client, messages, tools=[POPULATION], tool_choice="none")
    message = second.choices[0].message
    assert message.content
    assert message.reasoning
    assert "think>" not in message.content + message.reasoning


def test_a_streamed_call_and_its_thoughts_are_put_together(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"tools": [POPULATION], "tool_choice": NAMED}
    messages: list[Any] = [{"role": "user", "content": PARIS}]
    whole = ask(client, messages, **asked).choices[0].message
    with client.chat.completions.stream(
        **SHORT | asked, messages=messages, extra_body=THINKING
    ) as stream:
        final: Any = stream.get_final_completion().choices[0].message

    assert final.tool_calls[0].function.arguments == whole.tool_calls[0].function.arguments
    assert final.reasoning_content == final.reasoning == whole.reasoning


def test_a_form_begins_after_the_thoughts(client: openai.OpenAI) -> None:
    class Person(pydantic.BaseModel):
        name: str = pydantic.Field(max_length=40)
        age: int = pydantic.Field(ge=0, le=150)

    answer = client.chat.completions.parse(
        **SHORT,
        messages=[{"role": "user", "content": "Ada is 36 years old. Who is she?"}],
        response_format=Person,
        extra_body=THINKING,
    ).choices[0]

    assert answer.message.parsed is not None
    assert answer.message.reasoning  # type: ignore[attr-defined]


def test_thinking_can_be_turned_off(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "What is the capital of Japan?"}]
    answers = [
        ask(client, messages, extra_body={"chat_template_kwargs": {"enable_thinking": False}}),
        ask(client, messages, extra_body={"enable_thinking": False}),
        ask(client, messages, extra_body={}, reasoning_effort="none"),
    ]

    assert len({answer.choices[0].message.content for answer in answers}) == 1
    for answer in answers:
        assert not hasattr(answer.choices[0].message, "reasoning")
        assert answer.usage.completion_tokens_details.reasoning_tokens == 0


def test_openais_responses_have_an_item_of_thoughts(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "any",
        "temperature": 0,
        "max_output_tokens": 80,
        "tools": [{"type": "function", "strict": True, **POPULATION["function"]}],  # type: ignore[dict-item]
        "extra_body": THINKING,
    }
    items: list[Any] = [{"role": "user", "content": PARIS}]
    named = {"type": "function", "name": "population"}
    with client.responses.stream(**asked | {"input": items, "tool_choice": named}) as stream:
        deltas = [event.delta for event in stream if event.type == "response.reasoning_text.delta"]
        first: Any = stream.get_final_response()

    thoughts, call = first.output
    assert (thoughts.type, call.type) == ("reasoning", "function_call")
    assert thoughts.content[0].text == "".join(deltas) != ""
    output = {"type": "function_call_output", "call_id": call.call_id, "output": GAVE}
    second: Any = client.responses.create(
        **asked | {"input": [*items, *first.output, output], "tool_choice": "none"}
    )
    assert [item.type for item in second.output] == ["reasoning", "message"]
    assert second.output_text


@tool
def population(city: str) -> str:
    """Tells how many people live in a city."""
    return f"{city} has 2.1 million inhabitants."


@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
def test_langchain_drives_a_tool_loop(thinker: Cloud, responses: bool) -> None:
    with http_client(thinker) as http:
        model = ChatOpenAI(
            base_url=base_url(thinker),
            model="any",
            api_key=pydantic.SecretStr("none"),
            temperature=0,
            max_completion_tokens=80,
            max_retries=0,
            http_client=http,
            extra_body=THINKING,
            use_responses_api=responses,
        )
        messages: list[BaseMessage] = [HumanMessage(PARIS)]
        call = model.bind_tools([population], tool_choice="population").invoke(messages)
        assert isinstance(call, AIMessage)
        (wanted,) = call.tool_calls
        gave = population.invoke(wanted["args"])
        messages += [call, ToolMessage(gave, tool_call_id=wanted["id"])]
        final = model.invoke(messages)

    assert final.text
    assert "think>" not in final.text
    usage = final.usage_metadata
    assert usage is not None
    assert usage["output_token_details"]["reasoning"] > 0
    if responses:
        blocks = [block for block in final.content if isinstance(block, dict)]
        assert [block["type"] for block in blocks] == ["reasoning", "text"]


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_litellm_drives_a_tool_loop(
    litellm: ModuleType, thinking_server: CloudRun, provider: str
) -> None:
    there = {"api_base": base_url(thinking_server), "api_key": "none", "max_retries": 0}
    asked = SHORT | there | {"model": f"{provider}/any", "extra_body": THINKING}
    messages: list[Any] = [{"role": "user", "content": PARIS}]
    first = litellm.completion(
        **asked, messages=messages, tools=[POPULATION], tool_choice=NAMED
    ).choices[0]
    assert first.finish_reason == "tool_calls"
    assert first.message.reasoning_content
    (call,) = first.message.tool_calls
    gave = {"role": "tool", "tool_call_id": call.id, "content": GAVE}
    chunks = list(
        litellm.completion(
            **asked,
            messages=[*messages, first.message, gave],
            tools=[POPULATION],
            tool_choice="none",
            stream=True,
        )
    )
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas)
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)


class City(pydantic.BaseModel):
    """A city, which pydantic-ai has the model give as a tool's arguments."""

    name: str = pydantic.Field(max_length=20)


@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
def test_pydantic_ai_reads_thoughts_and_sends_them_back(thinker: Cloud, responses: bool) -> None:
    async def run() -> list[Any]:
        async with async_openai_client(thinker) as client:
            kind = PydanticResponses if responses else OpenAIChatModel
            agent = PydanticAgent(
                kind("any", provider=OpenAIProvider(openai_client=client)),
                output_type=City,
                model_settings={"temperature": 0, "max_tokens": 80, "extra_body": THINKING},
            )
            first = await agent.run("Name a city in France.")
            second = await agent.run("And one in Japan.", message_history=first.all_messages())
            return second.all_messages()

    messages = asyncio.run(run())
    answers = [message for message in messages if isinstance(message, ModelResponse)]
    assert len(answers) == 2
    for answer in answers:
        thoughts, call = answer.parts
        assert isinstance(thoughts, ThinkingPart)
        assert thoughts.content or responses  # where they are the item's own
        assert isinstance(call, ToolCallPart)
        assert City.model_validate(call.args_as_dict()).name


@function_tool
def inhabitants(city: str) -> str:
    """Tells how many people live in a city."""
    return GAVE


@pytest.mark.parametrize("kind", [OpenAIChatCompletionsModel, OpenAIResponsesModel])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_openai_agents_drive_a_tool_loop(thinker: Cloud, kind: Any, streamed: bool) -> None:
    set_tracing_disabled(True)

    async def run() -> Any:
        async with async_openai_client(thinker) as client:
            settings = ModelSettings(
                temperature=0, max_tokens=200, tool_choice="inhabitants", extra_body=ONE_SENTENCE
            )
            agent = Agent(
                "Geographer",
                model=kind(model="any", openai_client=client),
                model_settings=settings,
                tools=[inhabitants],
            )
            if not streamed:
                return await Runner.run(agent, PARIS)
            running = Runner.run_streamed(agent, PARIS)
            async for _ in running.stream_events():
                pass
            return running

    ended = asyncio.run(run())
    assert ended.final_output
    kinds = [type(item) for item in ended.new_items]
    assert kinds.count(ReasoningItem) == 2
    assert kinds.count(ToolCallItem) == 1
