"""Thoughts and calls of earlier messages, in the way that each dialect's template takes them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from handlers.artifact.dialect import HERMES, Dialect, TaggedArguments, Thinking, ToolFormat
from handlers.text.chat_template import ChatTemplate
from handlers.text.history import for_template
from tests.support.tool_formats import LLAMA

Message = dict[str, Any]
HI = {"role": "user", "content": "Hi"}


def call(name: str, arguments: object = None, call_id: str = "") -> Message:
    given = {} if arguments is None else arguments
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": given}}


def calling(*calls: Message, content: str = "") -> Message:
    return {"role": "assistant", "content": content, "tool_calls": [*calls]}


def result(text: str, call_id: str = "") -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def turned(messages: list[Message], tools: ToolFormat | None = None, member: str = "") -> Any:
    thinking = Thinking("<think>", "</think>", member=member) if member else None
    return for_template(messages, Dialect(tools=tools, thinking=thinking))


def test_calls_that_the_template_leaves_out_become_text() -> None:
    tools = replace(HERMES, in_history=False)
    message = calling(call("now", {"zone": "CET"}), call("f"), content="Let me see.")

    turns = turned([HI, message, result("noon")], tools)

    text = 'Let me see.\n<tool_call>\n{"name": "now", "arguments": {"zone": "CET"}}\n</tool_call>'
    more = '\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    assert turns == [HI, {"role": "assistant", "content": text + more}, result("noon")]


@pytest.mark.parametrize("ids", [("a", "b"), ("", "")])
def test_a_template_of_one_call_gets_a_message_for_each(ids: tuple[str, str]) -> None:
    calls = [call(name, call_id=own) for name, own in zip("fg", ids, strict=True)]
    results = [result(text, own) for text, own in zip("12", ids, strict=True)]

    turns = turned([HI, calling(*calls, content="So:"), *results, HI], LLAMA)

    first, second = calling(calls[0], content="So:"), calling(calls[1])
    assert turns == [HI, first, results[0], second, results[1], HI]


def test_results_in_another_order_follow_their_calls() -> None:
    calls = [call("f", call_id="a"), call("g", call_id="b")]
    results = [result("2", "b"), result("1", "a")]

    turns = turned([calling(*calls), *results], LLAMA)

    assert turns == [calling(calls[0]), results[1], calling(calls[1]), results[0]]


def test_arguments_are_text_where_the_template_wants_them_so() -> None:
    given: Message = {"a": "é", "b": [None, True], "c": "x"}
    whole = turned([calling(call("f", given))], replace(HERMES, text_arguments=True))
    style = TaggedArguments("<", ">", "</>", text_values=True)
    by_value = turned([calling(call("f", given))], replace(HERMES, arguments=style))

    assert whole == [calling(call("f", '{"a": "é", "b": [null, true], "c": "x"}'))]
    assert by_value == [calling(call("f", {"a": "é", "b": "[null, true]", "c": "x"}))]


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ("reasoning_content", {"content": "Hello", "reasoning_content": "Hm."}),
        ("thinking", {"content": "Hello", "thinking": "Hm."}),
        (
            "content",
            {
                "content": [
                    {"type": "thinking", "thinking": "Hm."},
                    {"type": "text", "text": "Hello"},
                ]
            },
        ),
    ],
)
def test_thoughts_go_where_the_template_looks_for_them(member: str, expected: Message) -> None:
    message = {"role": "assistant", "content": "Hello", "reasoning_content": "Hm."}

    assert turned([HI, message], None, member) == [HI, {"role": "assistant", **expected}]


def test_a_template_that_describes_no_tools_has_them_in_the_system_message() -> None:
    source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ m.tool_calls }}{% endfor %}"
    dialect = Dialect(tools=replace(HERMES, variable=None))
    tool = {"type": "function", "function": {"name": "now"}}

    prompt = ChatTemplate(source, {}, dialect=dialect).prompt([HI, calling(call("now"))], [tool])

    assert prompt.startswith("[system]You can call tools.")
    assert "<tool_call>\n{" in prompt
    assert "'name': 'now'" in prompt


def test_tools_are_under_the_variable_that_the_template_reads() -> None:
    dialect = Dialect(tools=replace(HERMES, variable="xml_tools"))
    template = ChatTemplate("{{ xml_tools | length }}{{ tools }}", {}, dialect=dialect)

    assert template.prompt([HI], [{}, {}]) == "2None"
    assert "xml_tools" in template.reserved


def test_thoughts_that_a_template_refuses_are_left_out() -> None:
    source = "{% if messages[0].thinking %}{{ raise_exception('no') }}{% endif %}{{ messages }}"
    thinking = Thinking("<think>", "</think>", member="thinking")
    template = ChatTemplate(source, {}, dialect=Dialect(thinking=thinking))

    message = {"role": "assistant", "content": "Hello", "reasoning_content": "Hm."}

    assert "Hm." not in template.prompt([message])
