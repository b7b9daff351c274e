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

from handlers.errors import InvalidRequest, quoted
from handlers.text.tool_parser import ToolCallParser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from handlers.text.enforceable_schema import Enforceable
    from handlers.text.grammar import GrammarConstraint, Grammars

# OpenAI's are of 64 ASCII letters, digits, underscores and dashes; those of MCP's servers are
# longer, and have dots, slashes, colons and letters of any script.
MAX_NAME = 128
QUOTE = '"'
ANSWER_RULE = "answer"


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    """The JSON schema of its arguments, an object. None: it has none."""

    strict: bool = False
    """Whether arguments are valid under the whole schema, or the request is refused."""
    field: str = "tools"
    """Where the request has it, for errors."""

    @property
    def arguments_schema(self) -> dict[str, Any]:
        """The schema that arguments are held to, which is of an object. Raises InvalidRequest."""
        schema = dict(self.parameters or {"properties": {}})
        if not _may_be_object(schema.get("type", "object")):
            raise self.fault(InvalidRequest("its parameters must be of type object.", param="type"))
        schema["type"] = "object"
        return schema

    def check_name(self) -> None:
        """Whether the name is the same in a call's JSON as by itself. Raises InvalidRequest."""
        name = self.name
        if not 0 < len(name) <= MAX_NAME or not name.isprintable() or re.search(r'[\s"\\]', name):
            raise InvalidRequest(
                f"{self.field}.name: {quoted(name)} must be 1 to {MAX_NAME} printable "
                "characters without spaces, quotes and backslashes.",
                param=f"{self.field}.name",
            )

    def fault(self, error: InvalidRequest) -> InvalidRequest:
        """An error about the tool's schema as one about the request, by the path to the tool."""
        path = f".{error.param}" if error.param else ""
        return InvalidRequest(
            f"The tool {quoted(self.name)}: {error}", param=f"{self.field}.parameters{path}"
        )


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
        answer: AnswerSchema | None = None,
    ) -> GrammarConstraint | None:
        """None where the answer is free: no tools, or "none".

        "auto" is any text, and calls from `trigger` on; with `answer` it is JSON of that schema,
        or calls. Raises InvalidRequest, with `param` where a tool is at fault.
        """
        if choice.mode == "none" or not tools:
            return None
        chosen = {f"arguments_{index}": tool for index, tool in enumerate(tools)}
        chosen = {rule: tool for rule, tool in chosen.items() if choice.allows(tool.name)}
        if not chosen:
            raise InvalidRequest(
                f"There is no tool {quoted(choice.name or '')}.", param="tool_choice"
            )
        many = parallel and choice.name is None
        if choice.mode != "auto":
            answer = None
        lines = [*self._start(choice.mode == "auto", answer), *self._calls(chosen, many)]

        def refusal(rule: str, error: InvalidRequest) -> InvalidRequest:
            return (
                answer.fault(error) if answer and rule == ANSWER_RULE else chosen[rule].fault(error)
            )

        return grammars.lark_with_schemas(lines, _schemas(chosen, answer, refusal), refusal)

    def _start(self, may_talk: bool, answer: AnswerSchema | None) -> Iterable[str]:
        """What stands before calls, or in their place, in llguidance's Lark."""
        if not may_talk:
            yield f"start: {_quoted(self.begin)} calls"
        elif answer is not None:
            yield f"start: {ANSWER_RULE} | {_quoted(self.begin)} calls"
        elif self.at_start:
            yield "start: TEXT | calls"
            yield f"TEXT: /([^{self.trigger}](?s:.*))?/"
        else:
            trigger = re.escape(self.trigger)
            yield f"start: TEXT | head {_quoted(self.begin.removeprefix(self.trigger))} calls"
            yield f"head[lazy]: /(?s:.*){trigger}/"
            yield f"TEXT: /(?s:.*)/ & ~/(?s:.*){trigger}(?s:.*)/"

    def _calls(self, tools: Mapping[str, Tool], many: bool) -> Iterable[str]:
        """`tools`: by the rules of their arguments."""
        again = f"({_quoted(self.separator)} call)*" if many and self.separator else ""
        yield f"calls: call {again} {_quoted(self.end)}"
        names = " | ".join(f"call_{rule}" for rule in tools)
        yield f"call: {_lexemes(self.open.removesuffix(QUOTE))} ({names}) {_quoted(self.close)}"
        for rule, tool in tools.items():
            tool.check_name()
            yield f"call_{rule}: {_lexemes(QUOTE + tool.name + self.middle)} {rule}"


class AnswerSchema(msgspec.Struct, frozen=True):
    """What an answer is held to that calls nothing."""

    schema: Mapping[str, Any]
    strict: bool
    fault: Callable[[InvalidRequest], InvalidRequest]
    """The same error, with the field of the request that has the schema."""


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


def _schemas(
    tools: Mapping[str, Tool],
    answer: AnswerSchema | None,
    refusal: Callable[[str, InvalidRequest], InvalidRequest],
) -> dict[str, Enforceable]:
    """The schemas of the rules that are JSON, by the rules."""
    from handlers.text.enforceable_schema import enforceable
    from handlers.text.grammar_errors import log_left_out
    from handlers.text.json_schema import Budget

    budget = Budget()
    given = {rule: (tool.arguments_schema, tool.strict) for rule, tool in tools.items()}
    if answer is not None:
        given[ANSWER_RULE] = (dict(answer.schema), answer.strict)
    schemas = {}
    for rule, (schema, strict) in given.items():
        try:
            schemas[rule] = enforceable(schema, strict=strict, budget=budget, report=log_left_out)
        except InvalidRequest as error:
            raise refusal(rule, error) from None
    return schemas


def _may_be_object(kind: object) -> bool:
    """Whether a schema's type lets it be an object. A type that does not exist rules out none."""
    kinds = kind if isinstance(kind, list) else [kind]
    others = {"null", "boolean", "integer", "number", "string", "array"}
    return not all(isinstance(each, str) and each in others for each in kinds) or not kinds


def _lexemes(text: str) -> str:
    """The start of a JSON object in Lark, as the lexemes in which %json reads it.

    The lexer does not go back. Where an answer may be JSON or a call, both need the same lexemes.
    """
    return " ".join(map(_quoted, re.findall(r'"[^"]*"|[^"]+', text)))


def _quoted(text: str) -> str:
    """The text as a string in Lark, empty for an empty text."""
    return json.dumps(text, ensure_ascii=False) if text else ""
