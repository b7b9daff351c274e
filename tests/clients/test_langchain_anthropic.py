"""LangChain's ChatAnthropic: questions, a form and a tool loop, on both clouds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pydantic
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.tools import tool

from tests.support.anthropic_clients import anthropic_client, anthropic_url
from tests.support.servers import Cloud, CloudRun

JAPAN = "What is the capital of Japan?"

Connected = Callable[..., ChatAnthropic]


@pytest.fixture
def connected(cloud: Cloud) -> Iterator[Connected]:
    """Makes models that answer from one of the clouds."""
    with anthropic_client(cloud) as client:

        def connect(**options: Any) -> ChatAnthropic:
            model = chat_model(cloud, **options)
            model.__dict__["_client"] = client  # it makes its own of an address alone
            return model

        yield connect


def chat_model(cloud: Cloud, key: str = "none", **options: Any) -> ChatAnthropic:
    defaults: dict[str, Any] = {"temperature": 0, "max_tokens": 60, "max_retries": 0}
    return ChatAnthropic(
        base_url=anthropic_url(cloud),
        api_key=pydantic.SecretStr(key),
        model_name="any",
        **defaults | options,
    )


def test_a_stream_joins_to_the_answer_and_its_usage(connected: Connected) -> None:
    asked = [SystemMessage("Be brief."), HumanMessage(JAPAN)]
    connected().invoke(asked)  # so that both find the same prompt in the cache
    whole = connected().invoke(asked)
    first, *others = list(connected().stream(asked))
    joined = add_ai_message_chunks(first, *others)
    assert joined.text == whole.text
    assert "Tokyo" in whole.text
    assert joined.usage_metadata == whole.usage_metadata
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["input_token_details"]["cache_read"] > 0
    assert whole.response_metadata["stop_reason"] == "end_turn"


def test_a_tool_is_called_and_what_it_gave_is_answered_from(connected: Connected) -> None:
    called: list[str] = []

    @tool
    def population(city: str) -> str:
        """How many people live in a city."""
        called.append(city)
        return f"{city} has 2.1 million inhabitants."

    messages: list[BaseMessage] = [HumanMessage("How many people live in Paris?")]
    asked = connected().bind_tools([population], tool_choice="population").invoke(messages)
    messages += [asked, *(population.invoke(call) for call in asked.tool_calls)]
    answer = connected().bind_tools([population], tool_choice={"type": "none"}).invoke(messages)
    assert [call["args"] for call in asked.tool_calls] == [{"city": called[0]}]
    assert answer.text
    assert not answer.tool_calls


class Person(pydantic.BaseModel):
    """A person, as the answer is parsed into it."""

    name: str = pydantic.Field(max_length=40)
    age: int = pydantic.Field(ge=0, le=150)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_an_answer_takes_the_form_of_a_pydantic_model(connected: Connected, method: Any) -> None:
    model = connected(max_tokens=100).with_structured_output(Person, method=method)
    assert isinstance(model.invoke("Ada is 36 years old. Who is she?"), Person)


def test_a_wrong_key_and_a_full_server_are_known_as_such(full_server: CloudRun) -> None:
    with pytest.raises(anthropic.AuthenticationError):
        chat_model(full_server).invoke(JAPAN)
    with pytest.raises(anthropic.RateLimitError):
        chat_model(full_server, key="secret").invoke(JAPAN)
