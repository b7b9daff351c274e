"""Grammars as a client or this project writes them: what they may cost, and all of them as Lark.

llguidance bounds the automaton that a grammar becomes, not the work of reading its text.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from handlers.errors import InvalidRequest
from handlers.grammar.errors import reason
from handlers.grammar.schema.limits import MAX_SOURCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# 4,000 that name one another in a chain overflow a stack of 8 MB, which ends the process.
MAX_RULES = 1_000
# Each doubles the time in which expressions are combined: 16 take 0.2 s, 20 take 5 s.
MAX_INTERSECTIONS = 8
# 50,000 in a condition (%if) overflow the stack, which ends the process.
MAX_NESTING = 500
# A string or a regular expression in Lark, in which & is itself.
LARK_TEXT = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/')
# A rule or token of Lark begins a line. Attributes in brackets may stand before the colon.
LARK_RULE = re.compile(r"^[ \t]*[?!]*\w[^:\n]*:", re.MULTILINE)

# The spaces of Python's json.dumps, which chat templates and training data use, and no others: a
# small model that may write blanks may write nothing else, and with one spelling the engine
# takes keys and punctuation as forced ids, without a choice.
JSON_STYLE = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}


def styled(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON schema with llguidance's option for JSON_STYLE."""
    return {**schema, "x-guidance": JSON_STYLE}


def check_source(kind: str, source: str) -> str:
    """Returns the text of a grammar. Raises InvalidRequest for a long one or a lone surrogate."""
    try:
        source.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"The {kind} has half of a surrogate pair: remove it.") from None
    if len(source) > MAX_SOURCE:
        raise InvalidRequest(
            f"The {kind} has {len(source):,} characters, but may have {MAX_SOURCE:,}."
        )
    return source


def check_lark(grammar: str) -> None:
    """Raises InvalidRequest for a client's Lark that would cost too much to compile."""
    if "%json" in grammar:
        raise InvalidRequest("The Lark grammar has %json: send a JSON schema instead.")
    _check_rules("Lark grammar", LARK_RULE.findall(grammar))
    symbols = LARK_TEXT.sub("", grammar)
    if symbols.count("&") > MAX_INTERSECTIONS:
        raise InvalidRequest(
            f"The Lark grammar may have {MAX_INTERSECTIONS} intersections (&), but has more."
        )
    steps = (1 if mark == "(" else -1 for mark in re.findall(r"[()]", symbols))
    if max(accumulate(steps), default=0) > MAX_NESTING:
        raise InvalidRequest(
            f"The Lark grammar may have {MAX_NESTING} parentheses within one another, but has more."
        )


def lark_with_json(lines: Sequence[str], schemas: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the lines with a rule for each schema, one on a line: errors name the line."""
    rules = (f"{rule}: %json {json.dumps(styled(schema))}" for rule, schema in schemas.items())
    return "\n".join([*lines, *rules])


def lark_of_regex(kind: str, pattern: str) -> str:
    """Returns Lark for text that the pattern matches as a whole. Raises InvalidRequest."""
    check_source(kind, pattern)
    return f"start: /(?:{lark_pattern(pattern)})/"


def lark_pattern(pattern: str) -> str:
    r"""Returns a pattern as it stands in a regular expression of Lark.

    \d, \w and \s are ASCII's, as in ECMA's expressions and in vLLM's: Rust's would let a model
    write digits that no client reads as a number.
    """
    from llguidance import regex_to_lark

    return regex_to_lark(pattern, "dws")


def lark_of_gbnf(grammar: str) -> str:
    """Returns Lark for llama.cpp's GBNF. Raises InvalidRequest; any other error is a bug."""
    from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

    check_source("GBNF grammar", grammar)
    _check_rules("GBNF grammar", grammar.split("::=")[1:])
    try:
        return gbnf_to_lark(grammar)
    except RecursionError:
        raise InvalidRequest("The GBNF grammar is nested too deeply.") from None
    except (ValueError, IndexError):  # of "{²}", of 5,000 digits and of a backslash at the end
        why = "it has a number that cannot be read, or ends in a backslash"
    except Exception as error:
        # For a rule that is missing it raises Exception itself.
        if type(error) not in (Exception, GbnfToLarkError):
            raise
        why = reason(str(error))
    raise InvalidRequest(f"The GBNF grammar cannot be used: {why}.")


def _check_rules(kind: str, rules: Sequence[str]) -> None:
    if len(rules) > MAX_RULES:
        raise InvalidRequest(f"The {kind} may have {MAX_RULES:,} rules, but has more.")
