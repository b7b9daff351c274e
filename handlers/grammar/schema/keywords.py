"""The keywords of JSON Schema: which of them llguidance compiles, and what they mean together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"}
)
# The drafts that llguidance knows, by which it reads `items` and `prefixItems`.
DRAFTS = frozenset(
    {
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema",
        "http://json-schema.org/draft-06/schema",
        "http://json-schema.org/draft-04/schema",
    }
)
# llguidance compiles none of these. With each, the values that ask for nothing.
UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "not": (False,),
    "if": (),
    "then": (),
    "else": (),
    "contains": (),
    "minContains": (),
    "maxContains": (),
    "uniqueItems": (False,),
    "propertyNames": (True, {}, {"type": "string"}),
    "dependencies": ({},),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "unevaluatedItems": (True, {}),
    "unevaluatedProperties": (True, {}),
    "$dynamicRef": (),
    "$recursiveRef": (),
}
# Each of these means something only beside the other.
ONLY_BESIDE = {
    "then": "if",
    "else": "if",
    "minContains": "contains",
    "maxContains": "contains",
}
# Their schemas apply to the same value as the schema around them.
IN_PLACE = ("allOf", "anyOf", "oneOf", "$ref")
# Each may allow names that `properties` does not have.
ALLOWS_OTHER_NAMES = frozenset(
    {
        *IN_PLACE,
        "$dynamicRef",
        "$recursiveRef",
        "if",
        "const",
        "enum",
        "patternProperties",
        "propertyNames",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
    }
)
# With any of these an object says itself which names it may have: strict does not close it.
DECIDES_NAMES = (*IN_PLACE, "additionalProperties", "unevaluatedProperties", "const", "enum")
OF_OBJECTS = ("properties", "patternProperties", "additionalProperties")
PATTERNS = ("pattern", "format")


def constraint_count(node: Mapping[str, Any]) -> int:
    """Returns how many of a schema's keywords and branches constrain one object's properties."""
    every = node.get("allOf")
    alone = sum(keyword in node for keyword in ("anyOf", "oneOf", "$ref"))
    of_objects = any(keyword in node for keyword in OF_OBJECTS)
    return (len(every) if isinstance(every, list) else 0) + alone + of_objects


def allows_other_names(schema: Mapping[str, Any]) -> bool:
    """Returns whether a schema means its object to have names that `properties` does not have.

    A whole schema that does not is closed, though JSON Schema would allow any name. One that a
    model makes up is an error for a tool's function, and in an answer a small model goes on making
    up more until it is cut: llama.cpp and vLLM's xgrammar do not let it be written either.
    """
    properties, required = schema.get("properties"), schema.get("required", [])
    if not isinstance(properties, dict) or not ALLOWS_OTHER_NAMES.isdisjoint(schema):
        return True
    least = schema.get("minProperties", 0)
    return (
        schema.get("unevaluatedProperties", False) is not False
        or not are_strings(required)
        or not properties.keys() >= set(required)
        or (is_number(least) and least > len(properties))
    )


def is_open_object(node: Mapping[str, Any]) -> bool:
    """Returns whether an object says nothing of the names that it may have besides `properties`."""
    if any(keyword in node for keyword in DECIDES_NAMES):
        return False
    kind = node.get("type")
    return "properties" in node or kind == "object" or (isinstance(kind, list) and "object" in kind)


def add_any_of(kept: dict[str, Any], branches: Any) -> None:
    """Adds an anyOf. If there is one already, an allOf holds the value to both."""
    if "anyOf" in kept:
        kept["allOf"] = [*kept.get("allOf", []), {"anyOf": branches}]
    else:
        kept["anyOf"] = branches


def drop_dependents(node: Mapping[str, Any], kept: dict[str, Any]) -> None:
    """Drops keywords that would admit less once a keyword beside them is left out."""
    if any(keyword in node and keyword not in kept for keyword in OF_OBJECTS[:2]):
        kept.pop("additionalProperties", None)
    if "prefixItems" in node and "prefixItems" not in kept:
        kept.pop("items", None)


def is_number(value: object) -> bool:
    """Returns whether a value of JSON is a finite number."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def are_strings(value: object) -> bool:
    """Returns whether a value of JSON is a list of strings."""
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
