"""The messages of a chat, parsed from OpenAI's form into the one that chat templates expect.

The content of a message is a text, or a list of parts, of which the model reads the texts. The
parts of a chat and of a response differ only in the names of their types, so either takes the
other's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from handlers.api.tools import past_call, past_custom_call
from handlers.errors import InvalidRequest, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT_PARTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
}
"""The types of parts that are read, each with the field that has its text. A refusal is another
server's assistant's, and text to the model."""

REASONING_PARTS = ("reasoning_text", "reasoning", "thinking", "redacted_thinking")
"""The types of parts with thoughts. They are no text; a template gets an assistant's apart."""

REASONING_MEMBERS = ("reasoning_content", "reasoning", "thinking")
"""The members of a message that may have its thoughts: DeepSeek's, vLLM's and Ollama's names."""

MEDIA = ("image", "audio", "video", "file")

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

CONTENT_OPTIONAL = ("assistant", "tool", "function")
"""Roles whose messages may have no content: an assistant may only call, and a tool give nothing."""

TemplateMessage = dict[str, Any]
"""`role`, `content` and, where given, `name`, `tool_call_id`, `tool_calls`, `reasoning_content`."""


class Part(msgspec.Struct, frozen=True):
    """A piece of what a message says."""

    type: Annotated[str, Meta(extra_json_schema={"enum": [*TEXT_PARTS, *REASONING_PARTS]})]
    text: str | None = None
    refusal: str | None = None
    thinking: Any = None
    """Anthropic's thoughts, or Mistral's, which are parts themselves."""
    reasoning: Any = None
    """LangChain's."""


Content = str | list[Part]


class CalledFunction(msgspec.Struct, frozen=True):
    """The function that an assistant called."""

    name: str | None = None
    arguments: Any = None
    """JSON, as it was given out. Some clients send the object itself."""


class CalledCustomTool(msgspec.Struct, frozen=True):
    """A custom tool that an assistant called with a text that is no JSON."""

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
    """One turn of a conversation."""

    role: Annotated[str, Meta(extra_json_schema={"enum": [*TEMPLATE_ROLES]})]
    content: Content | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[CalledTool | None] | None = None
    function_call: CalledFunction | None = None
    """OpenAI's older form of one call."""
    reasoning_content: Any = None
    """The thoughts before it, of which only a string is read."""
    reasoning: Any = None
    thinking: Any = None
    prefix: Annotated[bool, Meta(extra_json_schema={"const": False})] | None = None
    """DeepSeek's and Mistral's name for continue_final_message."""


# _check is stricter than the type can be, and says so in the OpenAPI document.
CheckedMessage = Annotated[
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

# template_messages refuses an empty list, with a sentence of its own.
Messages = Annotated[list[CheckedMessage], Meta(extra_json_schema={"minItems": 1})]


def template_messages(messages: list[Message]) -> list[TemplateMessage]:
    """Returns messages in the form that chat templates expect. Raises InvalidRequest."""
    if not messages:
        raise InvalidRequest("messages is empty: send at least one message.", param="messages")
    return [_template_message(f"messages[{i}]", message) for i, message in enumerate(messages)]


def text_of(content: Content | None, field: str) -> str:
    """Returns the text of a content. Line breaks join its parts, as in vLLM and llama.cpp.

    `field`: the path to the content, for errors. Raises InvalidRequest.
    """
    if isinstance(content, list):
        texts = [
            _part_text(part, f"{field}[{index}]")
            for index, part in enumerate(content)
            if part.type not in REASONING_PARTS
        ]
        return "\n".join(texts)
    return content or ""


def thoughts_of(content: Content | None) -> str:
    """Returns the thoughts among the parts of a content, of which those that are no text are none.

    Line breaks join them.
    """
    parts = content if isinstance(content, list) else []
    texts = [_part_thoughts(part) for part in parts if part.type in REASONING_PARTS]
    return "\n".join(filter(None, texts))


def _part_thoughts(part: Part) -> str:
    given = part.reasoning if part.thinking is None else part.thinking
    if isinstance(given, list):
        texts = [one.get("text") for one in given if isinstance(one, dict)]
        given = "\n".join(text for text in texts if isinstance(text, str))
    return given if isinstance(given, str) else part.text or ""


def _part_text(part: Part, field: str) -> str:
    member = TEXT_PARTS.get(part.type)
    if member is None:
        media = next((f"the {medium}" for medium in MEDIA if medium in part.type), "it")
        raise InvalidRequest(
            f"{field} is of type {quoted(part.type)}, but this model reads text only: leave "
            f"{media} out.",
            param=field,
        )
    text: str | None = getattr(part, member)
    if text is None:
        raise InvalidRequest(f"{field}.{member} is required.", param=f"{field}.{member}")
    return text


def _template_message(field: str, message: Message) -> TemplateMessage:
    _check(field, message)
    extras = {"name": message.name, "tool_call_id": message.tool_call_id}
    given: TemplateMessage = {name: text for name, text in extras.items() if text is not None}
    calls = [*_past_calls(message)]
    if calls:
        given["tool_calls"] = calls
    thoughts = _thoughts(message)
    if thoughts:
        given["reasoning_content"] = thoughts
    content = text_of(message.content, f"{field}.content")
    return {"role": TEMPLATE_ROLES[message.role], "content": content, **given}


def _thoughts(message: Message) -> str:
    """Returns the thoughts before an assistant's message, which may say them more than once."""
    if message.role != "assistant":
        return ""
    members = (getattr(message, name) for name in REASONING_MEMBERS)
    given = next((member for member in members if isinstance(member, str) and member), None)
    return given or thoughts_of(message.content)


def _check(field: str, message: Message) -> None:
    if message.role not in TEMPLATE_ROLES:
        raise InvalidRequest(
            f"{field}.role is {quoted(message.role)}, but must be one of "
            f"{', '.join(TEMPLATE_ROLES)}.",
            param=f"{field}.role",
        )
    if message.content is None and message.role not in CONTENT_OPTIONAL:
        raise InvalidRequest(f"{field}.content is required.", param=f"{field}.content")
    for name in ("tool_calls", "function_call"):
        if getattr(message, name) and message.role != "assistant":
            raise InvalidRequest(
                f"{field}.{name} is the assistant's: leave it out.", param=f"{field}.{name}"
            )
    if message.prefix:
        raise InvalidRequest(
            f"{field}.prefix is not supported by this server: send continue_final_message: true.",
            param=f"{field}.prefix",
        )


def _past_calls(message: Message) -> Iterator[TemplateMessage]:
    """Yields the calls of a message, but for those without a name and arguments."""
    for call in message.tool_calls or ():
        if call is None:
            continue
        if call.function:
            yield past_call(call.function.name, call.function.arguments, call.id)
        elif call.custom:
            yield past_custom_call(call.custom.name, call.custom.input, call.id)
        elif call.name or call.args:
            yield past_call(call.name, call.args, call.id)
    if message.function_call and not message.tool_calls:
        yield past_call(message.function_call.name, message.function_call.arguments)
