"""The tools of a request: those that an answer may call, and the calls of earlier answers.

Chat completions and responses spell tools differently; both become one ToolConfig.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from handlers.api.custom_tools import CUSTOM, INPUT, CustomGrammar, custom_tool
from handlers.artifact.dialect import TaggedArguments
from handlers.errors import InvalidRequest, quoted
from handlers.grammar.tool_grammar import Tool, ToolChoice, compile_tool_grammar
from handlers.log import log_once

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.api.model import DecoderModel
    from handlers.api.response_format import OutputConstraint
    from handlers.artifact.dialect import ToolFormat
    from handlers.grammar.constraint import GrammarConstraint

LOGGER = logging.getLogger(__name__)

# OpenAI's limit.
MAX_TOOLS = 128

FUNCTION = "function"


class FunctionSpec(msgspec.Struct, frozen=True):
    """A function that a model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema; none takes no arguments."""
    strict: bool | None = None
    """True: arguments are valid under the whole schema, or the request is refused."""


class CustomFormat(msgspec.Struct, frozen=True):
    """The format of a custom tool's input."""

    type: Literal["text", "grammar"]
    grammar: CustomGrammar | None = None


class CustomSpec(msgspec.Struct, frozen=True):
    """A tool that takes a text."""

    name: str
    description: str | None = None
    format: CustomFormat | None = None


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True):
    """A function, or a custom tool. Tools of other types are left out, with all their members."""

    type: str = FUNCTION
    function: FunctionSpec | None = None
    custom: CustomSpec | None = None


class NamedFunction(msgspec.Struct, frozen=True):
    """A function by its name."""

    name: str


class NamedChoice(msgspec.Struct, frozen=True, tag_field="type", tag="function"):
    """This function has to be called."""

    function: NamedFunction


class CustomChoice(msgspec.Struct, frozen=True, tag_field="type", tag="custom"):
    """This custom tool has to be called."""

    custom: NamedFunction


class AllowedTools(msgspec.Struct, frozen=True):
    """Some of the tools."""

    mode: Literal["auto", "required"]
    tools: Annotated[
        tuple[NamedChoice | CustomChoice, ...], Meta(min_length=1, max_length=MAX_TOOLS)
    ]


class AllowedChoice(msgspec.Struct, frozen=True, tag_field="type", tag="allowed_tools"):
    """One of these tools may be called, or must be."""

    allowed_tools: AllowedTools


ChatTools = Annotated[list[FunctionTool], Meta(max_length=MAX_TOOLS)]
ChatToolChoice = Literal["none", "auto", "required"] | NamedChoice | CustomChoice | AllowedChoice


class ToolConfig(msgspec.Struct, frozen=True):
    """The tools that the answers to one request may call, or must. All endpoints share it."""

    tools: list[Tool]
    choice: ToolChoice = ToolChoice()
    parallel: bool = True
    """Whether an answer may have several calls."""

    @property
    def must_call(self) -> bool:
        """Returns whether an answer has to be a call."""
        return self.choice.mode == "required"

    @property
    def custom(self) -> frozenset[str]:
        """The names of the custom tools."""
        return frozenset(tool.name for tool in self.tools if tool.is_custom)

    def for_template(self) -> list[dict[str, Any]]:
        """Returns the tools as chat templates expect them.

        Raises InvalidRequest for a schema that is nested too deeply for a template to write it.
        """
        from handlers.grammar.schema.limits import check_depth

        for tool in self.tools:
            try:
                check_depth(tool.parameters)
            except InvalidRequest as error:
                raise tool.locate(error) from None
        return [{"type": FUNCTION, "function": _described(tool)} for tool in self.tools]

    def string_arguments(
        self, tool_format: ToolFormat
    ) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
        """Returns, by tool, the arguments that are strings, and those that are strings or null.

        Both are empty for a format that shows it itself.
        """
        if not isinstance(tool_format.arguments, TaggedArguments):
            return {}, {}
        from handlers.grammar.schema.argument_types import STRING, string_arguments

        tools = [(tool.name, tool.parameters or {}) for tool in self.tools]
        strings = {name: string_arguments(schema) for name, schema in tools}
        return strings, {
            name: string_arguments(schema, STRING | {"null"}) for name, schema in tools
        }

    async def grammar(
        self, model: DecoderModel, constraint: OutputConstraint | None = None
    ) -> GrammarConstraint | None:
        """Compiles the grammar of an answer. Raises InvalidRequest that names the field.

        `constraint`: the format of an answer that calls no tool.
        """
        may_talk = self.choice.mode == "auto"
        answer = constraint.answer_schema() if constraint and may_talk else None
        tool_format = model.template.tool_format
        return await model.compiling.run(
            lambda: compile_tool_grammar(
                model.grammar_compiler, tool_format, self.tools, self.choice, self.parallel, answer
            )
        )


def tool_config(tools: list[Tool], choice: ToolChoice, parallel: bool | None) -> ToolConfig | None:
    """Returns None where no tool is offered, or none may be called. Raises InvalidRequest."""
    if choice.mode == "none" or (not tools and choice == ToolChoice()):
        return None
    if not tools:
        raise InvalidRequest("tool_choice asks for a call, but there are no tools.", param="tools")
    _reject_duplicates(tools)
    _require_known(choice, tools)
    return ToolConfig(tools, choice, parallel is not False)


