"""Finds by trial which part of a schema does not compile, and leaves it out.

The keywords that no grammar can enforce are known (relax.py). Whether a pattern can be read, two
constraints can be met together or properties be counted, only compiling shows.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from handlers.errors import InvalidRequest
from handlers.grammar.errors import TOO_COMPLEX
from handlers.grammar.schema.strictness import schema_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from handlers.grammar.schema.references import Path
    from handlers.grammar.schema.relax import EnforceableSchema

# Of all schemas of a request. A trial takes half a millisecond, and more with the schema's size.
MAX_TRIALS = 1_000
MAX_TRIED = 2**20  # characters
MAX_SECONDS = 2.0  # of one core: a trial of a schema that is costly may take as long by itself

# Keywords that are left out together. The groups are tried in this order, from those whose loss
# costs the schema least to those whose loss costs it most.
GROUPS = (
    ("minProperties", "maxProperties"),
    ("pattern",),
    ("format",),
    ("multipleOf",),
    ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("required",),
    ("patternProperties", "additionalProperties"),
    ("items", "prefixItems", "additionalItems"),
    ("const",),
    ("enum",),
    ("$ref",),
    ("anyOf",),
    ("allOf",),
    ("properties", "patternProperties", "additionalProperties"),
    ("type",),
)
SINGLE = ("items", "additionalProperties", "additionalItems")
LISTS = ("allOf", "anyOf", "prefixItems", "items")
MAPS = ("properties", "patternProperties")


class _Exhausted(Exception):
    """Ends a search: all trials are used up, or one costs too much."""


class Trials:
    """Compiles schemas on trial, up to a number, a size and a time in all."""

    def __init__(self, compile_error: Callable[[dict[str, Any]], str]) -> None:
        """`compile_error` returns why a schema does not compile, empty if it does."""
        self._compile_error = compile_error
        self._left = MAX_TRIALS
        self._characters_left = MAX_TRIED
        self._seconds_left = MAX_SECONDS

    def reason(self, schema: dict[str, Any]) -> str:
        """Returns why the schema does not compile, empty if it does. Raises _Exhausted."""
        self._left -= 1
        self._characters_left -= len(json.dumps(schema))
        if self._left < 0 or self._characters_left < 0 or self._seconds_left < 0:
            raise _Exhausted
        begun = time.thread_time()
        reason = self._compile_error(schema)
        self._seconds_left -= time.thread_time() - begun
        if reason == TOO_COMPLEX:  # each such trial may take a second
            raise _Exhausted
        return reason


class Repair:
    """Searches one schema for the parts that do not compile."""

    def __init__(self, source: EnforceableSchema, trials: Trials) -> None:
        self._origins = source.origins
        self._path = source.path
        self._root = {name: each for name, each in source.schema.items() if name != "$defs"}
        self._definitions: dict[str, Any] = dict(source.schema.get("$defs", {}))
        self._trials = trials

    def repaired(self, report: Callable[[str], None]) -> dict[str, Any]:
        """Returns the schema without what does not compile; any object if nothing else helps.

        The result may still not compile, if it costs too much.
        """
        try:
            return self._searched(report)
        except _Exhausted:
            report("a whole schema, in which more is at fault than is looked for")
            return {"type": "object"} if self._root.get("type") == "object" else {}

    def schema_error(self, reason: str) -> InvalidRequest:
        """Returns the error that refuses the schema, with the innermost part that does not compile.

        `reason`: why the whole schema does not compile, for the case that no part is found.
        """
        units = [
            (self._root, self._path),
            *((self._definitions[n], p) for n, p in self._origins.items()),
        ]
        try:
            for alone in (True, False):
                for unit, path in units:
                    if self._reason(unit, alone):
                        return schema_error(*self._innermost(unit, path, alone))
        except _Exhausted:
            pass
        return schema_error(self._path, reason)

    def _searched(self, report: Callable[[str], None]) -> dict[str, Any]:
        """Tries each part without its references first, then with all that it refers to.

        In one pass a part could be blamed for a fault of another that it refers to.
        """
        for alone in (True, False):
            for name, definition in self._definitions.items():
                self._definitions[name] = self._repaired(definition, report, alone)
            root = self._repaired(self._root, report, alone)
            if not isinstance(root, dict) or root.get("type") != self._root.get("type"):
                raise _Exhausted  # a tool's arguments have to stay an object
            self._root = root
        return self._with_definitions(self._root)

    def _repaired(self, node: Any, report: Callable[[str], None], alone: bool) -> Any:
        """Returns the node without what does not compile. `alone`: as for _reason."""
        reason = self._reason(node, alone)
        if not reason:
            return node
        node = {keyword: _copied(value) for keyword, value in node.items()}
        for keyword, place, child in list(_children(node)):
            if place is None:
                node[keyword] = self._repaired(child, report, alone)
            else:
                node[keyword][place] = self._repaired(child, report, alone)
        if not self._reason(node, alone):
            return node
        for group, rest in _lighter(node):
            if not self._reason(rest, alone):
                report(f"{' and '.join(group)}: {reason}")
                return rest
        report(f"a part of a schema: {reason}")
        return True

    def _innermost(self, node: Any, path: Path, alone: bool) -> tuple[Path, str]:
        """Returns the path of the innermost part that does not compile, and why it does not."""
        reason = self._reason(node, alone)
        for keyword, place, child in _children(node):
            if self._reason(child, alone):
                inner = (*path, keyword, *([] if place is None else [place]))
                return self._innermost(child, inner, alone)
        for group, rest in _lighter(node):
            if not self._reason(rest, alone):
                keyword = next(each for each in group if each in node)
                return (*path, keyword), reason
        return path, reason

    def _reason(self, node: Any, alone: bool) -> str:
        """Returns why the node does not compile, empty if it does.

        `alone`: its references are taken to lead to anything.
        """
        if isinstance(node, bool):
            return ""  # false stands where it allows nothing on purpose
        schema = _without_references(node) if alone else self._with_definitions(node)
        return self._trials.reason(schema)

    def _with_definitions(self, node: dict[str, Any]) -> dict[str, Any]:
        return {**node, "$defs": self._definitions} if self._definitions else node


def _children(node: dict[str, Any]) -> Iterator[tuple[str, str | int | None, dict[str, Any]]]:
    """Yields the schemas in a schema, each with its keyword and its name or position there."""
    for keyword, value in node.items():
        if keyword in SINGLE and isinstance(value, dict):
            yield keyword, None, value
        elif keyword in LISTS and isinstance(value, list):
            for place, each in enumerate(value):
                if isinstance(each, dict):
                    yield keyword, place, each
        elif keyword in MAPS and isinstance(value, dict):
            for name, each in value.items():
                if isinstance(each, dict):
                    yield keyword, name, each


def _without_references(value: Any) -> Any:
    """Returns the value without any `$ref`.

    In data, such as the values of an enum, a `$ref` is no reference. To leave it out there changes
    nothing about whether the schema compiles.
    """
    if isinstance(value, dict):
        named = {name: each for name, each in value.items() if not _is_reference(name, each)}
        return {name: _without_references(each) for name, each in named.items()}
    return [_without_references(each) for each in value] if isinstance(value, list) else value


def _is_reference(name: str, value: object) -> bool:
    return name == "$ref" and isinstance(value, str)


def _copied(value: Any) -> Any:
    return (
        dict(value) if isinstance(value, dict) else value[:] if isinstance(value, list) else value
    )


def _lighter(node: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yields each group of keywords that the schema has, and the schema without them."""
    for group in GROUPS:
        if any(keyword in node for keyword in group):
            rest = {keyword: value for keyword, value in node.items() if keyword not in group}
            yield tuple(each for each in group if each in node), rest
