from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from handlers.api.http import Response, StreamResponse, TokenUsage, run_sync
from handlers.engine.params import FinishReason, Step
from tests.api.client import FINGERPRINT, TOKENIZER, Client, parse, saying, usage
from tests.support.scripted_engine import ScriptedEngine, ScriptedGeneration, drain, steps

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
BODIES: dict[str, dict[str, object]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hello"}]},
    TEXT: {"prompt": "Hello"},
}
both = pytest.mark.parametrize("path", BODIES)


def without_stamp(chunk: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in chunk.items() if name not in ("id", "created")}


def text_of(path: str, chunks: list[Any]) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    if path == TEXT:
        return "".join(choice["text"] for choice in choices)
    return "".join(choice["delta"].get("content", "") for choice in choices)


def test_chat_chunks_have_openais_shape() -> None:
    (token,) = TOKENIZER.encode("e")

    *chunks, done = Client(ScriptedEngine(steps([token]))).events(CHAT, BODIES[CHAT])

    assert done == "[DONE]"
    assert [without_stamp(chunk) for chunk in chunks] == [
        {
            "object": "chat.completion.chunk",
            "model": "Tiny",
            "system_fingerprint": FINGERPRINT,
            "choices": [
                {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            ],
        }
        for delta, finish_reason in (
            ({"role": "assistant", "content": ""}, None),
            ({"content": "e"}, None),
            ({}, "stop"),
        )
    ]
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1


def test_text_chunks_have_openais_shape() -> None:
    (token,) = TOKENIZER.encode("e")

    *chunks, done = Client(ScriptedEngine(steps([token]))).events(TEXT, BODIES[TEXT])

    assert done == "[DONE]"
    assert [without_stamp(chunk) for chunk in chunks] == [
        {
            "object": "text_completion",
            "model": "Tiny",
            "system_fingerprint": FINGERPRINT,
            "choices": [
                {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
            ],
        }
        for text, finish_reason in (("e", None), ("", "stop"))
    ]


@both
def test_the_usage_chunk_comes_last_and_only_when_asked_for(path: str) -> None:
    engine = saying("a b c")

    *chunks, last, _ = Client(engine).events(
        path, {**BODIES[path], "stream_options": {"include_usage": True}}
    )

    completion = len(TOKENIZER.encode("a b c"))
    assert last["choices"] == []
    assert last["usage"] == usage(len(engine.prompt_ids), completion)
    assert all(chunk["usage"] is None for chunk in chunks)
    *plain, _ = Client(saying("a b c")).events(path, BODIES[path])
    assert not any("usage" in chunk for chunk in plain)


@both
@pytest.mark.parametrize("text", ["", "one two", "Grüße 🎉\n\n東京", "line\ndata: [DONE]\r\n"])
def test_a_joined_stream_is_the_unstreamed_answer(path: str, text: str) -> None:
    *chunks, _ = Client(saying(text)).events(path, BODIES[path])
    whole = Client(saying(text)).json("POST", path, BODIES[path])

    choice = whole["choices"][0]
    assert text_of(path, chunks) == (
        choice["text"] if path == TEXT else choice["message"]["content"]
    )
    assert text_of(path, chunks) == text
    assert chunks[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]


@both
def test_every_event_is_one_chunk_of_bytes(path: str) -> None:
    answer = Client(saying("one two")).send("POST", path, {**BODIES[path], "stream": True})

    assert isinstance(answer, StreamResponse)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    for chunk in drain(answer.chunks):
        assert chunk.startswith(b"data: ")
        assert chunk.endswith(b"\n\n")
        assert chunk.count(b"\n") == 2


@both
@pytest.mark.parametrize(
    ("engine", "status"),
    [
        (ScriptedEngine(steps([], FinishReason.DEADLINE)), 504),
        (ScriptedEngine(steps([], FinishReason.FAULT)), 500),
        (ScriptedEngine(context_length=3), 400),
        (ScriptedEngine(refusal=RuntimeError("a bug")), 500),
    ],
)
def test_what_goes_wrong_before_the_first_token_is_an_http_status(
    path: str, engine: ScriptedEngine, status: int
) -> None:
    answer = Client(engine).send("POST", path, {**BODIES[path], "stream": True})

    assert isinstance(answer, Response)
    assert answer.status == status


@both
def test_what_goes_wrong_later_is_the_last_event(path: str) -> None:
    engine = ScriptedEngine(steps(TOKENIZER.encode("half an"), FinishReason.FAULT))

    *chunks, last = Client(engine).events(path, BODIES[path])

    assert text_of(path, chunks) == "half an"
    assert last["error"]["code"] == "internal_error"


class PanicException(BaseException):
    """As pyo3 raises one in place of a panic in Rust."""


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """In place of a generation's fourth step."""
    step = ScriptedGeneration.__anext__

    async def raise_or_step(self: ScriptedGeneration) -> Step:
        if self.taken == 3:
            raise error
        return await step(self)

    monkeypatch.setattr(ScriptedGeneration, "__anext__", raise_or_step)


@both
def test_a_panic_in_mid_stream_is_its_last_event(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, PanicException("secret"))

    *chunks, last = Client(saying("a long answer")).events(path, BODIES[path])

    assert text_of(path, chunks) == "a l"
    assert last["error"]["code"] == "internal_error"
    assert "secret" not in str(last)


@both
def test_what_an_answer_took_is_known_beside_its_body(path: str) -> None:
    client = Client(saying("a long answer"))
    streaming = {"stream": True, "stream_options": {"include_usage": True}, "n": 2}
    whole = client.send("POST", path, BODIES[path])
    streamed = client.send("POST", path, BODIES[path] | streaming)
    left = client.send("POST", path, BODIES[path] | streaming)
    assert isinstance(whole, Response)
    assert isinstance(streamed, StreamResponse)
    assert isinstance(left, StreamResponse)

    *_, last, _done = parse(b"".join(drain(streamed.chunks)))
    run_sync(left.chunks.aclose())

    assert whole.usage == counted(msgspec.json.decode(whole.body)["usage"])
    assert streamed.usage == counted(last["usage"])
    assert left.usage is None


def counted(usage: Any) -> TokenUsage:
    """The tokens of OpenAI's object."""
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return TokenUsage(usage["prompt_tokens"], usage["completion_tokens"], cached)


@both
def test_a_stream_that_is_cancelled_ends_without_an_event(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, asyncio.CancelledError())
    answer = Client(saying("a long answer")).send("POST", path, {**BODIES[path], "stream": True})
    assert isinstance(answer, StreamResponse)

    with pytest.raises(asyncio.CancelledError):
        drain(answer.chunks)
    assert answer.failure is None


@both
@pytest.mark.parametrize("read", [0, 1, 2])
def test_closing_the_stream_frees_the_slot_however_far_it_was_read(path: str, read: int) -> None:
    engine = saying("a long answer")
    answer = Client(engine).send("POST", path, {**BODIES[path], "stream": True})
    assert isinstance(answer, StreamResponse)

    for _ in range(read):
        run_sync(anext(answer.chunks))
    run_sync(answer.chunks.aclose())

    assert engine.generation.cancelled
    assert drain(answer.chunks) == []


@both
def test_only_the_first_token_is_awaited_before_the_headers(path: str) -> None:
    engine = saying("a long answer")

    Client(engine).send("POST", path, {**BODIES[path], "stream": True})

    assert engine.generation.taken == 1
