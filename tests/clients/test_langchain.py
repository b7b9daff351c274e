"""LangChain's ChatOpenAI: questions, forms, a tool loop and a small chain that looks things up."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import openai
import pydantic
import pytest
from langchain_core.documents import Document
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAuthenticationError,
    ModelRateLimitError,
)
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnablePassthrough
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI

from tests.support.openai_clients import base_url, http_client
from tests.support.servers import Cloud, CloudRun

JAPAN = "What is the capital of Japan?"
ADA = "Ada is 36 years old. Who is she?"

Connected = Callable[..., ChatOpenAI]


@pytest.fixture
def connected(cloud: Cloud) -> Iterator[Connected]:
    """Makes models that answer from one of the clouds."""
    with http_client(cloud) as client:
        yield lambda **options: chat_model(cloud, http_client=client, **options)


def chat_model(cloud: Cloud, **options: Any) -> ChatOpenAI:
    defaults: dict[str, Any] = {
        "api_key": "none",
        "temperature": 0,
        "max_completion_tokens": 60,
        "max_retries": 0,
        "stream_usage": True,
    }
    return ChatOpenAI(base_url=base_url(cloud), model="any", **defaults | options)


def test_an_answer_comes_with_its_model_and_its_usage(connected: Connected) -> None:
    answer = connected().invoke(JAPAN)
    assert "Tokyo" in answer.text
    assert answer.response_metadata["model_name"] == "SmolLM2-135M-Instruct"
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0


def test_a_stream_joins_to_the_answer_and_its_usage(connected: Connected) -> None:
    model = connected()
    whole = model.invoke(JAPAN)
    joined = streamed(model.stream(JAPAN))
    assert joined.text == whole.text
    assert joined.usage_metadata is not None
    assert whole.usage_metadata is not None
    assert joined.usage_metadata["total_tokens"] == whole.usage_metadata["total_tokens"]


def streamed(chunks: Iterable[BaseMessage]) -> AIMessageChunk:
    """Returns what a program shows in the end: the sum of the chunks."""
    first, *others = [chunk for chunk in chunks if isinstance(chunk, AIMessageChunk)]
    return add_ai_message_chunks(first, *others)


def test_a_batch_is_answered_in_the_order_of_its_questions(server: CloudRun) -> None:
    questions = [f"Is this {'very ' * count}good?" for count in range(6)]
    answers = chat_model(server, max_completion_tokens=12).batch([*questions])
    read = [answer.usage_metadata["input_tokens"] for answer in answers if answer.usage_metadata]
    assert read == [read[0] + count for count in range(6)]


def test_logprobs_arrive_in_the_metadata(connected: Connected) -> None:
    answer = connected(logprobs=True, top_logprobs=2).invoke(JAPAN)
    tokens = answer.response_metadata["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == answer.text
    assert all(len(token["top_logprobs"]) == 2 for token in tokens)


def test_the_responses_api_answers_the_same(connected: Connected) -> None:
    answer = connected(use_responses_api=True).invoke(JAPAN)
    assert answer.text == connected().invoke(JAPAN).text


def test_the_older_completions_are_answered_too(cloud: Cloud) -> None:
    with http_client(cloud) as client:
        model = OpenAI(
            base_url=base_url(cloud),
            api_key=pydantic.SecretStr("none"),
            model="any",
            temperature=0,
            max_tokens=8,
            max_retries=0,
            http_client=client,
        )
        assert model.invoke("Once upon a time") == "".join(model.stream("Once upon a time")) != ""


class Person(pydantic.BaseModel):
    """A person, as the answer is parsed into it."""

    name: str = pydantic.Field(max_length=40)
    age: int = pydantic.Field(ge=0, le=150)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_an_answer_takes_the_form_of_a_pydantic_model(
    connected: Connected, method: Literal["json_schema", "function_calling"]
) -> None:
    model = connected(max_completion_tokens=100).with_structured_output(Person, method=method)
    assert isinstance(model.invoke(ADA), Person)


def test_an_answer_takes_the_form_of_a_json_schema(connected: Connected) -> None:
    schema = Person.model_json_schema() | {"additionalProperties": False}
    model = connected(max_completion_tokens=100).with_structured_output(
        schema, method="json_schema", strict=True
    )
    assert set(model.invoke(ADA)) == {"name", "age"}


def test_a_form_that_was_cut_is_told_apart_from_an_answer(connected: Connected) -> None:
    model = connected(max_completion_tokens=5)
    with pytest.raises(openai.LengthFinishReasonError):
        model.with_structured_output(Person).invoke(ADA)
    assert model.with_structured_output(Person, method="function_calling").invoke(ADA) is None


def test_a_streamed_form_grows_to_the_whole_one(connected: Connected) -> None:
    schema = Person.model_json_schema()
    model = connected(max_completion_tokens=100).with_structured_output(schema)
    parts = list(model.stream(ADA))
    assert parts[-1] == model.invoke(ADA)


def test_a_tool_is_called_and_what_it_gave_is_answered_from(connected: Connected) -> None:
    called: list[str] = []

    @tool
    def population(city: str) -> str:
        """How many people live in a city."""
        called.append(city)
        return f"{city} has 2.1 million inhabitants."

    model = connected()
    messages: list[BaseMessage] = [HumanMessage("How many people live in Paris?")]
    must_call = model.bind_tools([population], tool_choice="population", parallel_tool_calls=False)
    asked = must_call.invoke(messages)
    messages += [asked, *(population.invoke(call) for call in asked.tool_calls)]
    answer = model.bind_tools([population], tool_choice="none").invoke(messages)
    assert len(called) == 1
    assert [call["args"] for call in asked.tool_calls] == [{"city": called[0]}]
    assert answer.text
    assert not answer.tool_calls


def test_a_streamed_call_joins_to_the_call(connected: Connected) -> None:
    model = connected().bind_tools([Person], tool_choice="any", parallel_tool_calls=False)
    (joined,) = streamed(model.stream(ADA)).tool_calls
    (whole,) = model.invoke(ADA).tool_calls
    assert (joined["name"], joined["args"]) == (whole["name"], whole["args"])
    Person.model_validate(joined["args"])


class SharedWords(BaseRetriever):
    """Finds the sentence that shares most words with the question."""

    sentences: list[str]

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        asked = words(query)
        return [Document(max(self.sentences, key=lambda text: len(words(text) & asked)))]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def answers_from_notes(model: ChatOpenAI) -> Runnable[str, str]:
    """Looks for a note, puts it beside the question, and asks."""
    notes = [
        "The lighthouse of Kestrel Point was built in 1874.",
        "The harbour of Kestrel Point freezes in January.",
        "The keeper of the lighthouse is called Marta.",
    ]
    prompt = ChatPromptTemplate.from_template(
        "Answer with the help of this note.\nNote: {note}\nQuestion: {question}"
    )
    note = SharedWords(sentences=notes) | (lambda found: found[0].page_content)
    return {"note": note, "question": RunnablePassthrough()} | prompt | model | StrOutputParser()


def test_a_chain_answers_from_what_it_looked_up(connected: Connected) -> None:
    chain = answers_from_notes(connected(max_completion_tokens=40))
    question = "When was the lighthouse of Kestrel Point built?"
    answer = chain.invoke(question)
    assert "1874" in answer
    assert "".join(chain.stream(question)) == answer


def test_a_wrong_key_and_a_full_server_are_known_as_such(full_server: CloudRun) -> None:
    with pytest.raises(ModelAuthenticationError):
        chat_model(full_server).invoke(JAPAN)
    with pytest.raises(ModelRateLimitError):
        chat_model(full_server, api_key="secret").invoke(JAPAN)


def test_a_prompt_beyond_the_context_is_known_as_such(connected: Connected) -> None:
    with pytest.raises(ContextOverflowError):
        connected().invoke("word " * 5000)
