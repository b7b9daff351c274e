"""Patterns and formats of strings: how many one value has to match, and their white space.

Each further pattern doubles the time in which llguidance finds whether any text matches all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.grammar.schema.keywords import FORMATS
from handlers.grammar.schema.strictness import shown

if TYPE_CHECKING:
    from handlers.grammar.schema.references import Path
    from handlers.grammar.schema.strictness import Strictness

# Of patterns and formats that one value has to match: 16 take a second, 30 take minutes and
# gigabytes.
MAX_PATTERNS_OF_VALUE = 2


class PatternCount:
    """Counts the patterns that a value has to match in all schemas that constrain it."""

    def __init__(
        self, patterns: int = 0, conjoined: bool = False, base: PatternCount | None = None
    ) -> None:
        """`conjoined`: whether it is a part of a value that several schemas constrain.

        `base`: the value of which this is one alternative; its parts are looked up there.
        """
        self.patterns = patterns
        self.conjoined = conjoined
        self.parts: dict[str, PatternCount] = {}
        self._base = base

    def part(self, name: str, conjoined: bool) -> PatternCount:
        """Returns the count of a part of this value, by the name that its schemas have for it."""
        if name not in self.parts:
            known = self._base.known(name) if self._base else None
            self.parts[name] = (
                known.branch() if known else PatternCount(0, conjoined or self.conjoined)
            )
        return self.parts[name]

    def known(self, name: str) -> PatternCount | None:
        """Returns the count of that part, None if no schema constrains it yet."""
        return self.parts.get(name) or (self._base.known(name) if self._base else None)

    def branch(self) -> PatternCount:
        """Returns a count for one of several alternatives, of which one alone has to match."""
        return PatternCount(self.patterns, self.conjoined, self)

    def merge(self, branch: PatternCount) -> None:
        """Raises this count, and those of its parts, to those of an alternative."""
        self.patterns = max(self.patterns, branch.patterns)
        for name, part in branch.parts.items():
            self.part(name, part.conjoined).merge(part)


def kept_pattern(
    keyword: str, given: object, path: Path, count: PatternCount, strictness: Strictness
) -> object:
    """Returns what is enforced of a `pattern` or a `format`, and counts it in."""
    if not isinstance(given, str) or (keyword == "format" and given not in FORMATS):
        return strictness.refuse_or_omit(path, f"{keyword} {shown(given)}")
    if count.patterns >= MAX_PATTERNS_OF_VALUE:
        return strictness.refuse_or_omit(
            path, f"more than {MAX_PATTERNS_OF_VALUE} patterns and formats of one value"
        )
    count.patterns += 1
    return with_ascii_spaces(given) if keyword == "pattern" else given


def with_ascii_spaces(pattern: str) -> str:
    r"""Returns the pattern with ASCII's white space in place of `\s`, on which all readers agree.

    In ECMA's and Python's expressions `\s` matches spaces of Unicode's too, in Go's and Java's it
    does not. `\S`, and `\s` in a negated class, stay Unicode's, which leaves them the fewest
    characters: what is written then matches for every validator. `\d` and `\w` need no such care,
    since llguidance reads them as ASCII's, as ECMA does.
    """
    if "\\s" not in pattern:
        return pattern
    text, escaped, negated, in_class = "", False, False, False
    for place, character in enumerate(pattern):
        if escaped:
            escaped = False
            text += r"[ \t\n\r\f\v]" if character == "s" and not negated else f"\\{character}"
            continue
        escaped = character == "\\"
        if character == "[" and not in_class:
            in_class, negated = True, pattern[place + 1 : place + 2] == "^"
        elif character == "]":
            in_class = negated = False
        text += "" if escaped else character
    return text
