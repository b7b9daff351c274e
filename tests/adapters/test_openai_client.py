"""OpenAI's own client, talking to the Cloud Run handler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.support.servers import CloudRun, cloud_run, wait_until

HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello"}]


def client_of(server: CloudRun, key: str = "none", timeout: float = 120.0) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{server.url}/v1",
        api_key=key,
        timeout=timeout,
        max_retries=0,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    )


@pytest.fixture(params=["tiny_cloud_run", "demo_cloud_run"])
def server(request: pytest.FixtureRequest) -> CloudRun:
    running: CloudRun = request.getfixturevalue(request.param)
    return running


@pytest.fixture
def client(server: CloudRun) -> Iterator[openai.OpenAI]:
    with client_of(server) as client:
        yield client


@pytest.fixture
def model(client: openai.OpenAI) -> str:
    (model,) = client.models.list()
    return model.id


def test_chat(client: openai.OpenAI, model: str) -> None:
    completion = client.chat.completions.create(
        model=model, messages=HELLO, max_tokens=8, temperature=0
    )
    (choice,) = completion.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in {"stop", "length"}
    assert completion.model == model
    assert completion.usage is not None
    assert completion.usage.total_tokens == (
        completion.usage.prompt_tokens + completion.usage.completion_tokens
    )
    assert completion._request_id


def test_streamed_chat_joins_to_the_chat(client: openai.OpenAI, model: str) -> None:
    whole = client.chat.completions.create(model=model, messages=HELLO, max_tokens=8, temperature=0)
    with client.chat.completions.create(
        model=model,
        messages=HELLO,
        max_tokens=8,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_completion_and_its_stream(client: openai.OpenAI, model: str) -> None:
    whole = client.completions.create(model=model, prompt="Once", max_tokens=8, temperature=0)
    with client.completions.create(
        model=model, prompt="Once", max_tokens=8, temperature=0, stream=True
    ) as stream:
        text = "".join(chunk.choices[0].text for chunk in stream)
    assert text == whole.choices[0].text != ""


def test_models(client: openai.OpenAI, model: str) -> None:
    assert client.models.retrieve(model).id == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")


def test_a_wrong_field_is_a_bad_request_that_names_it(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=model, messages=HELLO, temperature=-1)
    assert caught.value.param == "temperature"
    assert caught.value.code == "invalid_request_error"


def test_a_prompt_beyond_the_context_is_a_bad_request(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=model, prompt="word " * 5000)
    assert caught.value.code == "context_length_exceeded"


def test_a_timeout_of_the_client_frees_the_slot(demo_cloud_run: CloudRun) -> None:
    with client_of(demo_cloud_run, timeout=1.0) as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(
            model="any", messages=HELLO, max_tokens=1900, extra_body={"ignore_eos": True}
        )
    wait_until(lambda: demo_cloud_run.health()["running"] == 0)


def test_a_wrong_key_is_an_authentication_error(tiny_artifact: Path, directory: Path) -> None:
    with cloud_run(tiny_artifact, directory, KINDLING_API_KEY="secret") as server:
        with client_of(server, "wrong") as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
        with client_of(server, "secret") as client:
            assert len(client.models.list().data) == 1
