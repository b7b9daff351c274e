"""Constrained decoding against the JSON Schema Test Suite, draft 2020-12.

Every schema is either refused by name or enforced: what a random model writes under it is valid,
its valid instances can be written, its invalid ones cannot. What differs is in the tables below.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from handlers.errors import InvalidRequest
from handlers.grammar.compiler import GrammarCompiler
from handlers.grammar.constraint import GrammarConstraint
from handlers.text.tokenizer import Tokenizer
from tests.support.json_schema_suite import Group, draft_2020_12
from tests.support.random_answers import allowed_ids, is_whole, random_answer

# What is not enforced of the suite's schemas, by the beginning of what the log says.
LEFT_OUT = {
    'the keyword "unevaluatedProperties"': 37,
    "$ref": 31,
    'the keyword "unevaluatedItems"': 22,
    'the keyword "contains"': 20,
    "format": 19,
    "oneOf of which a value may fit two branches": 18,
    'the keyword "if"': 17,
    'the keyword "then"': 13,
    'the keyword "else"': 11,
    'the keyword "$dynamicRef"': 9,
    'the keyword "not"': 9,
    'the keyword "minContains"': 8,
    'the keyword "maxContains"': 6,
    'the keyword "dependentRequired"': 4,
    'the keyword "dependentSchemas"': 4,
    "patternProperties": 3,
    'the keyword "uniqueItems"': 3,
    "allOf": 2,
    "anyOf": 2,
    'the keyword "propertyNames"': 2,
    "a least common multiple of all multipleOf above": 1,
}

# Valid instances that cannot be written: answers lose a way of writing, no meaning of note.
TOO_NARROW = {
    "properties come in the schema's order": {
        "allOf: allOf: allOf",
        "allOf: allOf with base schema: valid",
        "const: const with object: same object with different property order is valid",
        "unevaluatedProperties: unevaluatedProperties with $ref: with no unevaluated properties",
    },
    "the top has no names that the schema does not speak of": {
        f"additionalProperties: additionalProperties {case}: additional properties are allowed"
        for case in ("are allowed by default",)
    }
    | {
        "not: forbidden property: property absent",
        "properties: object properties validation: doesn't invalidate other properties",
    },
    "a metaschema of one's own has no say": {
        f"vocabulary: schema that uses custom metaschema with {case}"
        for case in (
            "with no validation vocabulary: no validation: invalid number, but it still validates",
        )
    },
    "a whole number has no fraction": {
        "const: const with 0 does not match other zero-like types: float zero is valid",
        "const: const with 1 does not match true: float one is valid",
        "const: const with -2.0 matches integer and float types: float -2.0 is valid",
        "const: float and integers are equal up to 64-bit representation limits: float is valid",
        "enum: enum with 0 does not match false: float zero is valid",
        "enum: enum with 1 does not match true: float one is valid",
        "type: integer type matches integers: a float with zero fractional part is an integer",
    },
    "an email has no quotes and no address in brackets": {
        f"email: validation of e-mail addresses: {case} is valid"
        for case in (
            "a quoted string with a space in the local part",
            "a quoted string with a double dot in the local part",
            "a quoted string with a @ in the local part",
            "an IPv6-address-literal after the @",
        )
    },
    "an ipv6 does not end as an ipv4": {
        f"ipv6: validation of IPv6 addresses: {case}"
        for case in (
            "mixed format with the ipv4 section as decimal octets",
            "mixed format with double colons between the sections",
            "mixed format with leading double colons (ipv4-mapped ipv6 address)",
            "a long valid ipv6",
        )
    },
}

# Invalid instances that can be written.
TOO_WIDE = {
    "every February has 29 days": {
        "date: validation of date strings: a invalid date string with 29 days in February (normal)",
        "date: validation of date strings: 2021 is not a leap year",
    },
    "every minute may have a 60th second": {
        "date-time: validation of date-time strings: "
        f"an invalid date-time with leap second on a wrong {unit}, UTC"
        for unit in ("minute", "hour")
    }
    | {
        f"time: validation of time strings: {case} (wrong {unit})"
        for unit in ("minute", "hour")
        for case in (
            "invalid leap second, Zulu",
            "invalid leap second, zero time-offset",
            "invalid leap second, positive time-offset",
            "invalid leap second, negative time-offset",
            "an invalid time string with invalid leap second",
        )
    },
}


@pytest.fixture(scope="module")
def tokenizer(demo_artifact: Path) -> Tokenizer:
    return Tokenizer.load(demo_artifact / "tokenizer.json")


@dataclass
class Compiled:
    """A group's schema as it is enforced, and what of it was left out."""

    group: Group
    constraint: GrammarConstraint
    reported: list[str]


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, vocab_size=49152, eos_token_ids=(2,))


@pytest.fixture(scope="module")
def compiled(compiler: GrammarCompiler) -> list[Compiled]:
    found = []
    for group in draft_2020_12():
        reported: list[str] = []
        constraint = compiler.json_schema(group.schema, report=reported.append)
        found.append(Compiled(group, constraint, reported))
    return found


def cause(what: str) -> str:
    """Without the values and the details."""
    return re.split(r" ?(?:[:'/]|, | to | \d| list| float| int)", what)[0]


def can_write(constraint: GrammarConstraint, ids: list[int]) -> bool:
    for token_id in ids:
        if token_id not in allowed_ids(constraint):
            return False
        constraint.accept(token_id)
    return is_whole(constraint)


def test_what_cannot_be_enforced_is_left_out_by_name(compiled: list[Compiled]) -> None:
    causes = [cause(what) for each in compiled for what in each.reported]

    assert Counter(causes) == LEFT_OUT
    assert len(compiled) == 357
    assert sum(not each.reported for each in compiled) == 176


def test_what_is_left_out_is_refused_where_the_schema_is_strict(
    compiled: list[Compiled], compiler: GrammarCompiler
) -> None:
    for each in compiled:
        if each.reported:
            with pytest.raises(InvalidRequest) as refused:
                compiler.json_schema(each.group.schema, strict=True)
            assert refused.value.param, each.group.name


def test_valid_instances_can_be_written_and_invalid_ones_cannot_unless_something_was_left_out(
    compiled: list[Compiled], tokenizer: Tokenizer
) -> None:
    wrong: dict[bool, set[str]] = {True: set(), False: set()}
    instances = 0
    for each in compiled:
        for test in each.group.tests:
            ids = tokenizer.encode(json.dumps(test["data"], ensure_ascii=False))
            can = can_write(each.constraint.copy(), ids)
            instances += not each.reported
            if can != test["valid"] and (test["valid"] or not each.reported):
                wrong[test["valid"]].add(f"{each.group.name}: {test['description']}")

    assert wrong[True] == {name for names in TOO_NARROW.values() for name in names}
    assert wrong[False] == {name for names in TOO_WIDE.values() for name in names}
    assert instances == 866


def test_every_answer_is_valid_or_cut_by_its_length(
    compiled: list[Compiled], tokenizer: Tokenizer
) -> None:
    whole = 0
    for each in compiled:
        if each.reported:
            continue
        validator = Draft202012Validator(
            each.group.schema, format_checker=Draft202012Validator.FORMAT_CHECKER
        )
        for seed in range(3):
            answer = random_answer(each.constraint.copy(), tokenizer, seed, max_tokens=150)
            if answer.whole:
                whole += 1
                errors = list(validator.iter_errors(json.loads(answer.text)))
                assert not errors, f"{each.group.name}: {answer.text}"

    assert whole > 150
