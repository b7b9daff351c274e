"""Constrained decoding against the JSON Schema Test Suite, draft 2020-12.

Every schema is either refused by name or held to: what a random model writes under it is valid,
its valid instances can be written, its invalid ones cannot. What differs is in the tables below.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from handlers.errors import InvalidRequest
from handlers.text.grammar import GrammarConstraint, Grammars
from handlers.text.tokenizer import Tokenizer
from tests.support.json_schema_suite import Group, draft_2020_12
from tests.support.random_answers import allowed_ids, random_answer

# Schemas of the suite that are refused, by the keywords or the reason that the refusal names.
REFUSED = {
    "unevaluatedProperties": 36,
    "unevaluatedItems": 23,
    "contains": 18,
    "$ref to another document is not supported": 18,
    "Unknown format": 18,
    "if": 17,
    "then": 14,
    "else": 12,
    "$dynamicAnchor": 10,
    "minContains": 9,
    "not": 9,
    "oneOf is supported only where no value can fit two of its branches": 8,
    "$dynamicRef": 7,
    "maxContains": 7,
    "uniqueItems": 6,
    "Expected positive integer for": 6,  # 2.0, which JSON Schema takes for 2
    "Unsatisfiable schema": 5,
    "dependentRequired": 4,
    "dependentSchemas": 4,
    "propertyNames": 3,
    "patternProperty regexes": 3,  # that are not disjoint
    "it may have 10,000 as the least common multiple of all multipleOf": 1,
}

# Valid instances that cannot be written: the answers lose a spelling, never a meaning of note.
TOO_NARROW = {
    "properties come in the schema's order": {
        "allOf: allOf: allOf",
        "allOf: allOf with base schema: valid",
        "const: const with object: same object with different property order is valid",
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


@pytest.fixture(scope="module")
def compiled(tokenizer: Tokenizer) -> dict[str, GrammarConstraint | str]:
    """The constraint of each group's schema, or the reason why there is none."""
    grammars = Grammars(tokenizer, vocab_size=49152, eos_token_ids=(2,))
    return {group.name: compile_or_reason(grammars, group) for group in draft_2020_12()}


def compile_or_reason(grammars: Grammars, group: Group) -> GrammarConstraint | str:
    try:
        return grammars.json_schema(group.schema)
    except InvalidRequest as error:
        return str(error).removeprefix("The JSON schema cannot be used: ")


def causes(reason: str) -> list[str]:
    """The keywords that a reason names, or the beginning of it, before its details."""
    keywords = re.findall(r'"(.+?)"', reason) if reason.startswith("it has keywords") else []
    return keywords or [re.split(r" ?(?:[:'/]|, )", reason)[0].rstrip(".")]


def held(compiled: dict[str, GrammarConstraint | str]) -> Iterator[tuple[Group, GrammarConstraint]]:
    for group in draft_2020_12():
        constraint = compiled[group.name]
        if not isinstance(constraint, str):
            yield group, constraint


def can_write(constraint: GrammarConstraint, ids: list[int]) -> bool:
    for token_id in ids:
        if token_id not in allowed_ids(constraint):
            return False
        constraint.accept(token_id)
    return constraint.whole_texts()("")


def test_what_cannot_be_held_to_is_refused_by_name(
    compiled: dict[str, GrammarConstraint | str],
) -> None:
    reasons = [reason for reason in compiled.values() if isinstance(reason, str)]

    assert Counter(cause for reason in reasons for cause in causes(reason)) == REFUSED
    assert len(compiled) - len(reasons) == 166


def test_valid_instances_can_be_written_and_invalid_ones_cannot(
    compiled: dict[str, GrammarConstraint | str], tokenizer: Tokenizer
) -> None:
    wrong: dict[bool, set[str]] = {True: set(), False: set()}
    instances = 0
    for group, constraint in held(compiled):
        for test in group.tests:
            ids = tokenizer.encode(json.dumps(test["data"], ensure_ascii=False))
            instances += 1
            if can_write(constraint.copy(), ids) != test["valid"]:
                wrong[test["valid"]].add(f"{group.name}: {test['description']}")

    assert wrong[True] == {name for names in TOO_NARROW.values() for name in names}
    assert wrong[False] == {name for names in TOO_WIDE.values() for name in names}
    assert instances == 837


def test_every_answer_is_valid_or_cut_by_its_length(
    compiled: dict[str, GrammarConstraint | str], tokenizer: Tokenizer
) -> None:
    whole = 0
    for group, constraint in held(compiled):
        validator = Draft202012Validator(
            group.schema, format_checker=Draft202012Validator.FORMAT_CHECKER
        )
        for seed in range(3):
            answer = random_answer(constraint.copy(), tokenizer, seed, max_tokens=150)
            if answer.whole:
                whole += 1
                errors = list(validator.iter_errors(json.loads(answer.text)))
                assert not errors, f"{group.name}: {answer.text}"

    assert whole > 150
