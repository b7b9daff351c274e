"""The grammar that holds an answer to tool calls in one model's format, or to text without any.

It is Lark in llguidance's dialect, with one JSON rule for the arguments of each tool.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from handlers.errors import InvalidRequest, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from handlers.artifact.dialect import ToolFormat
    from handlers.grammar.compiler import GrammarCompiler
    from handlers.grammar.constraint import GrammarConstraint
    from handlers.grammar.schema.relax import EnforceableSchema

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
    """The JSON schema of its arguments, an object; None for a function without arguments."""

    strict: bool = False
    """Whether arguments are valid under the whole schema, or the request is refused."""
    field: str = "tools"
    """The request's field that has the tool, for errors."""

    @property
    def arguments_schema(self) -> dict[str, Any]:
        """The schema that arguments are held to, of type object. Raises InvalidRequest."""
        schema = dict(self.parameters or {"properties": {}})
        if not _may_be_object(schema.get("type", "object")):
            raise self.locate(
                InvalidRequest("its parameters must be of type object.", param="type")
            )
        schema["type"] = "object"
        return schema

    def check_name(self) -> None:
        """Raises InvalidRequest for a name that JSON would escape, or that is empty or too long."""
        name = self.name
        if not 0 < len(name) <= MAX_NAME or not name.isprintable() or re.search(r'[\s"\\]', name):
            raise InvalidRequest(
                f"{self.field}.name: {quoted(name)} must be 1 to {MAX_NAME} printable "
                "characters without spaces, quotes and backslashes.",
                param=f"{self.field}.name",
            )

    def locate(self, error: InvalidRequest) -> InvalidRequest:
        """Returns an error about this tool's schema as one that names the tool and its field."""
        path = f".{error.param}" if error.param else ""
        return InvalidRequest(
            f"The tool {quoted(self.name)}: {error}", param=f"{self.field}.parameters{path}"
        )


class ToolChoice(msgspec.Struct, frozen=True):
    """OpenAI's tool_choice."""

    mode: Literal["none", "auto", "required"] = "auto"
    name: str | None = None
    """With "required": the one tool to call, once."""
    allowed: tuple[str, ...] | None = None
    """The tools that may be called, None for all. The prompt describes the others, too."""

    def allows(self, name: str) -> bool:
        """Returns whether this tool may be called."""
        return self.name in {None, name} and (self.allowed is None or name in self.allowed)


class AnswerSchema(msgspec.Struct, frozen=True):
    """The JSON schema of an answer that calls no tool."""

    schema: Mapping[str, Any]
    strict: bool
    field: str
    """The request's field that has the schema, for errors."""


def compile_tool_grammar(
    compiler: GrammarCompiler,
    tool_format: ToolFormat,
    tools: Sequence[Tool],
    choice: ToolChoice,
    parallel: bool = True,
    answer: AnswerSchema | None = None,
) -> GrammarConstraint | None:
    """Compiles the grammar of an answer that may or must call tools.

    "auto" allows any text, and calls from the format's trigger on; with `answer` it allows JSON of
    that schema, or calls. Returns None where the answer is free: no tools, or "none". Raises
    InvalidRequest, with `param` where a tool is at fault.
    """
    if choice.mode == "none" or not tools:
        return None
    by_rule = {f"arguments_{index}": tool for index, tool in enumerate(tools)}
    by_rule = {rule: tool for rule, tool in by_rule.items() if choice.allows(tool.name)}
    if not by_rule:
        raise InvalidRequest(f"There is no tool {quoted(choice.name or '')}.", param="tool_choice")
    may_repeat = parallel and choice.name is None
    if choice.mode != "auto":
        answer = None
    lines = [
        *_start_rules(tool_format, choice.mode == "auto", answer),
        *_call_rules(tool_format, by_rule, may_repeat),
    ]

    def locate(rule: str, error: InvalidRequest) -> InvalidRequest:
        if answer and rule == ANSWER_RULE:
            return error.within(answer.field)
        return by_rule[rule].locate(error)

    return compiler.lark_with_schemas(lines, _schemas(by_rule, answer, locate), locate)


def _start_rules(
    tool_format: ToolFormat, may_talk: bool, answer: AnswerSchema | None
) -> Iterable[str]:
    """Yields the rules of an answer up to its calls, and of an answer without calls."""
    begin, trigger = tool_format.begin, tool_format.trigger
    if not may_talk:
        yield f"start: {_lark_string(begin)} calls"
    elif answer is not None:
        yield f"start: {ANSWER_RULE} | {_lark_string(begin)} calls"
    elif tool_format.at_start:
        yield "start: TEXT | calls"
        yield f"TEXT: /([^{trigger}](?s:.*))?/"
    else:
        escaped = re.escape(trigger)
        yield f"start: TEXT | head {_lark_string(begin.removeprefix(trigger))} calls"
        yield f"head[lazy]: /(?s:.*){escaped}/"
        yield f"TEXT: /(?s:.*)/ & ~/(?s:.*){escaped}(?s:.*)/"


def _call_rules(
    tool_format: ToolFormat, tools: Mapping[str, Tool], may_repeat: bool
) -> Iterable[str]:
    """Yields the rules of calls. `tools`: by the names of the rules of their arguments."""
    separator = tool_format.separator
    opening, _, middle, _, close = tool_format.call
    again = f"({_lark_string(separator)} call)*" if may_repeat and separator else ""
    yield f"calls: call {again} {_lark_string(tool_format.end)}"
    names = " | ".join(f"call_{rule}" for rule in tools)
    lexemes = _lexemes(opening.removesuffix(QUOTE))
    yield f"call: {lexemes} ({names}) {_lark_string(close)}"
    for rule, tool in tools.items():
        tool.check_name()
        yield f"call_{rule}: {_lexemes(QUOTE + tool.name + middle)} {rule}"


def _schemas(
    tools: Mapping[str, Tool],
    answer: AnswerSchema | None,
    locate: Callable[[str, InvalidRequest], InvalidRequest],
) -> dict[str, EnforceableSchema]:
    """Returns the schemas of the rules that are JSON, by the names of the rules."""
    from handlers.grammar.errors import log_left_out
    from handlers.grammar.schema.limits import Budget
    from handlers.grammar.schema.relax import enforceable

    budget = Budget()
    given = {rule: (tool.arguments_schema, tool.strict) for rule, tool in tools.items()}
    if answer is not None:
        given[ANSWER_RULE] = (dict(answer.schema), answer.strict)
    schemas = {}
    for rule, (schema, strict) in given.items():
        try:
            schemas[rule] = enforceable(schema, strict=strict, budget=budget, report=log_left_out)
        except InvalidRequest as error:
            raise locate(rule, error) from None
    return schemas


def _may_be_object(kind: object) -> bool:
    """Returns whether a schema's type allows an object. An unknown type rules out none."""
    kinds = kind if isinstance(kind, list) else [kind]
    others = {"null", "boolean", "integer", "number", "string", "array"}
    return not all(isinstance(each, str) and each in others for each in kinds) or not kinds


def _lexemes(text: str) -> str:
    """Returns the start of a JSON object in Lark, cut into the lexemes that %json has for it.

    The lexer does not go back. Where an answer may be JSON or a call, both need the same lexemes.
    """
    return " ".join(map(_lark_string, re.findall(r'"[^"]*"|[^"]+', text)))


def _lark_string(text: str) -> str:
    """Returns the text as a string in Lark, empty for an empty text."""
    return json.dumps(text, ensure_ascii=False) if text else ""
