"""The `input` of a response, parsed into the messages that chat templates expect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from handlers.api import messages as chat_messages
from handlers.api.messages import Content, text_of, thoughts_of
from handlers.api.tools import past_call, past_custom_call
from handlers.api.unsupported_fields import NOTHING_STORED
from handlers.errors import InvalidRequest, quoted

if TYPE_CHECKING:
    from handlers.api.messages import TemplateMessage

T = TypeVar("T")

TEMPLATE_ROLES = {
    role: known for role, known in chat_messages.TEMPLATE_ROLES.items() if known != "tool"
}
"""The roles of a chat, but for a tool's: the output of a tool is an item of another type."""

CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
"""The types of a tool call, each with the field that has its arguments."""

OUTPUTS = ("function_call_output", "custom_tool_call_output")

REASONING = "reasoning"

LEFT_OUT = ("web_search_call", "mcp_list_tools")
"""The types of items that say only that something happened: its result is in the assistant's
message."""

ADVICE = {
    "item_reference": f"refers to an item of an earlier answer, but {NOTHING_STORED}: send the "
    "item itself in its place, which clients do where `store` is false",
    "compaction": "has in it what only the server that made it can read: send the messages that "
    "it stands for",
}
"""The advice about an item that is refused, where its type alone does not say what to do."""


def _item_schema(kind: str, *required: str, **properties: object) -> dict[str, object]:
    """Returns the schema of an item of one type."""
    return {"properties": {"type": {"const": kind}, **properties}, "required": ["type", *required]}


_TEXT = {"type": "string"}
_CONTENT = {"type": ["string", "array", "null"], "items": {"$ref": "#/components/schemas/Part"}}
_MESSAGE = {"enum": ["message", "", None]}
# What _append requires of each kind of item, for the OpenAPI document.
_ITEM_SCHEMAS = [
    {
        "properties": {"type": _MESSAGE, "role": {"const": "assistant"}},
        "required": ["role"],
    },
    {
        "properties": {
            "type": _MESSAGE,
            "role": {"enum": [*TEMPLATE_ROLES]},
            "content": {"type": ["string", "array"]},
        },
        "required": ["role", "content"],
    },
    *(_item_schema(kind, "call_id", "name", call_id=_TEXT, name=_TEXT) for kind in CALLS),
    *(_item_schema(kind, "call_id", call_id=_TEXT, output=_CONTENT) for kind in OUTPUTS),
    *(_item_schema(kind) for kind in (REASONING, *LEFT_OUT)),
]


class SummaryPart(msgspec.Struct, frozen=True):
    """A piece of thoughts that are summed up."""

    text: str


class InputItem(msgspec.Struct, frozen=True, kw_only=True):
    """A message, a tool call, the output of one, thoughts, or an item that is left out."""

    type: str | None = None
    """A message has none at some clients, nor has a reference to an item."""
    id: str | None = None
    role: str | None = None
    content: Content | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: Any = None
    """JSON, as it was given out. Some clients send the object itself."""
    input: str | None = None
    """A custom tool's, which is no JSON."""
    output: Any = None
    """A function's is a Content. Other tools have outputs of other shapes."""
    summary: Any = None
    """Thoughts summed up by another server. Those that it only gives encrypted are left out."""

    @property
    def kind(self) -> str:
        """The item's type, also where it says none."""
        if self.type is None and self.role is None and self.id is not None:
            return "item_reference"
        return self.type or "message"


CheckedItem = Annotated[InputItem, Meta(extra_json_schema={"anyOf": _ITEM_SCHEMAS})]


def input_messages(
    instructions: str | None, given: str | list[CheckedItem]
) -> list[TemplateMessage]:
    """Returns the conversation, with `instructions` in front of it. Raises InvalidRequest."""
    messages = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    thoughts = ""
    for index, item in enumerate(given):
        if item.kind == REASONING:
            thoughts = _thoughts(item)
        elif item.kind not in LEFT_OUT:
            _append(messages, f"input[{index}]", item)
            if thoughts and messages[-1]["role"] == "assistant":
                messages[-1].setdefault("reasoning_content", thoughts)
            thoughts = ""
    if not messages:
        left_out = ", ".join((REASONING, *LEFT_OUT))
        raise InvalidRequest(
            f"input is empty: items of the types {left_out} are left out. Send a message.",
            param="input",
        )
    return messages


def _thoughts(item: InputItem) -> str:
    """Returns the thoughts of an item, or what they were summed up to."""
    try:
        summary = msgspec.convert(item.summary or [], list[SummaryPart])
    except msgspec.ValidationError:
        summary = []
    return thoughts_of(item.content) or "\n".join(part.text for part in summary)


def _append(messages: list[TemplateMessage], field: str, item: InputItem) -> None:
    if item.kind in CALLS:
        _append_call(messages, field, item)
    elif item.kind in OUTPUTS:
        call_id = _required(f"{field}.call_id", item.call_id)
        output = _output_text(f"{field}.output", item.output)
        messages.append({"role": "tool", "content": output, "tool_call_id": call_id})
    elif item.kind == "message":
        role = _role(f"{field}.role", item.role)
        if role != "assistant":  # which may only have called
            _required(f"{field}.content", item.content)
        message = {"role": role, "content": text_of(item.content, f"{field}.content")}
        if role == "assistant" and (thoughts := thoughts_of(item.content)):
            message["reasoning_content"] = thoughts
        messages.append(message)
    else:
        advice = ADVICE.get(
            item.kind,
            "is nothing that this server can read: leave the item out, or send what it says in a "
            "message",
        )
        raise InvalidRequest(f"{field}, of type {quoted(item.kind)}, {advice}.", param=field)


def _append_call(messages: list[TemplateMessage], field: str, item: InputItem) -> None:
    """Adds a call to the assistant's message, since a chat has no items that stand apart."""
    name = _required(f"{field}.name", item.name)
    call_id = _required(f"{field}.call_id", item.call_id)
    make = past_call if item.kind == "function_call" else past_custom_call
    call = make(name, getattr(item, CALLS[item.kind]), call_id)
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    messages[-1].setdefault("tool_calls", []).append(call)


def _role(field: str, given: str | None) -> str:
    role = _required(field, given)
    if role == "tool":
        raise InvalidRequest(
            f"{field} is 'tool', which a chat has: send an item of the type "
            "'function_call_output'.",
            param=field,
        )
    if role not in TEMPLATE_ROLES:
        raise InvalidRequest(
            f"{field} is {quoted(role)}, but must be one of {', '.join(TEMPLATE_ROLES)}.",
            param=field,
        )
    return TEMPLATE_ROLES[role]


def _output_text(field: str, given: object) -> str:
    try:
        content = msgspec.convert("" if given is None else given, Content)
    except msgspec.ValidationError:
        raise InvalidRequest(
            f"{field} must be a string or a list of parts such as "
            '{"type": "input_text", "text": ...}.',
            param=field,
        ) from None
    return text_of(content, field)


def _required(field: str, value: T | None) -> T:
    if value is None:
        raise InvalidRequest(f"{field} is required.", param=field)
    return value
