"""A chat's messages, from OpenAI's form to the one that chat templates expect.

Knows no template. Called by conversation.py and by what else takes messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from handlers.api.content import Content, text_of
from handlers.api.past_calls import past_call
from handlers.errors import InvalidRequest, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPLATE_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""Templates were trained with "system" and "tool": "developer" is OpenAI's newer name for the one,
"function" its older name for the other."""

NEED_NO_CONTENT = ("assistant", "tool", "function")
"""Their messages may have no content: an assistant may only call, and a tool give nothing."""

TemplateMessage = dict[str, Any]
"""`role`, `content` and, where given, `name`, `tool_call_id`, `tool_calls`."""


class CalledFunction(msgspec.Struct, frozen=True):
    """What an assistant called."""

    name: str | None = None
    arguments: Any = None
    """JSON, as it was given out. Some clients send the object itself."""


class CalledCustomTool(msgspec.Struct, frozen=True):
    """A tool of another server that an assistant called with a text that is no JSON."""

    name: str | None = None
    input: Any = None


class CalledTool(msgspec.Struct, frozen=True):
    """A tool call of an earlier answer: OpenAI's `function` or `custom`, or LangChain's form."""

    function: CalledFunction | None = None
    custom: CalledCustomTool | None = None
    id: Any = None
    type: Any = None
    """Not read, since clients that join a stream may lose it."""
    name: str | None = None
    args: Any = None


class Message(msgspec.Struct, frozen=True):
    """One turn."""

    role: Annotated[str, Meta(extra_json_schema={"enum": [*TEMPLATE_ROLES]})]
    content: Content | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[CalledTool | None] | None = None
    function_call: CalledFunction | None = None
    """OpenAI's older form of one call."""
    prefix: Annotated[bool, Meta(extra_json_schema={"const": False})] | None = None
    """DeepSeek's and Mistral's name for continue_final_message."""


# _turn is stricter than the type can be, and says so in the OpenAPI document.
Turn = Annotated[
    Message,
    Meta(
        extra_json_schema={
            "anyOf": [
                {"properties": {"role": {"const": "assistant"}}},
                {
                    "properties": {
                        "role": {"enum": ["tool", "function"]},
                        "tool_calls": {"maxItems": 0},
                        "function_call": {"type": "null"},
                    }
                },
                {
                    "properties": {
                        "content": {"type": ["string", "array"]},
                        "tool_calls": {"maxItems": 0},
                        "function_call": {"type": "null"},
                    },
                    "required": ["content"],
                },
            ]
        }
    ),
]

# template_messages is what refuses an empty list, with a sentence of its own.
Messages = Annotated[list[Turn], Meta(extra_json_schema={"minItems": 1})]


def template_messages(messages: list[Message], field: str = "messages") -> list[TemplateMessage]:
    """Brings messages into the form that chat templates expect. Raises InvalidRequest.

    `field`: the name of the request's field, for errors.
    """
    if not messages:
        raise InvalidRequest(f"{field} is empty: send at least one message.", param=field)
    return [_turn(f"{field}[{place}]", message) for place, message in enumerate(messages)]


def _turn(at: str, message: Message) -> TemplateMessage:
    _check(at, message)
    extras = {"name": message.name, "tool_call_id": message.tool_call_id}
    given: TemplateMessage = {name: text for name, text in extras.items() if text is not None}
    calls = [*_calls(message)]
    if calls:
        given["tool_calls"] = calls
    content = text_of(message.content, f"{at}.content")
    return {"role": TEMPLATE_ROLES[message.role], "content": content, **given}


def _check(at: str, message: Message) -> None:
    if message.role not in TEMPLATE_ROLES:
        raise InvalidRequest(
            f"{at}.role is {quoted(message.role)}, but must be one of {', '.join(TEMPLATE_ROLES)}.",
            param=f"{at}.role",
        )
    if message.content is None and message.role not in NEED_NO_CONTENT:
        raise InvalidRequest(f"{at}.content is required.", param=f"{at}.content")
    for name in ("tool_calls", "function_call"):
        if getattr(message, name) and message.role != "assistant":
            raise InvalidRequest(
                f"{at}.{name} is the assistant's: leave it out.", param=f"{at}.{name}"
            )
    if message.prefix:
        raise InvalidRequest(
            f"{at}.prefix is not supported by this server: send continue_final_message: true.",
            param=f"{at}.prefix",
        )


def _calls(message: Message) -> Iterator[TemplateMessage]:
    """What each call says. One that names nothing and has no arguments says nothing."""
    for call in message.tool_calls or ():
        if call is None:
            continue
        if call.function:
            yield past_call(call.function.name, call.function.arguments, call.id)
        elif call.custom:
            yield past_call(call.custom.name, call.custom.input, call.id)
        elif call.name or call.args:
            yield past_call(call.name, call.args, call.id)
    if message.function_call and not message.tool_calls:
        yield past_call(message.function_call.name, message.function_call.arguments)
