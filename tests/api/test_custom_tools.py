"""Custom tools take a text: the model calls a function, and the client gets the text."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming._deltas import accumulate_delta
from openai.types.chat import ChatCompletion, ChatCompletionMessageCustomToolCall
from openai.types.responses import Response as OpenAIResponse

from handlers.api.custom_tools import InputReader, input_of
from handlers.api.http import StreamResponse
from handlers.artifact.dialect import (
    HERMES,
    Dialect,
    LiteralArguments,
    TaggedArguments,
    ToolFormat,
)
from handlers.engine.params import FinishReason
from handlers.grammar.constraint import GrammarConstraint
from tests.api import client
from tests.api.client import TOKENIZER, Client
from tests.support.random_answers import is_whole
from tests.support.scripted_engine import ScriptedEngine, drain, steps

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
PATCH = '*** Begin Patch\n+ "é"\t\\n 🎉\n*** End Patch'
WORDS = "Applies a patch."
USER = {"messages": [{"role": "user", "content": "Mend it."}]}
LARK = {"syntax": "lark", "definition": 'start: "*** Begin Patch" LF'}
DIGITS = {"syntax": "regex", "definition": "[0-9]+"}


def of_chat(grammar: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    form = {"type": "grammar", "grammar": grammar} if grammar else {"type": "text"}
    return {
        "type": "custom",
        "custom": {"name": "patch", "description": WORDS, "format": form} | more,
    }


def of_response(grammar: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    form = {"type": "grammar", **grammar} if grammar else {"type": "text"}
    return {"type": "custom", "name": "patch", "description": WORDS, "format": form} | more


def calling(*inputs: str, end: FinishReason = FinishReason.EOS) -> ScriptedEngine:
    text = HERMES.write([("patch", {"input": text}) for text in inputs])
    return ScriptedEngine(steps(TOKENIZER.encode(text), end), context_length=4096)


def test_a_chats_call_has_the_text() -> None:
    body = Client(calling(PATCH)).json("POST", CHAT, USER | {"tools": [of_chat()]})

    (choice,) = ChatCompletion.model_validate(body).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert isinstance(call, ChatCompletionMessageCustomToolCall)
    assert (call.custom.name, call.custom.input) == ("patch", PATCH)
    assert call.id.startswith("call_")
    assert set(body["choices"][0]["message"]["tool_calls"][0]) == {"id", "type", "custom"}


def test_a_streamed_call_joins_to_the_text() -> None:
    events = Client(calling(PATCH, "", "b")).events(CHAT, USER | {"tools": [of_chat()]})

    message: Any = {}
    for event in events[:-1]:
        for choice in event["choices"]:
            message = accumulate_delta(message, choice["delta"])
    calls = message["tool_calls"]
    assert [call["custom"] for call in calls] == [
        {"name": "patch", "input": text} for text in (PATCH, "", "b")
    ]
    assert [call["type"] for call in calls] == ["custom"] * 3
    assert len({call["id"] for call in calls}) == 3


def test_functions_and_custom_tools_stand_beside_each_other() -> None:
    now = {"type": "function", "function": {"name": "now"}}
    text = HERMES.write([("now", {}), ("patch", {"input": "a"})])
    engine = client.saying(text, context_length=4096)
    body = Client(engine).json("POST", CHAT, USER | {"tools": [now, of_chat()]})

    calls = body["choices"][0]["message"]["tool_calls"]
    assert [call["type"] for call in calls] == ["function", "custom"]


def response_events(engine: ScriptedEngine, **fields: Any) -> list[Any]:
    asked = {"input": "Mend it.", "tools": [of_response()], "stream": True, **fields}
    answer = Client(engine).send("POST", RESPONSES, asked)
    assert isinstance(answer, StreamResponse), answer.body
    text = b"".join(drain(answer.chunks)).decode()
    data = (event.partition("data: ")[2] for event in text.split("\n\n") if event)
    return [msgspec.json.decode(each) for each in data]


def test_a_responses_call_is_an_item_of_its_own_type() -> None:
    asked = {"input": "Mend it.", "tools": [of_response()]}
    body = Client(calling(PATCH)).json("POST", RESPONSES, asked)

    (item,) = OpenAIResponse.model_validate(body).output
    assert item.type == "custom_tool_call"
    assert (item.name, item.input) == ("patch", PATCH)
    assert item.call_id.startswith("call_")
    (tool,) = body["tools"]
    assert (tool["type"], tool["name"], tool["format"]) == ("custom", "patch", {"type": "text"})


def test_a_streamed_responses_call_has_openais_events() -> None:
    events = response_events(calling(PATCH))

    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:3] == ["created", "in_progress", "output_item.added"]
    assert kinds[-3:] == ["custom_tool_call_input.done", "output_item.done", "completed"]
    assert set(kinds[3:-3]) == {"custom_tool_call_input.delta"}
    added, done = events[2]["item"], events[-2]["item"]
    assert (added["input"], added["status"]) == ("", "in_progress")
    assert (done["input"], done["status"]) == (PATCH, "completed")
    assert "".join(event["delta"] for event in events[3:-3]) == events[-3]["input"] == PATCH


def test_a_call_that_is_cut_has_what_there_is_of_the_text() -> None:
    text = HERMES.write([("patch", {"input": "Begin\nEnd"})])
    cut = text[: text.index("End")]
    engine = ScriptedEngine(steps(TOKENIZER.encode(cut), FinishReason.LENGTH), context_length=4096)
    last = response_events(engine)[-1]

    (item,) = last["response"]["output"]
    assert (last["type"], item["status"], item["input"]) == (
        "response.incomplete",
        "incomplete",
        "Begin\n",
    )


@pytest.mark.parametrize("tool", [of_chat(LARK), of_chat(LARK, description=None)])
def test_a_grammar_in_lark_is_told_to_the_model(tool: dict[str, Any]) -> None:
    engine = calling(PATCH)
    body = Client(engine).json("POST", CHAT, USER | {"tools": [tool]})

    prompt = TOKENIZER.decode(engine.prompt_ids)
    assert "*** Begin Patch" in prompt
    assert (WORDS in prompt) == (tool["custom"]["description"] is not None)
    assert body["choices"][0]["message"]["tool_calls"][0]["custom"]["input"] == PATCH


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize(
    ("grammar", "takes", "refuses"),
    [(DIGITS, ["0", "123"], ["", "a", "1a"]), (None, ["", PATCH], []), (LARK, [PATCH], [])],
)
def test_a_regular_expression_holds_the_input(
    path: str, grammar: dict[str, Any] | None, takes: list[str], refuses: list[str]
) -> None:
    engine = calling("1")
    tool, asked = (
        (of_chat(grammar), USER) if path == CHAT else (of_response(grammar), {"input": "Mend it."})
    )
    Client(engine).json("POST", path, asked | {"tools": [tool], "tool_choice": "required"})

    constraint = engine.prompts[0].constraint
    assert isinstance(constraint, GrammarConstraint)
    for text in takes:
        assert is_whole(constraint.copy(), HERMES.write([("patch", {"input": text})]))
    for text in refuses:
        assert not is_whole(constraint.copy(), HERMES.write([("patch", {"input": text})]))


TAGGED = ToolFormat(
    trigger="<tool_call>",
    begin="<tool_call>\n",
    call=("<function=", "name", ">\n", "arguments", "</function>"),
    separator="\n</tool_call>\n<tool_call>\n",
    end="\n</tool_call>",
    arguments=TaggedArguments(open="<parameter=", middle=">\n", close="\n</parameter>\n"),
)
PYTHONIC = ToolFormat(
    trigger="[",
    begin="[",
    call=("", "name", "(", "arguments", ")"),
    separator=", ",
    end="]",
    at_start=True,
    arguments=LiteralArguments(
        assign="=", separator=", ", quote="'", nested_assign=": ", quoted_keys=True
    ),
)


@pytest.mark.parametrize("tool_format", [TAGGED, PYTHONIC])
@pytest.mark.parametrize(("grammar", "text"), [(DIGITS, "123"), (None, PATCH), (LARK, PATCH)])
def test_every_dialect_has_custom_tools(
    tool_format: ToolFormat, grammar: dict[str, Any] | None, text: str
) -> None:
    said = tool_format.write([("patch", {"input": text})])
    engine = client.saying(said, context_length=4096)
    body = Client(
        engine, template=client.TEMPLATE + "{{ tools }}", dialect=Dialect(tools=tool_format)
    ).json("POST", CHAT, USER | {"tools": [of_chat(grammar)], "tool_choice": "required"})

    (call,) = body["choices"][0]["message"]["tool_calls"]
    assert call["custom"] == {"name": "patch", "input": text}
    constraint = engine.prompts[0].constraint
    assert isinstance(constraint, GrammarConstraint)
    assert is_whole(constraint.copy(), said)
    other = tool_format.write([("patch", {"input": "no digit"})])
    assert is_whole(constraint.copy(), other) == (grammar is not DIGITS)


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "custom", "custom": {"name": "patch"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "custom", "custom": {"name": "patch"}}],
            },
        },
    ],
)
def test_a_custom_tool_can_be_chosen(choice: dict[str, Any]) -> None:
    engine = calling("a")
    now = {"type": "function", "function": {"name": "now"}}
    body = USER | {"tools": [now, of_chat()], "tool_choice": choice}
    Client(engine).json("POST", CHAT, body)

    constraint = engine.prompts[0].constraint
    assert isinstance(constraint, GrammarConstraint)
    assert not is_whole(constraint.copy(), HERMES.write([("now", {})]))


def test_a_response_can_choose_a_custom_tool() -> None:
    choice = {"type": "custom", "name": "patch"}
    asked = {"input": "Mend it.", "tools": [of_response()], "tool_choice": choice}

    assert Client(calling("a")).json("POST", RESPONSES, asked)["tool_choice"] == choice


@pytest.mark.parametrize(
    ("path", "tool", "param"),
    [
        (CHAT, {"type": "custom"}, "tools[0].custom"),
        (CHAT, of_chat(format={"type": "grammar"}), "tools[0].custom.format.grammar"),
        (CHAT, of_chat({"syntax": "gbnf", "definition": "a"}), "tools[0].custom.format.grammar"),
        (CHAT, of_chat({"syntax": "regex", "definition": "("}), "tools[0].custom.format"),
        (CHAT, of_chat(name="a b"), "tools[0].custom.name"),
        (RESPONSES, {"type": "custom"}, "tools[0].name"),
        (RESPONSES, of_response({"syntax": "lark"}), "tools[0].format.definition"),
        (RESPONSES, of_response({"definition": "a"}), "tools[0].format.syntax"),
        (RESPONSES, of_response({"syntax": "regex", "definition": "("}), "tools[0].format"),
    ],
)
def test_what_is_no_custom_tool_is_refused(path: str, tool: dict[str, Any], param: str) -> None:
    asked = USER if path == CHAT else {"input": "Mend it."}
    status, error = Client(calling("a")).error("POST", path, asked | {"tools": [tool]})

    assert status == 400
    assert error["param"].startswith(param)


def test_an_earlier_call_is_written_as_the_model_wrote_it() -> None:
    custom: dict[str, Any] = {"custom": {"name": "patch", "input": "a"}}
    function: dict[str, Any] = {"function": {"name": "patch", "arguments": '{"input": "a"}'}}
    engines = [calling("b") for _ in range(3)]
    result = {"role": "tool", "tool_call_id": "call_1", "content": "Done."}
    for engine, call in zip(engines, (custom, function), strict=False):
        message = {"role": "assistant", "tool_calls": [{"id": "call_1", **call}]}
        messages = [*USER["messages"], message, result]
        Client(engine).json("POST", CHAT, {"messages": messages, "tools": [of_chat()]})
    items = [
        {"role": "user", "content": "Mend it."},
        {"type": "custom_tool_call", "call_id": "call_1", "name": "patch", "input": "a"},
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": "Done."},
    ]
    Client(engines[2]).json("POST", RESPONSES, {"input": items, "tools": [of_response()]})

    assert engines[0].prompt_ids == engines[1].prompt_ids == engines[2].prompt_ids


@given(st.text(), st.lists(st.integers(0, 200), max_size=6), st.booleans())
def test_an_input_is_read_however_its_json_is_cut(
    text: str, places: list[int], ascii_alone: bool
) -> None:
    whole = json.dumps({"input": text}, ensure_ascii=ascii_alone)
    cuts = sorted({0, len(whole), *(place for place in places if place < len(whole))})
    pieces = [whole[start:end] for start, end in pairwise(cuts)]
    reader = InputReader()

    assert "".join(map(reader.push, pieces)) == text
    assert input_of(whole) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input": "a\\ud83cb"}', "a�b"),
        ('{"input": "\\ude00"}', "�"),
        ('{"input": "a\\', "a"),
        ('{"input": "a\\u12', "a"),
        ('{"input": "a\\ud83c', "a"),
        ('{"inp', ""),
        ("", ""),
        ('{"other": 1}', ""),
    ],
)
def test_json_that_is_cut_or_odd_gives_what_is_certain(arguments: str, text: str) -> None:
    assert input_of(arguments) == text
