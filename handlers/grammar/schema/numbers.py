"""The numbers of a JSON schema that a grammar can hold to exactly.

llguidance reads each as a double and rounds the bounds of an integer to 64 bits: it would write
other digits than a large `const` has, and a `const` of -2^63 overflows its stack, which ends the
process. Knows numbers and the keywords that bound them. Used by enforceable_schema.py.
"""

from __future__ import annotations

# Beyond it a double rounds, in llguidance as in JavaScript.
LARGEST = 2**53
# A bound with more than 80 decimals becomes a pattern that is nested too deeply.
SMALLEST = 1e-60
BEYOND = "beyond 2^53 or nearer to zero than 1e-60"
# A pattern for the numbers up to it is made in 64 bits.
LARGEST_POWER = 18
UPPER = frozenset({"maximum", "exclusiveMaximum"})


def is_exact(number: float) -> bool:
    """Whether a grammar has the number as it is."""
    size = abs(number)
    return size <= LARGEST and (number == int(number) or size >= SMALLEST)


def are_exact(value: object) -> bool:
    """Whether a grammar has all numbers in a value of JSON as they are."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, int | float) and not is_exact(each):
            return False
    return True


def tightened(keyword: str, bound: float) -> int | None:
    """A bound with no more digits than the given one, and exact; None where that would differ much.

    For the limits of 64 bits, which Go and Java write: numbers of 18 digits are left of them.
    """
    if not _keeps_zero(keyword, bound) or not LARGEST < abs(bound) <= 2**64:
        return None
    power = min(len(str(int(abs(bound)))) - 1, LARGEST_POWER)
    size: int = max(LARGEST, 10**power)
    return size if bound > 0 else -size


def is_endless(keyword: str, bound: float) -> bool:
    """Whether a bound is so far from zero that it says no more than a type of 64 bits does."""
    return _keeps_zero(keyword, bound) and abs(bound) >= 2**63 - 1


def _keeps_zero(keyword: str, bound: float) -> bool:
    return (bound > 0) == (keyword in UPPER)