def chat_tools(tools: list[FunctionTool] | None) -> list[Tool]:
    """Returns the functions and the custom tools of a chat. Raises InvalidRequest."""
    functions = []
    for index, tool in enumerate(tools or ()):
        if tool.type == CUSTOM:
            functions.append(_chat_custom_tool(f"tools[{index}].custom", tool.custom))
        elif is_function(tool.type):
            field = f"tools[{index}].function"
            if tool.function is None:
                raise InvalidRequest(f"{field} is required.", param=field)
            spec = tool.function
            strict = spec.strict is True
            functions.append(Tool(spec.name, spec.description, spec.parameters, strict, field))
    return functions


def _chat_custom_tool(field: str, spec: CustomSpec | None) -> Tool:
    if spec is None:
        raise InvalidRequest(f"{field} is required.", param=field)
    form, format_field = spec.format, f"{field}.format"
    if form is not None and form.type == "grammar" and form.grammar is None:
        missing = f"{format_field}.grammar"
        raise InvalidRequest(f"{missing} is required.", param=missing)
    grammar = form.grammar if form is not None and form.type == "grammar" else None
    return custom_tool(spec.name, spec.description, grammar, field, format_field)


def chat_tool_choice(choice: ChatToolChoice | None) -> ToolChoice:
    """Returns a chat's tool_choice in the form that all endpoints share."""
    if isinstance(choice, NamedChoice | CustomChoice):
        return ToolChoice("required", _chosen(choice))
    if isinstance(choice, AllowedChoice):
        allowed = choice.allowed_tools
        return ToolChoice(allowed.mode, allowed=tuple(map(_chosen, allowed.tools)))
    return ToolChoice(choice or "auto")


def _chosen(choice: NamedChoice | CustomChoice) -> str:
    return choice.custom.name if isinstance(choice, CustomChoice) else choice.function.name


def require_custom(name: str | None, tools: Sequence[Tool]) -> None:
    """Raises InvalidRequest where a choice of a custom tool names none of them."""
    if not any(tool.is_custom and tool.name == name for tool in tools):
        raise InvalidRequest(
            f"tool_choice names {quoted(name or '')}, which is none of the custom tools.",
            param="tool_choice",
        )


def is_function(kind: str) -> bool:
    """Returns whether a tool of this type is a function. The log says once that others are ignored.

    Codex sends web_search and namespaces beside its functions with every request. OpenAI runs such
    tools, or has models that were trained on them; llama.cpp leaves them out, too.
    """
    if kind != FUNCTION:
        message = "Tools of the type %s are left out: only functions are offered."
        log_once(LOGGER, message, quoted(kind))
    return kind == FUNCTION


def no_function(kind: str) -> InvalidRequest:
    """Returns the error of a tool_choice that names a tool which is no function."""
    return InvalidRequest(
        f"tool_choice asks for a tool of the type {quoted(kind)}, but only functions are offered "
        "here: name a function, or leave it out.",
        param="tool_choice",
    )


def past_call(name: str | None, arguments: object, call_id: object = None) -> dict[str, Any]:
    """Makes a member of a message's `tool_calls`, as chat templates expect it.

    The conversation has the call as it was: cut short, or written by another server. It is not run
    again, so nothing of it is refused. An id may have been a number.
    """
    function = {"name": name or "", "arguments": _template_arguments(arguments)}
    identity = "" if call_id is None else str(call_id)
    return {"id": identity, "type": FUNCTION, "function": function}


def past_custom_call(name: str | None, given: object, call_id: object = None) -> dict[str, Any]:
    """Makes the same of a call of a custom tool, as the model wrote it."""
    return past_call(name, {INPUT: given} if isinstance(given, str) else given, call_id)


def _template_arguments(given: object) -> dict[str, Any] | str:
    """Returns the arguments as an object, since a template writes them with `tojson`.

    What is not the JSON of an object stays the text that it is.
    """
    if isinstance(given, dict):
        return given
    text = given if isinstance(given, str) else msgspec.json.encode(given).decode()
    try:
        arguments = msgspec.json.decode(text.strip() or "{}")
    except (msgspec.DecodeError, RecursionError):
        return text
    if arguments is None:
        return {}
    return arguments if isinstance(arguments, dict) else text


def _reject_duplicates(tools: Sequence[Tool]) -> None:
    names = set()
    for tool in tools:
        if tool.name in names:
            raise InvalidRequest(
                f"{tool.field}.name: {quoted(tool.name)} is the name of two tools.",
                param=f"{tool.field}.name",
            )
        names.add(tool.name)


def _require_known(choice: ToolChoice, tools: Sequence[Tool]) -> None:
    known = {tool.name for tool in tools}
    chosen = choice.allowed or (() if choice.name is None else (choice.name,))
    for name in chosen:
        if name not in known:
            raise InvalidRequest(
                f"tool_choice names {quoted(name)}, which is none of the tools.",
                param="tool_choice",
            )


def _described(tool: Tool) -> dict[str, Any]:
    """Returns the tool without null members, since a template writes what it finds."""
    members = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {name: value for name, value in members.items() if value is not None}
