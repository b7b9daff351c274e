from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.api.client import MANIFEST, TEMPLATE, TOKENIZER, Client, saying
from tests.api.encoder_client import EncoderClient
from tests.encoder.fake_runner import LONGEST

TEXT = "Größe <|end|> 東京"


def tokenize(**body: object) -> Any:
    return Client(saying("")).json("POST", "/tokenize", body)


def detokenize(*tokens: int) -> Any:
    return Client(saying("")).json("POST", "/detokenize", {"tokens": list(tokens)})


def test_a_text_is_answered_with_its_ids_and_their_count() -> None:
    ids = TOKENIZER.encode(TEXT)

    assert tokenize(prompt=TEXT) == {
        "tokens": ids,
        "count": len(ids),
        "max_model_len": 256,
        "token_strs": None,
    }


@pytest.mark.parametrize("name", ["prompt", "content"])
def test_a_text_goes_by_the_names_of_both_servers(name: str) -> None:
    assert tokenize(**{name: TEXT})["tokens"] == TOKENIZER.encode(TEXT)


def test_the_token_strings_are_the_vocabularys_when_asked_for() -> None:
    assert "".join(tokenize(prompt="a b", return_token_strs=True)["token_strs"]) == "aĠb"


def test_an_empty_text_has_no_tokens() -> None:
    assert tokenize(prompt="")["count"] == 0


def test_a_text_beyond_the_context_is_still_counted() -> None:
    assert tokenize(prompt="a b c " * 100)["count"] > 256


def test_ids_give_their_text_under_the_names_of_both_servers() -> None:
    ids = TOKENIZER.encode(TEXT)

    assert detokenize(*ids) == {"prompt": TEXT, "content": TEXT}
    assert detokenize() == {"prompt": "", "content": ""}


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_the_ids_of_a_text_give_the_text_again(text: str) -> None:
    assert detokenize(*tokenize(content=text)["tokens"])["content"] == text


CHAT: dict[str, Any] = {
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize("tools", [[], TOOLS])
def test_a_chat_is_rendered_to_the_prompt_that_it_would_be_answered_from(tools: Any) -> None:
    engine = saying("yes", context_length=1000)
    body = CHAT | {"tools": tools}

    rendered = Client(engine).json("POST", "/v1/chat/completions/render", body)
    counted = Client(engine).json("POST", "/tokenize", body)
    Client(engine).json("POST", "/v1/chat/completions", body)

    assert rendered["prompt"].endswith("<user>Hi<assistant>")
    assert rendered["token_ids"] == engine.prompt_ids == counted["tokens"]
    assert rendered["prompt"] == TOKENIZER.decode(engine.prompt_ids)
    assert rendered["count"] == counted["count"] == len(engine.prompt_ids)
    assert ("add" in rendered["prompt"]) == bool(tools)


def test_nothing_is_generated_for_a_prompt_to_see() -> None:
    engine = saying("yes", refusal=RuntimeError("It was asked."))

    assert Client(engine).json("POST", "/v1/chat/completions/render", CHAT)


def test_what_the_model_does_not_have_is_null() -> None:
    assert Client(saying("")).json("GET", "/tokenizer_info") == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": None,
        "pad_token": None,
        "unk_token": None,
        "model_max_length": 256,
        "chat_template": TEMPLATE,
    }


def test_an_evaluation_tool_reads_texts_by_the_server_alone() -> None:
    """The requests of lm_eval.utils.RemoteTokenizer and local-completions, version 0.4.10.dev."""
    special = {"eos_token": "<|end|>", "unk_token": "<|unk|>"}
    engine = saying("yes")
    client = Client(engine, manifest=replace(MANIFEST, special_tokens=special))

    info = client.json("GET", "/tokenizer_info")
    eos = client.json(
        "POST", "/tokenize", {"prompt": info["eos_token"], "add_special_tokens": False}
    )
    prompt = client.json("POST", "/tokenize", {"prompt": TEXT, "add_special_tokens": False})[
        "tokens"
    ]
    back = client.json("POST", "/detokenize", {"tokens": prompt})
    client.json(
        "POST",
        "/v1/completions",
        {"prompt": [prompt], "max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0},
    )

    assert eos["tokens"] == TOKENIZER.encode("<|end|>")
    assert back["prompt"] == TEXT
    assert engine.prompt_ids == prompt


def test_an_encoder_tells_of_its_tokenizer_too() -> None:
    info = EncoderClient("feature-extraction").json("GET", "/tokenizer_info")

    assert (info["chat_template"], info["model_max_length"]) == (None, LONGEST)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("/tokenize", {}, "prompt"),
    ("/tokenize", {"prompt": "a", "content": "b"}, "prompt"),
    ("/tokenize", {"prompt": 5}, "prompt"),
    ("/tokenize", {"content": "a\0b"}, "content"),
    ("/tokenize", {"prompt": "a", "add_special_tokens": "yes"}, "add_special_tokens"),
    ("/tokenize", {"content": "a", "with_pieces": True}, "with_pieces"),
    ("/tokenize", {"content": "a", "parse_special": False}, "parse_special"),
    ("/tokenize", {"prompt": "a", **CHAT}, "prompt"),
    ("/tokenize", {"messages": []}, "messages"),
    ("/tokenize", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("/tokenize", {**CHAT, "chat_template": "{{ messages }}"}, "chat_template"),
    ("/v1/chat/completions/render", {}, "messages"),
    ("/v1/chat/completions/render", {**CHAT, "temperature": 3}, "temperature"),
    ("/v1/chat/completions/render", {**CHAT, "tool_choice": "required"}, "tools"),
    ("/detokenize", {}, "tokens"),
    ("/detokenize", {"tokens": "a"}, "tokens"),
    ("/detokenize", {"tokens": [1, -1]}, "tokens[1]"),
    ("/detokenize", {"tokens": [1, 401]}, "tokens[1]"),
    ("/detokenize", {"tokens": [2**40]}, "tokens[0]"),
]


@pytest.mark.parametrize(("path", "body", "param"), WRONG)
def test_a_wrong_field_is_named(path: str, body: dict[str, Any], param: str) -> None:
    status, error = Client(saying("")).error("POST", path, body)

    assert (status, error["code"], error["param"]) == (400, "invalid_request_error", param)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {"content": "x" * 1_000_000}, "content"),
        ("/tokenize", {"messages": [{"role": "user", "content": "x"}] * 257}, "messages"),
        ("/v1/chat/completions/render", {"messages": CHAT["messages"] * 129}, "messages"),
        ("/detokenize", {"tokens": [1] * 257}, "tokens"),
    ],
    ids=["a text", "a chat", "a prompt", "ids"],
)
def test_what_is_too_long_by_its_size_alone_is_refused(
    path: str, body: dict[str, Any], param: str
) -> None:
    status, error = Client(saying("")).error("POST", path, body)

    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", param)
