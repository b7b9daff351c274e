"""The `input` of a response to the messages that chat templates expect.

Knows no template. Called by endpoint.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from handlers.api.chat.messages import RefusalPart, parsed_arguments
from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from handlers.api.chat.messages import TemplateMessage


class InputText(msgspec.Struct, frozen=True, tag_field="type", tag="input_text"):
    """A part of what a person or a program says."""

    text: str


class OutputText(msgspec.Struct, frozen=True, tag_field="type", tag="output_text"):
    """A part of what the model said."""

    text: str


class ReasoningText(msgspec.Struct, frozen=True, tag_field="type", tag="reasoning_text"):
    """A part of what another server's model thought: chat templates leave it out, too."""

    text: str


Content = str | list[InputText | OutputText | RefusalPart | ReasoningText]

Needed = dict[str, dict[str, object]]

# What _append asks of each kind of item, for the OpenAPI document.
_TEXTS: Needed = {"role": {"type": "string"}, "content": {"type": ["string", "array"]}}
_CALL: Needed = {name: {"type": "string"} for name in ("call_id", "name", "arguments")}
_OUTPUT: Needed = {"call_id": {"type": "string"}, "output": {"type": ["string", "array"]}}
_KINDS: dict[str, Needed] = {
    "message": _TEXTS,
    "function_call": _CALL,
    "function_call_output": _OUTPUT,
    "reasoning": {},
}


class InputItem(msgspec.Struct, frozen=True, kw_only=True):
    """A message, a call that the model asked for, what that call gave, or what is left out."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: Content | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    """JSON, as it was given out."""
    output: Content | None = None


Item = Annotated[
    InputItem,
    Meta(
        extra_json_schema={
            "anyOf": [
                {
                    "properties": {"type": {"const": kind}, **needed},
                    "required": [*needed] if kind == "message" else ["type", *needed],
                }
                for kind, needed in _KINDS.items()
            ]
        }
    ),
]


def template_messages(instructions: str | None, given: str | list[Item]) -> list[TemplateMessage]:
    """The conversation, with `instructions` before it. Raises InvalidRequest."""
    messages = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    for place, item in enumerate(given):
        if item.type == "reasoning":
            continue
        _append(messages, f"input[{place}]", item)
    if not messages:
        raise InvalidRequest(
            "input is empty: reasoning is left out, send a message.", param="input"
        )
    return messages


def _append(messages: list[TemplateMessage], at: str, item: InputItem) -> None:
    if item.type == "function_call":
        _append_call(messages, at, item)
    elif item.type == "function_call_output":
        call_id = _needed(f"{at}.call_id", item.call_id)
        output = _text(f"{at}.output", item.output)
        messages.append({"role": "tool", "content": output, "tool_call_id": call_id})
    else:
        role = _needed(f"{at}.role", item.role)
        content = _text(f"{at}.content", item.content)
        # Templates were trained with "system"; "developer" is OpenAI's newer name for the same.
        messages.append({"role": "system" if role == "developer" else role, "content": content})


def _append_call(messages: list[TemplateMessage], at: str, item: InputItem) -> None:
    """To the assistant's turn that it belongs to: here items stand apart, in a chat they do not."""
    name = _needed(f"{at}.name", item.name)
    arguments = parsed_arguments(_needed(f"{at}.arguments", item.arguments), f"{at}.arguments")
    call = {
        "id": _needed(f"{at}.call_id", item.call_id),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    messages[-1].setdefault("tool_calls", []).append(call)


def _needed(field: str, value: str | None) -> str:
    if value is None:
        raise InvalidRequest(f"{field} is required.", param=field)
    return value


def _text(field: str, content: Content | None) -> str:
    """Parts are joined by line breaks, as in a chat."""
    if content is None:
        raise InvalidRequest(f"{field} is required.", param=field)
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in content if not isinstance(part, ReasoningText))
