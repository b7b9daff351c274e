"""Arguments that are not JSON against the JSON Schema Test Suite: they are held as JSON is.

What differs from test_json_schema_suite.py, which has the gaps of JSON itself, is in NARROWER.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from handlers.artifact.dialect import HERMES, ToolFormat
from handlers.grammar import compiler as compiler_module
from handlers.grammar import tool_arguments
from handlers.grammar.compiler import GrammarCompiler
from handlers.grammar.constraint import GrammarConstraint
from handlers.grammar.schema.argument_types import STRING, string_arguments
from handlers.grammar.tool_grammar import Tool, ToolChoice, compile_tool_grammar
from handlers.text.tokenizer import Tokenizer
from handlers.text.tool_parser import ToolCallParser
from tests.support.json_schema_suite import Group, draft_2020_12
from tests.support.random_answers import random_answer, writes
from tests.support.tool_calls import joined
from tests.support.tool_dialects import CODER, LFM

# Schemas of which nothing is left out; of JSON's it is 176.
HELD = {"coder": 176, "lfm": 163}
# Valid instances that JSON can write and the style cannot.
NARROWER = {
    "coder": set[str](),
    "lfm": {  # properties of several schemas come one schema after the other
        f"unevaluatedProperties: unevaluatedProperties + ref inside allOf / oneOf: {case} are valid"
        for case in ("a and b and x", "a and b and y")
    },
}


@pytest.fixture(scope="module")
def compiler(demo_artifact: Path) -> GrammarCompiler:
    tokenizer = Tokenizer.load(demo_artifact / "tokenizer.json")
    return GrammarCompiler(tokenizer, vocab_size=49152, eos_token_ids=(2,))


def parameters(group: Group) -> dict[str, Any]:
    value = {"$id": "https://example.com/schema", **group.schema}
    return {"type": "object", "properties": {"value": value}, "required": ["value"]}


def held(compiler: GrammarCompiler, form: ToolFormat, group: Group) -> GrammarConstraint:
    tool = Tool("f", None, parameters(group))
    constraint = compile_tool_grammar(compiler, form, [tool], ToolChoice("required", "f"))
    assert constraint is not None
    return constraint


def ways(form: ToolFormat, value: Any) -> Iterator[str]:
    """Writes a call. A string may stand in quotes, too, where it may be another value."""
    text = form.write([("f", {"value": value})])
    yield text
    if form is CODER and isinstance(value, str):
        quoted = json.dumps(value, ensure_ascii=False)
        yield form.write([("f", {"value": quoted})])


def read(form: ToolFormat, group: Group, text: str) -> Any:
    """Returns the value that the parser of answers reads."""
    schema = parameters(group)
    strings = {"f": string_arguments(schema)}
    nullable = {"f": string_arguments(schema, STRING | {"null"})}
    parser = ToolCallParser(form, strings, nullable)
    parsed = [parser.push(text), parser.flush()]
    [(_, written)] = joined(delta for _, deltas in parsed for delta in deltas)
    return json.loads(written)["value"]


@pytest.mark.parametrize("form", [CODER, LFM], ids=HELD)
def test_the_styles_hold_what_json_holds(
    compiler: GrammarCompiler,
    form: ToolFormat,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = request.node.callspec.id
    left_out: list[str] = []
    for module in (compiler_module, tool_arguments):
        monkeypatch.setattr(module, "log_left_out", left_out.append)
    whole = exact = 0
    narrower = set()
    for group in draft_2020_12():
        as_json = held(compiler, HERMES, group)
        left_out.clear()
        constraint = held(compiler, form, group)
        is_exact = not left_out
        exact += is_exact
        validator = Draft202012Validator(
            group.schema, format_checker=Draft202012Validator.FORMAT_CHECKER
        )
        for test in group.tests:
            value = test["data"]
            can = [
                text for text in ways(form, value) if writes(constraint, compiler.tokenizer, text)
            ]
            in_json = HERMES.write([("f", {"value": value})])
            could = writes(as_json, compiler.tokenizer, in_json)
            if test["valid"] and could and not can:
                narrower.add(f"{group.name}: {test['description']}")
            if is_exact and not could:
                for text in can:
                    assert validator.is_valid(read(form, group, text)), f"{group.name}: {text}"
        for seed in range(is_exact):
            answer = random_answer(constraint.copy(), compiler.tokenizer, seed, max_tokens=80)
            whole += answer.whole
            if answer.whole:
                value = read(form, group, answer.text)
                assert validator.is_valid(value), f"{group.name}: {answer.text}"

    assert narrower == NARROWER[name]
    assert exact == HELD[name]
    assert whole > 50
