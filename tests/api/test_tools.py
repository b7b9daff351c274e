"""Tools in, calls out, as OpenAI has them. How a model writes a call is tested in tests/text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming._deltas import accumulate_delta

from handlers.artifact.dialect import HERMES
from handlers.engine.params import FinishReason
from tests.api import client
from tests.api.client import TOKENIZER, Client, usage
from tests.support.random_answers import allows_id
from tests.support.scripted_engine import ScriptedEngine, steps

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
NOW = {"type": "function", "function": {"name": "now"}}
ASKED: dict[str, Any] = {
    "messages": [{"role": "user", "content": "How is Paris?"}],
    "tools": [WEATHER, NOW],
}
USAGE = {"stream_options": {"include_usage": True}}
PARIS = ("get_weather", {"city": "Paris"})


CONTEXT = 4096
"""The text that explains tools is long for a vocabulary of 401."""


def saying(text: str) -> ScriptedEngine:
    return client.saying(text, context_length=CONTEXT)


def calling(*calls: tuple[str, Any], before: str = "") -> str:
    """Returns what a model says that calls."""
    return before + HERMES.write(calls)


def allowing(*names: str, mode: str = "auto") -> dict[str, Any]:
    """A tool_choice of some of the tools."""
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def without_ids(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in call.items() if name != "id"} for call in calls]


def called(*calls: tuple[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for name, arguments in calls
    ]


def accumulated(chunks: list[Any]) -> dict[int, dict[str, Any]]:
    """Each choice's message, put together by the function that OpenAI's client uses."""
    messages: dict[int, dict[object, object]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            message = messages.setdefault(choice["index"], {})
            messages[choice["index"]] = accumulate_delta(message, choice["delta"])
    return {index: dict(message) for index, message in messages.items()}  # type: ignore[arg-type]


def reasons(chunks: list[Any]) -> list[str]:
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]


def test_a_call_has_openais_shape() -> None:
    engine = saying(calling(PARIS))

    body = Client(engine).json("POST", CHAT, ASKED)

    (choice,) = body["choices"]
    message = choice["message"]
    assert message["tool_calls"][0]["id"].startswith("call_")
    assert without_ids(message.pop("tool_calls")) == called(PARIS)
    assert message == {"role": "assistant", "content": None, "refusal": None}
    assert choice["finish_reason"] == "tool_calls"
    assert body["usage"] == usage(len(engine.prompt_ids), len(TOKENIZER.encode(calling(PARIS))))


def test_a_text_before_the_calls_stays_the_content() -> None:
    body = Client(saying(calling(PARIS, ("now", {}), before="Let me see. "))).json(
        "POST", CHAT, ASKED
    )

    message = body["choices"][0]["message"]
    assert message["content"] == "Let me see. "
    assert without_ids(message["tool_calls"]) == called(PARIS, ("now", {}))
    assert len({call["id"] for call in message["tool_calls"]}) == 2


def test_an_answer_without_a_call_is_an_answer() -> None:
    body = Client(saying("It is sunny.")).json("POST", CHAT, ASKED)

    (choice,) = body["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": "It is sunny.",
        "refusal": None,
    }
    assert choice["finish_reason"] == "stop"


words = st.text("ab<{é🦊 ", max_size=8)


@given(
    texts=st.lists(words, min_size=1, max_size=3),
    calls=st.lists(
        st.tuples(
            st.sampled_from(["get_weather", "now"]), st.dictionaries(words, words, max_size=2)
        ),
        max_size=2,
    ),
)
def test_the_joined_stream_is_the_whole_answer(
    texts: list[str], calls: list[tuple[str, Any]]
) -> None:
    answers = [calling(*calls, before=text) if calls else text for text in texts]
    scripts = [steps(TOKENIZER.encode(answer)) for answer in answers]
    body = ASKED | {"n": len(texts)}

    whole = Client(ScriptedEngine(scripts=scripts, context_length=CONTEXT)).json("POST", CHAT, body)
    *chunks, last, done = Client(ScriptedEngine(scripts=scripts, context_length=CONTEXT)).events(
        CHAT, body | USAGE
    )

    assert done == "[DONE]"
    assert last["usage"] == whole["usage"]
    for index, message in accumulated(chunks).items():
        same = whole["choices"][index]["message"]
        assert (message["content"] or None) == (same["content"] or None)
        assert [
            {name: value for name, value in call.items() if name not in ("index", "id")}
            for call in message.get("tool_calls", [])
        ] == without_ids(same.get("tool_calls", []))
    assert sorted(reasons(chunks)) == sorted(choice["finish_reason"] for choice in whole["choices"])


def test_a_streamed_call_starts_with_its_id_and_goes_on_with_its_arguments() -> None:
    *chunks, _ = Client(saying(calling(PARIS))).events(CHAT, ASKED)

    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    (first, *rest) = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert all(len(delta.get("tool_calls", [0])) == 1 for delta in deltas)
    assert first.pop("id").startswith("call_")
    assert first == {
        "index": 0,
        "type": "function",
        "function": {"name": "get_weather", "arguments": ""},
    }
    assert {frozenset(call) for call in rest} == {frozenset({"index", "function"})}
    assert "".join(call["function"]["arguments"] for call in rest) == json.dumps(PARIS[1])
    assert reasons(chunks) == ["tool_calls"]


@pytest.mark.parametrize(
    ("choice", "content"),
    [
        ("auto", ""),
        ("required", None),
        ({"type": "function", "function": {"name": "get_weather"}}, None),
        (allowing("get_weather"), ""),
        (allowing("get_weather", mode="required"), None),
    ],
)
def test_a_stream_begins_as_at_openai_and_ends_as_the_whole_answer(
    choice: object, content: str | None
) -> None:
    asked = ASKED | {"tool_choice": choice}
    whole = Client(saying(calling(PARIS))).json("POST", CHAT, asked)

    first, *chunks, _ = Client(saying(calling(PARIS))).events(CHAT, asked)

    assert first["choices"][0]["delta"] == {"role": "assistant", "content": content}
    assert reasons(chunks) == [whole["choices"][0]["finish_reason"]] == ["tool_calls"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_was_cut_says_so(stream: bool) -> None:
    ids = TOKENIZER.encode(calling(PARIS))[:-8]
    engine = ScriptedEngine(steps(ids, FinishReason.LENGTH), context_length=CONTEXT)

    if stream:
        *chunks, _ = Client(engine).events(CHAT, ASKED)
        assert reasons(chunks) == ["length"]
    else:
        body = Client(engine).json("POST", CHAT, ASKED)
        assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("stop", "reason"), [("Par", "length"), ('"name', "length"), ("\n</tool_call>", "tool_calls")]
)
def test_a_call_that_a_stop_string_cut_is_none_that_an_agent_runs(
    stop: str, reason: str, stream: bool
) -> None:
    client, asked = Client(saying(calling(PARIS))), ASKED | {"stop": stop}

    if stream:
        *chunks, _ = client.events(CHAT, asked)
        assert reasons(chunks) == [reason]
    else:
        assert client.json("POST", CHAT, asked)["choices"][0]["finish_reason"] == reason


def test_the_tools_reach_the_prompt() -> None:
    engine = saying("")

    Client(engine).json("POST", CHAT, ASKED)

    prompt = TOKENIZER.decode(engine.prompt_ids)
    assert "get_weather" in prompt
    assert "The weather in a city." in prompt


OTHER = {"type": "web_search", "web_search": {"name": "x"}}


def test_tools_of_other_types_are_left_out_beside_functions() -> None:
    engine = saying(calling(PARIS))

    body = Client(engine).json("POST", CHAT, ASKED | {"tools": [OTHER, *ASKED["tools"]]})

    alone = saying("")
    Client(alone).json("POST", CHAT, ASKED)
    assert engine.prompt_ids == alone.prompt_ids
    assert without_ids(body["choices"][0]["message"]["tool_calls"]) == called(PARIS)


@pytest.mark.parametrize("choice", [{"tools": []}, {"tools": [OTHER]}, {"tool_choice": "none"}])
def test_tools_that_may_not_be_called_are_not_offered(choice: dict[str, Any]) -> None:
    engine = saying(calling(PARIS))

    body = Client(engine).json("POST", CHAT, ASKED | choice)

    assert engine.prompts[0].constraint is None
    assert "get_weather" not in TOKENIZER.decode(engine.prompt_ids)
    assert body["choices"][0]["message"]["content"] == calling(PARIS)
    assert body["choices"][0]["finish_reason"] == "stop"


ONE, TWO = calling(("now", {})), calling(("now", {}), PARIS)
CHOICES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({}, ["any text", ONE, TWO, f"text, then {ONE}"], [calling(("rain", {}))]),
    ({"tool_choice": "auto"}, ["any text", ONE], []),
    ({"tool_choice": "required"}, [ONE, TWO], ["any text"]),
    ({"tool_choice": "required", "parallel_tool_calls": False}, [ONE], [TWO]),
    (
        {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
        [calling(PARIS)],
        [ONE, "any text"],
    ),
]


@pytest.mark.parametrize(("fields", "good", "bad"), CHOICES)
def test_a_choice_of_tools_is_held_to(
    fields: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    for text in good + bad:
        engine = saying("")
        Client(engine).json("POST", CHAT, ASKED | fields)
        assert follows(engine, text) is (text in good), text


def follows(engine: ScriptedEngine, text: str) -> bool:
    """Returns whether the grammar lets a whole answer of `text` pass."""
    constraint = engine.prompts[0].constraint
    assert constraint is not None
    for token_id in TOKENIZER.encode(text):
        if not allows_id(constraint, token_id):
            return False
        constraint.accept(token_id)
    return True


def test_calls_and_what_they_gave_go_back_into_the_prompt() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    engine = saying("")

    Client(engine).json(
        "POST",
        CHAT,
        ASKED
        | {
            "messages": [
                {"role": "user", "content": "What time is it?"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "call_1", "content": "half past five"},
            ]
        },
    )

    prompt = TOKENIZER.decode(engine.prompt_ids)
    assert prompt.index("What time") < prompt.index(ONE) < prompt.index("half past")


AGE = {
    "type": "object",
    "properties": {"age": {"type": "integer"}},
    "required": ["age"],
    "additionalProperties": False,
}
FORMS: list[dict[str, Any]] = [
    {"response_format": {"type": "json_schema", "json_schema": {"name": "age", "schema": AGE}}},
    {"guided_json": json.dumps(AGE)},
]


def allows(fields: dict[str, Any], text: str) -> bool:
    """Returns whether the grammar of a request with these fields lets the answer be `text`."""
    engine = saying("")
    Client(engine).json("POST", CHAT, ASKED | fields)
    return follows(engine, text)


@pytest.mark.parametrize("form", FORMS)
def test_beside_tools_an_answer_has_its_form_or_calls(form: dict[str, Any]) -> None:
    assert allows(form, '{"age": 3}')
    assert allows(form, calling(PARIS))
    assert not allows(form, "I am three.")


def test_any_json_object_may_stand_beside_tools() -> None:
    form = {"response_format": {"type": "json_object"}}

    assert allows(form, '{"a": [1]}')
    assert not allows(form, "[1]")


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
@pytest.mark.parametrize("form", [*FORMS, {"guided_regex": "a"}])
def test_a_call_that_has_to_be_made_needs_no_form(form: dict[str, Any], choice: object) -> None:
    assert allows(form | {"tool_choice": choice}, calling(PARIS))
    assert not allows(form | {"tool_choice": choice}, '{"age": 3}')


def test_of_allowed_tools_one_may_be_called_and_the_model_is_told_of_all() -> None:
    choice = {"tool_choice": allowing("get_weather")}
    engine = saying("")

    Client(engine).json("POST", CHAT, ASKED | choice)

    assert '"now"' in TOKENIZER.decode(engine.prompt_ids)
    assert allows(choice, calling(PARIS))
    assert allows(choice, "No.")
    assert not allows(choice, calling(("now", {})))


def test_of_allowed_tools_one_must_be_called_where_that_is_required() -> None:
    choice = {"tool_choice": allowing("get_weather", mode="required")}

    assert allows(choice, calling(PARIS, PARIS))
    assert not allows(choice, "No.")
    assert not allows(choice, calling(("now", {})))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": "now"}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [OTHER], "tool_choice": "required"}, "tools"),
        ({"tools": [OTHER, {"type": "function"}]}, "tools[1].function"),
        ({"tools": [NOW, NOW]}, "tools[1].function.name"),
        ({"tools": [NOW] * 129}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        (
            {"tools": [NOW, {"type": "function", "function": {"name": "x", "parameters": [1]}}]},
            "tools[1].function.parameters",
        ),
        (
            {
                "tools": [
                    NOW,
                    {
                        "type": "function",
                        "function": {"name": "x", "parameters": {"not": {}}, "strict": True},
                    },
                ]
            },
            "tools[1].function.parameters.not",
        ),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "rain"}}}, "tool_choice"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "x"}}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
        ({"tool_choice": allowing()}, "tool_choice.allowed_tools.tools"),
        ({"tool_choice": allowing("rain")}, "tool_choice"),
        ({"tools": None, "tool_choice": "required"}, "tools"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"not": {}}, "strict": True},
                }
            },
            "response_format.json_schema.schema.not",
        ),
        ({"guided_json": "5"}, "guided_json"),
        ({"guided_regex": "a"}, "guided_regex"),
        ({"functions": [NOW["function"]]}, "functions"),
        ({"function_call": {"name": "now"}}, "function_call"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_tool_names_its_field(fields: dict[str, Any], param: str, stream: bool) -> None:
    status, error = Client(saying("")).error("POST", CHAT, ASKED | fields | {"stream": stream})

    assert (status, error["param"]) == (400, param)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize("depth", [60, 400])
@pytest.mark.parametrize(
    ("path", "inner"),
    [
        (CHAT, ".function"),
        (f"{CHAT}/render", ".function"),
        ("/tokenize", ".function"),
        (RESPONSES, ""),
    ],
)
def test_a_schema_that_is_nested_too_deeply_to_be_rendered_is_refused(
    path: str, inner: str, depth: int
) -> None:
    spec = {"name": "deep", "parameters": nested(depth)}
    tool = {"type": "function"} | ({"function": spec} if inner else spec)
    start = {"input": "Hello"} if path == RESPONSES else {"messages": ASKED["messages"]}

    status, error = Client(saying("")).error("POST", path, start | {"tools": [tool]})

    assert (status, error["param"]) == (400, f"tools[0]{inner}.parameters")
    assert "'deep'" in error["message"]


def test_a_tool_of_responses_is_named_whole_in_an_error() -> None:
    tool = {"type": "function", "name": "my.function.v2", "strict": True, "parameters": {"not": {}}}

    status, error = Client(saying("")).error("POST", RESPONSES, {"input": "Hello", "tools": [tool]})

    assert (status, error["param"]) == (400, "tools[0].parameters.not")
    assert "'my.function.v2'" in error["message"]


# What MCP's servers, pydantic and Zod write.
WILD: dict[str, dict[str, Any]] = {
    "format": {"properties": {"level": {"type": "integer", "format": "uint8"}}},
    "propertyNames": {
        "properties": {
            "headers": {
                "type": "object",
                "propertyNames": {"type": "string"},
                "additionalProperties": {"type": "string"},
            }
        },
        "$schema": "http://json-schema.org/draft-07/schema#",
    },
    "not": {"properties": {"url": {"not": {"const": ""}}}, "additionalProperties": {}},
    "Decimal": {"properties": {"a": {"type": "string", "pattern": "^(?!^[-+.]*$)[+-]?0*\\d*$"}}},
    "union": {
        "properties": {"pet": {"oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]}},
        "$defs": {"A": {"type": "object"}, "B": {"type": "object"}},
    },
    "an unknown draft": {"$schema": "https://example.com/schema", "properties": {}},
    "no type": {"type": None, "properties": None},
    "a type that is none": {"properties": {"a": {"type": "file"}}},
    "too many of a multiple": {"properties": {"a": {"multipleOf": 9_999_991}}},
    "what nothing fits": {"properties": {"a": {"enum": []}}, "required": ["a"]},
}


@pytest.mark.parametrize("wild", WILD)
@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_a_tool_that_is_not_strict_breaks_no_request(path: str, choice: str, wild: str) -> None:
    spec = {"name": "wild", "parameters": {"type": "object"} | WILD[wild]}
    engine = saying("")
    if path == CHAT:
        body = ASKED | {"tools": [NOW, {"type": "function", "function": spec}]}
    else:
        body = {"input": "Hello", "tools": [{"type": "function"} | spec]}

    Client(engine).json("POST", path, body | {"tool_choice": choice})

    arguments = dict.fromkeys(WILD[wild].get("required", ()))
    before = "Let me see. " if choice == "auto" else ""
    assert follows(engine, calling(("wild", arguments), before=before))
