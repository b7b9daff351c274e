"""The fields that offer tools, and the calls in what the model says.

Knows OpenAI's fields and deltas; how a model writes a call is handlers/text/tool_calls.py's. Called
by chat/endpoint.py, conversation.py and answer.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from handlers.api.deltas import CallDelta, plain
from handlers.errors import InvalidRequest
from handlers.text.tool_calls import Tool, ToolChoice, shortened
from handlers.text.tool_parser import CallStart, ContentDelta

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.api.deltas import Delta
    from handlers.api.model import Model
    from handlers.api.structured import Form
    from handlers.text.completion import TextDelta
    from handlers.text.grammar import GrammarConstraint
    from handlers.text.tool_parser import Delta as ParserDelta
    from handlers.text.tool_parser import ToolCallParser

# OpenAI's limit.
MAX_TOOLS = 128

# Where a chat's tool has its spec. A response's has it in itself.
INNER = ".function"


class FunctionSpec(msgspec.Struct, frozen=True):
    """What a model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema; none takes no arguments."""
    strict: bool | None = None
    """True: arguments are valid under the whole schema, or the request is refused."""


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True):
    """The one kind of tool."""

    type: Literal["function"] = "function"
    function: FunctionSpec


class NamedFunction(msgspec.Struct, frozen=True):
    """A function by its name."""

    name: str


class NamedChoice(msgspec.Struct, frozen=True, tag_field="type", tag="function"):
    """This function has to be called."""

    function: NamedFunction


class AllowedTools(msgspec.Struct, frozen=True):
    """Some of the tools."""

    mode: Literal["auto", "required"]
    tools: Annotated[tuple[NamedChoice, ...], Meta(min_length=1, max_length=MAX_TOOLS)]


class AllowedChoice(msgspec.Struct, frozen=True, tag_field="type", tag="allowed_tools"):
    """Of these functions one may be called, or must."""

    allowed_tools: AllowedTools


ToolList = Annotated[list[FunctionTool], Meta(max_length=MAX_TOOLS)]
Choice = Literal["none", "auto", "required"] | NamedChoice | AllowedChoice


class Toolbox(msgspec.Struct, frozen=True):
    """The tools that the answers to one request may call, or must."""

    specs: Sequence[FunctionSpec]
    mode: Literal["auto", "required"] = "auto"
    name: str | None = None
    """The one that has to be called."""
    parallel: bool = True
    """Whether an answer may have several calls."""
    inner: str = INNER
    """Where a tool has its spec, for errors."""
    allowed: frozenset[str] | None = None
    """Those that may be called, None for all."""

    def for_template(self) -> list[dict[str, Any]]:
        """The tools as chat templates expect them.

        Raises InvalidRequest for a schema that is nested too deeply for a template to write it.
        """
        from handlers.text.json_schema import check_depth

        for index, spec in enumerate(self.specs):
            try:
                check_depth(spec.parameters)
            except InvalidRequest as error:
                field = f"tools[{index}]{self.inner}.parameters"
                raise InvalidRequest(
                    f"The tool {shortened(spec.name)}: {error}", param=field
                ) from None
        return [{"type": "function", "function": _given(spec)} for spec in self.specs]

    async def grammar(self, model: Model, form: Form | None = None) -> GrammarConstraint | None:
        """`form`: of an answer that calls nothing. Raises InvalidRequest that names the field."""
        tools = [
            Tool(
                spec.name,
                spec.description,
                spec.parameters,
                spec.strict is True,
                f"tools[{index}]{self.inner}",
            )
            for index, spec in enumerate(self.specs)
        ]
        choice = ToolChoice(self.mode, self.name, self.allowed)
        answer = form.answer_schema() if form and self.mode == "auto" else None
        compile_ = model.template.tool_format.grammar
        grammar = await model.compiling.run(
            lambda: compile_(model.grammars, tools, choice, self.parallel, answer)
        )
        if grammar is not None:
            grammar.field = "tools"
        return grammar


def toolbox_of(
    specs: Sequence[FunctionSpec],
    choice: Choice | None,
    parallel: bool | None,
    inner: str = INNER,
) -> Toolbox | None:
    """None where no tool is offered, or none may be called. Raises InvalidRequest."""
    if choice == "none" or (not specs and choice in {None, "auto"}):
        return None
    if not specs:
        raise InvalidRequest("tool_choice asks for a call, but there are no tools.", param="tools")
    _refuse_twins(specs, inner)
    box = Toolbox(specs, parallel=parallel is not False, inner=inner)
    if isinstance(choice, AllowedChoice):
        names = [_known(tool, specs) for tool in choice.allowed_tools.tools]
        return replace(box, mode=choice.allowed_tools.mode, allowed=frozenset(names))
    if isinstance(choice, NamedChoice):
        return replace(box, mode="required", name=_known(choice, specs))
    return replace(box, mode=choice or "auto")


def _known(choice: NamedChoice, specs: Sequence[FunctionSpec]) -> str:
    name = choice.function.name
    if name not in {spec.name for spec in specs}:
        raise InvalidRequest(
            f"tool_choice names {shortened(name)}, which is none of the tools.",
            param="tool_choice",
        )
    return name


def _refuse_twins(specs: Sequence[FunctionSpec], inner: str) -> None:
    names = [spec.name for spec in specs]
    for index, name in enumerate(names):
        if name in names[:index]:
            field = f"tools[{index}]{inner}.name"
            raise InvalidRequest(
                f"{field}: {shortened(name)} is the name of two tools.", param=field
            )


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
        finish = delta.finish_reason
        if not (text or calls or finish or delta.tokens):
            return None
        return replace(
            plain(delta),
            text=text,
            calls=calls,
            finish_reason="tool_calls" if self._called and finish == "stop" else finish,
        )


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
