"""litellm, which calls every provider by one function, calling ours as OpenAI's and as vLLM's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pydantic
import pytest

from tests.support.openai_clients import base_url, openai_client
from tests.support.servers import Cloud, CloudRun

# litellm reads a deprecated attribute of pydantic's models when it streams from a vLLM.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince211")

QUESTION = [{"role": "user", "content": "What is the capital of Japan?"}]
ASKED: dict[str, Any] = {"temperature": 0, "max_tokens": 40, "num_retries": 0, "max_retries": 0}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
        },
    },
}


@pytest.fixture
def here(server: CloudRun) -> dict[str, Any]:
    """As a user would say it: an address and a key."""
    return ASKED | {"api_base": base_url(server), "api_key": "none"}


@pytest.fixture
def there(cloud: Cloud) -> Iterator[dict[str, Any]]:
    """Through a client that reaches either cloud."""
    with openai_client(cloud) as client:
        yield ASKED | {"client": client}


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_an_answer_and_its_stream(litellm: ModuleType, here: dict[str, Any], provider: str) -> None:
    asked = here | {"model": f"{provider}/any", "messages": QUESTION}
    whole = litellm.completion(**asked)
    chunks = list(litellm.completion(**asked, stream=True, stream_options={"include_usage": True}))
    assert "Tokyo" in whole.choices[0].message.content
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def text_of(chunks: list[Any]) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices]
    return "".join(choice.delta.content or "" for choice in choices)


def test_an_answer_and_its_stream_from_either_cloud(
    litellm: ModuleType, there: dict[str, Any]
) -> None:
    asked = there | {"model": "openai/any", "messages": QUESTION}
    whole = litellm.completion(**asked)
    assert text_of(list(litellm.completion(**asked, stream=True))) == (
        whole.choices[0].message.content
    )


def test_many_are_answered_at_once(litellm: ModuleType, here: dict[str, Any]) -> None:
    async def ask_all() -> list[Any]:
        asked = here | {"model": "openai/any", "messages": QUESTION}
        return await asyncio.gather(*(litellm.acompletion(**asked) for _ in range(6)))

    answers = asyncio.run(ask_all())
    assert all("Tokyo" in answer.choices[0].message.content for answer in answers)


def test_a_text_is_continued(litellm: ModuleType, here: dict[str, Any]) -> None:
    asked = here | {"model": "text-completion-openai/any", "prompt": "Once upon a time"}
    whole = litellm.text_completion(**asked)
    chunks = litellm.text_completion(**asked, stream=True)
    text = "".join(chunk.choices[0].text or "" for chunk in chunks)
    assert text == whole.choices[0].text != ""


class Person(pydantic.BaseModel):
    """A person, as the answer is parsed into it."""

    name: str = pydantic.Field(max_length=40)
    age: int = pydantic.Field(ge=0, le=150)


SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "person", "schema": Person.model_json_schema(), "strict": False},
}


@pytest.mark.parametrize("form", [Person, SCHEMA], ids=["pydantic", "schema"])
def test_an_answer_takes_the_form_of_a_schema(
    litellm: ModuleType, there: dict[str, Any], form: object
) -> None:
    asked = there | {"messages": [{"role": "user", "content": "Describe a person as JSON."}]}
    answer = litellm.completion(model="openai/any", response_format=form, **asked)
    Person.model_validate_json(answer.choices[0].message.content)


def test_a_tool_is_called_and_what_it_gave_is_answered_from(
    litellm: ModuleType, there: dict[str, Any]
) -> None:
    asked = there | {"model": "openai/any", "tools": [WEATHER]}
    messages: list[Any] = [{"role": "user", "content": "How is the weather in Paris?"}]
    answer = litellm.completion(
        **asked, messages=messages, tool_choice="required", parallel_tool_calls=False
    )
    (call,) = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert list(json.loads(call.function.arguments)) == ["city"]
    gave = {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 21 degrees."}
    messages += [answer.choices[0].message, gave]
    final = litellm.completion(**asked, messages=messages, tool_choice="none")
    assert final.choices[0].message.content
    assert not final.choices[0].message.tool_calls


def test_a_streamed_call_is_put_together(litellm: ModuleType, there: dict[str, Any]) -> None:
    chunks = list(
        litellm.completion(
            model="openai/any",
            messages=QUESTION,
            tools=[WEATHER],
            tool_choice={"type": "function", "function": {"name": "get_weather"}},
            stream=True,
            **there,
        )
    )
    (call,) = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert list(json.loads(call.function.arguments)) == ["city"]


def test_what_we_refuse_is_a_bad_request(litellm: ModuleType, there: dict[str, Any]) -> None:
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(model="openai/any", messages=QUESTION, **there | {"temperature": -1})


def test_a_prompt_beyond_the_context_is_known_as_such(
    litellm: ModuleType, there: dict[str, Any]
) -> None:
    messages = [{"role": "user", "content": "word " * 5000}]
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(model="openai/any", messages=messages, **there)


def test_a_wrong_key_and_a_full_server_are_known_as_such(
    litellm: ModuleType, full_server: CloudRun
) -> None:
    asked = ASKED | {"model": "openai/any", "messages": QUESTION}
    asked["api_base"] = base_url(full_server)
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**asked, api_key="wrong")
    with pytest.raises(litellm.RateLimitError):
        litellm.completion(**asked, api_key="secret")
