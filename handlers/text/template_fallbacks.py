"""Rewrites a conversation that a chat template refuses into forms that stricter templates accept.

OpenAI puts no order on roles, and agents send system messages at any place. Qwen 3.5's template
raises where one is not the first, Gemma's where turns do not alternate, Gemma 2's where there is
one at all, Mistral's where a call has another server's id. Every step keeps all texts and their
order.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    Message = Mapping[str, Any]


THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thought")
"""The members of a message in which templates expect thoughts."""


def rewritten(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Yields the conversation after each step that changes it; the steps add up."""
    last = [*messages]
    for step in (
        without_thoughts,
        objects_as_arguments,
        ids_of_nine_digits,
        results_with_names,
        joined_turns,
        later_system_messages_as_the_users,
        all_system_messages_as_the_users,
        the_user_first,
        results_answered,
    ):
        changed = step(last)
        if changed != last:
            yield changed
        last = changed


def without_thoughts(messages: Sequence[Message]) -> list[Message]:
    """Leaves out earlier thoughts: gpt-oss's template raises where there are text and calls too."""
    return [_without_thoughts(message) for message in messages]


def _without_thoughts(message: Message) -> Message:
    rest = {name: value for name, value in message.items() if name not in THOUGHTS}
    content = message.get("content")
    if isinstance(content, list):
        rest["content"] = "".join(part.get("text", "") for part in content)
    return rest


def objects_as_arguments(messages: Sequence[Message]) -> list[Message]:
    """Makes the arguments of a call that was cut, whose text is no whole JSON, an object.

    Some templates go through the members of arguments.
    """
    return [
        {**message, "tool_calls": [_with_an_object(call) for call in message["tool_calls"]]}
        if "tool_calls" in message
        else message
        for message in messages
    ]


def _with_an_object(call: Message) -> Message:
    arguments = call["function"]["arguments"]
    if not isinstance(arguments, str):
        return call
    return {**call, "function": {**call["function"], "arguments": {"arguments": arguments}}}


def ids_of_nine_digits(messages: Sequence[Message]) -> list[Message]:
    """Gives calls ids of nine digits, as Mistral's templates want them, and results the same."""
    return [_with_short_ids(message) for message in messages]


def _with_short_ids(message: Message) -> Message:
    changed = {**message}
    if "tool_calls" in message:
        changed["tool_calls"] = [
            {**call, "id": _nine_digits(call["id"])} for call in message["tool_calls"]
        ]
    if "tool_call_id" in message:
        changed["tool_call_id"] = _nine_digits(message["tool_call_id"])
    return changed


def _nine_digits(call_id: str) -> str:
    return call_id if len(call_id) == 9 and call_id.isalnum() else f"{crc32(call_id.encode()):09x}"


def results_with_names(messages: Sequence[Message]) -> list[Message]:
    """Gives a result without a name that of its call: by its id, or by its place after the calls.

    Gemma 4's template looks for the call of each result, and adds None to a text where it has none.
    """
    named: list[Message] = []
    calls: Sequence[Message] = ()
    place = 0
    for message in messages:
        if message["role"] != "tool":
            calls, place = message.get("tool_calls", ()), 0
            named.append(message)
        else:
            by_id = [one for one in calls if one["id"] == message.get("tool_call_id")]
            found = [*by_id, *calls[place : place + 1]]
            name = {"name": found[0]["function"]["name"]} if found else {}
            named.append({**name, **message})
            place += 1
    return named


def joined_turns(messages: Iterable[Message]) -> list[Message]:
    """Joins turns of one role that follow one another."""
    joined: list[Message] = []
    for message in messages:
        if joined and _joins(joined[-1], message):
            texts = (joined[-1]["content"], message["content"])
            content = "\n\n".join(filter(None, texts))
            joined[-1] = {**joined[-1], **message, "content": content}
        else:
            joined.append(message)
    return joined


def _joins(first: Message, second: Message) -> bool:
    """Returns whether two turns can be one: not results, nor anything after a turn with calls.

    Nor those with thoughts as parts of their content.
    """
    are_texts = isinstance(first["content"], str) and isinstance(second["content"], str)
    is_one_turn = first["role"] == second["role"] and first["role"] != "tool"
    return is_one_turn and are_texts and "tool_calls" not in first


def later_system_messages_as_the_users(messages: Sequence[Message]) -> list[Message]:
    """Makes a user's turn of each system message but one that comes first."""
    return joined_turns([*messages[:1], *map(_as_the_users, messages[1:])])


def all_system_messages_as_the_users(messages: Iterable[Message]) -> list[Message]:
    """Makes a user's turn of every system message, for templates that know none."""
    return joined_turns(map(_as_the_users, messages))


def _as_the_users(message: Message) -> Message:
    return {**message, "role": "user"} if message["role"] == "system" else message


def the_user_first(messages: Sequence[Message]) -> list[Message]:
    """Puts an empty message of the user before a conversation that another role begins."""
    if messages and messages[0]["role"] == "user":
        return [*messages]
    return [{"role": "user", "content": ""}, *messages]


def results_answered(messages: Sequence[Message]) -> list[Message]:
    """Puts an empty turn of the assistant between a call's result and the user's next message."""
    answered = [*messages[:1]]
    for before, message in pairwise(messages):
        if (before["role"], message["role"]) == ("tool", "user"):
            answered.append({"role": "assistant", "content": ""})
        answered.append(message)
    return answered
