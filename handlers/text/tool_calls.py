"""How a model calls tools: the text of a call, and the grammar that holds an answer to it.

One ToolFormat's few strings are all that the grammar, the parser and the fallback prompt know of a
format, so they cannot disagree. Does not know requests. Made by template.py from the model's chat
template, called by the API.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from handlers.errors import InvalidRequest
from handlers.text.json_schema import Budget
from handlers.text.tool_parser import ToolCallParser

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from handlers.text.grammar import GrammarConstraint, Grammars

NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
QUOTE = '"'
ANSWER_FIELD = "answer_schema"


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    """The JSON schema of its arguments, an object. None: it has none."""

    @property
    def arguments_schema(self) -> dict[str, Any]:
        """What arguments are held to: no names but those in `properties` where nothing is said.

        JSON Schema would allow any. A name that a model makes up is an error for the function.
        Raises InvalidRequest.
        """
        schema = dict(self.parameters or {"properties": {}})
        if schema.setdefault("type", "object") != "object":
            raise InvalidRequest(f"The parameters of {self.name!r} must be of type object.")
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        return schema


class ToolChoice(msgspec.Struct, frozen=True):
    """OpenAI's tool_choice."""

    mode: Literal["none", "auto", "required"] = "auto"
    name: str | None = None
    """With "required": the one tool to call, once."""
    allowed: frozenset[str] | None = None
    """The tools that may be called, None for all: the model is told of the others, too."""

    def allows(self, name: str) -> bool:
        """Whether this tool may be called."""
        return self.name in {None, name} and (self.allowed is None or name in self.allowed)


