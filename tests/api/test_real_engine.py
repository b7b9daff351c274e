"""The same Api over a real engine: ONNX Runtime, a tiny random Llama in fp32, its own tokenizer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from handlers.api.app import Api
from handlers.api.http import Request, Response, StreamResponse, run_sync
from handlers.api.model import DecoderModel
from handlers.artifact.manifest import Artifact
from handlers.config import Settings
from handlers.engine.engine import Engine
from handlers.text.chat_template import ChatTemplate
from handlers.text.tokenizer import Tokenizer
from tests.api.client import parse
from tests.support.scripted_engine import drain
from tests.support.thinking_artifact import thinking_copy

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


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
    template = ChatTemplate.of(artifact)
    model = DecoderModel.of(engine, tokenizer, template, artifact.manifest, settings, {})
    api = Api(model, settings)
    return api, engine


@pytest.fixture(scope="module")
def api(tiny_artifact: Path) -> Api:
    """Inline: the caller runs the engine's steps."""
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
    whole = text_of(run_sync(api.handle(request(fields))))
    streamed = run_sync(api.handle(request({**fields, "stream": True})))

    assert isinstance(streamed, StreamResponse)
    assert joined(drain(streamed.chunks)) == whole
    assert whole


def test_the_same_seed_gives_the_same_answer_and_another_another(api: Api) -> None:
    answers = [text_of(run_sync(api.handle(request({**SAMPLED, "seed": s})))) for s in (7, 7, 8)]

    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize(
    "extreme",
    [
        {"repetition_penalty": 0.01, "frequency_penalty": -2, "presence_penalty": -2},
        {"repetition_penalty": 10, "frequency_penalty": 2, "temperature": 2},
        {"repetition_penalty": 0.01, "temperature": 1.1e-5},
        {"temperature": 5e-324, "top_p": 5e-324},
        {"top_p": 5e-324, "top_k": 1, "min_p": 1},
        {"top_p": 0, "temperature": 2},
        {"top_k": 2**31 - 1, "min_tokens": 2**31 - 1, "seed": -(2**63)},
    ],
)
def test_the_ends_of_every_range_are_answered(api: Api, extreme: dict[str, Any]) -> None:
    assert text_of(run_sync(api.handle(request(body(**extreme))))) is not None


def test_every_stop_string_in_the_answer_ends_it_there(api: Api) -> None:
    whole = text_of(run_sync(api.handle(request(SAMPLED))))

    for start in range(1, len(whole) - 3):
        stop = whole[start : start + 3]
        cut = text_of(run_sync(api.handle(request({**SAMPLED, "stop": stop}))))
        assert cut == whole[: whole.index(stop)]


def choices(api: Api, path: str, fields: dict[str, Any]) -> list[dict[str, Any]]:
    answer = run_sync(api.handle(request(fields, path)))
    assert isinstance(answer, Response)
    assert answer.status == 200, answer.body
    listed: list[dict[str, Any]] = msgspec.json.decode(answer.body)["choices"]
    return [{name: value for name, value in one.items() if name != "index"} for one in listed]


def test_every_choice_is_the_answer_to_its_own_seed(api: Api) -> None:
    sampled = SAMPLED | {"logprobs": True, "top_logprobs": 2}

    together = choices(api, CHAT, sampled | {"n": 3})
    alone = [choices(api, CHAT, sampled | {"seed": 7 + place})[0] for place in range(3)]

    assert [rounded(choice) for choice in together] == [rounded(choice) for choice in alone]
    assert len({choice["message"]["content"] for choice in together}) == 3


def test_several_prompts_get_what_each_gets_alone(api: Api) -> None:
    sampled = {"max_tokens": 8, "temperature": 0.9, "seed": 7, "logprobs": 2, "echo": True}
    texts = ["Once upon", "a longer text than that", "x"]

    together = choices(api, TEXT, sampled | {"prompt": texts, "n": 2})
    alone = [choices(api, TEXT, sampled | {"prompt": text, "n": 2}) for text in texts]

    assert [rounded(one) for one in together] == [rounded(one) for two in alone for one in two]


@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_has_its_prompts_logprobs_in_every_choice(threaded: Api, stream: bool) -> None:
    fields = {"prompt": "Tell me more", "echo": True, "logprobs": 2, "n": 3, "max_tokens": 3}

    async def first_pieces() -> list[Any]:
        answer = await threaded.handle(request(fields | {"stream": stream}, TEXT))
        if isinstance(answer, Response):
            return list(msgspec.json.decode(answer.body)["choices"])
        *events, _ = parse(b"".join([chunk async for chunk in answer.chunks]))
        first = {event["choices"][0]["index"]: event["choices"][0] for event in reversed(events)}
        return [first[index] for index in range(3)]

    for _ in range(2):  # the second time the others find their prompt in the cache
        choices = asyncio.run(first_pieces())
        logprobs = [choice["logprobs"]["token_logprobs"] for choice in choices]
        count = sum(
            offset < len("Tell me more") for offset in choices[0]["logprobs"]["text_offset"]
        )
        assert logprobs[0][0] is None
        assert count > 3
        assert logprobs[0][:count] == logprobs[1][:count] == logprobs[2][:count]
        assert all(choice["text"].startswith("Tell me more") for choice in choices)


