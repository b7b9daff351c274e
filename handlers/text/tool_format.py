"""The text of tool calls, as each family of models writes it, also for a template without tools.

A ToolFormat's few strings are all that the grammar (handlers/grammar/tool_grammar.py), the parser
and the prompt know of a format, so they cannot disagree.
"""

from __future__ import annotations

import json
import os
import re
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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


class ToolFormat(msgspec.Struct, frozen=True):
    """The text around tool calls, of which each is `open` name `middle` arguments `close`.

    `begin` call (`separator` call)* `end`
    """

    trigger: str
    """The start of `begin` (or of the first call), which text does not contain."""
    begin: str
    end: str
    separator: str | None
    """None for a model that makes one call at a time."""
    key: str = "arguments"
    at_start: bool = False
    """Whether calls are recognised at the start of an answer only."""
    id_length: int = 24
    """Hexadecimal digits of a call's id, after call_; 9 without it where a template checks."""

    open = '{"name": "'
    close = "}"

    @property
    def middle(self) -> str:
        """The text between the name and the arguments."""
        return f'", "{self.key}": '

    @classmethod
    def of(cls, template: str | None) -> ToolFormat | None:
        """Returns the format that a chat template writes, None for none that is known."""
        source = template or ""
        if not re.search(r"\btools\b", source):
            return None
        if "[TOOL_CALLS]" in source and "[ARGS]" not in source:
            return MISTRAL_SPACED if "[TOOL_CALLS] [" in source else MISTRAL
        if "<tool_call>" in source and "<function=" not in source:
            return HERMES
        return LLAMA if '"parameters": ' in source else None

    def write(self, calls: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
        """Writes calls, each a name and its arguments, as the model would have written them."""
        texts = (
            f"{self.open}{name}{self.middle}{json.dumps(arguments, ensure_ascii=False)}{self.close}"
            for name, arguments in calls
        )
        return f"{self.begin}{(self.separator or '').join(texts)}{self.end}"

    def new_id(self) -> str:
        """Returns a random id for a call."""
        digits = os.urandom(12).hex()[: self.id_length]
        return digits if self.id_length < 10 else f"call_{digits}"


HERMES = ToolFormat(
    trigger="<tool_call>",
    begin="<tool_call>\n",
    separator="\n</tool_call>\n<tool_call>\n",
    end="\n</tool_call>",
)
"""Hermes, Qwen 2.5 and 3, and models whose template knows no tools."""
LLAMA = ToolFormat(trigger="{", begin="", separator=None, end="", key="parameters", at_start=True)
"""Llama 3.1 to 3.3, whose template refuses more than one call."""
MISTRAL = ToolFormat(
    trigger="[TOOL_CALLS]", begin="[TOOL_CALLS][", separator=", ", end="]", id_length=9
)
"""Mistral's tokenizers v3 to v7, whose templates want ids of 9 letters and digits."""
MISTRAL_SPACED = ToolFormat(
    trigger="[TOOL_CALLS]", begin="[TOOL_CALLS] [", separator=", ", end="]", id_length=9
)
EXAMPLE = HERMES.write([("the tool's name", {"an argument's name": "its value"})])


def without_tools(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """Rewrites a conversation for a chat template that knows no tools.

    The tools are described in the system message, calls become the assistant's text and results a
    user's turn, so that only the roles system, user and assistant are left.
    """
    turns: list[dict[str, Any]] = []
    # As in Hermes's template, the results of calls that were made together are one turn.
    for are_results, group in groupby(messages, lambda message: message["role"] == "tool"):
        plain = [_as_text(message) for message in group]
        turns += [_joined_results(plain)] if are_results else plain
    return _with_introduction(turns, tools) if tools else turns


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
    return {"role": message["role"], "content": f"{content}\n{written}" if content else written}


def _with_introduction(
    turns: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Appends the description of the tools to the system message, or adds one."""
    lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    text = INTRODUCTION.format(tools=lines, example=EXAMPLE)
    if turns and turns[0]["role"] == "system":
        return [{**turns[0], "content": f"{turns[0]['content']}\n\n{text}"}, *turns[1:]]
    return [{"role": "system", "content": text}, *turns]
