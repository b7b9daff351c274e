"""Calls in each style of arguments: they follow the schemas of the tools, and nothing else may."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from handlers.artifact.dialect import JsonArguments, LiteralArguments, TaggedArguments, ToolFormat
from handlers.errors import InvalidRequest
from handlers.grammar.compiler import GrammarCompiler
from handlers.grammar.constraint import GrammarConstraint
from handlers.grammar.schema.argument_types import STRING, string_arguments
from handlers.grammar.tool_grammar import AnswerSchema, Tool, ToolChoice, compile_tool_grammar
from handlers.text.tokenizer import Tokenizer
from handlers.text.tool_parser import ToolCallParser
from tests.support.random_answers import allowed_ids, random_answer, writes
from tests.support.tool_calls import Call, joined
from tests.support.tool_dialects import CODER, DIALECTS, GEMMA, KIMI, LFM, MINICPM

EOS = 2
DOUBLE_QUOTES = ToolFormat(
    trigger="[CALL]",
    begin="[CALL]",
    call=("", "name", "(", "arguments", ")"),
    separator="[CALL]",
    end="",
    arguments=LiteralArguments("=", ", ", '"', ": ", quoted_keys=True),
)
EVERY = {**DIALECTS, "double quotes": DOUBLE_QUOTES}
STYLES = {
    name: each for name, each in EVERY.items() if not isinstance(each.arguments, JsonArguments)
}
"""Those whose arguments are not one JSON object."""
REQUIRED = ToolChoice("required")
NODE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer"},
        "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
    },
    "required": ["value"],
    "additionalProperties": False,
}
TRIP = Tool(
    "trip",
    "Plans a trip",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"enum": ["C", "F"]},
            "days": {"type": "integer", "minimum": 0, "maximum": 12},
            "share": {"type": "number"},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "any": {},
            "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$", "maxLength": 6},
            "day": {"type": "string", "format": "date"},
            "fast": {"type": "boolean"},
            "list": {"$ref": "#/$defs/node"},
            "pair": {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "items": False,
                "minItems": 1,
            },
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
            "short": {"type": "string", "minLength": 1, "maxLength": 3},
            "mixed": {"type": ["string", "integer", "boolean"]},
        },
        "required": ["city", "days"],
        "$defs": {"node": NODE},
    },
)
NOW = Tool("now")
OPEN = Tool("open", None, {"type": "object", "additionalProperties": {"type": "integer"}})
NAMED = Tool(
    "named",
    None,
    {
        "properties": {"a": {"type": "boolean"}, "b": {"type": "boolean"}},
        "additionalProperties": {"type": "integer"},
    },
)
TOOLS = [TRIP, NOW, OPEN, NAMED]

GOOD: list[tuple[str, dict[str, Any]]] = [
    ("now", {}),
    ("open", {}),
    ("open", {"x": 1, "xy": 22}),
    ("named", {"b": True, "bb": 3, "ba": 4}),
    ("named", {"a": False}),
    ("named", {"c": -1}),
    ("trip", {"city": "Paris", "days": 5}),
    ("trip", {"city": "", "days": 0, "note": None, "any": None}),
    ("trip", {"city": 'it\'s "x" \n\t é\u200b \\ 🎉 <b>a</b> {[(', "unit": "F", "days": 12}),
    ("trip", {"city": "null", "days": 1, "share": -1.5e3, "fast": True}),
    ("trip", {"city": "5", "days": 1, "tags": [], "note": "hello", "any": "2024-01-01"}),
    ("trip", {"city": "x", "days": 1, "tags": ["a", "b,c"], "any": [1, "2", True, None, {}]}),
    ("trip", {"city": "x", "days": 1, "any": {"a": {"b": [{}]}, "c": "d"}, "code": "AB-12"}),
    ("trip", {"city": "x", "days": 1, "any": 5.5, "day": "2024-02-29"}),
    ("trip", {"city": "x", "days": 1, "any": False, "list": {"value": -1}}),
    ("trip", {"city": "x", "days": 1, "list": {"value": 1, "next": {"value": 2, "next": None}}}),
    ("trip", {"city": "x", "days": 1, "pair": [3], "map": {"a": 1, "b": 2}, "short": "é🎉n"}),
    ("trip", {"city": "x", "days": 1, "pair": [3, "x"], "map": {}, "mixed": "text"}),
    ("trip", {"city": "x", "days": 1, "mixed": 7}),
    ("trip", {"city": "x", "days": 1, "mixed": True}),
]
BAD: list[tuple[str, dict[str, Any]]] = [
    ("now", {"x": 1}),
    ("other", {}),
    ("open", {"x": "text"}),
    ("named", {"b": 3}),
    ("named", {"c": True}),
    ("trip", {"city": "x"}),
    ("trip", {"days": 1}),
    ("trip", {"city": "x", "days": 13}),
    ("trip", {"city": "x", "days": -1}),
    ("trip", {"city": "x", "days": "two"}),
    ("trip", {"city": "x", "days": 1, "extra": 1}),
    ("trip", {"city": "x", "unit": "K", "days": 1}),
    ("trip", {"city": "x", "days": 1, "share": "much"}),
    ("trip", {"city": "x", "days": 1, "tags": ["a", "b", "c"]}),
    ("trip", {"city": "x", "days": 1, "tags": [1]}),
    ("trip", {"city": "x", "days": 1, "code": "ab-12"}),
    ("trip", {"city": "x", "days": 1, "code": "AB-12345"}),
    ("trip", {"city": "x", "days": 1, "day": "2024-02-30"}),
    ("trip", {"city": "x", "days": 1, "fast": "yes"}),
    ("trip", {"city": "x", "days": 1, "list": {}}),
    ("trip", {"city": "x", "days": 1, "list": {"value": 1, "next": {"value": None}}}),
    ("trip", {"city": "x", "days": 1, "pair": []}),
    ("trip", {"city": "x", "days": 1, "pair": [1, 2]}),
    ("trip", {"city": "x", "days": 1, "pair": [1, "x", 2]}),
    ("trip", {"city": "x", "days": 1, "map": {"a": None}}),
    ("trip", {"city": "x", "days": 1, "short": ""}),
    ("trip", {"city": "x", "days": 1, "short": "four"}),
    ("trip", {"city": "x", "days": 1, "mixed": None}),
    ("trip", {"city": "x", "days": 1, "mixed": [1]}),
]


@pytest.fixture(scope="module")
def tokenizer(demo_artifact: Path) -> Tokenizer:
    return Tokenizer.load(demo_artifact / "tokenizer.json")


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, vocab_size=49152, eos_token_ids=(EOS,))


def made(
    compiler: GrammarCompiler,
    tool_format: ToolFormat,
    tools: list[Tool],
    choice: ToolChoice = REQUIRED,
    **options: Any,
) -> GrammarConstraint:
    constraint = compile_tool_grammar(compiler, tool_format, tools, choice, **options)
    assert constraint is not None
    return constraint


@pytest.fixture(scope="module", params=EVERY)
def tool_format(request: pytest.FixtureRequest) -> ToolFormat:
    return EVERY[request.param]


@pytest.fixture(scope="module")
def required(compiler: GrammarCompiler, tool_format: ToolFormat) -> GrammarConstraint:
    return made(compiler, tool_format, TOOLS)


def test_calls_that_follow_their_schema_can_be_written_and_others_cannot(
    required: GrammarConstraint, tool_format: ToolFormat, tokenizer: Tokenizer
) -> None:
    written = [tool_format.write([call]) for call in GOOD]
    assert [text for text in written if not writes(required, tokenizer, text)] == []

    broken = [tool_format.write([call]) for call in BAD]
    assert [text for text in broken if writes(required, tokenizer, text)] == []


def test_calls_follow_one_another(
    required: GrammarConstraint, tool_format: ToolFormat, tokenizer: Tokenizer
) -> None:
    assert writes(required, tokenizer, tool_format.write([GOOD[6], GOOD[0], GOOD[6]]))


def test_a_named_tool_is_called_once(
    compiler: GrammarCompiler, tool_format: ToolFormat, tokenizer: Tokenizer
) -> None:
    constraint = made(compiler, tool_format, TOOLS, ToolChoice("required", "trip"))

    assert writes(constraint, tokenizer, tool_format.write([GOOD[6]]))
    assert not writes(constraint, tokenizer, tool_format.write([GOOD[0]]))
    assert not writes(constraint, tokenizer, tool_format.write([GOOD[6], GOOD[6]]))


def test_without_parallel_calls_there_is_one(
    compiler: GrammarCompiler, tool_format: ToolFormat, tokenizer: Tokenizer
) -> None:
    constraint = made(compiler, tool_format, TOOLS, parallel=False)

    assert writes(constraint, tokenizer, tool_format.write([GOOD[0]]))
    assert not writes(constraint, tokenizer, tool_format.write([GOOD[0], GOOD[6]]))


def test_auto_lets_the_model_talk_and_holds_calls(
    compiler: GrammarCompiler, tool_format: ToolFormat, tokenizer: Tokenizer
) -> None:
    constraint = made(compiler, tool_format, TOOLS, ToolChoice())

    for talk in ("", "Let me (see) {1}.\n"):
        assert writes(constraint, tokenizer, talk)
        assert writes(constraint, tokenizer, talk + tool_format.write([GOOD[6], GOOD[0]]))
        assert not writes(constraint, tokenizer, talk + tool_format.write([BAD[2]]))
        assert not writes(constraint, tokenizer, talk + tool_format.trigger)


def test_auto_with_a_schema_for_the_answer_is_calls_or_json(
    compiler: GrammarCompiler, tool_format: ToolFormat, tokenizer: Tokenizer
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    answer = AnswerSchema(schema, True, "answer")
    constraint = made(compiler, tool_format, TOOLS, ToolChoice(), answer=answer)

    assert writes(constraint, tokenizer, '{"a": 1}')
    assert writes(constraint, tokenizer, tool_format.write([GOOD[6]]))
    assert not writes(constraint, tokenizer, '{"a": "1"}')
    assert not writes(constraint, tokenizer, "Hello.")


def test_marks_of_calls_are_forced(
    compiler: GrammarCompiler, tool_format: ToolFormat, tokenizer: Tokenizer
) -> None:
    constraint = made(compiler, tool_format, [NOW], ToolChoice("required", "now"))
    start = tokenizer.encode(tool_format.write([("now", {})]))[0]
    assert start in allowed_ids(constraint)
    constraint.accept(start)
    assert len(constraint.forced()) > 2


def test_the_first_index_is_the_formats_and_later_ones_are_any(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    constraint = made(compiler, KIMI, [NOW])
    good = KIMI.write([("now", {}), ("now", {})])

    assert writes(constraint, tokenizer, good)
    assert not writes(constraint, tokenizer, good.replace("now:0", "now:1"))
    assert writes(constraint, tokenizer, good.replace("now:1", "now:7"))


@pytest.mark.parametrize("text", ["</parameter>", "a\n</parameter>\n", "</parameter></function>"])
@pytest.mark.parametrize("name", ["city", "note", "mixed", "any"])
def test_text_with_the_mark_of_its_end_cannot_be_written(
    compiler: GrammarCompiler, tokenizer: Tokenizer, name: str, text: str
) -> None:
    constraint = made(compiler, CODER, [TRIP])
    arguments = {"city": "x", "days": 1}

    assert not writes(constraint, tokenizer, CODER.write([("trip", arguments | {name: text})]))
    assert writes(
        constraint,
        tokenizer,
        CODER.write([("trip", arguments | {name: f"</param {text[:9]}"})]),
    )


def test_a_string_that_reads_as_another_value_stands_in_quotes_where_both_may_stand(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    tool = Tool("f", None, {"properties": {"a": {"type": ["string", "array"]}}})
    constraint = made(compiler, CODER, [tool])
    for text in ("5", "null", "True", " [1]", "{", "'x'", "-.5", "[1] and more"):
        plain = CODER.write([("f", {"a": text})])
        assert not writes(constraint, tokenizer, plain), text
        quoted = CODER.write([("f", {"a": f'"{text}"'})])
        assert writes(constraint, tokenizer, quoted), text
    for text in ("5 apples", "2024-01-01", "nullable", "-", "", "a [1]"):
        assert writes(constraint, tokenizer, CODER.write([("f", {"a": text})])), text


def strict(parameters: dict[str, Any]) -> Tool:
    return Tool("x", None, parameters, True, "tools[1].function")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"properties": {"a": {"not": {"const": 1}}}}, "properties.a.not"),
    ({"properties": {"a": {"multipleOf": 99991}}}, "properties.a.multipleOf"),
    ({"properties": {"a": {"type": "string", "pattern": "("}}}, "properties.a.pattern"),
    ({"properties": {"a": {"type": "string", "pattern": "a(^b|c$)"}}}, "properties.a.pattern"),
    ({"properties": {"a": {"type": "string", "pattern": "(?!a)b"}}}, "properties.a.pattern"),
    ({"properties": {"a": {"type": "string", "format": "colour"}}}, "properties.a.format"),
    (
        {
            "properties": {"a": {"$ref": "#/$defs/b"}},
            "$defs": {"b": {"type": "object", "properties": {"c": {"$ref": "#/$defs/d"}}}},
        },
        "$defs.b.properties.c.$ref",
    ),
    ({"patternProperties": {"^a": {"type": "integer"}}}, "patternProperties"),
]


@pytest.mark.parametrize(("parameters", "path"), REFUSED)
@pytest.mark.parametrize("name", STYLES)
def test_a_strict_schema_that_cannot_be_held_is_refused_by_its_path(
    compiler: GrammarCompiler, name: str, parameters: dict[str, Any], path: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        made(compiler, STYLES[name], [NOW, strict(parameters)])

    assert refused.value.param == f"tools[1].function.parameters.{path}"
    assert str(refused.value).startswith("The tool 'x': ")
    relaxed = Tool("x", None, parameters)
    made(compiler, STYLES[name], [NOW, relaxed])


HELD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"a": {"type": "string", "pattern": "^(?:x|y)+$"}}, {"a": "xyx"}),
    ({"a": {"type": "string", "pattern": "b|^c"}}, {"a": "abc"}),
    ({"a": {"type": "string", "format": "uuid"}}, {"a": "12345678-abcd-abcd-abcd-1234567890ab"}),
    ({"a": {"anyOf": [{"const": "x"}, {"type": "null"}]}}, {"a": "x"}),
    ({"a": {"allOf": [{"$ref": "#/$defs/s"}, {"maxLength": 3}]}}, {"a": "abc"}),
    ({"a": {"type": "array", "items": {"$ref": "#/$defs/s"}, "minItems": 1}}, {"a": ["abc"]}),
]


@pytest.mark.parametrize(("properties", "good"), HELD)
@pytest.mark.parametrize("name", STYLES)
def test_a_strict_schema_is_held(
    compiler: GrammarCompiler,
    tokenizer: Tokenizer,
    name: str,
    properties: dict[str, Any],
    good: dict[str, Any],
) -> None:
    tool = strict(
        {
            "properties": properties,
            "required": [*properties],
            "$defs": {"s": {"type": "string", "minLength": 2}},
        }
    )
    constraint = made(compiler, STYLES[name], [tool])

    assert writes(constraint, tokenizer, STYLES[name].write([("x", good)]))
    wrong: list[dict[str, Any]] = [{"a": ""}, {"a": "zzzz"}, {"a": []}, {}, good | {"b": 1}]
    for bad in wrong:
        assert not writes(constraint, tokenizer, STYLES[name].write([("x", bad)])), bad


@pytest.mark.parametrize("name", STYLES)
def test_a_name_that_cannot_stand_in_the_style_is_left_out_or_refused(
    compiler: GrammarCompiler, tokenizer: Tokenizer, name: str
) -> None:
    unfit = "a\nb"
    parameters = {"properties": {unfit: {}, "b": {"type": "integer"}}}
    constraint = made(compiler, STYLES[name], [Tool("x", None, parameters)])

    assert writes(constraint, tokenizer, STYLES[name].write([("x", {"b": 1})]))
    with pytest.raises(InvalidRequest, match="this name"):
        made(compiler, STYLES[name], [strict(parameters)])


@pytest.mark.parametrize("name", ["lfm", "gemma", "coder"])
def test_many_optional_properties_may_each_come_first(
    compiler: GrammarCompiler, tokenizer: Tokenizer, name: str
) -> None:
    properties = {f"p{index}": {"type": "integer"} for index in range(100)}
    constraint = made(compiler, STYLES[name], [Tool("x", None, {"properties": properties})])
    for chosen in ([], [0], [99], [3, 4, 50], [0, 99], [*range(100)]):
        arguments = {f"p{index}": index for index in chosen}
        assert writes(constraint, tokenizer, STYLES[name].write([("x", arguments)]))
    unordered = STYLES[name].write([("x", {"p4": 1, "p3": 1})])
    assert not writes(constraint, tokenizer, unordered)


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


LARGE: dict[str, dict[str, Any]] = {
    "levels": deep(45),
    "a chain of references": {
        "properties": {"a": {"$ref": "#/$defs/n0"}},
        "$defs": {
            **{
                f"n{index}": {
                    "type": "object",
                    "properties": {"x": {"$ref": f"#/$defs/n{index + 1}"}, "y": {}, "z": {}},
                }
                for index in range(140)
            },
            "n140": {"type": "string"},
        },
    },
    "definitions that all properties lead to": {
        "properties": {f"q{index}": {"$ref": f"#/$defs/n{index}"} for index in range(30)},
        "$defs": {
            f"n{index}": {
                "type": "object",
                "properties": {f"x{other}": {"$ref": f"#/$defs/n{other}"} for other in range(30)},
            }
            for index in range(30)
        },
    },
    "positions": {
        "properties": {"a": {"type": "array", "prefixItems": [{"type": "integer"}] * 300}}
    },
    "values": {"properties": {"a": {"enum": [f"value {index}" for index in range(3000)]}}},
    "a pattern that costs too much": {
        "properties": {"a": {"type": "string", "pattern": "(a{1000}){1000}"}}
    },
}


@pytest.mark.parametrize("schema", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("tool_format", [CODER, LFM, GEMMA])
def test_large_schemas_are_held_or_relaxed(
    compiler: GrammarCompiler, tokenizer: Tokenizer, tool_format: ToolFormat, schema: dict[str, Any]
) -> None:
    constraint = made(compiler, tool_format, [Tool("x", None, schema)])

    assert writes(constraint, tokenizer, tool_format.write([("x", {})]))


@pytest.mark.parametrize("leaf", [{"type": "string"}, {"type": ["string", "number"]}])
def test_unions_that_lead_to_others_twice_or_to_themselves_are_read_once(
    compiler: GrammarCompiler, tool_format: ToolFormat, tokenizer: Tokenizer, leaf: dict[str, Any]
) -> None:
    doubled = {
        f"u{level}": {"anyOf": [{"$ref": f"#/$defs/u{level + 1}"}, {"$ref": "#/$defs/u0"}] * 2}
        for level in range(40)
    }
    schema = {
        "type": "object",
        "properties": {"word": {"$ref": "#/$defs/u0"}},
        "required": ["word"],
        "additionalProperties": False,
    }
    definitions = {**doubled, "u40": leaf}
    begun = time.thread_time()

    constraint = made(compiler, tool_format, [Tool("say", None, {**schema, "$defs": definitions})])

    assert time.thread_time() - begun < 5
    assert writes(constraint, tokenizer, tool_format.write([("say", {"word": "so"})]))


def test_objects_of_a_union_that_leads_to_itself_are_read_once(
    compiler: GrammarCompiler, tool_format: ToolFormat, tokenizer: Tokenizer
) -> None:
    word = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    definitions = {"u": {"anyOf": [{"$ref": "#/$defs/u"}, word, {"$ref": "#/$defs/u"}]}}
    schema = {"type": "object", "anyOf": [{"$ref": "#/$defs/u"}], "$defs": definitions}

    constraint = made(compiler, tool_format, [Tool("say", None, schema)])

    assert writes(constraint, tokenizer, tool_format.write([("say", {"word": "so"})]))


@pytest.mark.parametrize("tool_format", [CODER, LFM])
def test_a_grammar_that_is_too_large_is_refused_by_the_tool(
    compiler: GrammarCompiler, tool_format: ToolFormat
) -> None:
    properties = {f"p{index}": {"type": "integer", "minimum": index} for index in range(4900)}
    tools = [NOW, Tool("x", None, {"properties": properties}, field="tools[1].function")]
    with pytest.raises(InvalidRequest, match="524,288 characters") as refused:
        made(compiler, tool_format, tools)

    assert refused.value.param == "tools[1].function.parameters"


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_written_is_read_back_as_valid_arguments(
    required: GrammarConstraint, tool_format: ToolFormat, tokenizer: Tokenizer, seed: int
) -> None:
    """A model that knows nothing writes, and the parser of answers reads."""
    answer = random_answer(required.copy(), tokenizer, seed, max_tokens=300)
    text, calls = read(tool_format, answer.text)

    assert not text.strip() or not answer.whole
    assert calls or not answer.whole
    for name, written in calls if answer.whole else calls[:-1]:
        validator = Draft202012Validator(SCHEMAS[name])
        assert not [*validator.iter_errors(json.loads(written))], written


SCHEMAS = {tool.name: tool.arguments_schema for tool in TOOLS}


def read(tool_format: ToolFormat, pieces: Iterable[str]) -> tuple[str, list[Call]]:
    """Returns what the parser of answers makes of them: the text and the calls."""
    strings = {name: string_arguments(schema) for name, schema in SCHEMAS.items()}
    nullable = {
        name: string_arguments(schema, STRING | {"null"}) for name, schema in SCHEMAS.items()
    }
    parser = ToolCallParser(tool_format, strings, nullable)
    parsed = [*map(parser.push, pieces), parser.flush()]
    text = "".join(text for text, _ in parsed)
    return text, joined(delta for _, deltas in parsed for delta in deltas)


@pytest.mark.parametrize("cut", [False, True])
def test_marks_within_a_string_of_json_or_of_a_literal_do_not_end_it(
    required: GrammarConstraint, tool_format: ToolFormat, tokenizer: Tokenizer, cut: bool
) -> None:
    style = tool_format.arguments
    marks = [*tool_format.call[::2], tool_format.end, tool_format.trigger, '"', "'", "\\"]
    if isinstance(style, TaggedArguments):
        marks += [style.open, style.middle, style.close]
    for mark in marks:
        value = {"city": "x", "days": 1, "tags": [f"a{mark}", f"{mark}b"], "any": {"k": [mark]}}
        text = tool_format.write([("trip", value), ("now", {})])
        left, calls = read(tool_format, text if cut else [text])

        assert writes(required, tokenizer, text), mark
        assert left.strip() == ""
        assert [(name, json.loads(written)) for name, written in calls] == [
            ("trip", value),
            ("now", {}),
        ]


def test_text_in_cdata_is_held_to_its_schema(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    schema = {"properties": {"a": {"type": "string", "maxLength": 4}, "b": {"enum": ["<b>", "c"]}}}
    constraint = made(compiler, MINICPM, [Tool("x", None, schema)])
    for good in ({"a": "a<&\n"}, {"a": "abcd"}, {"a": "]]>"}, {"b": "<b>"}, {"b": "c"}):
        assert writes(constraint, tokenizer, MINICPM.write([("x", good)])), good
    for bad in ({"a": "a<&\nb"}, {"a": "abcde"}, {"b": "<c>"}):
        assert not writes(constraint, tokenizer, MINICPM.write([("x", bad)])), bad
