"""The rules of tool calls in one model's format, by the table that its dialect has of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from handlers.grammar.lark_rules import lark_string, one_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from handlers.artifact.dialect import ToolFormat
    from handlers.grammar.lark_rules import LarkRules

QUOTE = '"'
LEXEME = re.compile(r'"[^"]*"|[^"]+|"')
# Below it ids are of so many letters and digits, as templates check them.
SHORT_ID = 10
LATER_INDEX = "/[0-9]{1,3}/"


class CallRules:
    """Writes the rules of all calls of an answer."""

    def __init__(
        self,
        rules: LarkRules,
        tool_format: ToolFormat,
        arguments: Mapping[str, str],
        may_repeat: bool,
    ) -> None:
        """`arguments`: by the name of each tool, the rule of its arguments."""
        self._rules = rules
        self._format = tool_format
        self._arguments = arguments
        self._may_repeat = may_repeat and tool_format.separator is not None

    def after(self, written: str) -> str:
        """Returns Lark for the calls, of which `written` is there: nothing, or the trigger."""
        own = self._format
        lead = own.begin + own.call[0]
        lead = lead[lead.find(written) + len(written) :]
        calls = self._call(lead, lark_string(str(own.first_index)))
        if self._may_repeat:
            # One lexeme, since the end of the calls may begin as a separator does.
            again = self._call((own.separator or "") + own.call[0], LATER_INDEX)
            calls += f" ({self._rules.rule(again)})*"
        return f"{calls} {lark_string(own.end)}"

    def _call(self, lead: str, index: str) -> str:
        """Returns Lark for one call. `lead`: what stands before its first slot."""
        slots = self._format.call[1::2]
        places = [place for place, slot in enumerate(slots) if slot in ("name", "arguments")]
        start, stop = 2 * places[0] + 1, 2 * places[-1] + 2
        parts = [lead, *self._format.call[1:]]
        before, quote = parts[start - 1], ""
        if before.endswith(QUOTE):  # a name in JSON has its quotes in one lexeme
            before, quote = before.removesuffix(QUOTE), QUOTE
        tools = (
            self._rules.rule(self._written([quote, *parts[start:stop], ""], index, name))
            for name in self._arguments
        )
        common = self._written([*parts[: start - 1], before], index)
        return f"{common} {one_of(tools)} {self._written(parts[stop:], index)}"

    def _written(self, parts: Sequence[str], index: str, name: str = "") -> str:
        """Returns Lark for texts and slots in turn. `name`: of the tool whose slots they are."""
        return " ".join(self._lexemes(parts, index, name))

    def _lexemes(self, parts: Sequence[str], index: str, name: str) -> Iterator[str]:
        text = parts[0]
        for slot, following in zip(parts[1::2], parts[2::2], strict=True):
            if slot == "name":
                text += name + following
                continue
            yield lexemes(text)
            text = following
            if slot == "arguments":
                yield self._arguments[name]
            else:
                yield index if slot == "index" else self._id()
        yield lexemes(text)

    def _id(self) -> str:
        length = self._format.id_length
        return f"/[a-zA-Z0-9]{{{length}}}/" if length < SHORT_ID else "/[a-zA-Z0-9_\\-]{1,64}/"


def lexemes(text: str) -> str:
    """Returns a text in Lark, as the lexemes that %json has for the start of an object.

    The lexer does not go back. Where an answer may be JSON or a call, both need the same lexemes.
    """
    return " ".join(map(lark_string, LEXEME.findall(text)))
