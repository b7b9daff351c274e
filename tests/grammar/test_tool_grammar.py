"""The grammar of tool calls in each format, on the demo model's vocabulary."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from handlers.artifact.dialect import HERMES
from handlers.errors import InvalidRequest
from handlers.grammar.compiler import GrammarCompiler
from handlers.grammar.constraint import GrammarConstraint
from handlers.grammar.tool_grammar import AnswerSchema, Tool, ToolChoice, compile_tool_grammar
from handlers.text.tokenizer import Tokenizer
from tests.support.random_answers import allowed_ids, is_whole, random_answer
from tests.support.tool_calls import FORMATS, parse

SEVERAL = [name for name in FORMATS if name != "Llama"]
EOS = 2
WEATHER = Tool(
    "get_weather",
    "The weather",
    {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"enum": [1, 2]}},
        "required": ["city"],
        "$defs": {"city": {"enum": ["Paris", "Rome"]}},
    },
)
TOOLS = [WEATHER, Tool("now"), Tool("note", None, {"properties": {"text": {"maxLength": 5}}})]
REQUIRED = ToolChoice("required")


@pytest.fixture(scope="module")
def tokenizer(demo_artifact: Path) -> Tokenizer:
    return Tokenizer.load(demo_artifact / "tokenizer.json")


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, vocab_size=49152, eos_token_ids=(EOS,))


def compiled(constraint: GrammarConstraint | None) -> GrammarConstraint:
    assert constraint is not None
    return constraint


def accept(constraint: GrammarConstraint, ids: Iterable[int]) -> None:
    for token_id in ids:
        assert token_id in allowed_ids(constraint)
        constraint.accept(token_id)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", FORMATS)
def test_a_required_answer_is_calls_of_declared_tools_with_valid_arguments(
    compiler: GrammarCompiler, tokenizer: Tokenizer, name: str, seed: int
) -> None:
    constraint = compiled(compile_tool_grammar(compiler, FORMATS[name], TOOLS, REQUIRED))

    answer = random_answer(constraint, tokenizer, seed)

    content, calls = parse(FORMATS[name], [answer.text])
    assert content == ""
    assert calls
    assert answer.text.startswith(FORMATS[name].begin)
    for tool, arguments in calls if answer.whole else calls[:-1]:
        given_ = json.loads(arguments)
        if tool == "get_weather":
            assert given_["city"] in {"Paris", "Rome"}
            assert given_.keys() <= {"city", "days"}
        elif tool == "now":
            assert given_ == {}
        else:
            assert tool == "note"
            assert given_.keys() <= {"text"}


@pytest.mark.parametrize("name", FORMATS)
def test_a_named_tool_is_called_once(
    compiler: GrammarCompiler, tokenizer: Tokenizer, name: str
) -> None:
    choice = ToolChoice("required", "get_weather")
    constraint = compiled(compile_tool_grammar(compiler, FORMATS[name], TOOLS, choice))

    answer = random_answer(constraint, tokenizer)

    _, [(tool, _)] = parse(FORMATS[name], [answer.text])
    assert tool == "get_weather"
    assert answer.whole


@pytest.mark.parametrize("name", FORMATS)
def test_without_parallel_calls_there_is_one(
    compiler: GrammarCompiler, tokenizer: Tokenizer, name: str
) -> None:
    tool_format = FORMATS[name]
    constraint = compiled(
        compile_tool_grammar(compiler, tool_format, TOOLS, REQUIRED, parallel=False)
    )

    accept(constraint, tokenizer.encode(tool_format.write([("now", {})])))

    assert constraint.complete


@pytest.mark.parametrize("name", SEVERAL)
def test_parallel_calls_may_follow_one_another(
    compiler: GrammarCompiler, tokenizer: Tokenizer, name: str
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [("now", {}), ("get_weather", {"city": "Rome"})]
    text = FORMATS[name].write(calls)
    constraint = compiled(compile_tool_grammar(compiler, FORMATS[name], TOOLS, REQUIRED))

    accept(constraint, tokenizer.encode(text))

    assert is_whole(constraint)
    assert parse(FORMATS[name], [text]) == (
        "",
        [(tool, json.dumps(arguments)) for tool, arguments in calls],
    )


@pytest.mark.parametrize("name", FORMATS)
def test_auto_lets_the_model_talk(
    compiler: GrammarCompiler, tokenizer: Tokenizer, name: str
) -> None:
    constraint = compiled(compile_tool_grammar(compiler, FORMATS[name], TOOLS, ToolChoice()))
    assert EOS in allowed_ids(constraint)

    accept(constraint, tokenizer.encode('Is {"a": 1} < 2? <tool_ca [TOOL] 東京\n\n'))

    assert constraint.forced() == []
    assert EOS in allowed_ids(constraint)


@pytest.mark.parametrize("name", FORMATS)
def test_auto_holds_a_call_to_its_schema_from_the_marker_on(
    compiler: GrammarCompiler, tokenizer: Tokenizer, name: str
) -> None:
    tool_format = FORMATS[name]
    constraint = compiled(compile_tool_grammar(compiler, tool_format, TOOLS, ToolChoice()))
    talk = "" if tool_format.at_start else "Let me see.\n"

    accept(constraint, tokenizer.encode(talk + tool_format.trigger))
    assert EOS not in allowed_ids(constraint)
    assert constraint.forced()
    answer = random_answer(constraint, tokenizer)

    content, calls = parse(tool_format, [talk, tool_format.trigger, answer.text])
    assert content == talk
    assert {tool for tool, _ in calls} <= {"get_weather", "now", "note"}


# Its keys begin as a call does, in Llama's format.
FORM = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


ANSWER = AnswerSchema(FORM, False, "answer")


@pytest.mark.parametrize("text", ['{"name": "now", "age": 3}', '{"name": "Ann", "age": 3}'])
@pytest.mark.parametrize("name", FORMATS)
def test_auto_with_a_schema_for_the_answer_is_json_of_it(
    compiler: GrammarCompiler, tokenizer: Tokenizer, name: str, text: str
) -> None:
    constraint = compiled(
        compile_tool_grammar(compiler, FORMATS[name], TOOLS, ToolChoice(), True, ANSWER)
    )

    accept(constraint, tokenizer.encode(text))

    assert constraint.complete
    assert parse(FORMATS[name], text) == (text, [])


@pytest.mark.parametrize("name", FORMATS)
def test_auto_with_a_schema_for_the_answer_is_calls_or_json_and_nothing_else(
    compiler: GrammarCompiler, tokenizer: Tokenizer, name: str
) -> None:
    constraint = compiled(
        compile_tool_grammar(compiler, FORMATS[name], TOOLS, ToolChoice(), True, ANSWER)
    )
    first = {tokenizer.decode([token_id])[0] for token_id in allowed_ids(constraint)}

    accept(constraint, tokenizer.encode(FORMATS[name].write([("get_weather", {"city": "Rome"})])))

    assert first == {"{", FORMATS[name].trigger[0]}
    assert is_whole(constraint)


@pytest.mark.parametrize("name", FORMATS)
def test_a_call_that_is_required_leaves_the_schema_for_the_answer_out(
    compiler: GrammarCompiler, tokenizer: Tokenizer, name: str
) -> None:
    constraint = compiled(
        compile_tool_grammar(compiler, FORMATS[name], TOOLS, REQUIRED, True, ANSWER)
    )

    answer = random_answer(constraint, tokenizer)

    content, calls = parse(FORMATS[name], [answer.text])
    assert content == ""
    assert calls


@pytest.mark.parametrize("schema", [{"not": {}}, {"multipleOf": 99991}, {"pattern": "("}])
def test_a_strict_schema_for_the_answer_that_cannot_be_enforced_is_refused_as_such(
    compiler: GrammarCompiler, schema: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        compile_tool_grammar(
            compiler, HERMES, TOOLS, ToolChoice(), True, AnswerSchema(schema, True, "answer")
        )

    assert refused.value.param == f"answer.{next(iter(schema))}"
    assert compile_tool_grammar(
        compiler, HERMES, TOOLS, ToolChoice(), True, AnswerSchema(schema, False, "answer")
    )


def test_none_and_no_tools_leave_the_answer_free(compiler: GrammarCompiler) -> None:
    assert compile_tool_grammar(compiler, HERMES, TOOLS, ToolChoice("none")) is None
    assert compile_tool_grammar(compiler, HERMES, [], ToolChoice()) is None


DECIMAL = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^(?!a)b"}]}


def strict(name: str, parameters: dict[str, Any]) -> Tool:
    return Tool(name, None, parameters, True, "tools[1].function")


@pytest.mark.parametrize(
    ("parameters", "path", "words"),
    [
        ({"properties": {"a": {"not": {"const": 1}}}}, "properties.a.not", "'a'.*\"not\""),
        ({"properties": {"a": {"multipleOf": 99991}}}, "properties.a.multipleOf", "multipleOf"),
        ({"properties": {"amount": DECIMAL}}, "properties.amount.anyOf[1].pattern", "look-ahead"),
        ({"properties": {"a": {"format": "colour"}}}, "properties.a.format", "'colour'"),
        ({"properties": {"a": {"items": {"type": "any"}}}}, "properties.a.items.type", "'any'"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "properties.a.$ref", "not in this schema"),
        (
            {
                "properties": {"a": {"$ref": "#/$defs/b"}},
                "$defs": {"b": {"properties": {"c": {"pattern": "("}}}},
            },
            "$defs.b.properties.c.pattern",
            "'c': unclosed group",
        ),
        (
            {"properties": {"a": {"oneOf": [{"minimum": 1}, {"maximum": 2}]}}},
            "properties.a.oneOf",
            "use anyOf",
        ),
    ],
)
def test_a_strict_tool_that_cannot_be_enforced_is_refused_by_the_path_to_what_is_at_fault(
    compiler: GrammarCompiler, parameters: dict[str, Any], path: str, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words) as refused:
        compile_tool_grammar(compiler, HERMES, [WEATHER, strict("x", parameters)], ToolChoice())

    assert refused.value.param == f"tools[1].function.parameters.{path}"
    assert str(refused.value).startswith("The tool 'x': ")
    assert compile_tool_grammar(
        compiler, HERMES, [WEATHER, Tool("x", None, parameters)], ToolChoice()
    )


def test_parameters_that_are_no_object_are_refused(compiler: GrammarCompiler) -> None:
    tool = Tool("x", None, {"type": "array"}, field="tools[0].function")

    with pytest.raises(InvalidRequest, match=r"'x': .* type object") as refused:
        compile_tool_grammar(compiler, HERMES, [tool], ToolChoice())

    assert refused.value.param == "tools[0].function.parameters.type"


def test_strict_tools_that_would_take_too_long_together_are_refused_by_the_first_too_many(
    compiler: GrammarCompiler,
) -> None:
    tools = [
        Tool(
            f"f{number}",
            None,
            {"properties": {"a": {"multipleOf": 1000 - number}}},
            True,
            f"tools[{number}]",
        )
        for number in range(30)
    ]
    with pytest.raises(InvalidRequest, match="all multipleOf") as refused:
        compile_tool_grammar(compiler, HERMES, tools, ToolChoice())

    assert refused.value.param == "tools[10].parameters.properties.a.multipleOf"


def test_the_same_schema_again_costs_nothing(compiler: GrammarCompiler) -> None:
    tools = [
        Tool(f"f{number}", None, {"properties": {"a": {"multipleOf": 9973}}})
        for number in range(30)
    ]

    assert compile_tool_grammar(compiler, HERMES, tools, ToolChoice())


def test_a_keyword_that_is_not_supported_is_found_without_compiling(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled_ = []
    compile_ = GrammarCompiler._matcher

    def counted(*arguments: Any) -> Any:
        compiled_.append(arguments)
        return compile_(*arguments)

    monkeypatch.setattr(GrammarCompiler, "_matcher", counted)

    with pytest.raises(InvalidRequest):
        compile_tool_grammar(compiler, HERMES, [*TOOLS, strict("x", {"not": {}})], ToolChoice())

    assert not compiled_


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "tool", ["wähle", "files/read:v2", "日本語", "😀", "a" * 128, "<tool_call>", "a'b", "(x)|y"]
)
def test_a_name_is_called_and_read_back_as_it_is(
    compiler: GrammarCompiler, tokenizer: Tokenizer, name: str, tool: str
) -> None:
    constraint = compiled(
        compile_tool_grammar(compiler, FORMATS[name], [Tool(tool), WEATHER], REQUIRED)
    )
    text = FORMATS[name].write([(tool, {})])

    accept(constraint, tokenizer.encode(text))

    assert is_whole(constraint)
    assert parse(FORMATS[name], text) == ("", [(tool, "{}")])


@pytest.mark.parametrize(
    "tool", ["", "a b", 'a"b', "a\\b", "a\nb", "a\u00a0b", "\u200b", "a" * 129, "b" * 10**6]
)
def test_a_name_that_is_not_itself_in_a_calls_json_is_refused(
    compiler: GrammarCompiler, tool: str
) -> None:
    with pytest.raises(InvalidRequest, match="1 to 128 printable") as refused:
        compile_tool_grammar(compiler, HERMES, [Tool(tool, field="tools[0]")], ToolChoice())

    assert refused.value.param == "tools[0].name"
    assert len(str(refused.value)) < 400


def test_a_choice_of_a_tool_that_is_not_there_is_refused(compiler: GrammarCompiler) -> None:
    with pytest.raises(InvalidRequest, match="no tool 'other'") as refused:
        compile_tool_grammar(compiler, HERMES, TOOLS, ToolChoice("required", "other"))

    assert refused.value.param == "tool_choice"
