from __future__ import annotations

from typing import Any

import pytest

from handlers.api.http import Response
from handlers.engine.params import FinishReason, SamplingParams
from tests.api.client import FINGERPRINT, TOKENIZER, Client, saying, usage
from tests.support.scripted_engine import ScriptedEngine, steps

PATH = "/v1/chat/completions"
USER = [{"role": "user", "content": "Hello"}]


def prompt_of(engine: ScriptedEngine) -> str:
    return TOKENIZER.decode(engine.prompt_ids)


def test_the_answer_has_openais_shape() -> None:
    engine = saying("Grüße 🎉")

    body = Client(engine).json("POST", PATH, {"messages": USER})

    assert body.pop("id").startswith("chatcmpl-")
    assert body.pop("created") > 1_700_000_000
    prompt, completion = len(engine.prompt_ids), len(TOKENIZER.encode("Grüße 🎉"))
    assert body == {
        "object": "chat.completion",
        "model": "Tiny",
        "system_fingerprint": FINGERPRINT,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Grüße 🎉", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": usage(prompt, completion),
    }


def test_text_is_sent_as_utf8_and_not_as_escapes() -> None:
    answer = Client(saying("🎉")).send("POST", PATH, {"messages": USER})

    assert isinstance(answer, Response)
    assert answer.headers["content-type"] == "application/json"
    assert "🎉".encode() in answer.body


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        (USER, "<user>Hello<assistant>"),
        (
            [{"role": "system", "content": "Be brief."}, *USER],
            "<system>Be brief.<user>Hello<assistant>",
        ),
        ([{"role": "developer", "content": "Be brief."}], "<system>Be brief.<assistant>"),
        ([{"role": "assistant", "content": None}, *USER], "<assistant><user>Hello<assistant>"),
        ([{"role": "assistant"}], "<assistant><assistant>"),
        (
            [{"role": "assistant", "content": [{"type": "refusal", "refusal": "I won't."}]}],
            "<assistant>I won't.<assistant>",
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": t} for t in "ab"]}],
            "<user>a\nb<assistant>",
        ),
        (
            [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
            "<user>Hi<assistant>",
        ),
        (
            [{"role": "assistant", "content": [{"type": "thinking", "thinking": []}]}],
            "<assistant><assistant>",
        ),
        ([{"role": "user", "content": ""}], "<user><assistant>"),
    ],
)
def test_messages_become_the_prompt_of_the_template(messages: Any, prompt: str) -> None:
    engine = saying("")

    Client(engine).json("POST", PATH, {"messages": messages})

    assert prompt_of(engine) == prompt


def test_every_sampling_field_reaches_the_engine() -> None:
    engine = saying("")
    fields: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "seed": -3,
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.2,
        "presence_penalty": -0.2,
        "max_tokens": 7,
        "min_tokens": 2,
        "ignore_eos": True,
    }

    Client(engine).json("POST", PATH, {"messages": USER, **fields})

    assert engine.params == SamplingParams(**fields)


@pytest.mark.parametrize("fields", [{}, {"temperature": None, "seed": None, "stop": None}])
def test_absent_fields_and_null_mean_the_defaults_and_all_of_the_context(
    fields: dict[str, None],
) -> None:
    engine = saying("")

    Client(engine).json("POST", PATH, {"messages": USER, **fields})

    assert engine.params == SamplingParams(max_tokens=256 - len(engine.prompt_ids))


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"max_completion_tokens": 5}, 5),
        ({"max_tokens": 6}, 6),
        ({"max_completion_tokens": 5, "max_tokens": 6}, 5),
    ],
)
def test_max_completion_tokens_takes_precedence_over_max_tokens(
    fields: dict[str, int], limit: int
) -> None:
    engine = saying("")

    Client(engine).json("POST", PATH, {"messages": USER, **fields})

    assert engine.params.max_tokens == limit


def test_a_limit_beyond_the_context_is_the_context() -> None:
    engine = saying("")

    Client(engine).json("POST", PATH, {"messages": USER, "max_tokens": 2_000_000_000})

    assert engine.params.max_tokens == 256 - len(engine.prompt_ids)


@pytest.mark.parametrize("stop", ["two", ["two", "three"]])
def test_stop_strings_end_the_answer(stop: object) -> None:
    body = Client(saying("one two three")).json("POST", PATH, {"messages": USER, "stop": stop})

    assert body["choices"][0]["message"]["content"] == "one "
    assert body["choices"][0]["finish_reason"] == "stop"


def test_an_answer_that_was_cut_says_length() -> None:
    engine = ScriptedEngine(steps(TOKENIZER.encode("so far"), FinishReason.DEADLINE))

    body = Client(engine).json("POST", PATH, {"messages": USER})

    assert body["choices"][0]["message"]["content"] == "so far"
    assert body["choices"][0]["finish_reason"] == "length"


def test_the_deadline_reaches_the_engine() -> None:
    engine = saying("")

    Client(engine).json("POST", PATH, {"messages": USER}, deadline=99.0)

    assert engine.deadline == 99.0


def test_fields_nobody_knows_are_ignored_and_any_model_name_is_taken() -> None:
    fields = {"model": "gpt-4o", "user": "me", "metadata": {"a": [1]}, "store": False}

    body = Client(saying("yes")).json("POST", PATH, {"messages": USER, **fields})

    assert body["model"] == "Tiny"


PART = {"type": "text", "text": "Hello"}


@pytest.mark.parametrize(
    ("messages", "param", "advice"),
    [
        ([], "messages", "send at least one message"),
        ([{"role": "robot", "content": "Hello"}], "messages[0].role", "must be one of system"),
        ([*USER, {"role": "system"}], "messages[1].content", "is required"),
        ([{**USER[0], "tool_calls": [{}]}], "messages[0].tool_calls", "leave it out"),
        (
            [{**USER[0], "function_call": {"name": "f"}}],
            "messages[0].function_call",
            "leave it out",
        ),
        (
            [*USER, {"role": "assistant", "content": "One,", "prefix": True}],
            "messages[1].prefix",
            "send continue_final_message: true",
        ),
        *(
            (
                [{"role": "user", "content": [PART, part]}],
                "messages[0].content[1]",
                f"leave {name} out",
            )
            for part, name in (
                (
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}},
                    "the image",
                ),
                ({"type": "input_audio", "input_audio": {}}, "the audio"),
                ({"type": "file", "file": {"file_id": "a"}}, "the file"),
                ({"type": "no such type"}, "it"),
            )
        ),
        (
            [{"role": "user", "content": [{"type": "text"}]}],
            "messages[0].content[0].text",
            "required",
        ),
    ],
)
def test_a_message_that_is_not_read_says_what_to_do(messages: Any, param: str, advice: str) -> None:
    status, error = Client(saying("")).error("POST", PATH, {"messages": messages})

    assert (status, error["param"]) == (400, param)
    assert advice in error["message"]
