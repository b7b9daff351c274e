from __future__ import annotations

import pytest

from tests.api.client import TOKENIZER, Client, saying, usage


def test_a_prompt_in_a_response_out() -> None:
    engine = saying("Hi there")

    body = Client(engine).json("POST", "/generate", {"prompt": "Hello"})

    completion = len(TOKENIZER.encode("Hi there"))
    assert body == {
        "response": "Hi there",
        "finish_reason": "stop",
        "usage": usage(len(engine.prompt_ids), completion),
    }
    assert TOKENIZER.decode(engine.prompt_ids) == "<user>Hello<assistant>"


def test_get_takes_the_same_fields_from_the_query() -> None:
    engine = saying("one two three")
    query = {
        "prompt": "5 & 6",
        "max_tokens": "20",
        "temperature": "0.7",
        "seed": "1",
        "ignore_eos": "true",
        "stop": "three",
    }

    body = Client(engine).json("GET", "/generate", query=query)

    assert body["response"] == "one two "
    assert TOKENIZER.decode(engine.prompt_ids) == "<user>5 & 6<assistant>"
    assert (engine.params.max_tokens, engine.params.temperature) == (20, 0.7)
    assert (engine.params.seed, engine.params.ignore_eos) == (1, True)


def test_an_empty_value_in_a_query_is_none() -> None:
    engine = saying("one two")
    empty = ("max_tokens", "temperature", "seed", "stop", "ignore_eos", "stream", "tool_choice")

    body = Client(engine).json("GET", "/generate", query={"prompt": "x"} | dict.fromkeys(empty, ""))

    assert body["response"] == "one two"


@pytest.mark.parametrize("value", ["16", "16.0"])
def test_a_whole_number_in_a_query_may_have_a_point(value: str) -> None:
    engine = saying("one two")

    Client(engine).json("GET", "/generate", query={"prompt": "Hello", "max_tokens": value})

    assert engine.params.max_tokens == 16


def test_it_is_greedy_unless_told_otherwise() -> None:
    engine = saying("")

    Client(engine).json("GET", "/generate", query={"prompt": "Hello"})

    assert engine.params.temperature == 0.0


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "x", "temperature": "warm"}, "temperature"),
        ({"prompt": "x", "temperature": "nan"}, "temperature"),
        ({"prompt": "x", "max_tokens": "0"}, "max_tokens"),
        ({"prompt": "x", "max_tokens": "16.5"}, "max_tokens"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x", "stream": "true"}, "stream"),
        ({"prompt": "half \udcff"}, "prompt"),
        ({"prompt": "null \0"}, "prompt"),
        ({"prompt": "x" * 5000}, "prompt"),
    ],
)
def test_a_wrong_query_names_its_field(query: dict[str, str], param: str) -> None:
    status, error = Client(saying("")).error("GET", "/generate", query=query)

    assert (status, error["param"]) == (400, param)
