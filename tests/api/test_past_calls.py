"""Calls that come back in a conversation, as they were given out or as other clients write them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.client import TOKENIZER, Client, saying
from tests.support.tool_templates import TEMPLATES

# Goes through the members of arguments, as Qwen 3.5's template does, and writes calls as Hermes's.
MEMBERS = """{% if tools %}<tool_call>{% endif %}{% for message in messages %}\
<{{ message.role }}>{{ message.content }}{% for call in message.tool_calls %}\
[{{ call.function.name }}{% for name, value in call.function.arguments | items %} \
{{ name }}={{ value }}{% endfor %}]{% endfor %}{% endfor %}"""
PRINTING = """{% if tools %}<tool_call>{% endif %}{% for message in messages %}\
<{{ message.role }}>{{ message.content }}{% for call in message.tool_calls %}\
[{{ call.function.name }} {{ call.function.arguments }}]{% endfor %}{% endfor %}"""
NO_TOOLS = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
ALL = {
    **{name: "{% set bos_token, eos_token = '', '' %}" + text for name, text in TEMPLATES.items()},
    "members": MEMBERS,
    "printing": PRINTING,
    "no tools": NO_TOOLS,
}

# What a call may have for arguments, and what of it is to be in the prompt.
ARGUMENTS: list[tuple[object, str]] = [
    ('{"city": "Paris"}', "Paris"),
    ('{"city": "Par', "city"),
    ("{'city': 'Paris'}", "Paris"),
    ('[1, 2, "three"]', "three"),
    ("505", "505"),
    ('"a word"', "a word"),
    ("no JSON at all", "no JSON at all"),
    ('{"half": "\\ud83d"}', "half"),
    ("[" * 5000, "[[["),
    ("", ""),
    ("null", ""),
    (None, ""),
    ({"city": "Paris"}, "Paris"),
    (["Paris"], "Paris"),
]


def prompt_of(path: str, body: dict[str, Any], template: str) -> str:
    engine = saying("", context_length=20_000)
    Client(engine, template=template).json("POST", path, body)
    return TOKENIZER.decode(engine.prompt_ids)


@pytest.mark.parametrize("template", ALL.values(), ids=ALL)
@pytest.mark.parametrize(("arguments", "kept"), ARGUMENTS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_whatever_a_past_call_has_for_arguments_is_read(
    path: str, arguments: object, kept: str, template: str
) -> None:
    call = {"name": "weather", "arguments": arguments}
    chat = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_of_another_server", "function": call}],
        },
        {"role": "tool", "tool_call_id": "call_of_another_server", "content": "It was not run."},
        {"role": "assistant", "content": "Sorry."},
        {"role": "user", "content": "Go on."},
    ]
    items = [
        {"role": "user", "content": "Weather?"},
        {"type": "function_call", "call_id": "call_of_another_server", **call},
        {
            "type": "function_call_output",
            "call_id": "call_of_another_server",
            "output": "It was not run.",
        },
        {"role": "assistant", "content": "Sorry."},
        {"role": "user", "content": "Go on."},
    ]
    body = {"messages": chat} if path.endswith("completions") else {"input": items}

    prompt = prompt_of(path, body, template)

    place = 0
    for part in ("Weather?", "weather", kept, "It was not run.", "Sorry.", "Go on."):
        place = prompt.index(part, place) + len(part)


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        ('{"city": "Par', '[weather {"city": "Par]'),
        ("[1]", "[weather [1]]"),
        ('{"a": 1.0}', "[weather {'a': 1.0}]"),
        ("", "[weather {}]"),
    ],
)
def test_arguments_are_an_object_or_the_text_that_came(arguments: str, written: str) -> None:
    call = {"function": {"name": "weather", "arguments": arguments}}
    messages = [{"role": "assistant", "tool_calls": [call]}]

    assert written in prompt_of("/v1/chat/completions", {"messages": messages}, PRINTING)


FUNCTION = {"name": "weather", "arguments": '{"city": "Paris"}'}
CALLED = "[weather {'city': 'Paris'}]"


@pytest.mark.parametrize(
    ("message", "written"),
    [
        ({"tool_calls": [{"id": "a", "type": "function", "function": FUNCTION}]}, CALLED),
        ({"tool_calls": [{"index": 0, "id": None, "type": None, "function": FUNCTION}]}, CALLED),
        ({"tool_calls": [{"function": FUNCTION, "extra": {"a": 1}}]}, CALLED),
        (
            {"tool_calls": [{"type": "custom", "custom": {"name": "patch", "input": "+ a"}}]},
            "[patch {'input': '+ a'}]",
        ),
        ({"function_call": FUNCTION}, CALLED),
        ({"function_call": FUNCTION, "tool_calls": [{"function": FUNCTION}]}, CALLED),
        ({"function_call": None, "tool_calls": None, "refusal": None, "audio": None}, ""),
        ({"tool_calls": []}, ""),
    ],
)
@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}])
def test_an_assistants_message_is_read_as_any_client_writes_it(
    content: dict[str, Any], message: dict[str, Any], written: str
) -> None:
    messages = [{"role": "assistant", **content, **message}]

    prompt = prompt_of("/v1/chat/completions", {"messages": messages}, PRINTING)

    assert prompt == f"<assistant>{written}"


@pytest.mark.parametrize(
    ("result", "written"),
    [
        ({"role": "tool", "tool_call_id": "a", "content": "5"}, "<tool>5"),
        ({"role": "tool", "content": [{"type": "text", "text": "5"}]}, "<tool>5"),
        ({"role": "tool", "tool_call_id": "a", "content": None}, "<tool>"),
        ({"role": "function", "name": "weather", "content": "5"}, "<tool>5"),
        ({"role": "function", "name": "weather", "content": None}, "<tool>"),
    ],
)
def test_what_a_call_gave_is_read_as_any_client_writes_it(
    result: dict[str, Any], written: str
) -> None:
    prompt = prompt_of("/v1/chat/completions", {"messages": [result]}, PRINTING)

    assert prompt == written


@pytest.mark.parametrize(
    ("call", "kept"),
    [
        (None, ""),
        ({}, ""),
        ({"id": "a"}, ""),
        ({"function": None}, ""),
        ({"function": {}}, ""),
        ({"id": 7, "type": 3, "function": {"name": None, "arguments": "1"}}, "1"),
        ({"function": {"arguments": '{"city": "Paris"}'}}, "Paris"),
        ({"type": "custom", "custom": {"name": "edit", "input": None}}, "edit"),
        ({"name": "weather", "args": {"city": "Paris"}, "id": "1", "type": "tool_call"}, "Paris"),
    ],
)
def test_whatever_a_client_leaves_of_a_past_call_is_read(call: object, kept: str) -> None:
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "user", "content": "Go on."},
    ]
    prompt = prompt_of("/v1/chat/completions", {"messages": messages}, PRINTING)
    assert kept in prompt
    assert prompt.endswith("<user>Go on.")


def test_an_answer_without_content_and_a_result_without_output_are_read() -> None:
    items = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": None},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": None},
        {"role": "user", "content": "Go on."},
    ]
    prompt = prompt_of("/v1/responses", {"input": items}, PRINTING)
    assert prompt.endswith("<user>Go on.")


def test_what_another_model_thought_is_left_out() -> None:
    parts = [
        {"type": "reasoning", "reasoning": "Hm."},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Yes."},
    ]
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": parts},
        {"role": "user", "content": "Go on."},
    ]
    prompt = prompt_of("/v1/chat/completions", {"messages": messages}, PRINTING)
    assert "<assistant>Yes.<user>" in prompt
