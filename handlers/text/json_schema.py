"""JSON schemas before they are compiled: the style of the JSON, and what would cost too much.

Knows schemas as JSON; does not know llguidance's calls, only its option names. Used by grammar.py
and tool_calls.py.
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

# llguidance builds a state for every remainder, outside all of its limits: 10,000 take 0.1 s,
# 1,000,000 take 25 s and 400 MB. `allOf` multiplies.
MAX_MULTIPLE = 10_000


def json_style(schema: Mapping[str, Any]) -> dict[str, Any]:
    """`schema` with llguidance's options for the whole of it, in place of any that it brings.

    They come with the defaults that refuse what cannot be enforced instead of ignoring it.
    Raises InvalidRequest for a schema that would take too long to compile.
    """
    multiple = 1
    for number in _multiples(schema):
        multiple = math.lcm(multiple, number)
        if multiple > MAX_MULTIPLE:
            raise InvalidRequest(
                f"The JSON schema cannot be used: the values of multipleOf have a least common "
                f"multiple above {MAX_MULTIPLE:,}, decimal points left out."
            )
    return {**schema, "x-guidance": JSON_STYLE}


def _multiples(schema: Mapping[str, Any]) -> Iterator[int]:
    """The digits of every multipleOf, without the decimal point."""
    waiting: list[object] = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
            number = value.get("multipleOf")
            if isinstance(number, int | float) and number > 0 and math.isfinite(number):
                yield _digits(number)
        elif isinstance(value, list):
            waiting += value


def _digits(number: float) -> int:
    if isinstance(number, int) or number.is_integer():
        return int(number)
    mantissa = repr(number).partition("e")[0]
    return int(mantissa.replace(".", ""))
