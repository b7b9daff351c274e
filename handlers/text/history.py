"""Writes thoughts and calls of earlier messages in the way that a chat template takes them."""

from __future__ import annotations

import json
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from handlers.artifact.dialect import TaggedArguments

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from handlers.artifact.dialect import Dialect, ToolFormat

    Message = Mapping[str, Any]

THOUGHTS = "reasoning_content"
"""The member of a message in which the API has its thoughts."""


def for_template(messages: Sequence[Message], dialect: Dialect) -> list[Message]:
    """Returns the messages as the template of this dialect takes them."""
    taken: Iterable[Message] = messages
    member = dialect.thinking.member if dialect.thinking else None
    if member not in (None, THOUGHTS):
        taken = (_with_thoughts_in(member or "", message) for message in taken)
    tools = dialect.tools
    if tools is None:
        return [*taken]
    if tools.separator is None:
        taken = _one_call_each([*taken])
    return [_with_calls(one, tools) if "tool_calls" in one else one for one in taken]


def _with_thoughts_in(member: str, message: Message) -> Message:
    if THOUGHTS not in message:
        return message
    moved = {name: value for name, value in message.items() if name != THOUGHTS}
    thoughts, content = message[THOUGHTS], message.get("content")
    if member != "content":
        return {**moved, member: thoughts}
    parts = [{"type": "thinking", "thinking": thoughts}]
    return {**moved, "content": [*parts, *([{"type": "text", "text": content}] if content else [])]}


def _one_call_each(messages: list[Message]) -> Iterable[Message]:
    """Yields a message for each call of a message, and after each the result that it had."""
    while messages:
        message = messages.pop(0)
        calls = message.get("tool_calls", ())
        if len(calls) < 2:
            yield message
            continue
        results = [*takewhile(lambda one: one["role"] == "tool", messages)]
        del messages[: len(results)]
        places = _places(calls, results)
        for place, call in enumerate(calls):
            first = {"role": message["role"], "content": ""} if place else message
            yield {**first, "tool_calls": [call]}
            yield from (one for one, its in zip(results, places, strict=True) if its == place)


def _places(calls: Sequence[Message], results: Sequence[Message]) -> list[int]:
    """Returns the place of each result's call: by their ids, or by their order."""
    last = len(calls) - 1
    ids = {call["id"]: place for place, call in enumerate(calls)}
    by_order = [min(place, last) for place in range(len(results))]
    named = [ids.get(result.get("tool_call_id")) for result in results]
    known = [place for place in named if place is not None]
    return known if len(known) == len(results) and len(ids) == len(calls) else by_order


def _with_calls(message: Message, tools: ToolFormat) -> Message:
    """Returns a message with calls as the template writes them, or with their text."""
    functions = [call["function"] for call in message["tool_calls"]]
    if not tools.in_history:
        written = tools.write((one["name"], _as_object(one["arguments"])) for one in functions)
        rest = {name: value for name, value in message.items() if name != "tool_calls"}
        content = message.get("content")
        return {**rest, "content": f"{content}\n{written}" if content else written}
    if not tools.text_arguments and not _has_text_values(tools):
        return message
    calls = [
        {**call, "function": {**function, "arguments": _arguments(function["arguments"], tools)}}
        for call, function in zip(message["tool_calls"], functions, strict=True)
    ]
    return {**message, "tool_calls": calls}


def _has_text_values(tools: ToolFormat) -> bool:
    return isinstance(tools.arguments, TaggedArguments) and tools.arguments.text_values


def _arguments(given: Any, tools: ToolFormat) -> Any:
    if not isinstance(given, dict):
        return given
    if tools.text_arguments:
        return _json(given)
    return {key: one if isinstance(one, str) else _json(one) for key, one in given.items()}


def _as_object(arguments: Any) -> dict[str, Any]:
    """Returns arguments that are no object, since they were cut short, as the text of one."""
    return arguments if isinstance(arguments, dict) else {"arguments": arguments}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
