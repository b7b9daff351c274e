"""Parses the conversation of a request to /v1/messages into the form that templates expect.

Agents send more than Anthropic's documentation shows: system messages between the turns, and the
blocks of tools that Anthropic runs, which stay in a conversation that began there.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from handlers.api.tools import past_call
from handlers.errors import InvalidRequest, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from handlers.api.messages import TemplateMessage

LEFT_OUT = (
    "redacted_thinking",
    "server_tool_use",
    "mcp_tool_use",
    "mcp_tool_listing",
    "fallback",
    "tool_addition",
    "tool_removal",
)
"""The types of blocks that chat templates have no place for."""

CALL = "tool_use"

OWN = (CALL, "thinking")
"""The types of the assistant's blocks that are no text: templates get them apart."""

LEFT_OUT_RESULTS = "_tool_result"
"""The end of the types of results of tools that another server ran: the answer followed them."""

ADVICE = {
    "image": "but this model reads text only: leave the image out, or say in a text block what is "
    "to be seen",
    "document": "but this model reads text only: send what the document says in a text block",
    "container_upload": "but no tool runs here: send what the file says in a text block",
}
"""The end of the error about a block that is refused."""

BILLING = re.compile(r"x-anthropic-billing-header:(?: *[a-z_]+=[^;\n]*;)*\s*")
"""The start of Claude Code's system prompt. It differs from request to request, so that no
prompt would begin as the one before and nothing of it could be reused."""

ERROR_MARKS = ("error", "<error", "<tool_use_error")
"""The starts of a failed tool's result that says itself that it failed."""


def _block_schema(kind: str, *required: str, **properties: object) -> dict[str, object]:
    """Returns the schema of a block of one type."""
    return {"properties": {"type": {"const": kind}, **properties}, "required": ["type", *required]}


_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _block_schema("text", "text", text=_TEXT)}
_RESULT = {"anyOf": [{"type": ["string", "null"]}, _TEXTS]}
# The blocks that each role may send, for the OpenAPI document.
_SYSTEMS = [
    _block_schema("text", "text", text=_TEXT),
    *(_block_schema(kind) for kind in LEFT_OUT),
]
_ASSISTANTS = [*_SYSTEMS, *(_block_schema(kind) for kind in OWN)]
_USERS = [
    *_SYSTEMS,
    *(_block_schema(kind, content=_RESULT) for kind in ("search_result", "compaction")),
    _block_schema("tool_result", "tool_use_id", tool_use_id=_TEXT, content=_RESULT),
]


def _turn_schema(role: str, blocks: list[dict[str, object]]) -> dict[str, object]:
    content = {"type": ["string", "array"], "items": {"anyOf": blocks}}
    return {"properties": {"role": {"const": role}, "content": content}}


class ContentBlock(msgspec.Struct, frozen=True):
    """A text, a tool call, the result of one, or a block that is left out."""

    type: str
    text: str | None = None
    thinking: Any = None
    id: Any = None
    name: str | None = None
    input: Any = None
    tool_use_id: str | None = None
    content: Any = None
    """A result's is a text or blocks, a search result's blocks, a summary's a text."""
    is_error: bool | None = None
    title: Any = None
    source: Any = None
    tool_name: Any = None


class InputMessage(msgspec.Struct, frozen=True):
    """One turn of a conversation, or a system message within it."""

    role: Literal["user", "assistant", "system"]
    content: str | list[ContentBlock]


CheckedInputMessage = Annotated[
    InputMessage,
    Meta(
        extra_json_schema={
            "anyOf": [
                _turn_schema("user", _USERS),
                _turn_schema("assistant", _ASSISTANTS),
                _turn_schema("system", _SYSTEMS),
            ]
        }
    ),
]
SystemBlocks = list[Annotated[ContentBlock, Meta(extra_json_schema={"anyOf": _SYSTEMS})]]


def input_messages(
    system: str | SystemBlocks | None, messages: list[CheckedInputMessage]
) -> list[TemplateMessage]:
    """Returns the conversation, with `system` in front of it. Raises InvalidRequest."""
    if not messages:
        raise InvalidRequest("messages is empty: send at least one message.", param="messages")
    instructions = _instructions(system or "", "system")
    given = [{"role": "system", "content": instructions}] if instructions else []
    try:
        for index, message in enumerate(messages):
            given += _turns(message, f"messages[{index}].content")
    except RecursionError:
        raise InvalidRequest("The messages are nested too deeply.", param="messages") from None
    return given