class ToolFormat(msgspec.Struct, frozen=True):
    """The text around calls, of which each is `open` name `middle` arguments `close`.

    `begin` call (`separator` call)* `end`
    """

    trigger: str
    """What `begin` (or the first call) starts with, and text does not contain."""
    begin: str
    end: str
    separator: str | None
    """None for a model that makes one call at a time."""
    key: str = "arguments"
    at_start: bool = False
    """Whether calls are calls at the start of an answer only."""
    id_length: int = 24
    """Hexadecimal digits of a call's id, behind call_; 9 without it where a template checks."""

    open = '{"name": "'
    close = "}"

    @property
    def middle(self) -> str:
        """Between the name and the arguments."""
        return f'", "{self.key}": '

    @classmethod
    def of(cls, template: str | None) -> ToolFormat | None:
        """The format that a chat template writes, None where it writes none that is known."""
        source = template or ""
        if not re.search(r"\btools\b", source):
            return None
        if "[TOOL_CALLS]" in source and "[ARGS]" not in source:
            return MISTRAL_SPACED if "[TOOL_CALLS] [" in source else MISTRAL
        if "<tool_call>" in source and "<function=" not in source:
            return HERMES
        return LLAMA if '"parameters": ' in source else None

    def write(self, calls: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
        """The text of calls, as the model would have written it: (name, arguments) of each."""
        texts = (
            f"{self.open}{name}{self.middle}{json.dumps(arguments, ensure_ascii=False)}{self.close}"
            for name, arguments in calls
        )
        return f"{self.begin}{(self.separator or '').join(texts)}{self.end}"

    def parser(self) -> ToolCallParser:
        """A new parser, for one answer."""
        return ToolCallParser(self)

    def new_id(self) -> str:
        """A call's id."""
        digits = os.urandom(12).hex()[: self.id_length]
        return digits if self.id_length < 10 else f"call_{digits}"

    def grammar(
        self,
        grammars: Grammars,
        tools: Sequence[Tool],
        choice: ToolChoice,
        parallel: bool = True,
        answer_schema: Mapping[str, Any] | None = None,
    ) -> GrammarConstraint | None:
        """None where the answer is free: no tools, or "none".

        "auto" is any text, and calls from `trigger` on; with `answer_schema` it is JSON of that
        schema, or calls. Raises InvalidRequest, with `param` where a tool is at fault, or
        "answer_schema".
        """
        if choice.mode == "none" or not tools:
            return None
        chosen = {index: tool for index, tool in enumerate(tools) if choice.allows(tool.name)}
        if not chosen:
            raise InvalidRequest(f"There is no tool {choice.name!r}.", param="tool_choice")
        budget = Budget()
        start = self._start(choice.mode == "auto", answer_schema, budget)
        calls = self._calls(chosen, parallel and choice.name is None, budget)
        fields = {f"arguments_{index}": f"{_field(index)}.parameters" for index in chosen}
        fields["answer"] = ANSWER_FIELD
        return grammars.trusted_lark("\n".join([*start, *calls]), fields)

    def _start(
        self, may_talk: bool, answer_schema: Mapping[str, Any] | None, budget: Budget
    ) -> Iterable[str]:
        """What stands before calls, or in their place, in llguidance's Lark."""
        if not may_talk:
            yield f"start: {_quoted(self.begin)} calls"
        elif answer_schema is not None:
            yield f"start: answer | {_quoted(self.begin)} calls"
            yield f"answer: %json {_answer(answer_schema, budget)}"
        elif self.at_start:
            yield "start: TEXT | calls"
            yield f"TEXT: /([^{self.trigger}](?s:.*))?/"
        else:
            trigger = re.escape(self.trigger)
            yield f"start: TEXT | head {_quoted(self.begin.removeprefix(self.trigger))} calls"
            yield f"head[lazy]: /(?s:.*){trigger}/"
            yield f"TEXT: /(?s:.*)/ & ~/(?s:.*){trigger}(?s:.*)/"

    def _calls(self, tools: Mapping[int, Tool], many: bool, budget: Budget) -> Iterable[str]:
        """`tools`: by their places in the request."""
        again = f"({_quoted(self.separator)} call)*" if many and self.separator else ""
        yield f"calls: call {again} {_quoted(self.end)}"
        names = " | ".join(f"call_{index}" for index in tools)
        yield f"call: {_lexemes(self.open.removesuffix(QUOTE))} ({names}) {_quoted(self.close)}"
        for index, tool in tools.items():
            yield f"call_{index}: {_lexemes(QUOTE + tool.name + self.middle)} arguments_{index}"
            yield f"arguments_{index}: %json {_arguments(index, tool, budget)}"


HERMES = ToolFormat(
    trigger="<tool_call>",
    begin="<tool_call>\n",
    separator="\n</tool_call>\n<tool_call>\n",
    end="\n</tool_call>",
)
"""Hermes, Qwen 2.5 and 3, and models whose template knows no tools."""
LLAMA = ToolFormat(trigger="{", begin="", separator=None, end="", key="parameters", at_start=True)
"""Llama 3.1 to 3.3, whose template refuses more than one call."""
MISTRAL = ToolFormat(
    trigger="[TOOL_CALLS]", begin="[TOOL_CALLS][", separator=", ", end="]", id_length=9
)
"""Mistral's tokenizers v3 to v7, whose templates want ids of 9 letters and digits."""
MISTRAL_SPACED = ToolFormat(
    trigger="[TOOL_CALLS]", begin="[TOOL_CALLS] [", separator=", ", end="]", id_length=9
)


def _field(index: int) -> str:
    return f"tools[{index}].function"


def _arguments(index: int, tool: Tool, budget: Budget) -> str:
    field = _field(index)
    if not NAME.fullmatch(tool.name):
        raise InvalidRequest(
            f"{field}.name must be 1 to 64 letters, digits, dots, underscores and dashes.",
            param=f"{field}.name",
        )
    try:
        return json.dumps(budget.json_style(tool.arguments_schema))
    except InvalidRequest as error:
        raise InvalidRequest(str(error), param=f"{field}.parameters") from None


def _answer(schema: Mapping[str, Any], budget: Budget) -> str:
    try:
        return json.dumps(budget.json_style(schema))
    except InvalidRequest as error:
        raise InvalidRequest(str(error), param=ANSWER_FIELD) from None


def _lexemes(text: str) -> str:
    """The start of a JSON object cut as %json cuts it.

    The lexer does not go back: where an answer may be JSON or a call, `{` must end for both.
    """
    return " ".join(map(_quoted, re.findall(r'"[^"]*"|[^"]+', text)))


def _quoted(text: str) -> str:
    """A string of Lark's; of nothing, nothing."""
    return json.dumps(text, ensure_ascii=False) if text else ""
