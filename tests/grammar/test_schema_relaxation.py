"""Schemas as grammars have them: a relaxed one admits no less, and none costs much to compile."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from handlers import log
from handlers.artifact.dialect import HERMES
from handlers.errors import InvalidRequest
from handlers.grammar.compiler import GrammarCompiler
from handlers.grammar.constraint import GrammarConstraint
from handlers.grammar.schema import limits, references
from handlers.grammar.schema.endless import endless_references
from handlers.grammar.schema.limits import Budget
from handlers.grammar.schema.references import References
from handlers.grammar.tool_grammar import Tool, ToolChoice, compile_tool_grammar
from handlers.text.tokenizer import Tokenizer
from tests.support.random_answers import allowed_ids, is_whole, random_answer

Schema = dict[str, Any]
Report = list[str]


@pytest.fixture(scope="module")
def tokenizer(demo_artifact: Path) -> Tokenizer:
    return Tokenizer.load(demo_artifact / "tokenizer.json")


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, vocab_size=49152, eos_token_ids=(2,))


def ignored(_: str) -> None:
    """Returns what is left out, where another test looks at it."""


def writable(constraint: GrammarConstraint, tokenizer: Tokenizer, value: object) -> bool:
    going = constraint.copy()
    for token_id in tokenizer.encode(json.dumps(value, ensure_ascii=False)):
        if token_id not in allowed_ids(going):
            return False
        going.accept(token_id)
    return is_whole(going)


def tree(value: Schema) -> Schema:
    """A recursive model with `value` in each node."""
    node = {
        "type": "object",
        "properties": {
            "value": value,
            "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
        },
        "required": ["value", "next"],
        "additionalProperties": False,
    }
    return {"$ref": "#/$defs/Node", "$defs": {"Node": node}}


# A schema, what the log says of it, an instance that it admits and one that it still refuses.
RELAXED: dict[str, tuple[Schema, str, object, object]] = {
    "format": ({"type": "string", "format": "entity_id"}, "entity_id", "a", 1),
    "propertyNames": (
        {"propertyNames": {"pattern": "^a"}, "additionalProperties": {"type": "string"}},
        "propertyNames",
        {"a": "x"},
        {"a": 1},
    ),
    "not": ({"type": "string", "not": {"const": ""}}, '"not"', "a", 1),
    "if": ({"type": "object", "if": {"required": ["a"]}, "then": False}, '"if"', {}, []),
    "look-around": ({"type": "string", "pattern": "^(?!a)b$"}, "look-around", "b", 1),
    "a pattern beside a length": ({"pattern": "(", "maxLength": 3}, "unclosed", "abc", "abcd"),
    "oneOf": ({"oneOf": [{"type": "integer"}, {"minimum": 5}]}, "oneOf", 3, 3.5),
    "oneOf before anyOf": (
        {"oneOf": [{"minimum": 1}, {"minimum": 5}], "anyOf": [{"type": "integer"}]},
        "oneOf",
        3,
        0,
    ),
    "oneOf after anyOf and allOf": (
        {
            "anyOf": [{"type": "integer"}],
            "oneOf": [{"minimum": 1}, {"minimum": 5}],
            "allOf": [{"maximum": 9}],
        },
        "oneOf",
        3,
        0,
    ),
    "a schema's own draft": (
        {"$schema": "https://example.com/mine", "type": "string", "uniqueItems": True},
        "uniqueItems",
        "a",
        1,
    ),
    "counted properties": (
        {"properties": {"a": {"type": "integer"}, "b": {}, "c": {}}, "minProperties": 2},
        "minProperties",
        {"a": 1, "b": 2},
        {"a": "x", "b": 2},
    ),
    "overlapping patternProperties": (
        {
            "properties": {"x": {"type": "null"}},
            "patternProperties": {"^a": {"type": "string"}, "b$": {"maxLength": 1}},
            "additionalProperties": False,
        },
        "not disjoint",
        {"x": None, "ab": "a"},
        {"x": 1},
    ),
    "multipleOf": (
        {"type": "integer", "multipleOf": 9_999_991, "minimum": 1},
        "multipleOf",
        9_999_991,
        0,
    ),
    "a type that is none": (
        {"type": "object", "properties": {"a": {"type": "any"}}},
        "'any'",
        {"a": 1},
        1,
    ),
    "a type beside one that is none": (
        {"items": {"type": ["string", "file"]}, "maxItems": 1},
        "type",
        ["a"],
        [1, 2],
    ),
    "a bound that excludes small numbers": (
        {"type": "integer", "minimum": 1e40},
        "minimum",
        10**41,
        "a",
    ),
    "bounds of 2^60": ({"type": "integer", "maximum": 2**60, "minimum": -1}, "maximum", 2**60, -2),
    "bounds that would overflow a stack": (
        {"type": "integer", "minimum": -1e40, "maximum": -1e39},
        "maximum",
        -(10**40),
        "a",
    ),
    "a bound near zero": ({"type": "number", "minimum": 1e-90}, "minimum", 1, "a"),
    "a number that a double rounds": (
        {"type": "integer", "const": 2**53 + 1},
        "const",
        2**53 + 1,
        "a",
    ),
    "a number that would overflow a stack": ({"const": {"a": [-(2**63)]}}, "const", 1, None),
    "a large number of an enum": (
        {"type": "integer", "enum": [1, 123456789012345678901234567890]},
        "enum",
        123456789012345678901234567890,
        "a",
    ),
    "an empty enum": ({"type": "string", "enum": []}, "enum", "a", 1),
    "required as in draft 3": (
        {"type": "object", "properties": {"a": {"type": "string", "required": True}}},
        "required",
        {"a": "x"},
        {"a": 1},
    ),
    "a reference to another document": (
        {"type": "object", "properties": {"a": {"$ref": "https://example.com/a"}, "b": False}},
        "example.com",
        {"a": 1},
        {"b": 1},
    ),
    "a reference that leads nowhere": ({"$ref": "#/$defs/none", "minLength": 2}, "none", "ab", "a"),
    "a circle": ({"$ref": "#"}, "no value can end", 1, None),
    "a recursive model": (
        tree({"type": "string", "pattern": "("}),
        "unclosed",
        {"value": "a", "next": {"value": "b", "next": None}},
        {"value": "a", "next": {"value": 1, "next": None}},
    ),
    "a dynamic reference": (
        {"type": "object", "additionalProperties": {"$dynamicRef": "#node"}},
        "dynamicRef",
        {"a": 1},
        1,
    ),
    "what nothing fits": (
        {"type": "object", "properties": {"a": {"allOf": [{"type": "null"}, {"type": "string"}]}}},
        "",
        {},
        {"a": 1},
    ),
}


@pytest.mark.parametrize("name", RELAXED)
def test_what_cannot_be_enforced_is_left_out_and_the_rest_is_enforced(
    compiler: GrammarCompiler, tokenizer: Tokenizer, name: str
) -> None:
    schema, said, admitted, refused = RELAXED[name]
    reported: Report = []

    constraint = compiler.json_schema(schema, report=reported.append)

    assert said in " ".join(reported)
    assert bool(said) == bool(reported)
    assert writable(constraint, tokenizer, admitted)
    assert refused is None or not writable(constraint, tokenizer, refused)


SIGNED = {"minimum": -(2**63), "maximum": 2**63 - 1}
INTEGERS = [0, 5, 2**53, 2**53 + 1, 10**18, 2**63 - 1, 2**63, 10**19, 2**64 - 1, 2**64, 10**45]


@pytest.mark.parametrize(
    ("schema", "admitted"),
    [
        ({"type": "integer", **SIGNED}, {-(10**18), 0, 5, 10**18}),
        ({"type": "number", **SIGNED}, {-(10**18), 0, 5, 10**18}),
        (
            {"type": "integer", "exclusiveMinimum": -(2**63) - 1, "exclusiveMaximum": 2.0**63},
            {-(10**18) + 1, 0, 5, 10**18 - 1},
        ),
        ({"type": "integer", "minimum": 0, "maximum": 2**64 - 1}, {0, 5, 10**18}),
        ({"type": "integer", "minimum": 1, "maximum": 2**53 + 1}, {5, 2**53}),
        ({"type": "integer", "minimum": 2**53}, {2**53, 2**64}),
    ],
)
def test_the_limits_of_64_bits_are_enforced_where_strict_and_left_out_where_not(
    compiler: GrammarCompiler, tokenizer: Tokenizer, schema: Schema, admitted: set[int]
) -> None:
    numbers = [*INTEGERS, *(-number for number in INTEGERS), *admitted]
    validator = Draft202012Validator(schema)

    strict = compiler.json_schema(schema, strict=True)
    relaxed = compiler.json_schema(schema, report=ignored)

    written = {number for number in numbers if writable(strict, tokenizer, number)}
    assert admitted <= written
    assert all(validator.is_valid(number) for number in written)
    assert all(writable(relaxed, tokenizer, n) for n in numbers if validator.is_valid(n))


def test_a_bound_that_no_64_bits_reach_is_not_reported(compiler: GrammarCompiler) -> None:
    reported: Report = []

    for schema in ({"type": "integer", **SIGNED}, {"maximum": 1.7976931348623157e308}):
        compiler.json_schema(schema, report=reported.append)

    assert not reported


@pytest.mark.parametrize(
    "schema",
    [
        {"const": -(2**63)},
        {"const": 2**53 + 1},
        {"enum": ["a", {"a": [1e40]}]},
        {"minimum": 2**53 + 1},
        {"maximum": -(2**63)},
        {"maximum": 1e40},
        {"exclusiveMinimum": 1e-90},
    ],
)
def test_a_number_that_no_grammar_has_is_refused_by_its_path_where_strict(
    compiler: GrammarCompiler, schema: Schema
) -> None:
    with pytest.raises(InvalidRequest, match=r"beyond 2\^53") as refused:
        compiler.json_schema({"items": schema}, strict=True)

    assert refused.value.param == f"items.{next(iter(schema))}"


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"$ref": "#/$defs/a~1b~0c", "$defs": {"a/b~c": {"const": 1}}}, 1, 2),
        ({"$ref": "#/$defs/a%20b", "$defs": {"a b": {"const": 1}}}, 1, 2),
        ({"$ref": "#/$defs/Stra%C3%9Fe", "$defs": {"Straße": {"const": 1}}}, 1, 2),
        (
            {
                "properties": {
                    "a": {"anyOf": [{"const": 1}, {"const": 2}]},
                    "b": {"$ref": "#/properties/a/anyOf/1"},
                }
            },
            {"a": 1, "b": 2},
            {"a": 1, "b": 1},
        ),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "$ref": "#/definitions/a",
                "minimum": 5,
                "definitions": {"a": {"type": "integer"}},
            },
            5,
            4,  # which draft 7 would allow: docs/structured.md
        ),
        ({"$ref": "#one", "$defs": {"x": {"$anchor": "one", "const": 1}}}, 1, 2),
        ({"$ref": "T0", "$defs": {"x": {"$id": "T0", "const": 1}}}, 1, 2),
        ({"definitions": {"a": {"const": 1}}, "items": {"$ref": "#/definitions/a"}}, [1], [2]),
        ({"uniqueItems": False, "not": False, "propertyNames": {"type": "string"}}, 1, None),
        ({"type": "string", "maxLength": 10**12, "minLength": 2.0}, "ab", "a"),
        ({"type": "object", "properties": []}, {}, 1),
        ({"type": "integer", "minimum": 0, "exclusiveMinimum": True}, 1, 0),
        ({"items": [{"const": 1}], "additionalItems": {"const": 2}}, [1, 2], [1, 1]),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_what_is_only_written_in_another_way_is_enforced_as_a_whole(
    compiler: GrammarCompiler,
    tokenizer: Tokenizer,
    schema: Schema,
    good: object,
    bad: object,
    strict: bool,
) -> None:
    reported: Report = []

    constraint = compiler.json_schema(schema, strict=strict, report=reported.append)

    assert not reported
    assert writable(constraint, tokenizer, good)
    assert bad is None or not writable(constraint, tokenizer, bad)


def node(**more: Any) -> Schema:
    """Definitions of a node that has to have another."""
    definition = {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "required": ["n"]}
    return {"$defs": {"N": definition | more}}


# A schema without the end of any value, the path of the reference that is let go, an instance that
# the rest admits and one that it refuses.
ENDLESS: dict[str, tuple[Schema, str, object, object]] = {
    "required": (
        {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "required": ["n"], **node()},
        "$defs.N.properties.n.$ref",
        {"n": {"n": 1}},
        {"n": 1},
    ),
    "the whole": (
        {"type": "object", "properties": {"self": {"$ref": "#"}}, "required": ["self"]},
        "properties.self.$ref",
        {"self": 1},
        {},
    ),
    "under what is optional": (
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/N"}}, **node()},
        "$defs.N.properties.n.$ref",
        {"a": {"n": 1}},
        {"a": 1},
    ),
    "a branch": (
        {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/N"}], **node()},
        "$defs.N.properties.n.$ref",
        {"n": 1},
        1,
    ),
    "beside a choice that is none": (
        {"$ref": "#/$defs/N", **node(anyOf=[{"$ref": "#/$defs/N"}], properties={}, required=[])},
        "$defs.N.anyOf[0].$ref",
        {},
        1,
    ),
    "an array": (
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
        "items.$ref",
        [1],
        [],
    ),
    "an item of an array": (
        {"type": "array", "prefixItems": [{}, {"$ref": "#"}], "items": False, "minItems": 2},
        "prefixItems[1].$ref",
        [1, 2],
        [1],
    ),
    "a name by itself": (
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        "$defs.A.$ref",
        1,
        None,
    ),
    "two names": (
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}},
        "$defs.B.$ref",
        1,
        None,
    ),
    "a class that extends another": (
        {
            "$ref": "#/$defs/A",
            "$defs": {
                "A": {"allOf": [{"$ref": "#/$defs/B"}, node()["$defs"]["N"] | {"type": "object"}]},
                "B": {"type": "object"},
                "N": {"$ref": "#/$defs/A"},
            },
        },
        "$defs.N.$ref",
        {"n": 1},
        [],
    ),
    "another name": (
        {"type": "object", "additionalProperties": {"$ref": "#"}, "required": ["a"]},
        "additionalProperties.$ref",
        {"a": 1},
        {},
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_reference_that_no_value_can_end_is_let_go_and_where_strict_refused(
    compiler: GrammarCompiler, tokenizer: Tokenizer, name: str
) -> None:
    schema, path, admitted, refused = ENDLESS[name]
    reported: Report = []

    constraint = compiler.json_schema(schema, report=reported.append)

    assert len(reported) == 1
    assert "no value can end" in reported[0]
    assert writable(constraint, tokenizer, admitted)
    assert refused is None or not writable(constraint, tokenizer, refused)
    with pytest.raises(InvalidRequest, match="no value can end") as fault:
        compiler.json_schema(schema, strict=True)
    assert fault.value.param == path


@pytest.mark.parametrize(
    ("schema", "admitted"),
    [
        ({"properties": {"self": {"$ref": "#"}}, "required": ["self"]}, {"self": 1}),
        ({"type": "object", **node(), "properties": {"a": {"$ref": "#"}}}, {"a": {"a": {}}}),
        ({"type": "array", "prefixItems": [{}, {"$ref": "#"}], "minItems": 1}, [1, [2]]),
        ({"$ref": "#/$defs/N", **node(type=["null", "object"])}, {"n": {"n": None}}),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_a_recursion_that_a_value_can_end_is_enforced(
    compiler: GrammarCompiler, tokenizer: Tokenizer, schema: Schema, admitted: object, strict: bool
) -> None:
    reported: Report = []

    constraint = compiler.json_schema(schema, strict=strict, report=reported.append)

    assert Draft202012Validator(schema).is_valid(admitted)
    assert not reported
    assert writable(constraint, tokenizer, admitted)


@pytest.mark.parametrize("count", [100, 1_600])
def test_references_without_an_end_are_found_in_proportion_to_the_schema(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    looks = 0
    follow = References.target

    def counted(references: References, path: Any) -> object:
        nonlocal looks
        looks += 1
        return follow(references, path)

    monkeypatch.setattr(References, "target", counted)
    names = {"a": lambda n: (n + 1) % count, "b": lambda _: 0, "c": lambda n: n // 2}
    definitions = {
        f"d{number}": {
            "type": "object",
            "properties": {k: {"$ref": f"#/$defs/d{to(number)}"} for k, to in names.items()},
            "required": ["a", "b", "c"],
        }
        for number in range(count)
    }
    started = time.process_time()

    found = endless_references(References({"$ref": "#/$defs/d0", "$defs": definitions}))

    assert len(found) > count
    assert looks <= 3 * (3 * count + 2)
    assert time.process_time() - started < 5  # 0.2 s


def test_a_tagged_union_of_references_is_enforced_as_it_is_where_the_tag_is_required(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    def branch(kind: str, **more: Any) -> Schema:
        properties = {"kind": {"const": kind, "type": "string"}, **more}
        return {"type": "object", "properties": properties, "required": list(properties)}

    union = {
        "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
        "discriminator": {"propertyName": "kind"},
        "$defs": {
            "Cat": branch("cat", lives={"type": "integer"}),
            "Dog": branch("dog", good={"type": "boolean"}),
        },
    }
    constraint = compiler.json_schema(union, strict=True)

    assert writable(constraint, tokenizer, {"kind": "cat", "lives": 9})
    assert not writable(constraint, tokenizer, {"kind": "dog", "lives": 9})


STRICT: list[tuple[Schema, object, object]] = [
    ({"items": {"type": "object", "const": {"a": 1}}}, [{"a": 1}], [{"a": 2}]),
    (
        {"type": "object", "properties": {"a": {"const": 1}}, "unevaluatedProperties": True},
        {"a": 1, "b": 2},
        {"a": 2},
    ),
    ({"properties": {"a": {"type": "object"}}}, {"a": {}}, {"a": {"b": 1}}),
    (
        {"items": {"type": ["object", "null"], "properties": {"a": {}}}},
        [{"a": 1}, None],
        [{"a": 1, "b": 2}],
    ),
    (tree({"type": "object"}), {"value": {}, "next": None}, {"value": {"a": 1}, "next": None}),
    (
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"any": 1},
        {"any": "a"},
    ),
    (
        {
            "allOf": [{"$ref": "#/$defs/A"}, {"properties": {"b": {"const": 2}}}],
            "$defs": {"A": {"properties": {"a": {"const": 1}}, "required": ["a"]}},
            "type": "object",
        },
        {"a": 1, "b": 2},
        {"a": 1, "b": 1},
    ),
    (
        {"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"properties": {"a": {}}}}},
        {"a": 1},
        {"b": 1},
    ),
]


@pytest.mark.parametrize(("schema", "good", "bad"), STRICT)
def test_with_strict_every_object_is_closed_that_says_nothing_of_other_names(
    compiler: GrammarCompiler, tokenizer: Tokenizer, schema: Schema, good: object, bad: object
) -> None:
    constraint = compiler.json_schema(schema, strict=True)

    assert writable(constraint, tokenizer, good)
    assert not writable(constraint, tokenizer, bad)


def test_a_fault_under_a_reference_has_the_path_at_which_it_stands(
    compiler: GrammarCompiler,
) -> None:
    schema = tree({"anyOf": [{"type": "null"}, {"type": "string", "pattern": "(?<=a)b"}]})

    with pytest.raises(InvalidRequest, match=r"'value': look-around") as refused:
        compiler.json_schema(schema, strict=True)

    assert refused.value.param == "$defs.Node.properties.value.anyOf[1].pattern"


# --- a relaxed schema admits what the given one does ---

POOL: list[Any] = [
    *(None, True, 0, 1, -3, 2.5, 10, "", "a", "ab", "é", "2020-01-01"),
    *([], [1], ["a", "b"], [1, "a"], [[1]], [None, {"a": 1}]),
    *({}, {"a": 1}, {"a": "x"}, {"a": 1, "b": "a"}, {"b": [1]}, {"c": None}),
    *({"a": {"b": 1}}, {"a": 1, "b": 2, "c": 3}, {"d": 4}),
]
LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
MAPS = ("properties", "patternProperties")
ONE = ("items", "additionalProperties", "not", "if", "then", "contains", "propertyNames")
COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")


def random_schema(dice: random.Random, depth: int) -> Any:
    if depth < 0 or dice.random() < 0.1:
        return dice.choice([True, True, {}, False])
    schema: Schema = {}
    for keyword in dice.sample((*LISTS, *MAPS, *ONE, *COUNTS, "type", "required", "enum"), 3):
        if keyword in LISTS:
            schema[keyword] = [random_schema(dice, depth - 1) for _ in range(dice.randint(1, 3))]
        elif keyword in MAPS:
            schema[keyword] = {
                name: random_schema(dice, depth - 1) for name in dice.sample("abc", 2)
            }
        elif keyword in ONE:
            schema[keyword] = random_schema(dice, depth - 1)
        elif keyword in COUNTS:
            schema[keyword] = dice.randint(0, 3)
        elif keyword == "type":
            schema[keyword] = dice.choice(["object", "array", "string", ["integer", "null"]])
        else:
            schema[keyword] = dice.sample("abc", 2)
    return schema


@pytest.mark.parametrize("seed", range(50))
def test_a_random_schema_admits_its_valid_instances_and_no_others_unless_it_says_so(
    compiler: GrammarCompiler, tokenizer: Tokenizer, seed: int
) -> None:
    # A top that speaks of no other names is closed on purpose: tests/api/test_response_format.py.
    schema = {"additionalProperties": True, **_an_object(random.Random(seed))}
    reported: Report = []
    validator = Draft202012Validator(schema)

    constraint = compiler.json_schema(schema, report=reported.append)

    for value in POOL:
        orders = [value]
        if isinstance(value, dict):
            orders = [dict(order) for order in itertools.permutations(value.items())]
        can = any(writable(constraint, tokenizer, order) for order in orders)
        assert can >= validator.is_valid(value), (schema, value, reported)
        assert can == validator.is_valid(value) or reported, (schema, value)


def _an_object(dice: random.Random) -> Schema:
    while True:
        schema = random_schema(dice, 2)
        if isinstance(schema, dict):
            try:
                Draft202012Validator.check_schema(schema)
            except SchemaError:
                continue
            return schema


# --- regular expressions ---

OTHERS = "٣", "é", "\u00a0"
"""A digit, a letter and a space of no ASCII."""


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"^\d+$", ["0", "42"], ["٣", "a"]),
        (r"^\w+$", ["aZ_9"], ["é", "-"]),
        (r"^a\sb$", ["a b", "a\tb"], ["a\u00a0b", "ab"]),
        (r"^[\d.]+$", ["1.5"], ["٣", r"\d"]),
        (r"^[^\d]$", ["a", "٣"], ["1"]),
        (r"^\D$", ["a", "٣"], ["1"]),
        (r"^\W$", ["-", "é"], ["a"]),
        (r"^[\s,]$", [" ", ","], ["\u00a0", "s"]),
        (r"^\S$", ["a"], [" "]),
        (r"^[^\s]$", ["a"], [" "]),
        (r"^\\d$", [r"\d"], ["1"]),
        (r"^\\\d$", ["\\1"], [r"\d"]),
        (r"^\\s$", [r"\s"], ["\\ "]),
        (r"^[\\s]$", ["\\", "s"], [" "]),
        (r"^\[\s\]$", ["[ ]"], ["[s]"]),
    ],
)
def test_classes_are_ascii_in_a_pattern_in_names_and_in_a_whole_expression(
    compiler: GrammarCompiler, tokenizer: Tokenizer, pattern: str, good: list[str], bad: list[str]
) -> None:
    expression = compiler.regex(pattern)
    string = compiler.json_schema({"type": "string", "pattern": pattern}, strict=True)
    named = compiler.json_schema(
        {"patternProperties": {pattern: {}}, "additionalProperties": False}, strict=True
    )

    for text in (*good, *bad):
        assert is_whole(expression, text) == (text in good), text
        assert writable(string, tokenizer, text) == (text in good), text
        assert writable(named, tokenizer, {text: 1}) == (text in good), text


@pytest.mark.parametrize("pattern", [r"^\S$", r"^[^\s]$"])
def test_what_some_validator_takes_for_a_space_is_none_but_a_space(
    compiler: GrammarCompiler, tokenizer: Tokenizer, pattern: str
) -> None:
    constraint = compiler.json_schema({"type": "string", "pattern": pattern})

    assert not writable(constraint, tokenizer, "\u00a0")


def test_a_boundary_of_words_is_refused_or_left_out(compiler: GrammarCompiler) -> None:
    with pytest.raises(InvalidRequest, match="not supported"):
        compiler.regex(r"\bfoo\b")

    reported: Report = []
    compiler.json_schema({"type": "string", "pattern": r"\bfoo\b"}, report=reported.append)

    assert "pattern" in " ".join(reported)


# --- the log ---


def test_the_log_says_once_and_shortly_what_is_left_out(
    compiler: GrammarCompiler, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_logged", {})

    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            compiler.json_schema({"type": "string", "format": "x" * 10_000})
        for number in range(200):
            compiler.json_schema({"type": "string", "format": f"made up {number}"})

    assert len(caplog.records) == log.MOST_LINES
    assert max(len(record.getMessage()) for record in caplog.records) < 500


# --- what it costs ---


def linked(leads_to: Callable[[int], int], count: int) -> Schema:
    """Definitions of three levels each, one after another, with what each refers to."""
    definitions: Schema = {
        f"d{place}": {"properties": {"a": {"$ref": f"#/$defs/d{leads_to(place)}"}}}
        for place in range(count)
    }
    end = {f"d{count}": {"type": "string"}}
    return {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/d0"}},
        "$defs": definitions | end,
    }


LINKED: dict[str, Callable[[int], int]] = {
    "one after another": lambda place: place + 1,
    "in a circle": lambda place: (place + 1) % 198,
    "all to one": lambda _: 198,
    "each to itself": lambda place: place,
}


@pytest.mark.parametrize("name", LINKED)
def test_a_chain_of_references_may_be_as_long_as_the_limit(
    compiler: GrammarCompiler, name: str
) -> None:
    compiler.json_schema(linked(LINKED[name], 198))  # a stack that overflows ends the process


def test_definitions_that_are_no_chain_are_no_levels(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    names = [f"d{number}" for number in range(1_000)]
    schema = {
        "type": "object",
        "properties": {name: {"$ref": f"#/$defs/{name}"} for name in names},
        "$defs": {name: {"properties": {"a": {"type": "string"}}} for name in names},
    }

    constraint = compiler.json_schema(schema)

    assert writable(constraint, tokenizer, {"d7": {"a": "x"}, "d998": {}})
    assert not writable(constraint, tokenizer, {"d7": {"a": 1}})


@pytest.mark.parametrize("count", [200, 4_000])
@pytest.mark.parametrize("name", ["one after another", "in a circle"])
def test_the_guard_looks_at_each_part_of_a_schema_a_few_times_at_most(
    monkeypatch: pytest.MonkeyPatch, count: int, name: str
) -> None:
    looks = 0
    look = references.inner

    def counted(value: object) -> list[object]:
        nonlocal looks
        looks += 1
        return look(value)

    monkeypatch.setattr(limits, "inner", counted)
    leads_to = LINKED[name] if name != "in a circle" else lambda place: (place + 1) % count
    started = time.process_time()

    with pytest.raises(InvalidRequest, match="levels in a chain"):
        Budget().begin(linked(leads_to, count))

    assert looks <= 3 * (3 * count + 5)
    assert time.process_time() - started < 5  # 0.2 s


def test_a_schema_is_measured_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(References, "path", never)
    schema = {"anyOf": [{"$ref": "#/" + "x" * 100} for _ in range(10_000)]}

    with pytest.raises(InvalidRequest, match="characters"):
        Budget().begin(schema)


def bad_patterns(count: int) -> Schema:
    return {"properties": {f"p{number}": {"pattern": "("} for number in range(count)}}


def large_unions() -> Schema:
    """Two definitions whose tags are looked for in a long list, again and again."""
    tags = [f"v{number}" for number in range(60)]
    names = [f"q{number}" for number in range(20_000)]
    first = {"type": "object", "properties": {"p": {"enum": tags}}, "required": names}
    second = {"type": "object", "properties": {"p": {"enum": [f"w{tag}" for tag in tags]}}}
    union = {"oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]}
    return {"anyOf": [union] * 4_000, "$defs": {"A": first, "B": second}}


BLIND = [f"^.*(a|b{number}).{{0,50}}c$" for number in range(30)]
"""Patterns of which each two may hold together, and of which no one can tell it soon."""


def nested(patterns: list[str]) -> Schema:
    """All of them of one value, each within the one before."""
    schema: Schema = {}
    for pattern in patterns:
        schema = {"pattern": pattern, "allOf": [schema]}
    return schema


def referred(patterns: list[str]) -> Schema:
    """All of them of one value, by references."""
    definitions = {f"P{place}": {"pattern": pattern} for place, pattern in enumerate(patterns)}
    return {"allOf": [{"$ref": f"#/$defs/{name}"} for name in definitions], "$defs": definitions}


def chained(patterns: list[str]) -> Schema:
    """All of them of one value, each definition leading to the next."""
    definitions = {
        f"P{place}": {"pattern": pattern, "$ref": f"#/$defs/P{place + 1}"}
        for place, pattern in enumerate(patterns)
    }
    return {"$ref": "#/$defs/P0", "$defs": {**definitions, f"P{len(patterns)}": {}}}


def one_level_down(keyword: str) -> Schema:
    """All of them of a part of one value, each in a schema of its own."""
    parts = [{"type": "string", "pattern": pattern} for pattern in BLIND]
    if keyword == "properties":
        return {"allOf": [{"properties": {"a": part}, "required": ["a"]} for part in parts]}
    if keyword == "prefixItems":
        return {"allOf": [{"prefixItems": [part], "minItems": 1} for part in parts]}
    return {"allOf": [{keyword: part} for part in parts]}


def doubling(levels: int) -> Schema:
    """Definitions of which each leads to the next by two schemas of one value."""
    definitions: Schema = {f"D{levels}": {"type": "string", "pattern": "a.*b"}}
    for level in range(levels):
        part = {"properties": {"a": {"$ref": f"#/$defs/D{level + 1}"}}, "required": ["a"]}
        definitions[f"D{level}"] = {"type": "object", "allOf": [part, part]}
    return {"$ref": "#/$defs/D0", "$defs": definitions}


COSTLY: dict[str, Callable[[GrammarCompiler], object]] = {
    "references that lead nowhere": lambda compiler: compiler.json_schema(
        {"anyOf": [{"$ref": f"x{number}"} for number in range(20_000)]}
    ),
    "a long list of values": lambda compiler: compiler.json_schema(
        {"enum": [f"s{number}" for number in range(40_000)]}
    ),
    "a large value": lambda compiler: compiler.json_schema(
        {"const": {f"k{number}": number for number in range(30_000)}}
    ),
    "names that are required": lambda compiler: compiler.json_schema(
        {"required": [f"r{number}" for number in range(40_000)]}
    ),
    "branches": lambda compiler: compiler.json_schema(
        {"oneOf": [{"type": "object", "properties": {"a": {"const": n}}} for n in range(4_900)]}
    ),
    "conjunctions": lambda compiler: compiler.json_schema(
        {"allOf": [{"minimum": number} for number in range(20_000)]}
    ),
    "long arrays of long arrays": lambda compiler: compiler.json_schema(
        {"maxItems": 10**9, "minItems": 10**9, "items": {"items": {"maxItems": 10**9}}}
    ),
    "long strings": lambda compiler: compiler.json_schema(
        {"properties": {f"p{n}": {"maxLength": 10**9 - n} for n in range(1_000)}}
    ),
    "many faults": lambda compiler: compiler.json_schema(bad_patterns(4_900)),
    "many faults in many tools": lambda compiler: compile_tool_grammar(
        compiler,
        HERMES,
        [Tool(f"t{number}", None, bad_patterns(38)) for number in range(128)],
        ToolChoice(),
    ),
    "unions of large definitions": lambda compiler: compiler.json_schema(large_unions()),
    "patterns of one value": lambda compiler: compiler.json_schema(
        {"properties": {"a": {"allOf": [{"pattern": pattern} for pattern in BLIND]}}}
    ),
    "patterns of one value, strict": lambda compiler: compiler.json_schema(
        {"properties": {"a": {"allOf": [{"pattern": pattern} for pattern in BLIND]}}}, strict=True
    ),
    "patterns within one another": lambda compiler: compiler.json_schema(nested(BLIND)),
    "patterns under references": lambda compiler: compiler.json_schema(referred(BLIND)),
    "patterns one after another": lambda compiler: compiler.json_schema(chained(BLIND)),
    **{
        f"patterns in {keyword}": partial(
            lambda schema, compiler: compiler.json_schema(schema), one_level_down(keyword)
        )
        for keyword in ("properties", "additionalProperties", "items", "prefixItems")
    },
    "definitions that double": lambda compiler: compiler.json_schema(doubling(30)),
    "definitions that double, strict": lambda compiler: compiler.json_schema(
        doubling(30), strict=True
    ),
    "patterns of names": lambda compiler: compiler.json_schema(
        {"patternProperties": {pattern: {} for pattern in BLIND}, "additionalProperties": False}
    ),
    "intersections of Lark": lambda compiler: compiler.lark(
        "start: A\nA: " + " & ".join(f"/{pattern[1:-1]}/" for pattern in BLIND)
    ),
    "conditions of Lark": lambda compiler: compiler.lark(
        'start: a::0\na::_: "x" %if ' + "not(" * 50_000 + "true" + ")" * 50_000
    ),
    "repetitions of GBNF": lambda compiler: compiler.gbnf('root ::= b{1,100000}\nb ::= "x" | "y"'),
    "repetitions of Lark": lambda compiler: compiler.lark(
        "start: " + " ".join('("a"|b){1,1000}' for _ in range(3_000)) + '\nb: "x"'
    ),
    "choices": lambda compiler: compiler.choice([f"choice {n}" for n in range(100_000)]),
    "comments of GBNF": lambda compiler: compiler.gbnf('root ::= "a"\n' + "# x\n" * 50_000),
}


@pytest.mark.parametrize("name", COSTLY)
def test_what_costs_much_is_refused_or_compiled_within_seconds(
    compiler: GrammarCompiler, name: str
) -> None:
    started = time.process_time()

    with contextlib.suppress(InvalidRequest):
        COSTLY[name](compiler)

    assert time.process_time() - started < 5  # 0.1 to 1 s; without its bound minutes, or no end


def test_a_value_has_to_match_two_patterns_and_no_third(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    """As Zod writes a password's rules."""
    rules = [{"pattern": pattern} for pattern in ("[A-Z]", "[a-z]", "[0-9]")]
    password = {"type": "string", "minLength": 8, "maxLength": 128, "allOf": rules}
    schema = {"type": "object", "properties": {"password": password}, "required": ["password"]}
    reported: Report = []

    constraint = compiler.json_schema(schema, report=reported.append)

    assert writable(constraint, tokenizer, {"password": "Abcdefgh"})
    assert not writable(constraint, tokenizer, {"password": "abcdefgh"})
    assert reported == ["more than 2 patterns and formats of one value"]
    with pytest.raises(InvalidRequest, match="more than 2 patterns") as refused:
        compiler.json_schema(schema, strict=True)
    assert refused.value.param == "properties.password.allOf[2].pattern"


def test_alternatives_may_have_a_pattern_each(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    branches = [{"type": "string", "pattern": f"^{letter}+$"} for letter in "abcd"]
    reported: Report = []

    constraint = compiler.json_schema({"anyOf": branches}, report=reported.append)

    assert [writable(constraint, tokenizer, text) for text in ("aa", "dd", "ad")] == [True] * 2 + [
        False
    ]
    assert not reported


def test_after_all_trials_a_tool_may_be_called_with_any_object(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    constraint = compiler.json_schema({"type": "object", **bad_patterns(4_900)}, report=ignored)

    assert random_answer(constraint, tokenizer).text.startswith("{")
