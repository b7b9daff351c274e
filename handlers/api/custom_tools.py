"""Tools of OpenAI's type custom, which take a text in place of JSON, offered as functions.

The model is shown a function with one argument, the string `input`, since that is the form in which
it has learnt to call. The client gets the text.

https://platform.openai.com/docs/guides/function-calling#custom-tools
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any, Literal

import msgspec

from handlers.errors import InvalidRequest, quoted
from handlers.grammar.tool_grammar import Tool
from handlers.log import log_once

LOGGER = logging.getLogger(__name__)

CUSTOM = "custom"
INPUT = "input"

# Compiled by re at their first use, which most processes never come to.
_START = r'\s*\{\s*"input"\s*:\s*"'
# Whole characters of a JSON string. The first half of a surrogate pair waits for the second.
_CHARACTERS = (
    r'(?:[^"\\]|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\u[0-9a-fA-F]{4}|(?=[^\\]|\\[^u])))*"
)


class CustomGrammar(msgspec.Struct, frozen=True):
    """The grammar of an input."""

    syntax: Literal["lark", "regex"]
    definition: str


def custom_tool(
    name: str, description: str | None, grammar: CustomGrammar | None, field: str, format_field: str
) -> Tool:
    """Returns the function that stands for a custom tool.

    A regular expression holds the input. A grammar in Lark is told to the model and holds nothing:
    within JSON, where a quote is two characters, it would be another one.
    """
    schema: dict[str, Any] = {"type": "string"}
    if grammar is not None and grammar.syntax == "regex":
        schema["pattern"] = f"^(?:{grammar.definition})$"
    elif grammar is not None:
        log_once(LOGGER, "The grammar of the custom tool %s is not enforced.", quoted(name))
        told = f"The input follows this grammar, in Lark:\n{grammar.definition}"
        description = f"{description}\n\n{told}" if description else told
    parameters = {
        "type": "object",
        "properties": {INPUT: schema},
        "required": [INPUT],
        "additionalProperties": False,
    }
    return Tool(
        name,
        description,
        parameters,
        strict=True,
        field=field,
        is_custom=True,
        schema_field=format_field,
    )


def required_definition(
    syntax: Literal["lark", "regex"] | None, definition: str | None, field: str
) -> CustomGrammar:
    """Returns a grammar of these two members. Raises InvalidRequest where one is missing."""
    if syntax is None or definition is None:
        missing = f"{field}.{'syntax' if syntax is None else 'definition'}"
        raise InvalidRequest(f"{missing} is required.", param=missing)
    return CustomGrammar(syntax, definition)


class InputReader:
    """Reads the text of an input out of a call's arguments, which come piece by piece."""

    def __init__(self) -> None:
        self._rest = ""
        """What is not read yet."""
        self._begun = False

    def push(self, piece: str) -> str:
        """Returns the text that is certain with this piece of the arguments' JSON."""
        self._rest += piece
        if not self._begun:
            start = re.match(_START, self._rest)
            if start is None:
                return ""
            self._begun = True
            self._rest = self._rest[start.end() :]
        found = re.match(_CHARACTERS, self._rest)
        characters = found[0] if found else ""
        self._rest = self._rest[len(characters) :]
        text: str = json.loads(f'"{characters}"', strict=False)
        # A half of a pair that stands alone is no text that could be sent.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def input_of(arguments: str) -> str:
    """Returns the text of a whole input, also of a call that was cut."""
    return InputReader().push(arguments)
