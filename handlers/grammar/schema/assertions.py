"""Keywords without schemas in them: types, required names, enumerations, counts and numbers.

llguidance reads each number as a double and rounds the bounds of an integer to 64 bits: it would
write other digits than a large `const` has, and a `const` of -2^63 overflows its stack, which ends
the process. So only numbers that it has exactly are enforced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from handlers.grammar.schema.keywords import TYPES, are_strings, is_number
from handlers.grammar.schema.strictness import OMITTED, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from handlers.grammar.schema.limits import Budget
    from handlers.grammar.schema.references import Path
    from handlers.grammar.schema.strictness import Strictness

COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
NUMBER_KEYWORDS = (*BOUNDS, "multipleOf")
UPPER_BOUNDS = frozenset({"maximum", "exclusiveMaximum"})
# Rust reads larger repetitions as a mistake.
MAX_COUNT = 2**32 - 2
# Beyond it a double rounds, in llguidance as in JavaScript.
MAX_EXACT = 2**53
# A bound with more than 80 decimals becomes a pattern that is nested too deeply.
MIN_EXACT = 1e-60
BEYOND = "beyond 2^53 or nearer to zero than 1e-60"
# A pattern for the numbers up to it is made in 64 bits.
MAX_POWER = 18


class Assertions:
    """Checks the assertions of one schema, of which OMITTED is left if they cannot be enforced."""

    def __init__(self, strictness: Strictness, budget: Budget) -> None:
        self._strictness = strictness
        self._budget = budget

    def kept(self, keyword: str, value: object, path: Path) -> object:
        """Returns what is enforced of a keyword. An annotation is omitted without a report."""
        if keyword in ("const", "enum") and not _are_exact(value):
            return self._omit(path, f"{keyword} with a number {BEYOND}")
        if keyword == "const":
            return value
        if keyword in COUNTS:
            return self._count(keyword, value, path)
        if keyword in BOUNDS and (is_number(value) or isinstance(value, bool)):
            return self._bound(keyword, value, path)
        if keyword == "multipleOf":
            return self._multiple_of(value, path)
        valid: dict[str, Callable[[], object]] = {
            "enum": lambda: isinstance(value, list) and value,
            "required": lambda: are_strings(value),
            "type": lambda: value in TYPES if isinstance(value, str) else _are_types(value),
        }
        if keyword in BOUNDS or (keyword in valid and not valid[keyword]()):
            return self._omit(path, f"{keyword} {shown(value)}")
        return value if keyword in valid else OMITTED

    def _count(self, keyword: str, value: object, path: Path) -> object:
        if is_number(value) and 0 <= value == int(value):  # type: ignore[operator, call-overload]
            count = int(value)  # type: ignore[call-overload]
            if count <= MAX_COUNT:
                return count
            if keyword.startswith("max"):
                return OMITTED  # no answer is as long
        return self._omit(path, f"{keyword} {shown(value)}")

    def _bound(self, keyword: str, value: Any, path: Path) -> object:
        if _is_exact(value):
            return value
        nearest = _tightened(keyword, value)
        if self._strictness.strict and nearest is not None:
            return nearest
        if not self._strictness.strict and _is_endless(keyword, value):
            return OMITTED
        return self._omit(path, f"{keyword} {shown(value)} (a number {BEYOND})")

    def _multiple_of(self, value: object, path: Path) -> object:
        if not is_number(value) or value <= 0:  # type: ignore[operator]
            return self._omit(path, f"multipleOf {shown(value)}")
        reason = self._budget.multiple_of(value)  # type: ignore[arg-type]
        return self._omit(path, reason) if reason else value

    def _omit(self, path: Path, what: str) -> object:
        return self._strictness.refuse_or_omit(path, what)


def _are_types(value: object) -> bool:
    return (
        isinstance(value, list) and are_strings(value) and bool(value) and TYPES.issuperset(value)
    )


def _is_exact(number: float) -> bool:
    """Returns whether a grammar has the number as it is."""
    size = abs(number)
    return size <= MAX_EXACT and (number == int(number) or size >= MIN_EXACT)


def _are_exact(value: object) -> bool:
    """Returns whether a grammar has all numbers in a value of JSON as they are."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, int | float) and not _is_exact(each):
            return False
    return True


def _tightened(keyword: str, bound: float) -> int | None:
    """Returns an exact bound that allows no more than the given one, None if far less.

    For the limits of 64 bits, which Go and Java write: numbers of 18 digits are left of them.
    """
    if not _allows_zero(keyword, bound) or not MAX_EXACT < abs(bound) <= 2**64:
        return None
    power = min(len(str(int(abs(bound)))) - 1, MAX_POWER)
    size: int = max(MAX_EXACT, 10**power)
    return size if bound > 0 else -size


def _is_endless(keyword: str, bound: float) -> bool:
    """Returns whether a bound is so far from zero that it says no more than a 64-bit type does."""
    return _allows_zero(keyword, bound) and abs(bound) >= 2**63 - 1


def _allows_zero(keyword: str, bound: float) -> bool:
    return (bound > 0) == (keyword in UPPER_BOUNDS)
