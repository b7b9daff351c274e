"""Whatever a client sends, it gets a status, a code and the name of the field at fault."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from handlers.api.endpoints.chat import ChatCompletionRequest
from handlers.api.endpoints.completions import CompletionRequest
from handlers.api.endpoints.generate import GenerateRequest
from handlers.api.http import Response
from tests.api.client import MANIFEST, Client, saying

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
USER: list[Any] = [{"role": "user", "content": "Hello"}]


def user(content: object, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content, **more}]}


CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}

NOT_A_BODY = {
    "nothing": b"",
    "a word": b"hello",
    "half an object": b'{"messages": [',
    "two objects": b"{}{}",
    "an array": b"[]",
    "a string": b'"messages"',
    "null": b"null",
    "NaN": b'{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}',
    "Infinity": b'{"messages": [{"role": "user", "content": "a"}], "temperature": Infinity}',
    "NaN in a field nobody reads": b'{"messages": [{"role": "user", "content": "a"}], "x": NaN}',
    "a raw null byte": b'{"messages": [{"role": "user", "content": "a\0b"}]}',
    "half a surrogate pair": b'{"messages": [{"role": "user", "content": "a\\ud83d b"}]}',
    "the other half": b'{"messages": [{"role": "user", "content": "a\\ude00 b"}]}',
    "Latin-1": '{"messages": [{"role": "user", "content": "é"}]}'.encode("latin-1"),
    "Latin-1 in a field nobody reads": '{"x": "é"}'.encode("latin-1"),
    "UTF-16": '{"messages": []}'.encode("utf-16"),
    "gzip": b"\x1f\x8b\x08\x00\x00",
    "deep arrays in a field nobody reads": b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep arrays in a refused field": b'{"tools": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000,
}


@pytest.mark.parametrize("path", [CHAT, TEXT, "/generate"])
@pytest.mark.parametrize("body", NOT_A_BODY.values(), ids=NOT_A_BODY)
def test_what_is_no_json_object_is_refused(path: str, body: bytes) -> None:
    status, error = Client(saying("")).error("POST", path, body)

    assert (status, error["code"]) == (400, "invalid_request_error")
    assert error["message"].endswith(".")


WRONG_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": "Hello"}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": ["Hello"]}, "messages[0]"),
    ({"messages": [{}]}, "messages[0].role"),
    ({"messages": [*USER, {"content": "Hello"}]}, "messages[1].role"),
    ({"messages": [*USER, {"role": "user"}]}, "messages[1].content"),
    ({"messages": [{"role": "robot", "content": "Hello"}]}, "messages[0].role"),
    ({"messages": [{"role": 1, "content": "Hello"}]}, "messages[0].role"),
    (user(None), "messages[0].content"),
    (user(5), "messages[0].content"),
    (user(["Hello"]), "messages[0].content[0]"),
    (user([{"type": "text"}]), "messages[0].content[0].text"),
    (user([{"type": "image_url", "image_url": {}}]), "messages[0].content[0]"),
    (user("null \0"), "messages"),
    (user("Hello", tool_calls=[{"id": "a"}]), "messages[0].tool_calls"),
    (user("Hello", tool_calls=[CALL]), "messages[0].tool_calls"),
    ({"messages": [{"role": "assistant", "tool_calls": 1}]}, "messages[0].tool_calls"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": 5}}]}]},
        "messages[0].tool_calls[0].function.name",
    ),
    (user("Hello", name=5), "messages[0].name"),
    ({"messages": USER, "temperature": "warm"}, "temperature"),
    ({"messages": USER, "temperature": -0.1}, "temperature"),
    ({"messages": USER, "temperature": 2.1}, "temperature"),
    ({"messages": USER, "temperature": True}, "temperature"),
    ({"messages": USER, "top_p": -0.1}, "top_p"),
    ({"messages": USER, "top_p": 1.1}, "top_p"),
    ({"messages": USER, "top_k": -2}, "top_k"),
    ({"messages": USER, "top_k": 1.5}, "top_k"),
    ({"messages": USER, "min_p": 1.1}, "min_p"),
    ({"messages": USER, "seed": 2**63}, "seed"),
    ({"messages": USER, "seed": 10**400}, "seed"),
    ({"messages": USER, "seed": "1"}, "seed"),
    ({"messages": USER, "max_tokens": 0}, "max_tokens"),
    ({"messages": USER, "max_tokens": -2}, "max_tokens"),
    ({"messages": USER, "max_tokens": 16.5}, "max_tokens"),
    ({"messages": USER, "max_tokens": 1e300}, "max_tokens"),
    ({"messages": USER, "max_tokens": "16"}, "max_tokens"),
    ({"messages": USER, "max_tokens": 10**30}, "max_tokens"),
    ({"messages": USER, "max_completion_tokens": 0}, "max_completion_tokens"),
    ({"messages": USER, "max_completion_tokens": 5, "max_tokens": 0}, "max_tokens"),
    ({"messages": USER, "max_output_tokens": 5}, "max_output_tokens"),
    ({"messages": USER, "min_tokens": -1}, "min_tokens"),
    ({"messages": USER, "repetition_penalty": 0}, "repetition_penalty"),
    ({"messages": USER, "repetition_penalty": 1e-40}, "repetition_penalty"),
    ({"messages": USER, "frequency_penalty": 2.5}, "frequency_penalty"),
    ({"messages": USER, "presence_penalty": -2.5}, "presence_penalty"),
    ({"messages": USER, "ignore_eos": "yes"}, "ignore_eos"),
    ({"messages": USER, "stop": 5}, "stop"),
    ({"messages": USER, "stop": ["a", 1]}, "stop[1]"),
    ({"messages": USER, "stop": ["a"] * 17}, "stop"),
    ({"messages": USER, "stop": "a" * 257}, "stop"),
    ({"messages": USER, "stream": "yes"}, "stream"),
    ({"messages": USER, "stream_options": []}, "stream_options"),
    ({"messages": USER, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"messages": USER, "model": 5}, "model"),
    ({"messages": USER, "n": 0}, "n"),
    ({"messages": USER, "n": 129}, "n"),
    ({"messages": USER, "n": True}, "n"),
    ({"messages": USER, "logprobs": 5}, "logprobs"),
    ({"messages": USER, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"messages": USER, "logprobs": True, "top_logprobs": -1}, "top_logprobs"),
    ({"messages": USER, "top_logprobs": 2}, "top_logprobs"),
    (
        {"messages": USER, "stream_options": {"continuous_usage_stats": True}},
        "stream_options.continuous_usage_stats",
    ),
    ({"messages": USER, "logit_bias": {"5": 1, "6": 101}}, "logit_bias.6"),
    ({"messages": USER, "logit_bias": {"5": -100.5}}, "logit_bias.5"),
    ({"messages": USER, "logit_bias": {"5": "1"}}, "logit_bias.5"),
    ({"messages": USER, "logit_bias": {"5": False}}, "logit_bias.5"),
    ({"messages": USER, "logit_bias": {"5": None}}, "logit_bias.5"),
    ({"messages": USER, "logit_bias": {"5": 1, "five": 1}}, "logit_bias.five"),
    ({"messages": USER, "logit_bias": {"-5": 1}}, "logit_bias.-5"),
    ({"messages": USER, "logit_bias": {"05": 1}}, "logit_bias.05"),
    ({"messages": USER, "logit_bias": {"5.0": 1}}, "logit_bias.5.0"),
    ({"messages": USER, "logit_bias": {"5" * 30: 1}}, f"logit_bias.{'5' * 30}"),
    ({"messages": USER, "logit_bias": {"": 1}}, "logit_bias."),
    ({"messages": USER, "logit_bias": {str(n): 1 for n in range(1025)}}, "logit_bias"),
    ({"messages": USER, "logit_bias": [5]}, "logit_bias"),
    ({"messages": USER, "stop_token_ids": [-1]}, "stop_token_ids[0]"),
    ({"messages": USER, "stop_token_ids": 5}, "stop_token_ids"),
    ({"messages": USER, "bad_words": ["no"]}, "bad_words"),
    ({"messages": USER, "functions": [{"name": "f"}]}, "functions"),
    ({"messages": USER, "function_call": {"name": "f"}}, "function_call"),
    ({"messages": USER, "response_format": {"type": "xml"}}, "response_format.type"),
    ({"messages": USER, "response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"messages": USER, "guided_json": "{"}, "guided_json"),
    ({"messages": USER, "guided_regex": "("}, "guided_regex"),
    ({"messages": USER, "guided_choice": []}, "guided_choice"),
    ({"messages": USER, "guided_grammar": "start: nothing"}, "guided_grammar"),
    ({"messages": USER, "grammar": "root ::= undefined"}, "grammar"),
    ({"messages": USER, "json_schema": "none"}, "json_schema"),
    ({"messages": USER, "structured_outputs": {"regex": "["}}, "structured_outputs.regex"),
    ({"messages": USER, "guided_regex": "a", "guided_choice": ["b"]}, "guided_choice"),
]


@pytest.mark.parametrize(("body", "param"), WRONG_FIELDS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_field_of_a_chat_is_named(body: dict[str, Any], param: str, stream: bool) -> None:
    status, error = Client(saying("")).error("POST", CHAT, {"stream": stream, **body})

    assert (status, error["code"], error["param"]) == (400, "invalid_request_error", param)
    assert param in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [2**70]}, "prompt[0]"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [[1], 2]}, "prompt"),
        ({"prompt": [1.5]}, "prompt[0]"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt[1]"),
        ({"prompt": ["a"] * 65, "n": 2}, "prompt"),
        ({"prompt": "null \0"}, "prompt"),
        ({"prompt": "x", "echo": "yes"}, "echo"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "best_of": 3}, "best_of"),
        ({"prompt": "x", "best_of": 1, "n": 2}, "best_of"),
        ({"prompt": "x", "logprobs": 21}, "logprobs"),
        ({"prompt": "x", "logprobs": True}, "logprobs"),
    ],
)
def test_a_wrong_field_of_a_completion_is_named(body: dict[str, Any], param: str) -> None:
    status, error = Client(saying("")).error("POST", TEXT, body)

    assert (status, error["code"], error["param"]) == (400, "invalid_request_error", param)


@pytest.mark.parametrize(
    ("path", "body", "param", "counted"),
    [
        (CHAT, user("a b c d " * 100), "messages", "tokens"),
        (CHAT, user("x" * 1_000_000), "messages", "characters"),
        (CHAT, {"messages": USER * 257}, "messages", "messages"),
        (TEXT, {"prompt": "a b c d " * 100}, "prompt", "tokens"),
        (TEXT, {"prompt": "x" * 1_000_000}, "prompt", "characters"),
        (TEXT, {"prompt": [5] * 256}, "prompt", "tokens"),
        ("/v1/responses", {"input": "a b c d " * 100}, "input", "tokens"),
        ("/generate", {"prompt": "a b c d " * 100}, "prompt", "tokens"),
        ("/generate", {"prompt": "x" * 1_000_000}, "prompt", "characters"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize(
    ("most", "advice"),
    [
        (256, "Shorten it: the model takes no more."),
        (4096, "Shorten it, or raise KINDLING_CONTEXT_LENGTH: the model takes up to 4,096."),
    ],
)
def test_a_prompt_beyond_the_context_says_by_how_much_and_what_to_do(
    path: str, body: dict[str, Any], param: str, counted: str, most: int, advice: str
) -> None:
    client = Client(saying(""), manifest=replace(MANIFEST, context_length=most))

    status, error = client.error("POST", path, body)

    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", param)
    assert re.fullmatch(
        rf"The prompt is too long: it has [0-9,]+ {counted}, .* 256 .*{advice}", error["message"]
    )


def test_a_byte_order_mark_is_no_error() -> None:
    body = b"\xef\xbb\xbf" + msgspec.json.encode({"messages": USER})

    assert Client(saying("yes")).json("POST", CHAT, body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
CALLS = {CHAT: ChatCompletionRequest, TEXT: CompletionRequest, "/generate": GenerateRequest}
known_names = st.sampled_from(
    sorted({name for call in CALLS.values() for name in call.__struct_fields__})
)
good_values = {"messages": USER, "prompt": "x"}


@pytest.mark.parametrize("path", CALLS)
@given(body=st.dictionaries(known_names, json_values, max_size=4), whole=st.booleans())
def test_no_json_is_a_bug_of_ours(path: str, body: dict[str, Any], whole: bool) -> None:
    """`whole`: with what the path cannot do without, so that the other fields come to be read."""
    answer = Client(saying("yes")).send("POST", path, body | (good_values if whole else {}))

    assert answer.status != 500


@given(body=st.binary(max_size=60))
def test_no_bytes_are_a_bug_of_ours(body: bytes) -> None:
    answer = Client(saying("yes")).send("POST", CHAT, body)

    assert isinstance(answer, Response)
    assert answer.status == 400
