"""The fields that offer tools, and the calls in what the model says.

Knows OpenAI's fields and deltas; handlers/text/tool_format.py knows how a model writes a call.
Called by chat/endpoint.py, conversation.py and answer.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from handlers.api.deltas import CallDelta, plain
from handlers.api.offered_tools import FUNCTION, not_offered
from handlers.errors import InvalidRequest, quoted
from handlers.text.tool_parser import CallStart, ContentDelta

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from handlers.api.deltas import Delta, Finish
    from handlers.api.model import DecoderModel
    from handlers.api.structured import Form
    from handlers.grammar.constraint import GrammarConstraint
    from handlers.text.completion import TextDelta
    from handlers.text.tool_parser import Delta as ParserDelta
    from handlers.text.tool_parser import ToolCallParser

# OpenAI's limit.
MAX_TOOLS = 128


class FunctionSpec(msgspec.Struct, frozen=True):
    """What a model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema; none takes no arguments."""
    strict: bool | None = None
    """True: arguments are valid under the whole schema, or the request is refused."""


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True):
    """A function. Tools of other types are left out, whatever they have."""

    type: str = FUNCTION
    function: FunctionSpec | None = None


class NamedFunction(msgspec.Struct, frozen=True):
    """A function by its name."""

    name: str


class NamedChoice(msgspec.Struct, frozen=True, tag_field="type", tag="function"):
    """This function has to be called."""

    function: NamedFunction


class CustomChoice(msgspec.Struct, frozen=True, tag_field="type", tag="custom"):
    """A tool that is left out has to be called, which is refused."""


class AllowedTools(msgspec.Struct, frozen=True):
    """Some of the tools."""

    mode: Literal["auto", "required"]
    tools: Annotated[tuple[NamedChoice, ...], Meta(min_length=1, max_length=MAX_TOOLS)]


class AllowedChoice(msgspec.Struct, frozen=True, tag_field="type", tag="allowed_tools"):
    """Of these functions one may be called, or must."""

    allowed_tools: AllowedTools


ToolList = Annotated[list[FunctionTool], Meta(max_length=MAX_TOOLS)]
Choice = Literal["none", "auto", "required"] | NamedChoice | CustomChoice | AllowedChoice


class Toolbox(msgspec.Struct, frozen=True):
    """The tools that the answers to one request may call, or must."""

    functions: Mapping[str, FunctionSpec]
    """By the paths of the request's fields that have them, for errors."""
    mode: Literal["auto", "required"] = "auto"
    name: str | None = None
    """The one that has to be called."""
    parallel: bool = True
    """Whether an answer may have several calls."""
    allowed: frozenset[str] | None = None
    """Those that may be called, None for all."""

    def for_template(self) -> list[dict[str, Any]]:
        """The tools as chat templates expect them.

        Raises InvalidRequest for a schema that is nested too deeply for a template to write it.
        """
        from handlers.grammar.schema.limits import check_depth

        for field, spec in self.functions.items():
            try:
                check_depth(spec.parameters)
            except InvalidRequest as error:
                raise InvalidRequest(
                    f"The tool {quoted(spec.name)}: {error}", param=f"{field}.parameters"
                ) from None
        return [{"type": "function", "function": _given(spec)} for spec in self.functions.values()]

    async def grammar(
        self, model: DecoderModel, form: Form | None = None
    ) -> GrammarConstraint | None:
        """`form`: of an answer that calls nothing. Raises InvalidRequest that names the field."""
        from handlers.grammar.tool_grammar import Tool, ToolChoice, compile_tool_grammar

        tools = [
            Tool(spec.name, spec.description, spec.parameters, spec.strict is True, field)
            for field, spec in self.functions.items()
        ]
        choice = ToolChoice(self.mode, self.name, self.allowed)
        answer = form.answer_schema() if form and self.mode == "auto" else None
        tool_format = model.template.tool_format
        grammar = await model.compiling.run(
            lambda: compile_tool_grammar(
                model.grammars, tool_format, tools, choice, self.parallel, answer
            )
        )
        if grammar is not None:
            grammar.field = "tools"
        return grammar


def toolbox_of(
    functions: Mapping[str, FunctionSpec],
    choice: Choice | None,
    parallel: bool | None,
) -> Toolbox | None:
    """None where no tool is offered, or none may be called. Raises InvalidRequest.

    `functions`: by the paths of the request's fields that have them, such as tools[1].function.
    """
    if isinstance(choice, CustomChoice):
        raise not_offered("custom")
    if choice == "none" or (not functions and choice in {None, "auto"}):
        return None
    if not functions:
        raise InvalidRequest("tool_choice asks for a call, but there are no tools.", param="tools")
    _refuse_twins(functions)
    box = Toolbox(functions, parallel=parallel is not False)
    if isinstance(choice, AllowedChoice):
        names = [_known(tool, functions) for tool in choice.allowed_tools.tools]
        return replace(box, mode=choice.allowed_tools.mode, allowed=frozenset(names))
    if isinstance(choice, NamedChoice):
        return replace(box, mode="required", name=_known(choice, functions))
    return replace(box, mode=choice or "auto")


def _known(choice: NamedChoice, functions: Mapping[str, FunctionSpec]) -> str:
    name = choice.function.name
    if name not in {spec.name for spec in functions.values()}:
        raise InvalidRequest(
            f"tool_choice names {quoted(name)}, which is none of the tools.",
            param="tool_choice",
        )
    return name


def _refuse_twins(functions: Mapping[str, FunctionSpec]) -> None:
    names = set()
    for field, spec in functions.items():
        if spec.name in names:
            raise InvalidRequest(
                f"{field}.name: {quoted(spec.name)} is the name of two tools.",
                param=f"{field}.name",
            )
        names.add(spec.name)


def _given(spec: FunctionSpec) -> dict[str, Any]:
    """Without what is not said: a template prints what it finds. `strict` is not the model's."""
    described = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {name: value for name, value in described.items() if value is not None}


class CallReader:
    """The calls of one choice: text deltas in, deltas out."""

    def __init__(self, parser: ToolCallParser) -> None:
        self._parser = parser
        self._called = False

    def read(self, delta: TextDelta) -> Delta | None:
        """None where the parser holds everything back."""
        pieces = self._parser.push(delta.text)
        if delta.finish_reason:
            pieces += self._parser.flush()
        text, calls = _sorted(pieces)
        self._called = self._called or bool(calls)
        if not (text or calls or delta.finish_reason or delta.tokens):
            return None
        return replace(
            plain(delta), text=text, calls=calls, finish_reason=self._finish(delta.finish_reason)
        )

    def _finish(self, reason: Finish | None) -> Finish | None:
        """Names an end at calls as such. Agents run a call then, so it is none that a stop cut."""
        if reason != "stop":
            return reason
        if self._parser.inside_call:
            return "length"
        return "tool_calls" if self._called else "stop"


def _sorted(pieces: Sequence[ParserDelta]) -> tuple[str, tuple[CallDelta, ...]]:
    """The text, and the calls that follow it."""
    text, calls = "", []
    for piece in pieces:
        if isinstance(piece, ContentDelta):
            text += piece.text
        elif isinstance(piece, CallStart):
            calls.append(CallDelta(piece.index, id=piece.id, name=piece.name))
        else:
            calls.append(CallDelta(piece.index, piece.text))
    return text, tuple(calls)
