"""JSON schemas before they are compiled: the style of the JSON, and what would cost too much.

llguidance bounds the grammar that a schema becomes, not the work of making it: below are the
schemas that took it minutes, gigabytes or its stack. Knows schemas as JSON and llguidance's option
names, not its calls. Used by grammar.py and tool_calls.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The spaces of Python's json.dumps, which chat templates and training data use, and no others: a
# small model that may write blanks may write nothing else, and with one spelling the engine
# takes keys and punctuation as forced ids, without a choice.
JSON_STYLE = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}

# As many as OpenAI allows. Those of one object take time with their square: 5,000 take 0.5 s.
MAX_PROPERTIES = 5_000
# Each is compared with each: 100 take 0.1 s, 500 more than 20 s.
MAX_PATTERNS = 100
# A state for every remainder: 10,000 take 0.1 s, 1,000,000 take 25 s and 400 MB. allOf multiplies,
# several schemas add: 30 tools of 9,973 and less take 4 s.
MAX_MULTIPLE = 10_000
MAX_DEPTH = 100
# Levels of objects that one chain of $ref can lead through. 2,000 overflow a stack of 8 MB, which
# ends the process.
MAX_LEVELS = 600
TOGETHER = "with the other schemas of the request"


def json_style(schema: Mapping[str, Any]) -> dict[str, Any]:
    """`schema`, the one of its grammar, as Budget.json_style has it."""
    return Budget().json_style(schema)


class Budget:
    """What the schemas of one grammar may cost together: a request can have 128 tools."""

    def __init__(self) -> None:
        self._properties = 0
        self._patterns = 0
        self._multiples: set[int] = set()
        """One of each schema: the same again costs nothing."""

    def json_style(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """`schema` with llguidance's options for the whole of it, in place of any that it brings.

        They come with the defaults that refuse what cannot be enforced instead of ignoring it.
        Raises InvalidRequest for a schema that would take too long to compile.
        """
        # First: what follows walks the schema, and this walk alone needs no stack.
        _at_most(MAX_DEPTH, "levels", _depth(schema))
        objects = list(_objects(schema))
        self._spend(objects)
        references = {each["$ref"] for each in objects if isinstance(each.get("$ref"), str)}
        levels = sum(_depth(_target(schema, reference)) for reference in references)
        _at_most(MAX_LEVELS, "levels behind its $ref", levels)
        return {**schema, "x-guidance": JSON_STYLE}

    def _spend(self, objects: list[dict[str, Any]]) -> None:
        self._properties += _count(objects, "properties")
        self._patterns += _count(objects, "patternProperties")
        self._multiples |= {_multiple(objects)} - {1}
        _at_most(MAX_PROPERTIES, f"properties {TOGETHER}", self._properties)
        _at_most(MAX_PATTERNS, f"patternProperties {TOGETHER}", self._patterns)
        multiples = sum(self._multiples)
        _at_most(MAX_MULTIPLE, "as the least common multiple of all multipleOf", multiples)


def _depth(value: object) -> int:
    """Objects within objects."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [inner for outer in level for inner in _inner(outer)]
    return depth


def _objects(schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object in the schema, itself among them."""
    waiting: list[object] = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
        waiting += _inner(value)


def _inner(value: object) -> list[object]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for each in inner if isinstance(each, dict | list)]


def _count(objects: list[dict[str, Any]], keyword: str) -> int:
    found = (each.get(keyword) for each in objects)
    return sum(len(value) for value in found if isinstance(value, dict))


def _target(schema: object, reference: str) -> object:
    """What a JSON pointer leads to; the whole schema for any other reference."""
    if not reference.startswith("#/"):
        return schema
    target = schema
    for part in reference[2:].split("/"):
        if not isinstance(target, dict) or part not in target:
            return schema
        target = target[part]
    return target


def _multiple(objects: list[dict[str, Any]]) -> int:
    """The least common one; beyond the limit, any that is too large."""
    multiple = 1
    for each in objects:
        number = each.get("multipleOf")
        if isinstance(number, int | float) and number > 0 and math.isfinite(number):
            multiple = math.lcm(multiple, _digits(number))
        if multiple > MAX_MULTIPLE:
            break
    return multiple


def _digits(number: float) -> int:
    """Without the decimal point, which costs nothing."""
    if isinstance(number, int) or number.is_integer():
        return int(number)
    return int(repr(number).partition("e")[0].replace(".", ""))


def _at_most(limit: int, what: str, count: int) -> None:
    if count > limit:
        raise InvalidRequest(
            f"The JSON schema cannot be used: it may have {limit:,} {what}, but has more."
        )
