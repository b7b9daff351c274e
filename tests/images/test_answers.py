"""The images answer as the code outside of them does: read-only, offline, within their limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.images import docker
from tests.images.docker import OFFLINE, READ_ONLY, Container
from tests.support.aws_events import HttpCall, function_url
from tests.support.event_stream import events, joined_text
from tests.support.servers import CloudRun, cloud_run

CHAT = "/v1/chat/completions"


def chat(text: str, **more: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, **more}


QUESTIONS = [
    chat("What is the capital of Japan?"),
    chat("Wiederhole: Zürich, 東京, 🙂", max_tokens=40),
    chat("Write a list of ten animals.", max_tokens=60, stop="5."),
    chat("word " * 600, max_tokens=4),
]


@pytest.fixture(scope="module")
def outside(baked_model: Path, directory: Path) -> Iterator[CloudRun]:
    with cloud_run(baked_model, directory) as server:
        yield server


@pytest.fixture(scope="module", params=[1, 2], ids=["1-vCPU", "2-vCPU"])
def cpus(request: pytest.FixtureRequest) -> int:
    chosen: int = request.param
    return chosen


@pytest.fixture(scope="module")
def on_lambda(cpus: int) -> Iterator[Container]:
    with docker.aws_lambda(*OFFLINE, *READ_ONLY, cpus=cpus) as container:
        yield container


@pytest.fixture(scope="module")
def on_cloud_run(cpus: int) -> Iterator[Container]:
    with docker.cloud_run(*OFFLINE, *READ_ONLY, cpus=cpus) as container:
        yield container


@pytest.mark.parametrize("question", QUESTIONS)
def test_both_images_answer_as_the_code_outside_does(
    on_lambda: Container, on_cloud_run: Container, outside: CloudRun, question: dict[str, Any]
) -> None:
    expected = outside.post(CHAT, question).json()
    for answer in (
        on_lambda.invoke(question),
        json.loads(on_cloud_run.ask("POST", CHAT, question)),
    ):
        assert answer["choices"] == expected["choices"]
        for count in ("prompt_tokens", "completion_tokens"):
            assert answer["usage"][count] == expected["usage"][count]


def test_a_stream_says_the_same(on_cloud_run: Container, outside: CloudRun) -> None:
    whole = outside.post(CHAT, QUESTIONS[1]).json()
    streamed = on_cloud_run.ask("POST", CHAT, QUESTIONS[1] | {"stream": True})
    assert joined_text(events(streamed.encode())) == whole["choices"][0]["message"]["content"]


def test_lambdas_own_runtime_answers_and_streams_the_same(outside: CloudRun, cpus: int) -> None:
    expected = outside.post(CHAT, QUESTIONS[1]).json()["choices"]
    streamed = function_url(
        HttpCall("POST", CHAT, json.dumps(QUESTIONS[1] | {"stream": True}).encode())
    )
    sandbox = (*OFFLINE, *READ_ONLY)
    with docker.aws_lambda(*sandbox, runtime=docker.OWN_RUNTIME, cpus=cpus) as container:
        assert container.invoke(QUESTIONS[1])["choices"] == expected
        whole = container.ask("POST", docker.INVOCATIONS, streamed)
    prelude, _, body = whole.partition("\0" * 8)
    assert json.loads(prelude)["statusCode"] == 200
    assert joined_text(events(body.encode())) == expected[0]["message"]["content"]


def test_text_beyond_ascii_leaves_lambda_as_it_is(on_lambda: Container) -> None:
    """Without AWS_EXECUTION_ENV awslambdaric would escape it, six bytes a letter."""
    body = on_lambda.ask("POST", docker.INVOCATIONS, chat("Zürich", max_tokens=1, model="Zürich"))
    error = on_lambda.ask("POST", docker.INVOCATIONS, {"messages": [{"role": "Zürich"}]})
    assert "\\u" not in body
    assert "Zürich" in error


def test_bad_input_is_refused_and_the_images_go_on(
    on_lambda: Container, on_cloud_run: Container
) -> None:
    assert on_lambda.invoke({"messages": []})["status"] == 400
    assert json.loads(on_cloud_run.ask("POST", CHAT, {}))["error"]["param"] == "messages"
    assert on_lambda.invoke(QUESTIONS[0])["usage"]["completion_tokens"] > 0
    assert json.loads(on_cloud_run.ask("GET", "/healthz"))["state"] == "ready"


def test_the_openai_client_streams_from_a_published_port() -> None:
    with docker.cloud_run(*READ_ONLY, "--publish", "127.0.0.1::9999", PORT="9999") as server:
        address = docker.docker("port", server.id, "9999").split()[0]
        client = OpenAI(base_url=f"http://{address}/v1", api_key="unused")
        stream = client.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": "What is the capital of Japan?"}],
            temperature=0,
            stream=True,
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        client.close()
    assert text == "The capital of Japan is Tokyo."
