"""The dialect of a model: the marks of its thinking, and the text of its tool calls.

An export finds it in the model's chat template and writes it into the manifest. Prompt, grammar and
parser are all made from it, so they cannot disagree.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

Slot = Literal["name", "arguments", "id", "index"]
"""A gap in the text of a call: the function's name, its arguments, the call's id, or its place
among the calls of an answer, counted from `ToolFormat.first_index`."""


CDATA, CDATA_END = "<![CDATA[", "]]>"


class JsonArguments(msgspec.Struct, frozen=True, tag="json"):
    """Arguments that are one JSON object."""

    def write(self, arguments: Mapping[str, Any]) -> str:
        """Writes arguments as the model would have written them."""
        return _json(arguments)


class TaggedArguments(msgspec.Struct, frozen=True, omit_defaults=True, tag="tagged"):
    """Arguments that stand one by one between marks, as in XML.

    `open` key `middle` value `close`, with `separator` between two. A string stands as it is, any
    other value as JSON.
    """

    open: str
    middle: str
    close: str
    separator: str = ""
    other_middle: str | None = None
    """Takes the place of `middle` before a value that is no string, where that differs."""
    text_values: bool = False
    """Whether the template writes earlier values as JSON only if it is given them as text."""
    cdata: bool = False
    """Whether a string with <, & or a line break stands between <![CDATA[ and ]]>, as in XML."""

    def write(self, arguments: Mapping[str, Any]) -> str:
        """Writes arguments as the model would have written them."""
        return self.separator.join(self._argument(*each) for each in arguments.items())

    def _argument(self, key: str, value: object) -> str:
        if isinstance(value, str):
            if self.cdata and any(one in value for one in "<&\n"):
                value = f"{CDATA}{value}{CDATA_END}"
            return f"{self.open}{key}{self.middle}{value}{self.close}"
        middle = self.middle if self.other_middle is None else self.other_middle
        return f"{self.open}{key}{middle}{_json(value)}{self.close}"


class LiteralArguments(msgspec.Struct, frozen=True, omit_defaults=True, tag="literals"):
    """Arguments that stand one by one as literals of a programming language.

    key `assign` value, with `separator` between two. Lists are in brackets and objects in braces,
    which have the same `separator`.
    """

    assign: str
    separator: str
    quote: str
    """Around a string: Python's ', with its escapes within, or a mark that no string contains."""
    nested_assign: str
    """Takes the place of `assign` within an object that is a value."""
    quoted_keys: bool
    """Whether the keys of an object that is a value stand in quotes."""
    null: str = "null"
    true: str = "true"
    false: str = "false"

    def write(self, arguments: Mapping[str, Any]) -> str:
        """Writes arguments as the model would have written them."""
        return self.separator.join(
            f"{key}{self.assign}{self._value(value)}" for key, value in arguments.items()
        )

    def _value(self, value: object) -> str:
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, Mapping):
            items = (self._item(*each) for each in value.items())
            return f"{{{self.separator.join(items)}}}"
        if isinstance(value, list):
            return f"[{self.separator.join(map(self._value, value))}]"
        if value is None:
            return self.null
        if isinstance(value, bool):
            return self.true if value else self.false
        return _json(value)

    def _item(self, key: str, value: object) -> str:
        name = self._string(key) if self.quoted_keys else key
        return f"{name}{self.nested_assign}{self._value(value)}"

    def _string(self, text: str) -> str:
        if self.quote == "'":
            return repr(text)
        return _json(text) if self.quote == '"' else f"{self.quote}{text}{self.quote}"


Arguments = JsonArguments | TaggedArguments | LiteralArguments


class ToolFormat(msgspec.Struct, frozen=True, omit_defaults=True):
    """The text around tool calls: `begin` call (`separator` call)* `end`."""

    trigger: str
    """The start of `begin` (or of the first call), which text does not contain."""
    begin: str
    call: tuple[str, ...]
    """Literal text and slots in turn: a text, the name of a Slot, a text, and so on to a last text.

    There are one "name" and one "arguments" in it.
    """
    separator: str | None
    """None for a model that makes one call at a time."""
    end: str
    arguments: Arguments = JsonArguments()
    at_start: bool = False
    """Whether calls are recognised at the start of an answer only."""
    id_length: int = 24
    """Hexadecimal digits of a call's id, after call_; 9 without it where a template checks."""
    first_index: int = 0
    in_history: bool = True
    """Whether the template writes earlier calls; otherwise they become text of their messages."""
    variable: str | None = "tools"
    """The template's variable that has the tools, None for one that describes none."""
    text_arguments: bool = False
    """Whether the template takes the arguments of earlier calls as JSON text, not as objects."""

    def new_id(self) -> str:
        """Returns a random id for a call."""
        digits = os.urandom(12).hex()[: self.id_length]
        return digits if self.id_length < 10 else f"call_{digits}"

    def write(self, calls: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
        """Writes calls, each a name and its arguments, as the model would have written them."""
        texts = [self._write_call(place, *call) for place, call in enumerate(calls)]
        return f"{self.begin}{(self.separator or '').join(texts)}{self.end}"

    def _write_call(self, place: int, name: str, arguments: Mapping[str, Any]) -> str:
        values = {
            "name": name,
            "arguments": self.arguments.write(arguments),
            "id": self.new_id(),
            "index": str(self.first_index + place),
        }
        slots = self.call[1::2]
        texts = (values[slot] + text for slot, text in zip(slots, self.call[2::2], strict=True))
        return self.call[0] + "".join(texts)


ThinkingState = Literal["begun", "open", "over"]
"""Whether a prompt ends within thoughts, leaves them to the model, or has ended them."""


class Thinking(msgspec.Struct, frozen=True, omit_defaults=True):
    """The marks of a model's thoughts, which come before its answer: `begin` thoughts `end`.

    Both have the white space that the template writes around them, such as the line break after
    <think>. A parser looks for them without it.
    """

    begin: str
    """A prompt may end with it: then the answer begins with the thoughts. Empty where nothing is
    written before thoughts, and an answer without any begins with `end` or has none."""
    end: str
    on: Mapping[str, Any] = {}
    """The template's variables that turn thinking on, empty where none does."""
    off: Mapping[str, Any] = {}
    effort: str | None = None
    """The template's variable that takes "low", "medium" and "high"."""
    member: str | None = None
    """The member of a message in which the template expects earlier thoughts, None for none.

    "content" has them as a part of the type "thinking"."""

    def left_by(self, prompt: str) -> ThinkingState:
        """Returns how a prompt leaves the thoughts, by its end."""
        ending, begin, end = prompt.rstrip(), self.begin.strip(), self.end.strip()
        if ending.endswith(end):
            # An end that has the next turn's head may be any turn's end.
            is_theirs = end.count("<") < 2 or (
                begin and ending.removesuffix(end).rstrip().endswith(begin)
            )
            return "over" if is_theirs else "open"
        return "begun" if begin and ending.endswith(begin) else "open"


class Dialect(msgspec.Struct, frozen=True, omit_defaults=True):
    """The form of a model's answers, as its chat template shows it."""

    tools: ToolFormat | None = None
    """None for a template that knows no tools: they are described in the system message."""
    thinking: Thinking | None = None
    text: tuple[str, str] = ("", "")
    """The marks around the text of an answer, as in <|START_RESPONSE|>text<|END_RESPONSE|>."""

    def marks(self) -> Iterator[str]:
        """Yields the texts that a parser looks for in an answer."""
        yield from self.text
        if self.thinking is not None:
            yield from (self.thinking.begin, self.thinking.end)
        if self.tools is not None:
            tools = self.tools
            yield from (tools.begin, *tools.call[::2], tools.separator or "", tools.end)
            style = msgspec.structs.astuple(tools.arguments)
            yield from (mark for mark in style if isinstance(mark, str))


HERMES = ToolFormat(
    trigger="<tool_call>",
    begin="<tool_call>\n",
    call=('{"name": "', "name", '", "arguments": ', "arguments", "}"),
    separator="\n</tool_call>\n<tool_call>\n",
    end="\n</tool_call>",
)
"""Hermes, Qwen 2.5 and 3, and models whose template knows no tools."""


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
