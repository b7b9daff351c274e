"""Writes tools, calls and results as text, for a chat template that knows no tools."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

from handlers.artifact.dialect import HERMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from handlers.artifact.dialect import ToolFormat

# For models whose chat template knows no tools. Most small models that were trained on tools have
# seen Hermes's format, and the grammar holds any other to it.
INTRODUCTION = """\
You can call tools. Each line between <tools> and </tools> describes one, with the JSON schema of \
its arguments:
<tools>
{tools}
</tools>
To call a tool, answer with its name and its arguments in this form, and wait for its result:
{example}"""


_OF_TOOLS = ("tool_calls", "tool_call_id", "name")


def without_tools(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
) -> list[Mapping[str, Any]]:
    """Rewrites a conversation for a chat template that knows no tools.

    The tools are described in the system message, calls become the assistant's text and results a
    user's turn, so that only the roles system, user and assistant are left.
    """
    turns: list[dict[str, Any]] = []
    # As in Hermes's template, the results of calls that were made together are one turn.
    for are_results, group in groupby(messages, lambda message: message["role"] == "tool"):
        plain = [_as_text(message) for message in group]
        turns += [_joined_results(plain)] if are_results else plain
    return with_introduction(turns, tools, HERMES)


def _joined_results(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"role": "user", "content": "\n".join(result["content"] for result in results)}


def _as_text(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    calls = message.get("tool_calls")
    if not calls:
        return {name: value for name, value in message.items() if name != "tool_calls"}
    functions = (call["function"] for call in calls)
    written = HERMES.write((function["name"], function["arguments"]) for function in functions)
    # What is left are thoughts, under the name that the template has for them.
    others = {name: value for name, value in message.items() if name not in _OF_TOOLS}
    return {**others, "content": f"{content}\n{written}" if content else written}


def with_introduction(
    turns: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    tool_format: ToolFormat,
) -> list[Mapping[str, Any]]:
    """Appends the description of the tools to the system message, or adds one."""
    if not tools:
        return [*turns]
    example = tool_format.write([("the tool's name", {"an argument's name": "its value"})])
    lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    text = INTRODUCTION.format(tools=lines, example=example)
    if turns and turns[0]["role"] == "system":
        return [{**turns[0], "content": f"{turns[0]['content']}\n\n{text}"}, *turns[1:]]
    return [{"role": "system", "content": text}, *turns]
