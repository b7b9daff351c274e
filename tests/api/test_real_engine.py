"""The same Api over a real engine: ONNX Runtime, a tiny random Llama in fp32, its own tokenizer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from handlers.api.inline import run_inline
from handlers.api.messages import Request, Response, StreamResponse
from handlers.api.routes import Api
from handlers.config import Settings
from handlers.engine.artifact import Artifact
from handlers.engine.engine import Engine
from handlers.text.template import ChatTemplate
from handlers.text.tokenizer import Tokenizer
from tests.api.client import parse
from tests.support.scripted_engine import drain

CHAT = "/v1/chat/completions"


def body(**fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "Tell me more"}], "max_tokens": 24, **fields}


def request(fields: dict[str, object], path: str = CHAT) -> Request:
    return Request("POST", path, {}, {}, msgspec.json.encode(fields))


def text_of(answer: Response | StreamResponse) -> str:
    assert isinstance(answer, Response)
    assert answer.status == 200, answer.body
    text: str = msgspec.json.decode(answer.body)["choices"][0]["message"]["content"]
    return text


def joined(chunks: list[bytes]) -> str:
    *events, done = parse(b"".join(chunks))
    assert done == "[DONE]"
    return "".join(event["choices"][0]["delta"].get("content", "") for event in events)


def make(directory: Path) -> tuple[Api, Engine]:
    artifact = Artifact.open(directory)
    settings = Settings.from_environ({"MODEL_DIR": str(directory), "KINDLING_QUEUE_LIMIT": "2"})
    engine = Engine.load(artifact, settings)
    tokenizer = Tokenizer.load(artifact.tokenizer)
    api = Api(engine, tokenizer, ChatTemplate.of(artifact), artifact.manifest, settings, {})
    return api, engine


@pytest.fixture(scope="module")
def api(tiny_artifact: Path) -> Api:
    """Inline: whoever asks turns the engine's crank."""
    return make(tiny_artifact)[0]


@pytest.fixture
def threaded(tiny_artifact: Path) -> Iterator[Api]:
    """With the engine's thread running."""
    api, engine = make(tiny_artifact)
    engine.start()
    yield api
    engine.stop()


async def ask(api: Api, fields: dict[str, object]) -> str:
    answer = await api.handle(request(fields))
    if isinstance(answer, StreamResponse):
        return joined([chunk async for chunk in answer.chunks])
    return text_of(answer)


SAMPLED = body(temperature=0.9, seed=7)


@pytest.mark.parametrize("fields", [body(temperature=0), SAMPLED])
def test_a_joined_stream_is_the_unstreamed_answer(api: Api, fields: dict[str, Any]) -> None:
    whole = text_of(run_inline(api.handle(request(fields))))
    streamed = run_inline(api.handle(request({**fields, "stream": True})))

    assert isinstance(streamed, StreamResponse)
    assert joined(drain(streamed.chunks)) == whole
    assert whole


def test_the_same_seed_gives_the_same_answer_and_another_another(api: Api) -> None:
    answers = [text_of(run_inline(api.handle(request({**SAMPLED, "seed": s})))) for s in (7, 7, 8)]

    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize(
    "extreme",
    [
        {"repetition_penalty": 0.01, "frequency_penalty": -2, "presence_penalty": -2},
        {"repetition_penalty": 10, "frequency_penalty": 2, "temperature": 2},
        {"repetition_penalty": 0.01, "temperature": 1.1e-5},
        {"temperature": 5e-324, "top_p": 5e-324},
        {"top_p": 5e-324, "top_k": 1, "min_p": 1},
        {"top_k": 2**31 - 1, "min_tokens": 2**31 - 1, "seed": -(2**63)},
    ],
)
def test_the_ends_of_every_range_are_answered(api: Api, extreme: dict[str, Any]) -> None:
    assert text_of(run_inline(api.handle(request(body(**extreme))))) is not None


def test_every_stop_string_in_the_answer_ends_it_there(api: Api) -> None:
    whole = text_of(run_inline(api.handle(request(SAMPLED))))

    for start in range(1, len(whole) - 3):
        stop = whole[start : start + 3]
        cut = text_of(run_inline(api.handle(request({**SAMPLED, "stop": stop}))))
        assert cut == whole[: whole.index(stop)]


def test_clients_at_once_get_what_each_gets_alone(api: Api, threaded: Api) -> None:
    bodies = [{**SAMPLED, "seed": seed, "stream": seed % 2 == 0} for seed in range(6)]
    alone = [run_inline(ask(api, fields)) for fields in bodies]

    async def all_at_once() -> list[str]:
        return await asyncio.gather(*(ask(threaded, fields) for fields in bodies))

    assert asyncio.run(all_at_once()) == alone


def test_a_full_queue_is_answered_429_and_the_rest_are_served(threaded: Api) -> None:
    long = request(body(max_tokens=200, ignore_eos=True))

    async def all_at_once() -> list[Response | StreamResponse]:
        return await asyncio.gather(*(threaded.handle(long) for _ in range(9)))

    answers = asyncio.run(all_at_once())

    assert sorted(answer.status for answer in answers) == [200] * 6 + [429] * 3
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.headers["retry-after"] == "1"


def test_a_closed_stream_frees_its_slot(threaded: Api) -> None:
    endless = body(stream=True, max_tokens=200, ignore_eos=True)

    async def leave_early() -> Any:
        for _ in range(12):
            answer = await threaded.handle(request(endless))
            assert isinstance(answer, StreamResponse), answer.body
            await anext(answer.chunks)
            await answer.chunks.aclose()
        return await ask(threaded, SAMPLED)

    assert asyncio.run(leave_early())


def test_a_prompt_beyond_the_context_is_refused_by_the_field(api: Api) -> None:
    long = request({"prompt": "a b c d " * 200}, "/v1/completions")
    answer = run_inline(api.handle(long))

    assert isinstance(answer, Response)
    error = msgspec.json.decode(answer.body)["error"]
    assert (answer.status, error["code"], error["param"]) == (
        400,
        "context_length_exceeded",
        "prompt",
    )