def test_an_answer_scored_as_a_prompt_has_the_logprobs_that_it_was_given(api: Api) -> None:
    asked = {"echo": True, "logprobs": 1, "temperature": 0}
    forced = asked | {"prompt": "Tell me", "guided_choice": [" more, and more"]}

    (answer,) = choices(api, TEXT, forced)
    (scored,) = choices(api, TEXT, asked | {"prompt": answer["text"], "max_tokens": 0})

    assert answer["text"] == scored["text"] == "Tell me more, and more"
    assert rounded(scored["logprobs"]) == rounded(answer["logprobs"])


def rounded(value: Any) -> Any:
    """Logprobs of another batch or chunk differ in float32's last digits."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def test_more_choices_than_the_process_can_hold_are_a_wrong_n(api: Api) -> None:
    answer = run_sync(api.handle(request(body(n=7))))

    assert isinstance(answer, Response)
    assert (answer.status, msgspec.json.decode(answer.body)["error"]["param"]) == (400, "n")


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"logit_bias": {"999999": 1}}, "logit_bias.999999"),
        (CHAT, {"stop_token_ids": [999_999]}, "stop_token_ids"),
        (TEXT, {"prompt": [999_999]}, "prompt"),
        (TEXT, {"prompt": [[]]}, "prompt"),
    ],
)
def test_an_id_beyond_the_vocabulary_names_its_field(
    api: Api, path: str, fields: dict[str, Any], param: str
) -> None:
    answer = run_sync(api.handle(request((body() if path == CHAT else {}) | fields, path)))

    assert isinstance(answer, Response)
    assert (answer.status, msgspec.json.decode(answer.body)["error"]["param"]) == (400, param)


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_with_a_form_is_valid_or_says_that_it_was_cut(api: Api, seed: int) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 5}, "n": {"enum": [1, 2]}},
        "required": ["name", "n"],
        "additionalProperties": False,
    }
    (choice,) = choices(api, CHAT, body(max_tokens=150, seed=seed, guided_json=schema))

    if choice["finish_reason"] == "stop":
        made = msgspec.json.decode(choice["message"]["content"])
        assert set(made) == {"name", "n"}
        assert made["n"] in {1, 2}
    else:
        assert choice["finish_reason"] == "length"


def test_a_grammar_is_followed_where_the_engine_has_a_thread(api: Api, threaded: Api) -> None:
    chosen = body(guided_choice=["yes", "no"], n=2, seed=3)

    async def all_at_once() -> list[str]:
        return await asyncio.gather(*(ask(threaded, chosen) for _ in range(2)))

    first, second = asyncio.run(all_at_once())
    assert first == second == text_of(run_sync(api.handle(request(chosen))))
    assert first in {"yes", "no"}


def test_clients_at_once_get_what_each_gets_alone(api: Api, threaded: Api) -> None:
    bodies = [{**SAMPLED, "seed": seed, "stream": seed % 2 == 0} for seed in range(6)]
    alone = [run_sync(ask(api, fields)) for fields in bodies]

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
    answer = run_sync(api.handle(long))

    assert isinstance(answer, Response)
    error = msgspec.json.decode(answer.body)["error"]
    assert (answer.status, error["code"], error["param"]) == (
        400,
        "context_length_exceeded",
        "prompt",
    )


@pytest.fixture(scope="module")
def thinker(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Api:
    """A model whose prompt ends within thoughts, which it closes by chance alone."""
    return make(thinking_copy(tiny_artifact, tmp_path_factory.mktemp("thinking") / "model"))[0]


ANIMAL = {"guided_choice": ["a cat", "a dog"]}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("budget", [0, 1, 7])
@pytest.mark.parametrize("form", [{}, ANIMAL])
def test_a_budget_closes_the_thoughts_and_the_answer_follows(
    thinker: Api, seed: int, budget: int, form: dict[str, object]
) -> None:
    wish = {"temperature": 1.5, "seed": seed, "enable_thinking": True, "thinking_budget": budget}
    fields = body(**wish, **form, max_tokens=40)
    whole = run_sync(thinker.handle(request(fields)))
    streamed = run_sync(thinker.handle(request({**fields, "stream": True})))

    assert isinstance(whole, Response)
    answered = msgspec.json.decode(whole.body)
    message = answered["choices"][0]["message"]
    assert isinstance(streamed, StreamResponse)
    *events, _ = parse(b"".join(drain(streamed.chunks)))
    deltas = [event["choices"][0]["delta"] for event in events]
    for name in ("reasoning", "reasoning_content", "content"):
        assert "".join(delta.get(name, "") for delta in deltas) == message.get(name, "")
    if form:
        assert message["content"] in ANIMAL["guided_choice"]
    thoughts = answered["usage"]["completion_tokens_details"]["reasoning_tokens"]
    marks = 20  # of a vocabulary in which a mark is many tokens
    assert thoughts <= budget + marks
    assert budget > 0 or "reasoning" not in message
