"""Which arguments of a tool are strings, whatever its schema says it with."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from handlers.grammar.schema.argument_types import STRING, string_arguments

DEFINITIONS = {
    "City": {"type": "string", "minLength": 1},
    "Again": {"$ref": "#/$defs/Again"},
    "Tree": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"$ref": "#/$defs/City"}]},
}


@pytest.mark.parametrize(
    ("schema", "is_string", "is_nullable"),
    [
        ({"type": "string"}, True, False),
        ({"type": ["string"]}, True, False),
        ({"enum": ["a", "b"]}, True, False),
        ({"const": "a", "type": "string"}, True, False),
        ({"anyOf": [{"type": "string"}, {"const": "b"}]}, True, False),
        ({"allOf": [{"type": "string"}]}, True, False),
        ({"$ref": "#/$defs/City"}, True, False),
        ({"$ref": "#/$defs/Tree"}, True, False),
        ({"type": ["string", "null"]}, False, True),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, False, True),
        ({"oneOf": [{"$ref": "#/$defs/City"}, {"enum": [None]}]}, False, True),
        ({"type": "integer"}, False, False),
        ({"type": ["string", "integer"]}, False, False),
        ({"enum": ["a", 1]}, False, False),
        ({"enum": [True]}, False, False),
        ({"anyOf": [{"type": "string"}, {"description": "anything"}]}, False, False),
        ({"$ref": "#/$defs/Again"}, False, False),
        ({"$ref": "#/$defs/Nowhere"}, False, False),
        ({"$ref": "https://example.com/schema"}, False, False),
        ({}, False, False),
        (True, False, False),
    ],
)
def test_a_schema_says_whether_an_argument_is_a_string(
    schema: Any, is_string: bool, is_nullable: bool
) -> None:
    tool = {"type": "object", "properties": {"a": schema}, "$defs": DEFINITIONS}

    assert ("a" in string_arguments(tool)) is is_string
    assert ("a" in string_arguments(tool, STRING | {"null"})) is is_nullable


def test_a_tool_without_arguments_has_no_strings() -> None:
    assert string_arguments({}) == string_arguments({"properties": []}) == frozenset()


@pytest.mark.parametrize(
    "definition",
    [{"anyOf": [{"type": "string"}] * 3000}, {"enum": ["a"] * 3000}, {"$ref": "#" + "/a" * 3000}],
)
def test_arguments_that_share_a_large_definition_are_read_for_a_limited_time(
    definition: Any,
) -> None:
    shared = {f"a{index}": {"$ref": "#/$defs/large"} for index in range(3000)}
    tool = {"properties": {"first": {"type": "string"}, **shared}, "$defs": {"large": definition}}

    begun = time.thread_time()
    found = string_arguments(json.loads(json.dumps(tool)))

    assert time.thread_time() - begun < 1
    assert "first" in found
    assert len(found) < 10
