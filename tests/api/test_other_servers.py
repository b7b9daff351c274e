"""Clients of other servers send those servers' fields: none is swallowed by accident."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from handlers.api import unsupported_fields
from handlers.api.endpoints import (
    chat,
    classify,
    completions,
    embeddings,
    generate,
    messages,
    rerank,
    responses,
    tokenize_chat,
)
from handlers.api.unsupported_fields import ADVICE, UnsupportedFields
from tests.api import other_servers
from tests.api.client import Client, saying
from tests.api.encoder_client import EncoderClient

CALLS: dict[str, tuple[type[msgspec.Struct], UnsupportedFields]] = {
    other_servers.CHAT: (chat.ChatCompletionRequest, chat.UNSUPPORTED),
    other_servers.TEXT: (completions.CompletionRequest, completions.UNSUPPORTED),
    other_servers.RESPONSES: (responses.ResponsesRequest, responses.UNSUPPORTED),
    other_servers.MESSAGES: (messages.MessagesRequest, messages.UNSUPPORTED),
    other_servers.COUNT: (messages.CountTokensRequest, messages.UNSUPPORTED),
    other_servers.GENERATE: (generate.GenerateRequest, generate.UNSUPPORTED),
    other_servers.EMBEDDINGS: (embeddings.EmbeddingRequest, embeddings.UNSUPPORTED),
    other_servers.CLASSIFY: (classify.ClassifyRequest, classify.UNSUPPORTED),
    other_servers.RERANK: (rerank.RerankRequest, rerank.UNSUPPORTED),
    other_servers.TOKENIZE: (tokenize_chat.TokenizeRequest, tokenize_chat.UNSUPPORTED),
}
IGNORED = {
    *unsupported_fields.IGNORED,
    *unsupported_fields.IGNORED_DETAILS,
    *responses.IGNORED,
    *messages.IGNORED,
    "model",
}


@pytest.mark.parametrize("given", other_servers.FIELDS, ids=str)
def test_every_field_of_another_server_is_taken_refused_or_ignored(
    given: other_servers.Fields,
) -> None:
    call, refused = CALLS[given.path]
    taken = set(call.__struct_fields__)

    assert taken.isdisjoint(refused)
    assert set(given.names.split()) - taken - set(refused) - IGNORED == set()


def test_nothing_is_both_ignored_and_a_wish_of_its_own() -> None:
    assert IGNORED.isdisjoint(unsupported_fields.COMMON)
    assert set(unsupported_fields.IGNORED).isdisjoint(unsupported_fields.IGNORED_DETAILS)


def test_every_advice_is_for_a_field_that_is_refused() -> None:
    refused = {name for _, each in CALLS.values() for name in each}

    assert ADVICE.keys() <= refused


CHAT_BODY = {"messages": [{"role": "user", "content": "Hello"}]}
ASKS_FOR_SOMETHING: list[tuple[dict[str, Any], str]] = [
    ({"regex": "a+"}, "send structured_outputs.regex"),
    ({"ebnf": "root ::= 'a'"}, "send structured_outputs.grammar"),
    ({"n_cmpl": 2}, "send n"),
    ({"n_predict": 5}, "send max_tokens"),
    ({"top_n_sigma": 1.5}, "leave it out"),
    ({"prompt_embeds": "AAAA"}, "leave it out"),
    ({"image_data": [{"data": "AAAA", "id": 1}]}, "leave it out"),
    ({"lora": [{"id": 0, "scale": 0.5}]}, "leave it out"),
    ({"options": {"num_predict": 5}}, "send its members as fields of their own"),
    ({"format": "json"}, "send response_format"),
]


@pytest.mark.parametrize(("body", "advice"), ASKS_FOR_SOMETHING)
def test_a_refusal_says_what_to_do(body: dict[str, Any], advice: str) -> None:
    (name,) = body
    status, error = Client(saying("")).error("POST", other_servers.CHAT, CHAT_BODY | body)

    assert (status, error["code"], error["param"]) == (400, "invalid_request_error", name)
    assert error["message"].startswith(f"{name} is not supported by this server: {advice}")


@pytest.mark.parametrize(
    "wish", [{"embed_dtype": "float16"}, {"endianness": "big"}, {"embd_normalize": -1}]
)
def test_what_would_change_a_vector_is_refused(wish: dict[str, Any]) -> None:
    encoder = EncoderClient("feature-extraction")
    status, error = encoder.error("POST", other_servers.EMBEDDINGS, {"input": "Paris"} | wish)

    assert (status, [error["param"]]) == (400, list(wish))


LLAMA_SERVERS_DEFAULTS = {
    "temperature": 0.8, "dynatemp_range": 0.0, "dynatemp_exponent": 1.0, "top_k": 40, "top_p": 0.95,
    "min_p": 0.05, "top_n_sigma": -1.0, "xtc_probability": 0.0, "xtc_threshold": 0.1,
    "typical_p": 1.0, "repeat_last_n": 64, "repeat_penalty": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0, "dry_multiplier": 0.0, "dry_base": 1.75, "dry_allowed_length": 2,
    "dry_penalty_last_n": -1, "mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1,
    "samplers": "edskypmxt", "max_tokens": -1, "n_predict": -1, "n_keep": 0, "n_probs": 0,
    "timings_per_token": True, "return_progress": True, "reasoning_format": "auto",
    "cache_prompt": True, "stop": [], "lora": [], "image_data": [], "response_fields": [],
}  # fmt: skip


@pytest.mark.parametrize("name", LLAMA_SERVERS_DEFAULTS)
def test_another_servers_default_asks_for_nothing(name: str) -> None:
    wish = {name: LLAMA_SERVERS_DEFAULTS[name]}

    assert Client(saying("yes")).json("POST", other_servers.CHAT, CHAT_BODY | wish)


@pytest.mark.parametrize("empty", [None, "", [], {}])
@pytest.mark.parametrize(
    "path",
    [other_servers.CHAT, other_servers.TEXT, other_servers.MESSAGES, other_servers.GENERATE],
)
def test_a_refused_field_that_is_empty_is_let_through(path: str, empty: object) -> None:
    _, refused = CALLS[path]
    chats = (other_servers.CHAT, other_servers.MESSAGES)
    given = CHAT_BODY | {"max_tokens": 9} if path in chats else {"prompt": "Hello"}

    assert Client(saying("yes")).json("POST", path, dict.fromkeys(refused, empty) | given)
