"""Which arguments of a tool are strings, whatever its schema says it with."""

from __future__ import annotations

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
