"""Rewords llguidance's errors for the person who wrote a schema or a grammar."""

from __future__ import annotations

import logging
import re

from handlers.errors import EngineFault, shortened
from handlers.log import log_once

LOGGER = logging.getLogger(__name__)

# "   3 | start: x" and "     ^^^", which point at a place in the source.
EXCERPT = re.compile(r"\d+ \||\^")
PLACE = re.compile(r"at (\d+)\(\d+\): ")
TOO_COMPLEX = "it is too large or too complex"

REWORDED = [
    (PLACE.pattern + "failed to compile JSON schema: (.*)", r"\2"),
    (r"Unimplemented keys: \[(.*)\].*", r"it has keywords that are not supported: \1"),
    (
        r"oneOf constraints are not supported.*",
        "oneOf is supported only where no value can fit two of its branches: use anyOf",
    ),
    (r"Resource '(.*?)' is not present.*", r"$ref to another document is not supported: \1"),
    (r".*recursion limit exceeded.*", "it is nested too deeply"),
    (r"NoExtension.*", "it allows no text at all"),
    (r"Unable to determine if regex.*", "its patterns are too complex to be combined"),
    (
        r".*(too big|lexer_fuel|too many expressions|[Tt]oo many items|row has|schema too large).*",
        TOO_COMPLEX,
    ),
    # The regex crate draws the pattern, then says what is wrong with it.
    (r".*\berror: (.*)", r"\1"),
]


def rule_at_fault(grammar: str, error: str) -> str:
    """Returns the name of the Lark rule that the error points at, empty for none.

    The grammar has one rule on each line.
    """
    place = PLACE.match(error)
    return grammar.split("\n")[int(place[1]) - 1].partition(":")[0] if place else ""


def reason(error: str) -> str:
    """Returns the error on one line, as the end of a sentence without its full stop."""
    lines = (line.strip() for line in error.splitlines())
    text = " ".join(line for line in lines if line and not EXCERPT.match(line))
    for pattern, words in REWORDED:
        match = re.fullmatch(pattern, text)
        if match:
            text = match.expand(words)
    return shortened(text.rstrip(". "))


def raise_panic(error: str) -> None:
    """Raises EngineFault for a panic that became the error of a matcher, as most do."""
    if error.startswith("panic: "):
        raise EngineFault(f"llguidance panicked: {error}")


def log_left_out(what: str) -> None:
    """Logs, once in a process, that schemas which are not strict are enforced without `what`."""
    log_once(LOGGER, "A JSON schema that is not strict is enforced without this: %s", what)
