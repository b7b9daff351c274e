"""Numbers and names that mean the same, and what is empty where absent is meant."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from handlers.text.tokenizer import Tokenizer
from tests.api.client import TOKENIZER, Client, saying

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
RESPONSES = "/v1/responses"
GENERATE = "/generate"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hello"}]},
    TEXT: {"prompt": "Hello"},
    RESPONSES: {"input": "Hello"},
    GENERATE: {"prompt": "Hello"},
}


def params(path: str, **wish: Any) -> Any:
    """Returns what the engine is asked for."""
    engine = saying("one two three")
    Client(engine).json("POST", path, BODIES[path] | wish)
    return engine.params


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 16),
        ("top_k", 5),
        ("top_k", -1),
        ("seed", 7),
        ("seed", -7),
        ("min_tokens", 3),
        ("stop_token_ids", [1, 2]),
    ],
)
def test_a_number_without_a_fraction_is_an_integer(path: str, field: str, value: Any) -> None:
    pointed = [float(each) for each in value] if isinstance(value, list) else float(value)
    without_seed = {"seed": 1} if field != "seed" else {}

    assert params(path, **{field: pointed}, **without_seed) == params(
        path, **{field: value}, **without_seed
    )


@pytest.mark.parametrize("number", [b"16.0", b"1.6e1", b"1600E-2", b"16"])
def test_an_integer_may_be_written_in_any_way_of_json(number: bytes) -> None:
    engine = saying("one")
    body = msgspec.json.encode(BODIES[CHAT])[:-1] + b', "max_tokens": ' + number + b"}"

    Client(engine).json("POST", CHAT, body)

    assert engine.params.max_tokens == 16


def test_ids_of_a_prompt_may_have_a_point() -> None:
    engine = saying("one")
    ids = TOKENIZER.encode("Hello there")

    Client(engine).json("POST", TEXT, {"prompt": [[float(each) for each in ids]], "logprobs": 1.0})

    assert engine.prompt_ids == ids


@pytest.mark.parametrize("path", BODIES)
def test_a_seed_of_minus_one_is_none(path: str) -> None:
    assert params(path, seed=-1).seed is None


def test_a_text_that_has_its_special_tokens_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[bool] = []
    encode = Tokenizer.encode

    def watched(
        self: Tokenizer, text: str, add_special_tokens: bool = False, *more: Any
    ) -> list[int]:
        added.append(add_special_tokens)
        return encode(self, text, add_special_tokens, *more)

    client = Client(saying("one"))
    monkeypatch.setattr(Tokenizer, "encode", watched)
    for wish in ({}, {"add_special_tokens": True}, {"add_special_tokens": False}):
        client.json("POST", TEXT, BODIES[TEXT] | wish)

    assert added == [True, True, False]


def test_a_schema_keeps_its_numbers_where_another_field_has_a_point() -> None:
    engine = saying("yes")
    tool = {"name": "f", "parameters": {"type": "object", "default": 1.0}}
    tools = {"tools": [{"type": "function", "function": tool}], "max_tokens": 9.0}

    rendered = Client(engine).json("POST", f"{CHAT}/render", BODIES[CHAT] | tools)

    assert '"default": 1.0' in rendered["prompt"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (CHAT, "max_tokens"),
        (CHAT, "max_completion_tokens"),
        (TEXT, "max_tokens"),
        (RESPONSES, "max_tokens"),
        (RESPONSES, "max_output_tokens"),
        (GENERATE, "max_tokens"),
    ],
)
@pytest.mark.parametrize("unlimited", [-1, -1.0])
def test_minus_one_is_no_limit(path: str, field: str, unlimited: float) -> None:
    assert params(path, **{field: unlimited}).max_tokens == params(path).max_tokens > 200


def test_a_response_without_a_limit_says_so() -> None:
    body = BODIES[RESPONSES] | {"max_output_tokens": -1}

    assert Client(saying("")).json("POST", RESPONSES, body)["max_output_tokens"] is None


def test_the_newer_name_takes_precedence_unless_it_is_null() -> None:
    assert params(CHAT, max_tokens=16, max_completion_tokens=None).max_tokens == 16
    assert params(CHAT, max_tokens=16, max_completion_tokens=9).max_tokens == 9
    assert params(CHAT, max_tokens=16, max_completion_tokens=-1).max_tokens > 200


NOTHING: list[dict[str, Any]] = [
    {"stop": []},
    {"stop": ""},
    {"stop": None},
    {"stop": ["", ""]},
    {"tools": []},
    {"tools": None},
    {"tool_choice": None},
    {"function_call": "none"},
    {"add_generation_prompt": True},
    {"logit_bias": {}},
    {"logit_bias": None},
    {"stop_token_ids": []},
    {"user": ""},
    {"metadata": None},
    {"metadata": {}},
    {"stream_options": None},
    {"response_format": None},
    {"response_format": {"type": "text"}},
    {"structured_outputs": None},
    {"structured_outputs": {}},
    {"n": None},
    {"temperature": None},
    {"top_logprobs": None},
    {"echo": None},
    {"top_logprobs": 0},
    {"logprobs": False},
    {"max_completion_tokens": None},
]


@pytest.mark.parametrize("empty", NOTHING, ids=str)
@pytest.mark.parametrize("path", BODIES)
def test_what_is_empty_is_as_good_as_absent(path: str, empty: dict[str, Any]) -> None:
    assert params(path, seed=1, **empty) == params(path, seed=1)


def test_a_stop_string_beside_an_empty_one_counts() -> None:
    engine = saying("one two three")
    body = Client(engine).json("POST", GENERATE, {"prompt": "x", "stop": ["", "three"]})

    assert body["response"] == "one two "


@pytest.mark.parametrize("options", [{}, {"include_obfuscation": True}, {"include_usage": False}])
def test_options_of_a_stream_that_ask_for_nothing_are_taken(options: dict[str, Any]) -> None:
    events = Client(saying("one")).events(TEXT, BODIES[TEXT] | {"stream_options": options})

    assert all("usage" not in event for event in events[:-1])


@pytest.mark.parametrize("path", BODIES)
def test_biases_reach_the_engine_by_their_ids(path: str) -> None:
    engine = saying("one")
    body = BODIES[path] | {"logit_bias": {"7": -100, "8": 0.5}}
    Client(engine).json("POST", path, body)

    assert engine.params.logit_bias == {7: -100, 8: 0.5}
