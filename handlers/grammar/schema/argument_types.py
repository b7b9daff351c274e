"""Tells which arguments of a tool are strings, for models that write strings without quotes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

TYPES = {str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}

STRING = frozenset({"string"})


# Schemas, values and steps of references that are read for one tool: 30 ms. Arguments that share a
# definition could otherwise have each of its parts read again.
MAX_STEPS = 10_000


def string_arguments(schema: Mapping[str, Any], types: frozenset[str] = STRING) -> frozenset[str]:
    """Returns the properties of an object's schema whose values are of exactly these types.

    Those that MAX_STEPS do not suffice for are left out.
    """
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return frozenset()
    reader = _TypeReader(schema)
    return frozenset(name for name, value in properties.items() if reader.types(value) == types)


class _TypeReader:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._steps_left = MAX_STEPS

    def types(self, schema: object) -> frozenset[str] | None:
        """Returns the types of the values that a schema takes, None where it does not say."""
        types: set[str] = set()
        waiting: list[object] = [schema]
        seen: set[int] = set()
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if not isinstance(node, Mapping):
                return None
            self._steps_left -= _size(node)
            if self._steps_left < 0:
                return None
            choices = _choices(node, self._root)
            found = () if choices else _own_types(node)
            if found is None:
                return None
            types.update(found)
            waiting += choices
        return frozenset(types)


def _size(node: Mapping[str, Any]) -> int:
    """Returns the steps that reading a schema takes, without its branches."""
    values, reference = node.get("enum"), node.get("$ref")
    steps = len(values) if isinstance(values, list) else 1
    return steps + (reference.count("/") if isinstance(reference, str) else 0)


def _choices(node: Mapping[str, Any], root: Mapping[str, Any]) -> list[object]:
    """Returns the schemas of which a value fulfils one, none for a schema that names a type."""
    if isinstance(node.get("$ref"), str):
        return [_target(node["$ref"], root)]
    for union in ("anyOf", "oneOf"):
        if isinstance(node.get(union), list):
            return list(node[union])
    parts = node.get("allOf")
    return parts if isinstance(parts, list) and len(parts) == 1 else []


def _own_types(node: Mapping[str, Any]) -> Iterable[str] | None:
    if "const" in node or isinstance(node.get("enum"), list):
        values = [node["const"]] if "const" in node else node["enum"]
        return [TYPES.get(type(value), "other") for value in values]
    kind = node.get("type")
    if isinstance(kind, list):
        return map(str, kind)
    return [kind] if isinstance(kind, str) else None


def _target(reference: str, root: Mapping[str, Any]) -> object:
    """Returns the schema that a reference within the same schema points to, None for no such."""
    if not reference.startswith("#/"):
        return None
    target: object = root
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        target = target.get(name) if isinstance(target, Mapping) else None
    return target