def _turns(message: InputMessage, field: str) -> list[TemplateMessage]:
    """Returns a message as templates know it: each result of a tool is a message of its own."""
    if message.role == "system":
        return [{"role": "system", "content": _instructions(message.content, field)}]
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    if message.role == "assistant":
        return [_answer(message.content, field)]
    return _users_turns(message.content, field)


def _instructions(content: str | list[ContentBlock], field: str) -> str:
    texts = [content] if isinstance(content, str) else _texts(content, field)
    return _joined(_without_billing(text) for text in texts)


def _without_billing(text: str) -> str:
    found = BILLING.match(text)
    return text[found.end() :] if found else text


def _answer(blocks: list[ContentBlock], field: str) -> TemplateMessage:
    calls = [past_call(each.name, each.input, each.id) for each in blocks if each.type == CALL]
    thoughts = _joined(each.thinking for each in blocks if isinstance(each.thinking, str))
    answer: TemplateMessage = {"role": "assistant", "content": _joined(_texts(blocks, field, OWN))}
    if thoughts:
        answer["reasoning_content"] = thoughts
    return answer | {"tool_calls": calls} if calls else answer


def _users_turns(blocks: list[ContentBlock], field: str) -> list[TemplateMessage]:
    """Returns the results of tools and the user's own text, in their order."""
    turns: list[TemplateMessage] = []
    texts: list[str] = []
    for index, block in enumerate(blocks):
        place = f"{field}[{index}]"
        if block.type != "tool_result":
            texts += _texts([block], field, first=index)
            continue
        if texts:
            turns.append({"role": "user", "content": _joined(texts)})
            texts = []
        call_id = _required(f"{place}.tool_use_id", block.tool_use_id)
        result = _result(block, f"{place}.content")
        turns.append({"role": "tool", "content": result, "tool_call_id": call_id})
    if texts or not turns:
        turns.append({"role": "user", "content": _joined(texts)})
    return turns


def _result(block: ContentBlock, field: str) -> str:
    """Returns the text of a tool's result, which says so where the tool failed."""
    text = _joined(_texts_of_content(block.content, field))
    if block.is_error and not text.lstrip().lower().startswith(ERROR_MARKS):
        return f"Error: {text}" if text else "Error"
    return text


def _texts_of_content(content: object, field: str) -> list[str]:
    """Returns the texts of a content within a block."""
    if content is None or isinstance(content, str):
        return [content or ""]
    try:
        blocks = msgspec.convert(content, list[ContentBlock])
    except msgspec.ValidationError:
        raise InvalidRequest(
            f"{field} must be a string or a list of blocks such as "
            '{"type": "text", "text": ...}.',
            param=field,
        ) from None
    return _texts(blocks, field)


def _texts(
    blocks: list[ContentBlock], field: str, read_apart: tuple[str, ...] = (), *, first: int = 0
) -> list[str]:
    """Returns the texts of blocks. Raises InvalidRequest for what cannot be read.

    `read_apart`: the types of blocks that the caller reads. `first`: the index of the first of the
    blocks in `field`.
    """
    return [
        text
        for index, block in enumerate(blocks, first)
        if block.type not in read_apart and not _is_left_out(block)
        for text in _block_texts(block, f"{field}[{index}]")
    ]


def _is_left_out(block: ContentBlock) -> bool:
    return block.type in LEFT_OUT or block.type.endswith(LEFT_OUT_RESULTS)


def _block_texts(block: ContentBlock, field: str) -> list[str]:
    if block.type == "text":
        return [_required(f"{field}.text", block.text)]
    if block.type == "search_result":
        named = [each for each in (block.title, block.source) if isinstance(each, str)]
        return [*named, *_texts_of_content(block.content, f"{field}.content")]
    if block.type == "compaction":
        return _texts_of_content(block.content, f"{field}.content")
    if block.type == "tool_reference":
        return [str(block.tool_name)]
    advice = ADVICE.get(
        block.type, "which cannot be read here: leave it out, or send what it says in a text block"
    )
    raise InvalidRequest(f"{field} is of type {quoted(block.type)}, {advice}.", param=field)


def _joined(texts: Iterable[str]) -> str:
    """Joins texts by line breaks. Blocks of a transcript end in one already."""
    given = [*filter(None, texts)]
    gaps = ["" if text.endswith("\n") else "\n" for text in given[:-1]]
    return "".join(chain.from_iterable(zip(given, [*gaps, ""], strict=True))) if given else ""


def _required(field: str, value: str | None) -> str:
    if value is None:
        raise InvalidRequest(f"{field} is required.", param=field)
    return value
