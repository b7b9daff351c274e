"""Whether the branches of a `oneOf` exclude one another, so that `anyOf` means the same.

Reads `type`, `const`, `enum`, `properties` and `required`. Called by enforceable_schema.py.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Properties and values of a branch that are looked at: every union looks at all its branches.
MOST_TAGS = 4
MOST_VALUES = 64


def are_disjoint(schemas: Sequence[dict[str, Any]]) -> bool:
    """Whether no value fits two schemas, as far as their types or one property's values show."""
    return _are_apart([_values(schema) for schema in schemas]) or any(
        _tells_apart(name, schemas) for name in _tags(schemas[0])
    )


def _tags(schema: Mapping[str, Any]) -> list[str]:
    """The first few of an object's properties that have a value of their own."""
    properties = schema.get("properties")
    named = properties.items() if isinstance(properties, dict) else ()
    tags = (
        name
        for name, each in named
        if isinstance(each, dict) and ("const" in each or "enum" in each)
    )
    return list(islice(tags, MOST_TAGS))


def _tells_apart(name: str, schemas: Sequence[dict[str, Any]]) -> bool:
    """Whether the property has to be there in all but one, with other values in each."""
    properties = [schema.get("properties") for schema in schemas]
    if not all(schema.get("type") == "object" for schema in schemas):
        return False
    groups = [_values(each.get(name)) for each in properties if isinstance(each, dict)]
    if len(groups) < len(schemas) or not _are_apart(groups):
        return False
    required = [schema.get("required") for schema in schemas]
    return sum(isinstance(each, list) and name in each for each in required) >= len(schemas) - 1


def _values(schema: object) -> list[object] | None:
    """The values that a schema lists, else its types. None where it says neither."""
    if not isinstance(schema, dict):
        return None
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        if len(values) > MOST_VALUES or any(isinstance(each, dict | list) for each in values):
            return None  # equal objects may be written in several ways
        return [(type(value).__name__, str(value)) for value in values]
    kind = schema.get("type")
    kinds = [kind] if isinstance(kind, str) else kind
    are_texts = isinstance(kinds, list) and all(isinstance(each, str) for each in kinds)
    return kinds if are_texts and kinds else None


def _are_apart(groups: list[list[object] | None]) -> bool:
    """Whether no value is in two of the groups. False for values beside types, and for None."""
    known = [group for group in groups if group is not None]
    if len(known) < len(groups):
        return False
    kinds = {type(each) for group in known for each in group}
    if len(kinds) != 1:
        return False
    each = [value for group in known for value in {_plain(one) for one in group}]
    return len(set(each)) == len(each)


def _plain(value: object) -> object:
    """The same for what JSON Schema takes for equal: an integer is a number, and 1 is 1.0."""
    if value == "integer":
        return "number"
    if isinstance(value, tuple) and value[0] in ("int", "float"):
        return ("number", float(value[1]))
    return value
