"""The grammar that holds an answer to tool calls in one model's format, or to text without any.

It is Lark in llguidance's dialect. The arguments of each tool are one rule, of JSON or of another
style, and so is an answer that has to be JSON.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from handlers.errors import InvalidRequest, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from handlers.artifact.dialect import ToolFormat
    from handlers.grammar.call_rules import CallRules
    from handlers.grammar.compiler import GrammarCompiler
    from handlers.grammar.constraint import GrammarConstraint
    from handlers.grammar.text_patterns import PatternTrials
    from handlers.grammar.tool_arguments import ArgumentRules

# OpenAI's are of 64 ASCII letters, digits, underscores and dashes; those of MCP's servers are
# longer, and have dots, slashes, colons and letters of any script.
MAX_NAME = 128


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
    is_custom: bool = False
    """Whether it stands for a tool that takes a text in place of JSON."""
    schema_field: str | None = None
    """The request's field that errors about its schema name, None for its parameters."""

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
            f"The tool {quoted(self.name)}: {error}",
            param=self.schema_field or f"{self.field}.parameters{path}",
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

    def locate(self, error: InvalidRequest) -> InvalidRequest:
        """Returns an error about this schema as one that names the field."""
        return error.within(self.field)


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
    from handlers.grammar.text_patterns import PatternTrials

    if choice.mode == "none" or not tools:
        return None
    offered = [tool for tool in tools if choice.allows(tool.name)]
    if not offered:
        raise InvalidRequest(f"There is no tool {quoted(choice.name or '')}.", param="tool_choice")
    may_talk, may_repeat = choice.mode == "auto", parallel and choice.name is None

    def compiled() -> GrammarConstraint:
        added = _rules(tool_format, offered, may_talk, may_repeat, answer, trials)
        return compiler.lark_with_schemas(added.rules.lines, added.rules.schemas, added.locate)

    trials = PatternTrials(compiler.lark_error)
    try:
        return compiled()
    except InvalidRequest:
        if not trials.are_needed:
            raise
        trials.have_begun = True  # a pattern may be at fault
        return compiled()


def _rules(
    tool_format: ToolFormat,
    tools: Sequence[Tool],
    may_talk: bool,
    may_repeat: bool,
    answer: AnswerSchema | None,
    trials: PatternTrials,
) -> ArgumentRules:
    from handlers.grammar.call_rules import CallRules
    from handlers.grammar.tool_arguments import ArgumentRules

    added = ArgumentRules(tool_format.arguments, trials)
    arguments = {}
    for tool in tools:
        tool.check_name()
        rule = added.arguments(tool.arguments_schema, tool.strict, tool.locate)
        arguments[tool.name] = rule
    form = ""
    if answer is not None and may_talk:
        form = added.json(answer.schema, answer.strict, answer.locate)
    calls = CallRules(added.rules, tool_format, arguments, may_repeat)
    added.rules.lines[:0] = _start_rules(tool_format, calls, may_talk, form)
    return added


def _start_rules(
    tool_format: ToolFormat, calls: CallRules, may_talk: bool, form: str
) -> Sequence[str]:
    """Returns the rules of an answer up to its calls, and of an answer without calls.

    `form`: the rule of an answer without calls, empty for any text.
    """
    from handlers.grammar.lark_rules import escaped

    trigger = tool_format.trigger
    if not may_talk:
        return [f"start: {calls.after('')}"]
    if form:
        return [f"start: {form} | {calls.after('')}"]
    if tool_format.at_start:
        return [
            f"start: TEXT | {calls.after('')}",
            f"TEXT: /(?s:.*)/ & ~/{escaped(trigger)}(?s:.*)/",
        ]
    return [
        f"start: TEXT | head {calls.after(trigger)}",
        f"head[lazy]: /(?s:.*){escaped(trigger)}/",
        f"TEXT: /(?s:.*)/ & ~/(?s:.*){escaped(trigger)}(?s:.*)/",
    ]


def _may_be_object(kind: object) -> bool:
    """Returns whether a schema's type allows an object. An unknown type rules out none."""
    kinds = kind if isinstance(kind, list) else [kind]
    others = {"null", "boolean", "integer", "number", "string", "array"}
    return not all(isinstance(each, str) and each in others for each in kinds) or not kinds
