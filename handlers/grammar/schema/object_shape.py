"""Reads from a schema that is enforced which members an object has.

For the styles of arguments that are not JSON. A part of a schema that these styles cannot follow is
refused in a strict schema and left out of another.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from handlers.grammar.schema.keywords import OF_OBJECTS
from handlers.grammar.schema.relax import EnforceableSchema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from handlers.grammar.schema.references import Path
    from handlers.grammar.schema.strictness import Strictness

REFERENCE = re.compile(r'"#/\$defs/(d\d+)"')
# Keywords that are followed, or say nothing.
STRUCTURE = frozenset({"$ref", "allOf", "type", "required", "$defs", "$schema"})
DEFINITION = "#/$defs/"
TYPES_IN_ORDER = ("null", "boolean", "integer", "number", "string", "array", "object")
STYLE = "in the style of this model's tool calls"

Placed = tuple[Any, "Path"]
"""A schema, and its path in the given schema."""


class Property(msgspec.Struct, frozen=True):
    """A property of an object."""

    name: str
    schema: Any
    path: Path
    required: bool


class ObjectShape(msgspec.Struct, frozen=True):
    """The members that an object may have."""

    properties: Sequence[Property]
    known: frozenset[str]
    """The names of properties, those that an object may not have included."""
    others: Placed
    """The schema of members with other names, False for none."""


class SchemaReader:
    """Reads one schema, with its definitions."""

    def __init__(self, source: EnforceableSchema, strictness: Strictness) -> None:
        self.strictness = strictness
        self.root: Placed = (source.schema, ())
        self._source = source
        self._definitions: Mapping[str, Any] = source.schema.get("$defs", {})
        self._types: dict[int, list[str]] = {}
        """The types of the schemas that were asked for, by their identity."""
        texts = {name: msgspec.json.encode(each).decode() for name, each in self._named()}
        self._leads_to = {name: set(REFERENCE.findall(text)) for name, text in texts.items()}

    def target(self, reference: str) -> Placed:
        """Returns what a reference leads to."""
        name = reference.removeprefix(DEFINITION)
        return self._definitions[name], self._source.origins[name]

    def inline(self, schema: Any, path: Path) -> EnforceableSchema:
        """Returns a part of the schema as one of its own, with the definitions that it leads to."""
        whole = dict(schema) if isinstance(schema, dict) else {} if schema else {"enum": []}
        whole.pop("$defs", None)
        waiting = set(REFERENCE.findall(msgspec.json.encode(whole).decode()))
        reached: dict[str, Any] = {}
        while waiting:
            name = waiting.pop()
            reached[name] = self._definitions[name]
            waiting |= self._leads_to[name] - reached.keys()
        if reached:
            whole["$defs"] = dict(sorted(reached.items()))
        if "$schema" in self._source.schema:
            whole["$schema"] = self._source.schema["$schema"]
        origins = {name: self._source.origins[name] for name in reached}
        return EnforceableSchema(whole, self._source.strict, origins, path)

    def parts(self, schema: Any, path: Path) -> list[Placed]:
        """Returns the schemas that a value has to fit: itself, its `$ref` and its `allOf`."""
        found: list[Placed] = []
        waiting: list[Placed] = [(schema, path)]
        seen = set()
        while waiting:
            node, place = waiting.pop(0)
            if node is False:
                self.omit(place, f"a schema that no value fits {STYLE}")
            if not isinstance(node, dict) or id(node) in seen:
                continue
            seen.add(id(node))
            found.append((node, place))
            if "$ref" in node:
                waiting.append(self.target(node["$ref"]))
            waiting += (
                (each, (*place, "allOf", i)) for i, each in enumerate(node.get("allOf", ()))
            )
        return found

    def shapes(self, schema: Any, path: Path) -> list[ObjectShape]:
        """Returns the shapes of which an object of a schema has one."""
        return self.shapes_of(self.parts(schema, path))

    def shapes_of(self, parts: Sequence[Placed], seen: set[int] | None = None) -> list[ObjectShape]:
        """Returns the shapes of which an object that fits all parts has one.

        `seen`: the branches that are read already. Again they would add nothing, and a union that
        leads to itself, or to others twice, would have no end.
        """
        seen = set() if seen is None else seen
        named = any(keyword in node for node, _ in parts for keyword in OF_OBJECTS)
        for node, place in parts:
            for keyword in ("enum", "const"):
                if keyword in node:
                    self.omit((*place, keyword), f"{keyword} of objects {STYLE}")
            if "anyOf" in node and named:
                self.omit((*place, "anyOf"), f"anyOf beside properties {STYLE}")
            elif "anyOf" in node:
                return [
                    shape
                    for index, each in enumerate(node["anyOf"])
                    if _may_be_object(each) and is_new(each, seen)
                    for shape in self.shapes_of(self.parts(each, (*place, "anyOf", index)), seen)
                ]
        return [self._shape(parts)]

    def types(self, schema: Any, path: Path) -> list[str]:
        """Returns the types that values of a schema may have, all where it leads to itself."""
        if id(schema) not in self._types:
            self._types[id(schema)] = [*TYPES_IN_ORDER]
            self._types[id(schema)] = self._read_types(schema, path)
        return self._types[id(schema)]

    def _read_types(self, schema: Any, path: Path) -> list[str]:
        parts = self.parts(schema, path)
        types = types_of(parts)
        values = values_of(parts)
        if values is not None:
            types = [kind for kind in types if of_types(values, [kind])]
        union = union_of(parts)
        if union is not None and not any(key in node for node, _ in parts for key in OF_OBJECTS):
            of_branches = {
                kind
                for index, each in enumerate(union[0])
                if each is not False
                for kind in self.types(each, (*union[1], index))
            }
            if "number" in of_branches:
                of_branches.add("integer")
            types = [kind for kind in types if kind in of_branches]
        return types

    def hold_to(self, parts: Sequence[Placed], keywords: Sequence[str]) -> None:
        """Reports what stands beside the only keywords of some parts that are enforced."""
        found = [key for node, _ in parts for key in keywords if key in node]
        for node, path in parts:
            for keyword in node.keys() - STRUCTURE - {*found[:1]}:
                self.omit((*path, keyword), f"{keyword} beside {found[0]} {STYLE}")
        if found.count(found[0]) > 1:
            self.omit(parts[0][1], f"{found[0]} in several schemas {STYLE}")

    def omit(self, path: Path, what: str) -> None:
        """Reports a part that is left out. Raises InvalidRequest if the schema is strict."""
        self.strictness.refuse_or_omit(path, what)

    def _shape(self, parts: Sequence[Placed]) -> ObjectShape:
        required = dict.fromkeys(name for node, _ in parts for name in node.get("required", ()))
        properties: dict[str, Property] = {}
        for node, path in parts:
            for name, each in node.get("properties", {}).items():
                at = (*path, "properties", name)
                if name in properties:
                    self.omit(at, f"a property of several schemas {STYLE}")
                elif each is not False:
                    properties[name] = Property(name, each, at, name in required)
            if node.get("patternProperties"):
                self.omit((*path, "patternProperties"), f"patternProperties {STYLE}")
        others = self._others(parts)
        for name in required:
            if name not in properties:
                schema, path = others if others[0] is not False else (True, ())
                properties[name] = Property(name, schema, path, True)
        self._check_counts(parts, len(required), len(properties), others[0] is not False)
        known = {name for node, _ in parts for name in node.get("properties", ())}
        return ObjectShape([*properties.values()], frozenset(known | required.keys()), others)

    def _others(self, parts: Sequence[Placed]) -> Placed:
        names = {name for node, _ in parts for name in node.get("properties", ())}
        for node, path in parts:
            own = node.get("properties", {}).keys()
            if node.get("additionalProperties", True) not in (True, {}) and names - own:
                at = (*path, "additionalProperties")
                self.omit(at, f"additionalProperties beside properties of other schemas {STYLE}")
        given = [
            (node["additionalProperties"], (*path, "additionalProperties"))
            for node, path in parts
            if "additionalProperties" in node
        ]
        closed = (each for each in given if each[0] is False)
        patterns = any(node.get("patternProperties") for node, _ in parts)
        default: Placed = (True, parts[0][1] if parts else ())
        return default if patterns else next(closed, given[0] if given else default)

    def _check_counts(
        self, parts: Sequence[Placed], required: int, listed: int, is_open: bool
    ) -> None:
        for node, path in parts:
            if node.get("minProperties", 0) > required:
                self.omit((*path, "minProperties"), f"minProperties {STYLE}")
            if "maxProperties" in node and (is_open or node["maxProperties"] < listed):
                self.omit((*path, "maxProperties"), f"maxProperties {STYLE}")

    def _named(self) -> Iterator[tuple[str, Any]]:
        yield from self._definitions.items()


def is_new(schema: Any, seen: set[int]) -> bool:
    """Returns whether a branch is not among those seen, and adds it to them."""
    if id(schema) in seen:
        return False
    seen.add(id(schema))
    return True


def _may_be_object(schema: object) -> bool:
    kinds = schema.get("type", "object") if isinstance(schema, dict) else "object"
    return schema is not False and "object" in ([kinds] if isinstance(kinds, str) else kinds)


def values_of(parts: Iterable[Placed]) -> list[Any] | None:
    """Returns the values of the first enum or const, None where there is none."""
    for node, _ in parts:
        if "const" in node:
            return [node["const"]]
        if "enum" in node:
            values: list[Any] = node["enum"]
            return values
    return None


def of_types(values: Iterable[Any], types: Sequence[str]) -> list[Any]:
    """Returns the values of the types."""
    kinds: dict[type, set[str]] = {
        type(None): {"null"},
        bool: {"boolean"},
        str: {"string"},
        list: {"array"},
        dict: {"object"},
    }
    numbers = {"number", "integer"}
    return [each for each in values if not kinds.get(type(each), numbers).isdisjoint(types)]


def union_of(parts: Iterable[Placed]) -> tuple[list[Any], Path] | None:
    """Returns the branches of the first anyOf, and their path, None where there is none."""
    return next(((node["anyOf"], (*at, "anyOf")) for node, at in parts if "anyOf" in node), None)


def types_of(parts: Iterable[Placed]) -> list[str]:
    """Returns the types that all parts allow. An integer is a number."""
    types = [*TYPES_IN_ORDER]
    for node, _ in parts:
        given = node.get("type", TYPES_IN_ORDER)
        allowed = {given} if isinstance(given, str) else {*given}
        if "number" in allowed:
            allowed.add("integer")
        types = [kind for kind in types if kind in allowed]
    return [kind for kind in types if kind != "integer" or "number" not in types]
