"""The form of the answers to one request, and the pieces of tool calls that a parser finds."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from handlers.artifact.dialect import Dialect, Thinking, ThinkingState, ToolFormat

NONE: Mapping[str, frozenset[str]] = {}


class AnswerFormat(msgspec.Struct, frozen=True):
    """The form of the answers to one request, which says how their text is to be read."""

    tools: ToolFormat | None = None
    """None where no tool is offered: what looks like a call is text."""
    thinking: Thinking | None = None
    """None where thoughts are not to be told from the answer, or the prompt has ended them."""
    thinks: bool = False
    """Whether the prompt ends within thoughts, so that the answer begins there."""
    text: tuple[str, str] = ("", "")
    """The marks around the text; the first is empty where the prompt has it."""
    strings: Mapping[str, frozenset[str]] = {}
    """By tool: the arguments whose schema takes a string and nothing else."""
    nullable_strings: Mapping[str, frozenset[str]] = {}
    """By tool: those whose schema takes a string, or null."""

    @property
    def is_plain(self) -> bool:
        """Returns whether all of an answer is its text: there is nothing to look for."""
        return self.tools is None and self.thinking is None and not any(self.text)


class ToolCallDelta(msgspec.Struct, frozen=True):
    """The start of a tool call, which has `id` and `name`, or the next piece of its arguments."""

    index: int
    """The call's position among the answer's calls, from 0."""
    arguments: str = ""
    """Joined, the pieces are the JSON that the model wrote."""
    id: str | None = None
    name: str | None = None


def answer_format(
    dialect: Dialect,
    prompt_end: str,
    tools: ToolFormat | None = None,
    strings: Mapping[str, frozenset[str]] = NONE,
    nullable_strings: Mapping[str, frozenset[str]] = NONE,
    continued: str | None = None,
) -> AnswerFormat:
    """Returns how to read the answer to a prompt that ends with `prompt_end`.

    `continued`: the text of the answer that the prompt has already, None where it has none.
    """
    thinking, (opening, closing) = dialect.thinking, dialect.text
    left = "open" if thinking is None else _left(thinking, prompt_end, continued)
    if continued is not None or prompt_end.rstrip().endswith(opening.strip()):
        opening = ""
    return AnswerFormat(
        tools,
        None if left == "over" else thinking,
        left == "begun",
        (opening, closing),
        strings,
        nullable_strings,
    )


def _left(thinking: Thinking, prompt_end: str, continued: str | None) -> ThinkingState:
    """Returns how a prompt leaves the thoughts, as Thinking.left_by does."""
    if continued is None:
        return thinking.left_by(prompt_end)
    begin, end = thinking.begin.strip(), thinking.end.strip()
    _, begun, thoughts = continued.rpartition(begin) if begin else ("", "", "")
    return "begun" if begun and end not in thoughts else "over"
