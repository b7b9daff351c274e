"""Finds whether the branches of a `oneOf` exclude one another, so that `anyOf` means the same."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Properties and values of a branch that are compared: every union compares all its branches.
MAX_TAGS = 4
MAX_VALUES = 64


def are_disjoint(schemas: Sequence[dict[str, Any]]) -> bool:
    """Returns whether no value fits two schemas, as their types or one property's values show."""
    return _are_apart([_values(schema) for schema in schemas]) or any(
        _tells_apart(name, schemas) for name in _tags(schemas[0])
    )


def _tags(schema: Mapping[str, Any]) -> list[str]:
    """Returns the first few of an object's properties that have a const or an enum."""
    properties = schema.get("properties")
    named = properties.items() if isinstance(properties, dict) else ()
    tags = (
        name
        for name, each in named
        if isinstance(each, dict) and ("const" in each or "enum" in each)
    )
    return list(islice(tags, MAX_TAGS))


def _tells_apart(name: str, schemas: Sequence[dict[str, Any]]) -> bool:
    """Returns whether all branches but one require the property, with other values in each."""
    properties = [schema.get("properties") for schema in schemas]
    if not all(schema.get("type") == "object" for schema in schemas):
        return False
    groups = [_values(each.get(name)) for each in properties if isinstance(each, dict)]
    if len(groups) < len(schemas) or not _are_apart(groups):
        return False
    required = [schema.get("required") for schema in schemas]
    return sum(isinstance(each, list) and name in each for each in required) >= len(schemas) - 1


def _values(schema: object) -> list[object] | None:
    """Returns the values that a schema lists, otherwise its types; None if it says neither."""
    if not isinstance(schema, dict):
        return None
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        if len(values) > MAX_VALUES or any(isinstance(each, dict | list) for each in values):
            return None  # equal objects may be written in several ways
        return [(type(value).__name__, str(value)) for value in values]
    kind = schema.get("type")
    kinds = [kind] if isinstance(kind, str) else kind
    are_texts = isinstance(kinds, list) and all(isinstance(each, str) for each in kinds)
    return kinds if are_texts and kinds else None


def _are_apart(groups: list[list[object] | None]) -> bool:
    """Returns whether no value is in two groups. False for values beside types, and for None."""
    known = [group for group in groups if group is not None]
    if len(known) < len(groups):
        return False
    kinds = {type(each) for group in known for each in group}
    if len(kinds) != 1:
        return False
    each = [value for group in known for value in {_plain(one) for one in group}]
    return len(set(each)) == len(each)


def _plain(value: object) -> object:
    """Returns the same for what JSON Schema takes as equal: integers are numbers, 1 is 1.0."""
    if value == "integer":
        return "number"
    if isinstance(value, tuple) and value[0] in ("int", "float"):
        return ("number", float(value[1]))
    return value
