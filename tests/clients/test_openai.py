"""OpenAI's client where programs go further than one question: async, raw answers, leaving."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pydantic
from openai.types.chat import ChatCompletion, ChatCompletionUserMessageParam

from tests.support.openai_clients import base_url, openai_client
from tests.support.servers import Cloud, CloudRun, cloud_run, wait_until

HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello"}]
SHORT: dict[str, Any] = {"model": "any", "messages": HELLO, "temperature": 0, "max_tokens": 8}
ENDLESS = SHORT | {"stream": True, "max_tokens": 1900, "extra_body": {"ignore_eos": True}}


def async_client(server: CloudRun) -> openai.AsyncOpenAI:
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    return openai.AsyncOpenAI(
        base_url=base_url(server), api_key="none", max_retries=0, http_client=http
    )


def test_eight_streams_at_once_each_get_their_own_answer(server: CloudRun) -> None:
    arrivals: list[int] = []

    async def read(client: openai.AsyncOpenAI, number: int) -> str:
        form = {"guided_regex": f"{number}[a-z ]{{20,40}}"}
        text = ""
        async for chunk in await client.chat.completions.create(
            **SHORT | {"max_tokens": 60}, stream=True, extra_body=form
        ):
            arrivals.append(number)
            text += chunk.choices[0].delta.content or ""
        return text

    async def read_all() -> list[str]:
        async with async_client(server) as client:
            return await asyncio.gather(*(read(client, number) for number in range(8)))

    texts = asyncio.run(read_all())
    assert [text[0] for text in texts] == list("01234567")
    assert all(21 <= len(text) <= 41 for text in texts)
    assert arrivals != sorted(arrivals), "the streams came one after the other"


def test_a_cancelled_task_frees_its_slot_and_leaves_the_others(server: CloudRun) -> None:
    async def leave_one_and_read_one() -> str:
        async with async_client(server) as client:
            stream = await client.chat.completions.create(**ENDLESS)
            first = asyncio.ensure_future(drain(stream))
            second = asyncio.ensure_future(client.chat.completions.create(**SHORT))
            answer = await second
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            assert first.cancelled()
            return answer.choices[0].message.content or ""

    assert asyncio.run(leave_one_and_read_one())
    wait_until(lambda: server.health()["running"] == 0)


async def drain(stream: openai.AsyncStream[Any]) -> None:
    async for _ in stream:
        pass


def test_a_stream_that_is_closed_in_its_middle_frees_its_slot(server: CloudRun) -> None:
    with openai_client(server) as client:
        stream = client.chat.completions.create(**ENDLESS)
        pieces = [next(stream) for _ in range(4)]
        assert server.health()["running"] == 1
        stream.close()
        assert len(pieces) == 4
        wait_until(lambda: server.health()["running"] == 0)


def test_a_client_that_finds_the_server_full_asks_again_by_itself(
    demo_artifact: Path, directory: Path
) -> None:
    limits = {"KINDLING_SLOTS": "1", "KINDLING_QUEUE_LIMIT": "0"}
    with (
        cloud_run(demo_artifact, directory, **limits) as server,
        openai_client(server) as client,
        ThreadPoolExecutor(1) as thread,
    ):
        running = client.chat.completions.create(**ENDLESS)
        next(running)
        patient = client.with_options(max_retries=20).chat.completions
        answer = thread.submit(lambda: patient.create(**SHORT))
        wait_until(lambda: 429 in [line["status"] for line in server.process.requests])
        running.close()
        assert answer.result().choices[0].message.content


def test_a_raw_answer_shows_the_headers_and_parses_to_the_answer(cloud: Cloud) -> None:
    with openai_client(cloud) as client:
        raw = client.chat.completions.with_raw_response.create(**SHORT)
        completion = raw.parse()
    assert isinstance(completion, ChatCompletion)
    assert completion._request_id == raw.headers["x-request-id"]
    assert raw.headers["x-request-id"] in [line["id"] for line in cloud.process.requests]
    assert re.fullmatch(
        r"queue;dur=[\d.]+, prefill;dur=[\d.]+, decode;dur=[\d.]+", raw.headers["server-timing"]
    )


def test_a_streamed_raw_answer_has_its_headers_before_its_text(cloud: Cloud) -> None:
    with (
        openai_client(cloud) as client,
        client.chat.completions.with_streaming_response.create(**SHORT, stream=True) as raw,
    ):
        assert raw.headers["x-request-id"]
        assert "prefill" in raw.headers["server-timing"]
        lines = [line for line in raw.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


class Person(pydantic.BaseModel):
    """A person, as the answer is parsed into it."""

    name: str = pydantic.Field(max_length=40)
    age: int = pydantic.Field(ge=0, le=150)


def test_a_streamed_form_is_parsed_as_it_grows(cloud: Cloud) -> None:
    with (
        openai_client(cloud) as client,
        client.chat.completions.stream(
            model="any",
            messages=[{"role": "user", "content": "Ada is 36 years old. Who is she?"}],
            response_format=Person,
            temperature=0,
            max_tokens=100,
        ) as stream,
    ):
        grown = [event.parsed for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(final, Person)
    assert grown[-1] == final.model_dump()
