"""The tools of a response: a chat's, without their inner objects."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from handlers.api.custom_tools import CUSTOM, CustomGrammar, custom_tool, required_definition
from handlers.api.response_format import JsonSchema
from handlers.api.tools import FUNCTION, MAX_TOOLS, is_function, no_function
from handlers.errors import InvalidRequest
from handlers.grammar.tool_grammar import Tool, ToolChoice


class CustomToolFormat(msgspec.Struct, frozen=True, omit_defaults=True):
    """The format of a custom tool's input: a chat's, without its inner object."""

    type: Literal["text", "grammar"]
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None


class ResponseTool(msgspec.Struct, frozen=True, kw_only=True):
    """A function or a custom tool: a chat's tool, without its inner object.

    Those of other types are left out.
    """

    type: str
    name: str | None = None
    description: str | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None
    format: CustomToolFormat | UnsetType | None = UNSET
    """A custom tool's."""

    def grammar(self, field: str) -> CustomGrammar | None:
        """Returns the grammar of a custom tool's input. Raises InvalidRequest."""
        form = self.format or None
        if form is None or form.type == "text":
            return None
        return required_definition(form.syntax, form.definition, f"{field}.format")


# Of a tool of another type only its type is read.
CheckedTool = Annotated[
    ResponseTool,
    Meta(
        extra_json_schema={
            "anyOf": [
                {"properties": {"name": {"type": "string"}}, "required": ["name"]},
                {"properties": {"type": {"not": {"enum": [FUNCTION, CUSTOM]}}}},
            ]
        }
    ),
]


class ChosenTool(msgspec.Struct, frozen=True):
    """One of the tools."""

    type: str
    name: str | None = None

    def name_in(self, field: str) -> str:
        """Returns the name. Raises InvalidRequest where it has none."""
        if self.name is None:
            raise InvalidRequest(f"{field}.name is required.", param=f"{field}.name")
        return self.name


class ResponseChoice(ChosenTool, frozen=True, omit_defaults=True):
    """The tool that has to be called, or the tools of which one may or must be."""

    type: Annotated[str, Meta(extra_json_schema={"enum": [FUNCTION, CUSTOM, "allowed_tools"]})]
    mode: Literal["auto", "required"] | None = None
    tools: Annotated[tuple[ChosenTool, ...], Meta(min_length=1, max_length=MAX_TOOLS)] | None = None

    @property
    def tool_choice(self) -> ToolChoice:
        """The choice in the form that all endpoints share. Raises InvalidRequest."""
        if self.type in (FUNCTION, CUSTOM):
            return ToolChoice("required", self.name_in("tool_choice"))
        if self.type != "allowed_tools":
            raise no_function(self.type)
        if self.mode is None or self.tools is None:
            field = f"tool_choice.{'mode' if self.mode is None else 'tools'}"
            raise InvalidRequest(f"{field} is required.", param=field)
        allowed = tuple(
            tool.name_in(f"tool_choice.tools[{index}]")
            for index, tool in enumerate(self.tools)
            if tool.type == CUSTOM or is_function(tool.type)
        )
        if not allowed:
            raise no_function(self.tools[0].type)
        return ToolChoice(self.mode, allowed=allowed)


def response_tools(tools: list[CheckedTool] | None) -> list[Tool]:
    """Returns the functions and the custom tools of a response. Raises InvalidRequest."""
    offered = []
    for index, tool in enumerate(tools or ()):
        if tool.type == CUSTOM or is_function(tool.type):
            offered.append(_offered(tool, f"tools[{index}]"))
    return offered


def _offered(tool: ResponseTool, field: str) -> Tool:
    if tool.name is None:
        raise InvalidRequest(f"{field}.name is required.", param=f"{field}.name")
    if tool.type == CUSTOM:
        grammar = tool.grammar(field)
        return custom_tool(tool.name, tool.description, grammar, field, f"{field}.format")
    return Tool(tool.name, tool.description, tool.parameters, tool.strict is True, field)
