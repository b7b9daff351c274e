"""The white space that a pattern of a JSON schema matches: ASCII's alone.

Called by enforceable_schema.py.
"""

from __future__ import annotations


def with_ascii_spaces(pattern: str) -> str:
    r"""Writes ASCII's white space in place of `\s`: all readers of a pattern agree on that.

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


class MatchedValue:
    """A value of which one schema or several speak, and how many expressions it has to match."""

    def __init__(
        self, expressions: int = 0, joined: bool = False, base: MatchedValue | None = None
    ) -> None:
        """`joined`: whether it is a part of a value of which several schemas speak.

        `base`: the value of which this is one alternative; its parts are looked up there.
        """
        self.expressions = expressions
        self.joined = joined
        self.parts: dict[str, MatchedValue] = {}
        self._base = base

    def part(self, name: str, joined: bool) -> MatchedValue:
        """The part of this value that schemas of it know by a name."""
        if name not in self.parts:
            known = self._base.known(name) if self._base else None
            self.parts[name] = known.branch() if known else MatchedValue(0, joined or self.joined)
        return self.parts[name]

    def known(self, name: str) -> MatchedValue | None:
        """The part of that name, None where no schema has spoken of it."""
        return self.parts.get(name) or (self._base.known(name) if self._base else None)

    def branch(self) -> MatchedValue:
        """The same value for one of several alternatives, of which one alone has to match."""
        return MatchedValue(self.expressions, self.joined, self)

    def take_over(self, branch: MatchedValue) -> None:
        """Asks for as much as an alternative does, where that is more."""
        self.expressions = max(self.expressions, branch.expressions)
        for name, part in branch.parts.items():
            self.part(name, part.joined).take_over(part)
