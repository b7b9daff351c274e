"""Which field asks for which grammar. What grammars allow is tested in tests/grammar."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from handlers.api.response_format import StructuredOutputFields, output_constraint
from handlers.engine.params import Constraint, FinishReason, Prompt
from handlers.errors import GrammarTooComplex, InvalidRequest
from handlers.grammar.compiler import GrammarCompiler
from tests.api.client import TOKENIZER, Client, saying
from tests.support.random_answers import allows_id
from tests.support.scripted_engine import ScriptedEngine, ScriptedGeneration, steps

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
USER: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}

FORMS: dict[str, tuple[dict[str, Any], str, str]] = {
    "json_object": ({"response_format": {"type": "json_object"}}, '{"a": [1]}', "[1]"),
    "its schema": (
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        '{"n": 5}',
        '{"n": "5"}',
    ),
    "json_schema": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "count", "strict": True, "schema": SCHEMA},
            }
        },
        '{"n": 5}',
        '{"a": 5}',
    ),
    "json_schema without one": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "any"}}},
        "{}",
        "5",
    ),
    "guided_json": ({"guided_json": SCHEMA}, '{"n": 5}', "{}"),
    "guided_json text": ({"guided_json": json.dumps(SCHEMA)}, '{"n": 5}', "{}"),
    "guided_regex": ({"guided_regex": "a+b"}, "aab", "ba"),
    "guided_choice": ({"guided_choice": ["yes", "no"]}, "no", "maybe"),
    "guided_grammar": ({"guided_grammar": 'start: "a" | "b"'}, "b", "c"),
    "guided_grammar gbnf": ({"guided_grammar": 'root ::= "a" | "b"'}, "b", "c"),
    "grammar": ({"grammar": 'root ::= "a" "b"'}, "ab", "b"),
    "json_schema of llama.cpp": ({"json_schema": SCHEMA}, '{"n": 5}', "{}"),
    "structured json": ({"structured_outputs": {"json": SCHEMA}}, '{"n": 5}', "{}"),
    "structured json_object": ({"structured_outputs": {"json_object": True}}, "{}", "1"),
    "structured regex": ({"structured_outputs": {"regex": "x"}}, "x", "y"),
    "structured choice": ({"structured_outputs": {"choice": ["x"]}}, "x", "y"),
    "structured grammar": ({"structured_outputs": {"grammar": 'start: "x"'}}, "x", "y"),
}


def follows(constraint: Constraint, text: str) -> bool:
    """Returns whether the grammar lets `text` pass, id by id."""
    for token_id in TOKENIZER.encode(text):
        if not allows_id(constraint, token_id):
            return False
        constraint.accept(token_id)
    return True


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("path", [CHAT, TEXT, "/generate"])
def test_every_name_for_a_form_gives_the_engine_its_grammar(
    path: str, form: tuple[dict[str, Any], str, str]
) -> None:
    fields, good, bad = form
    engine = saying("yes")
    client = Client(engine)
    body = (USER if path == CHAT else {"prompt": "Hello"}) | fields

    for text, expected in ((good, True), (bad, False)):
        client.json("POST", path, body)
        (prompt,) = engine.prompts
        assert prompt.constraint is not None
        assert follows(prompt.constraint, text) is expected


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"response_format": None},
        {"response_format": {"type": "text"}},
        {"structured_outputs": {}},
        {"structured_outputs": {"json_object": False}},
    ],
)
def test_any_text_needs_no_grammar(fields: dict[str, Any]) -> None:
    engine = saying("yes")

    Client(engine).json("POST", CHAT, USER | fields)

    assert engine.prompts[0].constraint is None


TEXT_OF_RESPONSES: dict[str, Any] = {"type": "json_schema", "name": "x", "schema": SCHEMA}
NAMED: dict[str, Any] = {"name": "x", "schema": SCHEMA}


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("structured_outputs", {"structural_tag": "{}"}, "structural_tag"),
        ("structured_outputs", {"json": SCHEMA, "whitespace_pattern": " ?"}, "whitespace_pattern"),
        (
            "structured_outputs",
            {"json": SCHEMA, "disable_additional_properties": True},
            "disable_additional_properties",
        ),
        ("structured_outputs", {"regexp": "a"}, "regexp"),
        ("response_format", {"type": "structural_tag", "structures": []}, "type"),
        ("response_format", {"type": "grammar", "grammar": "root ::= a"}, "type"),
        ("response_format", {"type": "regex"}, "type"),
        ("response_format", {"type": "xml"}, "type"),
        ("response_format", {"type": "text", "schema": SCHEMA}, "schema"),
        ("response_format", {"type": "json_object", "json_schema": NAMED}, "json_schema"),
        ("response_format", {"type": "json_schema", "json_schema": NAMED, "x": 1}, "x"),
        (
            "response_format",
            {"type": "json_schema", "json_schema": NAMED | {"root": SCHEMA}},
            "json_schema.root",
        ),
        ("text", {"format": TEXT_OF_RESPONSES | {"x": 1}}, "format.x"),
        ("text", {"format": {"type": "grammar"}}, "format.type"),
    ],
)
def test_a_member_that_would_change_the_form_is_refused_by_its_path(
    field: str, value: dict[str, Any], path: str
) -> None:
    endpoint, body = ("/v1/responses", {"input": "Hello"}) if field == "text" else (CHAT, USER)

    status, error = Client(saying("yes")).error("POST", endpoint, body | {field: value})

    assert (status, error["param"]) == (400, f"{field}.{path}")
    assert "leave" in error["message"] or "send" in error["message"] or "xml" in error["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (
            "structured_outputs",
            {
                "json": SCHEMA,
                "structural_tag": None,
                "whitespace_pattern": "",
                "disable_additional_properties": False,
                "disable_any_whitespace": True,
                "disable_fallback": True,
                "unheard_of": [],
            },
        ),
        ("response_format", {"type": "json_schema", "json_schema": NAMED | {"x": None}, "y": {}}),
        ("text", {"format": TEXT_OF_RESPONSES | {"json_schema": None}}),
    ],
)
def test_a_member_that_asks_for_nothing_is_taken(field: str, value: dict[str, Any]) -> None:
    endpoint, body = ("/v1/responses", {"input": "Hello"}) if field == "text" else (CHAT, USER)
    engine = saying("yes")

    Client(engine).json("POST", endpoint, body | {field: value})

    constraint = engine.prompts[0].constraint
    assert constraint is not None
    assert follows(constraint, '{"n": 5}')


INNER: dict[str, Any] = {"type": "object", "properties": {"b": {"type": "integer"}}}
OUTER: dict[str, Any] = {"type": "object", "properties": {"a": INNER}}


def allowed_by(strict: bool | None, schema: dict[str, Any], text: str) -> bool:
    """Returns whether an answer of this json_schema may be `text`."""
    engine = saying("yes")
    named = {"name": "x", "schema": schema, "strict": strict}
    form = {"response_format": {"type": "json_schema", "json_schema": named}}
    Client(engine).json("POST", CHAT, USER | form)
    constraint = engine.prompts[0].constraint
    assert constraint is not None
    return follows(constraint, text)


@pytest.mark.parametrize("strict", [None, False, True])
def test_names_that_no_schema_has_are_for_objects_within_one_that_is_not_strict(
    strict: bool | None,
) -> None:
    assert allowed_by(strict, OUTER, '{"a": {"b": 1}}')
    assert allowed_by(strict, OUTER, '{"a": {"b": 1, "c": 1}}') is not (strict is True)
    assert not allowed_by(strict, OUTER, '{"a": {}, "c": 1}')
    assert allowed_by(strict, OUTER | {"additionalProperties": True}, '{"a": {}, "c": 1}')


@pytest.mark.parametrize(
    "more",
    [
        {"required": ["c"]},
        {"allOf": [{"properties": {"c": {"type": "integer"}}}]},
        {"$ref": "#/$defs/C", "$defs": {"C": {"properties": {"c": {"type": "integer"}}}}},
        {"if": {}, "then": {"required": ["c"]}},
        {"unevaluatedProperties": True},
        {"unevaluatedProperties": {"type": "integer"}},
        {"minProperties": 2},
        {"propertyNames": {"maxLength": 1}},
        {"patternProperties": {"^x": {}}},
        {"dependentRequired": {"a": ["c"]}},
        {"$recursiveRef": "#"},
    ],
)
def test_a_schema_that_speaks_of_other_names_keeps_them(more: dict[str, Any]) -> None:
    assert allowed_by(None, {"properties": {"a": {}}, **more}, '{"a": 1, "c": 1}')


@pytest.mark.parametrize(
    "more", [{"minProperties": 1}, {"unevaluatedProperties": False}, {"required": ["a"]}]
)
def test_a_schema_that_speaks_of_its_own_names_alone_has_no_others(more: dict[str, Any]) -> None:
    schema = {"properties": {"a": {}}, **more}

    assert allowed_by(None, schema, '{"a": 1}')
    assert not allowed_by(None, schema, '{"a": 1, "c": 1}')


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_json": {"not": {}}}, None),
        ({"json_schema": {"not": {}}}, None),
        ({"structured_outputs": {"json": {"not": {}}}}, None),
        ({"response_format": {"type": "json_object", "schema": {"not": {}}}}, None),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
            None,
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"not": {}}, "strict": True},
                }
            },
            "response_format.json_schema.schema.not",
        ),
    ],
)
@pytest.mark.parametrize(
    "beside", [{}, {"tools": [{"type": "function", "function": {"name": "f"}}]}]
)
def test_only_a_strict_schema_is_refused_for_what_cannot_be_enforced(
    fields: dict[str, Any], param: str | None, beside: dict[str, Any]
) -> None:
    client = Client(saying("yes", context_length=4096))

    if param is None:
        client.json("POST", CHAT, USER | fields | beside)
    else:
        status, error = client.error("POST", CHAT, USER | fields | beside)
        assert (status, error["param"]) == (400, param)
        assert param.removesuffix(".not") in error["message"]


def test_every_choice_follows_a_grammar_of_its_own() -> None:
    engine = saying("yes")

    Client(engine).json("POST", CHAT, USER | {"n": 2, "guided_choice": ["yes", "no"]})

    first, second = (prompt.constraint for prompt in engine.prompts)
    assert first is not None
    assert second is not None
    assert follows(first, "yes")
    assert follows(second, "no")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"guided_regex": "a"}, "guided_regex"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ],
)
def test_a_grammar_that_fails_in_mid_answer_is_refused_by_its_field(
    fields: dict[str, Any], field: str
) -> None:
    client = Client(FailingGrammar(steps([], FinishReason.FAULT), context_length=4096))

    status, error = client.error("POST", CHAT, USER | fields)

    assert (status, error["code"], error["param"]) == (400, "grammar_too_complex", field)
    assert error["message"] == "The grammar cannot be followed."


class FailingGrammar(ScriptedEngine):
    """An engine whose grammar outgrows a limit."""

    def submit_all(
        self, prompts: Sequence[Prompt], deadline: float | None = None
    ) -> ScriptedGeneration:
        generation = super().submit_all(prompts, deadline)
        generation.fault = GrammarTooComplex("The grammar cannot be followed.")
        return generation


def test_half_of_a_surrogate_pair_in_the_text_of_a_schema_is_named() -> None:
    for text in (r'{"title": "\ud800"}', '{"title": "\ud800"}'):
        form = output_constraint(StructuredOutputFields(guided_json=text))
        assert form is not None
        with pytest.raises(InvalidRequest, match=r"surrogate"):
            form.answer_schema()


def test_a_form_is_compiled_only_for_its_request() -> None:
    form = output_constraint(StructuredOutputFields(guided_regex="(", guided_json=None))

    assert form is not None
    assert form.field == "guided_regex"


def test_the_tokenizer_is_read_once_for_all_grammars() -> None:
    client = Client(saying("yes"))

    client.json("POST", CHAT, USER | {"guided_regex": "a"})
    compiler = client.model.grammar_compiler
    client.json("POST", CHAT, USER | {"guided_regex": "b"})

    assert isinstance(compiler, GrammarCompiler)
    assert client.model.grammar_compiler is compiler
