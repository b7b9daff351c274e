"""The fields that say how a conversation is written, on every path that writes one."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.api.conversation import MAX_KWARGS_BYTES
from tests.api.client import TOKENIZER, Client, saying

TEMPLATE = """{% for message in messages %}<{{ message.role }}>{{ message.content }}</>{% endfor %}\
{% if add_generation_prompt %}<assistant>\
{% if enable_thinking is false %}<think></think>{% endif %}\
{{ language }}{% endif %}"""
USER = {"role": "user", "content": "Count."}
ONE = {"role": "assistant", "content": "One, two,"}
NO_THINKING = {"enable_thinking": False}


def prompt(path: str, **fields: Any) -> str:
    """Returns what a request with these fields has for a prompt."""
    engine = saying("three")
    client = Client(engine, template=TEMPLATE)
    answer = client.json("POST", path, fields)
    ids = {"/tokenize": "tokens", "/v1/chat/completions/render": "token_ids"}.get(path)
    return TOKENIZER.decode(answer[ids] if ids else engine.prompt_ids)


def refusal(path: str, **fields: Any) -> Any:
    status, error = Client(saying(""), template=TEMPLATE).error("POST", path, fields)
    assert status == 400
    return error["param"]


CHATS = ("/v1/chat/completions", "/v1/chat/completions/render", "/tokenize")
ASKED: dict[str, dict[str, Any]] = {
    **{path: {"messages": [USER]} for path in CHATS},
    "/v1/responses": {"input": "Count."},
    "/generate": {"prompt": "Count."},
}
of_chats = pytest.mark.parametrize("path", CHATS)
of_all = pytest.mark.parametrize("path", ASKED)


@of_all
@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({}, "<assistant>"),
        ({"chat_template_kwargs": NO_THINKING}, "<assistant><think></think>"),
        (NO_THINKING, "<assistant><think></think>"),
        (
            {"enable_thinking": True, "chat_template_kwargs": NO_THINKING},
            "<assistant><think></think>",
        ),
        ({"chat_template_kwargs": {"language": "German"}}, "<assistant>German"),
        ({"chat_template_kwargs": {"nobody_knows": [1, None]}}, "<assistant>"),
        ({"chat_template_kwargs": {}, "enable_thinking": None}, "<assistant>"),
        ({"chat_template_kwargs": None, "reasoning_effort": "none"}, "<assistant>"),
    ],
)
def test_the_template_is_given_the_requests_values(
    path: str, fields: dict[str, Any], end: str
) -> None:
    assert prompt(path, **ASKED[path], **fields) == f"<user>Count.</>{end}"


@of_all
@pytest.mark.parametrize(
    "name", ["messages", "tools", "add_generation_prompt", "bos_token", "raise_exception", "range"]
)
def test_a_name_that_the_template_has_already_is_refused(path: str, name: str) -> None:
    kwargs: dict[str, Any] = {"chat_template_kwargs": {name: []}}

    assert refusal(path, **ASKED[path], **kwargs) == f"chat_template_kwargs.{name}"


@of_all
@pytest.mark.parametrize(
    "kwargs",
    [[1], {str(n): n for n in range(65)}, {"a": "b" * MAX_KWARGS_BYTES}, "enable_thinking"],
)
def test_values_have_a_limit(path: str, kwargs: object) -> None:
    assert refusal(path, **ASKED[path], chat_template_kwargs=kwargs) == "chat_template_kwargs"


@of_all
def test_a_template_of_the_request_is_refused(path: str) -> None:
    assert refusal(path, **ASKED[path], chat_template="{{ messages }}") == "chat_template"


@of_chats
@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({}, "One, two,</><assistant>"),
        ({"continue_final_message": False}, "One, two,</><assistant>"),
        ({"add_generation_prompt": True}, "One, two,</><assistant>"),
        ({"add_generation_prompt": False}, "One, two,</>"),
        ({"continue_final_message": True, "add_generation_prompt": False}, "One, two,"),
        ({"continue_final_message": True}, "One, two,"),
        ({"continue_final_message": True, **NO_THINKING}, "One, two,"),
    ],
)
@pytest.mark.parametrize("content", [ONE["content"], [{"type": "text", "text": ONE["content"]}]])
def test_a_last_message_of_the_assistant_is_continued_where_that_is_asked_for(
    path: str, fields: dict[str, Any], end: str, content: object
) -> None:
    messages = [USER, {"role": "assistant", "content": content}]

    assert prompt(path, messages=messages, **fields) == f"<user>Count.</><assistant>{end}"


CALLING = {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}


@of_chats
@pytest.mark.parametrize(
    ("messages", "fields"),
    [
        ([USER, ONE], {"continue_final_message": True, "add_generation_prompt": True}),
        ([USER, CALLING], {"continue_final_message": True}),
    ],
)
def test_what_cannot_be_continued_is_refused(
    path: str, messages: list[Any], fields: dict[str, Any]
) -> None:
    assert refusal(path, messages=messages, **fields) == "continue_final_message"


@pytest.mark.parametrize("path", ["/v1/responses", "/generate"])
@pytest.mark.parametrize("field", ["add_generation_prompt", "continue_final_message"])
def test_other_paths_refuse_what_they_do_not_have(path: str, field: str) -> None:
    value = field == "continue_final_message"

    assert refusal(path, **ASKED[path], **{field: value}) == field
    assert prompt(path, **ASKED[path], **{field: not value}).endswith("<assistant>")
