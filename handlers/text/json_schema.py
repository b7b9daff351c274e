"""What a JSON schema may cost to compile, and the style of the JSON that is written under it.

llguidance bounds the grammar that a schema becomes, not the work of making it: below are the
schemas that took it minutes, gigabytes or its stack. Knows schemas as JSON and llguidance's option
names, not its calls. Used by enforceable_schema.py.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from handlers.errors import InvalidRequest
from handlers.text.reference_chains import longest_chain
from handlers.text.schema_references import References, inner, objects

if TYPE_CHECKING:
    from collections.abc import Mapping

# The spaces of Python's json.dumps, which chat templates and training data use, and no others: a
# small model that may write blanks may write nothing else, and with one spelling the engine
# takes keys and punctuation as forced ids, without a choice.
JSON_STYLE = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}

# Compiling takes time and memory that grow with the source. The largest schema that OpenAI accepts
# has 5,000 properties, and 120,000 characters of names and values.
MAX_SOURCE = 512 * 1024
# As many as OpenAI allows. Those of one object take time with their square: 5,000 take 0.5 s.
MAX_PROPERTIES = 5_000
# Each is compared with each: 100 take 0.1 s, 500 more than 20 s.
MAX_PATTERNS = 100
# A state for every remainder: 10,000 take 0.1 s, 1,000,000 take 25 s and 400 MB. allOf multiplies,
# several schemas add: 30 tools of 9,973 and less take 4 s.
MAX_MULTIPLE = 10_000
MAX_DEPTH = 100
# Objects and lists that one chain of $ref can lead through. 2,400 compile with a stack of 8 MB;
# 4,800 overflow it, which ends the process.
MAX_LEVELS = 600
TOGETHER = "with the other schemas of the request"


class Budget:
    """What the schemas of one grammar may cost together: a request can have 128 tools."""

    def __init__(self) -> None:
        self._characters = 0
        self._properties = 0
        self._patterns = 0
        self._multiples: set[int] = set()
        """The least common multiple of each schema before. The same twice costs no more."""
        self._multiple = 1
        """The least common multiple of the schema that is being read, so far."""

    def begin(self, schema: Mapping[str, Any]) -> References:
        """Counts another schema in, and gives its references.

        Raises InvalidRequest where it would take too long to compile. Every check takes time in
        proportion to the schema. The depth is checked first, without recursion: what comes after
        may use recursion, as json.dumps does.
        """
        check_depth(schema)
        self._characters += len(json.dumps(schema))
        _at_most(MAX_SOURCE, f"characters {TOGETHER}", self._characters)
        self._properties += _properties(schema)
        _at_most(MAX_PROPERTIES, f"properties {TOGETHER}", self._properties)
        references = References(schema)
        chain = longest_chain(schema, references)
        _at_most(MAX_LEVELS, "levels in a chain of its $ref", chain)
        self._multiples |= {self._multiple} - {1}
        self._multiple = 1
        return references

    def patterns(self, count: int) -> str:
        """Counts more patternProperties in. Says what is then too much, empty for nothing."""
        if self._patterns + count > MAX_PATTERNS:
            return f"more than {MAX_PATTERNS:,} patternProperties {TOGETHER}"
        self._patterns += count
        return ""

    def multiple_of(self, number: float) -> str:
        """Counts a multipleOf in. Says what is then too much, empty for nothing."""
        multiple = math.lcm(self._multiple, _digits(number))
        if sum(self._multiples | {multiple}) > MAX_MULTIPLE:
            return f"a least common multiple of all multipleOf above {MAX_MULTIPLE:,}"
        self._multiple = multiple
        return ""


def check_depth(schema: object) -> None:
    """Raises InvalidRequest for a schema that is nested too deeply to be read by recursion."""
    depth, level = 0, [schema]
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [each for outer in level for each in inner(outer)]
    _at_most(MAX_DEPTH, "levels", depth)


def _properties(schema: Mapping[str, Any]) -> int:
    found = (each.get("properties") for each in objects(schema))
    return sum(len(value) for value in found if isinstance(value, dict))


def _digits(number: float) -> int:
    """The number's digits as a whole number: its decimal point costs nothing."""
    if isinstance(number, int) or number.is_integer():
        return int(number)
    return int(repr(number).partition("e")[0].replace(".", ""))


def _at_most(limit: int, what: str, count: int) -> None:
    if count > limit:
        raise InvalidRequest(
            f"The JSON schema cannot be used: it may have {limit:,} {what}, but has more. "
            "Make it smaller."
        )
