"""OpenAI's own client asking /v1/responses, of both clouds."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pydantic
import pytest
from openai.types.responses import FunctionToolParam, ResponseInputParam

from tests.support.openai_clients import openai_client
from tests.support.servers import Cloud, CloudRun

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


@pytest.fixture(params=["tiny_cloud_run", "tiny_lambda", "demo_cloud_run", "demo_lambda"])
def client(request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    server: Cloud = request.getfixturevalue(request.param)
    with openai_client(server) as client:
        yield client


@pytest.fixture
def demo(demo_cloud_run: CloudRun) -> Iterator[openai.OpenAI]:
    with openai_client(demo_cloud_run) as client:
        yield client


def test_a_response(client: openai.OpenAI) -> None:
    response = client.responses.create(
        model="any", input="Hello", instructions="Be brief.", max_output_tokens=8, temperature=0
    )
    assert response.output_text
    assert response.status in {"completed", "incomplete"}
    assert response.instructions == "Be brief."
    assert response.usage is not None
    assert 0 < response.usage.output_tokens <= 8
    assert response._request_id


def test_a_streamed_response_joins_to_the_response(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="any", input="Hello", max_output_tokens=8, temperature=0)
    with client.responses.create(
        model="any", input="Hello", max_output_tokens=8, temperature=0, stream=True
    ) as stream:
        events = list(stream)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text != ""
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type in {"response.completed", "response.incomplete"}


def test_the_stream_helper_follows_the_events(demo: openai.OpenAI) -> None:
    with demo.responses.stream(
        model="any", input="What is the capital of Japan?", temperature=0
    ) as stream:
        texts = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        response = stream.get_final_response()
    assert response.status == "completed"
    assert response.output_text == texts[-1]


def test_the_last_answer_is_part_of_the_next_input(client: openai.OpenAI) -> None:
    first = client.responses.create(model="any", input="Hello", max_output_tokens=6, temperature=0)
    conversation: ResponseInputParam = [
        {"role": "user", "content": "Hello"},
        *(item.to_dict() for item in first.output),  # type: ignore[list-item]
        {"role": "user", "content": "And?"},
    ]
    second = client.responses.create(model="any", input=conversation, max_output_tokens=6)
    assert second.output_text


def test_the_tokens_of_an_input_are_counted(client: openai.OpenAI) -> None:
    counted = client.responses.input_tokens.count(
        model="any", input="Hello", instructions="Be brief."
    )
    response = client.responses.create(
        model="any", input="Hello", instructions="Be brief.", max_output_tokens=1
    )
    assert response.usage is not None
    assert counted.input_tokens == response.usage.input_tokens


def test_what_is_not_stored_is_not_found(client: openai.OpenAI) -> None:
    response = client.responses.create(model="any", input="Hello", max_output_tokens=1)
    with pytest.raises(openai.NotFoundError, match="nothing is stored here"):
        client.responses.retrieve(response.id)


class Person(pydantic.BaseModel):
    """A person, as the answer is parsed into it."""

    name: str
    age: int


def test_an_answer_is_parsed_into_a_model(demo: openai.OpenAI) -> None:
    response = demo.responses.parse(
        model="any",
        input="Ada is 36 years old. Who is she?",
        text_format=Person,
        temperature=0,
        max_output_tokens=60,
    )
    assert isinstance(response.output_parsed, Person)


def test_logprobs_are_told_where_they_are_included(client: openai.OpenAI) -> None:
    response = client.responses.create(
        model="any",
        input="Hello",
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        max_output_tokens=4,
        temperature=0,
    )
    (item,) = response.output
    assert item.type == "message"
    (part,) = item.content
    assert part.type == "output_text"
    tokens = part.logprobs or []
    assert b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace") == part.text
    assert all(token.logprob == token.top_logprobs[0].logprob for token in tokens)


@pytest.mark.parametrize("client", ["demo_cloud_run", "demo_lambda"], indirect=True)
def test_a_tool_that_must_be_called_is_called_with_arguments_of_its_schema(
    client: openai.OpenAI,
) -> None:
    response = client.responses.create(
        model="any",
        input="How is the weather in Paris?",
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
    )
    (call,) = response.output
    assert call.type == "function_call"
    assert call.name == "get_weather"
    assert list(json.loads(call.arguments)) == ["city"]


def test_a_called_tool_streams_its_arguments_and_takes_its_output(demo: openai.OpenAI) -> None:
    question: ResponseInputParam = [{"role": "user", "content": "How is the weather in Paris?"}]
    with demo.responses.stream(
        model="any",
        input=question,
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "get_weather"},
        temperature=0,
    ) as stream:
        pieces = [
            event.delta
            for event in stream
            if event.type == "response.function_call_arguments.delta"
        ]
        call = stream.get_final_response().output[0]
    assert call.type == "function_call"
    assert "".join(pieces) == call.arguments
    answer = demo.responses.create(
        model="any",
        input=[
            *question,
            {
                "type": "function_call",
                "call_id": call.call_id,
                "name": call.name,
                "arguments": call.arguments,
            },
            {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny, 21 C."},
        ],
        tools=[WEATHER],
        max_output_tokens=40,
    )
    assert answer.output


def test_a_call_that_was_cut_does_not_end_the_conversation(demo: openai.OpenAI) -> None:
    question: ResponseInputParam = [{"role": "user", "content": "How is the weather in Paris?"}]
    cut = demo.responses.create(
        model="any",
        input=question,
        tools=[WEATHER],
        tool_choice="required",
        max_output_tokens=20,
        temperature=0,
    )
    (call,) = cut.output
    assert call.type == "function_call"
    with pytest.raises(json.JSONDecodeError):
        json.loads(call.arguments)
    answer = demo.responses.create(
        model="any",
        input=[
            *question,
            call.to_dict(),  # type: ignore[list-item]
            {"type": "function_call_output", "call_id": call.call_id, "output": "Not run."},
            {"role": "user", "content": "Never mind, just greet me."},
        ],
        max_output_tokens=8,
    )
    assert answer.output_text


def test_a_memory_between_requests_is_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="any", input="Hello", previous_response_id="resp_1")
    assert caught.value.param == "previous_response_id"


def test_a_tool_of_openais_own_is_left_out(client: openai.OpenAI) -> None:
    response = client.responses.create(
        model="any", input="Hello", tools=[{"type": "web_search"}], max_output_tokens=4
    )
    assert response.output_text
    assert response.tools == []
