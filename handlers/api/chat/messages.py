"""A chat's messages, from OpenAI's form to the one that chat templates expect.

Knows no template. Called by conversation.py and by what else takes messages.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from handlers.errors import InvalidRequest

ROLES = ("system", "developer", "user", "assistant", "tool")

TemplateMessage = dict[str, Any]
"""`role`, `content` and, where given, `name`, `tool_call_id`, `tool_calls`."""


class TextPart(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """The one kind of content part that a text model reads."""

    text: str


class RefusalPart(msgspec.Struct, frozen=True, tag_field="type", tag="refusal"):
    """What an assistant, of another server, would not do. It is text to the model."""

    text: str = msgspec.field(name="refusal")


class CalledFunction(msgspec.Struct, frozen=True):
    """What an assistant called."""

    name: str
    arguments: str = ""
    """JSON, as it was given out."""


class CalledTool(msgspec.Struct, frozen=True):
    """A tool call of an earlier answer."""

    function: CalledFunction
    id: str = ""
    type: Literal["function"] = "function"


class Message(msgspec.Struct, frozen=True):
    """One turn."""

    role: Annotated[str, Meta(extra_json_schema={"enum": [*ROLES]})]
    content: str | list[TextPart | RefusalPart] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[CalledTool] | None = None


# _turn is stricter than the type can be, and says so in the OpenAPI document.
Turn = Annotated[
    Message,
    Meta(
        extra_json_schema={
            "anyOf": [
                {"properties": {"role": {"const": "assistant"}}},
                {
                    "properties": {
                        "content": {"type": ["string", "array"]},
                        "tool_calls": {"maxItems": 0},
                    },
                    "required": ["content"],
                },
            ]
        }
    ),
]


def template_messages(messages: list[Message], field: str = "messages") -> list[TemplateMessage]:
    """`field`: the request's, for errors. Raises InvalidRequest."""
    return [_turn(f"{field}[{place}]", message) for place, message in enumerate(messages)]


def _turn(at: str, message: Message) -> TemplateMessage:
    if message.role not in ROLES:
        raise InvalidRequest(
            f"{at}.role is {message.role!r}, but must be one of {', '.join(ROLES)}.",
            param=f"{at}.role",
        )
    if message.content is None and message.role != "assistant":
        raise InvalidRequest(f"{at}.content is required.", param=f"{at}.content")
    if message.tool_calls and message.role != "assistant":
        raise InvalidRequest(
            f"{at}.tool_calls is the assistant's: leave it out.", param=f"{at}.tool_calls"
        )
    # Templates were trained with "system"; "developer" is OpenAI's newer name for the same.
    role = "system" if message.role == "developer" else message.role
    extras = {"name": message.name, "tool_call_id": message.tool_call_id}
    given: TemplateMessage = {name: text for name, text in extras.items() if text is not None}
    if message.tool_calls:
        given["tool_calls"] = [
            _call(f"{at}.tool_calls[{place}]", call)
            for place, call in enumerate(message.tool_calls)
        ]
    return {"role": role, "content": _text(message.content), **given}


def _call(at: str, call: CalledTool) -> TemplateMessage:
    arguments = parsed_arguments(call.function.arguments, f"{at}.function.arguments")
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def parsed_arguments(text: str, field: str) -> dict[str, Any]:
    """Templates write arguments with `tojson`, so they get the object and not its JSON."""
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest(f"{field} is not a JSON object.", param=field)
    return arguments


def _text(content: str | list[TextPart | RefusalPart] | None) -> str:
    """Parts are joined by line breaks, as vLLM and llama.cpp join them."""
    if isinstance(content, list):
        return "\n".join(part.text for part in content)
    return content or ""
