"""The patterns, formats and lengths of a JSON schema's strings, as regular expressions of Lark.

Where a string stands in an answer as it is, without JSON's quotes, llguidance's own reader of
schemas cannot be used for it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from handlers.grammar.errors import TOO_COMPLEX
from handlers.grammar.schema.object_shape import STYLE
from handlers.grammar.sources import lark_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from handlers.grammar.schema.object_shape import Placed, SchemaReader
    from handlers.grammar.schema.references import Path

# Of one core, for all patterns of a request.
MAX_SECONDS = 2.0
ANY = "(?s:.*)"
_DATE = (
    r"[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-9]))"
)
_HOUR = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_HOUR}:(?:[0-5][0-9]|60)(?:\.[0-9]+)?(?:[zZ]|[+-]{_HOUR})"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_HEX = "[0-9a-fA-F]{1,4}"
_PCHAR = r"(?:[a-zA-Z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2})"
_AUTHORITY = (
    r"(?:(?:[a-zA-Z0-9._~!$&'()*+,;=:-]|%[0-9a-fA-F]{2})*@)?"
    r"(?:\[[0-9a-fA-F:.]+\]|(?:[a-zA-Z0-9._~!$&'()*+,;=-]|%[0-9a-fA-F]{2})*)(?::[0-9]*)?"
)
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_ATOM = r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+"
_UNITS = r"(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)"
_CLOCK = r"T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)"
FORMAT_PATTERNS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"(?:{_DATE})[tT]{_TIME}",
    "duration": f"P(?:{_UNITS}(?:{_CLOCK})?|{_CLOCK}|[0-9]+W)",
    "email": rf"{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}(?:\.{_LABEL})*|\[{_IPV4}\])",
    "hostname": rf"{_LABEL}(?:\.{_LABEL})*",
    "ipv4": _IPV4,
    "ipv6": "|".join(
        [
            f"(?:{_HEX}:){{7}}{_HEX}",
            f"(?:{_HEX}:){{1,7}}:",
            *(f"(?:{_HEX}:){{1,{7 - size}}}(?::{_HEX}){{1,{size}}}" for size in range(1, 7)),
            f":(?::{_HEX}){{1,7}}",
            "::",
        ]
    ),
    "uuid": r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}",
    "uri": (
        rf"[a-zA-Z][a-zA-Z0-9+.-]*:(?://{_AUTHORITY}(?:/{_PCHAR}*)*|/?(?:{_PCHAR}+(?:/{_PCHAR}*)*)?)"
        rf"(?:\?(?:{_PCHAR}|[/?])*)?(?:\#(?:{_PCHAR}|[/?])*)?"
    ),
}
"""Those of llguidance's formats, without the rarer ways to write one."""


class PatternTrials:
    """Compiles patterns on trial, for a time in all, once the whole grammar has failed."""

    def __init__(self, compile_error: Callable[[str], str]) -> None:
        """`compile_error` returns why a grammar in Lark does not compile, empty if it does."""
        self._compile_error = compile_error
        self._reasons: dict[str, str] = {}
        self._seconds_left = MAX_SECONDS
        self.have_begun = False
        """Before, all patterns are taken to compile."""
        self.are_needed = False
        """Whether there are patterns."""

    def reason(self, terminal: str) -> str:
        """Returns why a terminal does not compile, empty if it does."""
        self.are_needed = True
        if not self.have_begun:
            return ""
        if terminal not in self._reasons:
            if self._seconds_left < 0:
                return TOO_COMPLEX
            begun = time.thread_time()
            self._reasons[terminal] = self._compile_error(f"start: T\nT: {terminal}")
            self._seconds_left -= time.thread_time() - begun
        return self._reasons[terminal]


class TextPatterns:
    """Finds the patterns that the strings of one schema have to match."""

    def __init__(self, reader: SchemaReader, trials: PatternTrials) -> None:
        self._reader = reader
        self._trials = trials

    def of(self, parts: Sequence[Placed], within: Callable[[Sequence[str]], str]) -> list[str]:
        """Returns the insides of regular expressions that a string of all parts has to match.

        `within` writes the terminal of texts that match patterns, on trial.
        """
        kept: list[str] = []
        for path, pattern in self._given(parts):
            why = self._trials.reason(within([*kept, pattern]))
            if why:
                self._reader.strictness.refuse_or_omit(path, f"{path[-1]} ({why})")
            else:
                kept.append(pattern)
        return kept

    def _given(self, parts: Sequence[Placed]) -> Iterator[tuple[Path, str]]:
        for node, path in parts:
            lengths = node.get("minLength", 0), node.get("maxLength", "")
            if lengths != (0, ""):
                keyword = "minLength" if "minLength" in node else "maxLength"
                yield (*path, keyword), f"(?s:.){{{lengths[0]},{lengths[1]}}}"
            for keyword in ("pattern", "format"):
                if keyword not in node:
                    continue
                given = node[keyword]
                pattern = anchored(given) if keyword == "pattern" else FORMAT_PATTERNS.get(given)
                if pattern is None:
                    self._reader.omit((*path, keyword), f"this {keyword} {STYLE}")
                else:
                    yield (*path, keyword), lark_pattern(pattern)


def anchored(pattern: str) -> str | None:
    """Returns an expression for whole texts in which the pattern, an unanchored one, matches.

    None where ^ or $ stand elsewhere than at the ends of an alternative.
    """
    alternatives = []
    for alternative in _alternatives(pattern):
        starts, ends = alternative[:1] == ["^"], alternative[-1:] == ["$"]
        inner = alternative[starts : len(alternative) - (ends and len(alternative) > starts)]
        if "^" in inner or "$" in inner:
            return None
        text = f"(?:{''.join(inner)})"
        alternatives.append(f"{'' if starts else ANY}{text}{'' if ends else ANY}")
    return "|".join(alternatives)


def _alternatives(pattern: str) -> list[list[str]]:
    """Cuts a pattern at each | outside of parentheses, and each alternative into its symbols.

    A class in brackets is a symbol, and so is a character that is escaped.
    """
    found: list[list[str]] = [[]]
    depth = place = 0
    while place < len(pattern):
        size = _symbol(pattern, place)
        symbol = pattern[place : place + size]
        depth += (symbol == "(") - (symbol == ")")
        if symbol == "|" and depth == 0:
            found.append([])
        else:
            found[-1].append(symbol)
        place += size
    return found


def _symbol(pattern: str, start: int) -> int:
    """Returns the length of the symbol at a place."""
    if pattern[start] == "\\":
        return 2
    if pattern[start] != "[":
        return 1
    place = start + 1 + (pattern[start + 1 : start + 2] == "^")
    place += pattern[place : place + 1] == "]"
    while place < len(pattern) and pattern[place] != "]":
        place += 2 if pattern[place] == "\\" else 1
    return place + 1 - start
