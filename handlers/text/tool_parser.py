"""Parses tool calls out of an answer, piece by piece, however its text is cut.

The text is in a ToolFormat, but for white space between its marks, or was cut short; any other
comes back as text, so nothing is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.artifact.dialect import JsonArguments, LiteralArguments, TaggedArguments
from handlers.text.answer_format import NONE, ToolCallDelta
from handlers.text.arguments.json_object import JsonObject
from handlers.text.call_slots import CallSlots
from handlers.text.marks import MORE, NO, Mark
from handlers.text.stop_strings import partial_match

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.artifact.dialect import ToolFormat
    from handlers.text.arguments.converter import Converter

ARGUMENTS = "arguments"


class ToolCallParser:
    """Parses one answer: `push` each piece of text, then `flush`.

    Each state is a method that takes what it can from the front of `_pending` and returns whether
    there may be more to take.
    """

    def __init__(
        self,
        tool_format: ToolFormat,
        strings: Mapping[str, frozenset[str]] = NONE,
        nullable: Mapping[str, frozenset[str]] = NONE,
    ) -> None:
        """`strings`: by tool, the arguments that are strings. `nullable`: strings or null."""
        self._format, self._strings, self._nullable = tool_format, strings, nullable
        texts, slots = tool_format.call[::2], tool_format.call[1::2]
        count = slots.index(ARGUMENTS)
        marks = [Mark(text) for text in texts]
        self._close = marks[count + 1]
        """The mark after the arguments."""
        opening = Mark(tool_format.begin + texts[0])
        self._first = CallSlots([opening, *marks[1 : count + 1]], slots[:count], self._opens)
        self._next = CallSlots(marks[: count + 1], slots[:count], self._opens)
        self._tail = CallSlots(marks[count + 1 :], slots[count + 1 :])
        self._last = Mark(texts[-1].removeprefix('"') if len(texts) > count + 2 else "")
        """The end of a call that leaves out what stands after its arguments."""
        self._end = Mark(tool_format.end)
        self._separator = Mark(tool_format.separator or "")
        self._another = Mark((tool_format.separator or "") + texts[0])
        self._repeats = tool_format.separator is not None
        self._slots = self._first
        """The slots of the next call."""
        self._state = self._in_text
        self._pending = ""
        self._calls = 0
        self._ids: set[str] = set()
        self._arguments = self._converter(None)
        self._unnamed: list[str] = []
        """The text so far of a call whose name stands after its arguments."""
        self._held: list[str] = []
        """The arguments of such a call."""
        self._text = ""
        self._deltas: list[ToolCallDelta] = []

    def push(self, text: str) -> tuple[str, list[ToolCallDelta]]:
        """Takes the next piece, and returns the text and the calls that are certain now."""
        self._pending += text
        self._text, self._deltas = "", []
        while self._state():
            pass
        return self._text, self._deltas

    def flush(self, whole: bool = True) -> tuple[str, list[ToolCallDelta]]:
        """Returns what was held back, at the end of the answer.

        A call that was cut before its arguments is returned as text. `whole`: whether the model
        ended the answer, which may end a call that lacks its last marks.
        """
        self._text, self._deltas = "", []
        rest, self._pending = self._pending, ""
        if self._state == self._in_arguments:
            piece, closing = self._arguments.finish()
            self._add(piece)
            if whole and closing is not None:
                self._add(closing)
                self._state = self._after_call
        if self._unnamed:
            return "".join([*self._unnamed, rest]), []
        framing = self._state in (self._after_arguments, self._after_call)
        return "" if framing else rest, self._deltas

    @property
    def inside_call(self) -> bool:
        """Returns whether a call has begun and its arguments have not ended."""
        inside = (self._in_head, self._in_arguments, self._in_broken_call)
        return self._state in inside or bool(self._unnamed)

    def _in_text(self) -> bool:
        trigger = self._format.trigger
        text = self._pending.lstrip() if self._format.at_start else self._pending
        if self._format.at_start and not trigger.startswith(text[: len(trigger)]):
            self._state = self._after_calls
            return True
        place = text.find(trigger)
        if place >= 0:
            self._state = self._in_head
            self._slots = self._first
        elif self._format.at_start:
            return False
        else:
            place = partial_match(text, trigger)
        self._text += text[:place]
        self._pending = text[place:]
        return self._state == self._in_head

    def _in_head(self) -> bool:
        values, end = self._slots.match(self._pending)
        arguments = self._converter(values.get("name"))
        start = arguments.opens(self._pending, end) if end >= 0 else end
        if MORE in {end, start}:
            return False
        if end == NO or (start == NO and self._closes(self._pending, end) < 0):
            return self._give_up()
        self._arguments = arguments
        start, none = (end, True) if start == NO else (start, False)
        if "name" in values:
            self._begin(values["name"], values.get("id", ""))
        else:
            self._unnamed, self._held = [self._pending[:start]], []
        self._pending = self._pending[start:]
        self._state = self._after_arguments if none else self._in_arguments
        self._add("{}" if none else "")
        return True

    def _in_arguments(self) -> bool:
        text = self._pending
        piece, rest = self._arguments.push(text)
        self._pending = rest or ""
        if self._unnamed:
            self._unnamed.append(text[: len(text) - len(self._pending)])
        self._add(piece)
        if rest is None:
            return False
        broken = self._arguments.broken
        self._state = self._in_broken_call if broken else self._after_arguments
        return True

    def _after_arguments(self) -> bool:
        values, end = self._tail.match(self._pending)
        if end == NO:
            end = self._last.match(self._pending)
        if end == MORE:
            return False
        if self._unnamed:
            if "name" not in values or end == NO:
                self._state = self._in_broken_call
                return True
            self._unnamed = []
            self._begin(values["name"], values.get("id", ""))
            self._add("".join(self._held))
        self._pending = self._pending[max(0, end) :]
        self._calls += 1
        self._state = self._after_call
        return True

    def _after_call(self) -> bool:
        another = self._another.match(self._pending) if self._repeats else NO
        if not self._another.core:
            another = NO
        end = self._end.match(self._pending)
        if another >= 0:
            self._pending = self._pending[self._separator.match(self._pending) :]
            self._slots = self._next
            self._state = self._in_head
            return True
        if MORE in {another, end}:
            return False
        self._pending = self._pending[max(0, end) :]
        again = self._repeats and not self._format.at_start
        self._state = self._in_text if again else self._after_calls
        return True

    def _in_broken_call(self) -> bool:
        self._text += "".join([*self._unnamed, self._pending])
        self._pending, self._unnamed = "", []
        return False

    def _after_calls(self) -> bool:
        self._text += self._pending
        self._pending = ""
        return False

    def _give_up(self) -> bool:
        """Takes what looked like a call as text."""
        trigger = self._format.trigger
        length = len(trigger) if self._pending.startswith(trigger) else 1
        self._text += self._pending[:length]
        self._pending = self._pending[length:]
        self._state = self._after_calls if self._format.at_start else self._in_text
        return True

    def _begin(self, name: str, call_id: str) -> None:
        """Begins a call, with the id that the model gave it if no other call has the same."""
        if not call_id or call_id in self._ids:
            call_id = self._format.new_id()
        self._ids.add(call_id)
        self._deltas.append(ToolCallDelta(self._calls, id=call_id, name=name))

    def _add(self, piece: str) -> None:
        """Adds a piece to the arguments of the current call."""
        if self._unnamed:
            self._held.append(piece)
        elif piece:
            self._deltas.append(ToolCallDelta(self._calls, piece))

    def _opens(self, text: str, start: int) -> int:
        """Returns the place at which arguments, or the end of a call without any, may begin."""
        found = self._converter(None).opens(text, start)
        return self._closes(text, start) if found == NO else found

    def _closes(self, text: str, start: int) -> int:
        """Returns the place after a call without arguments, in a style that may have none."""
        if isinstance(self._format.arguments, JsonArguments):
            return NO
        marks = (self._close,) if self._close.core else (self._end, self._another)
        found = [mark.match(text, start) for mark in marks if mark.core]
        return max(found, default=NO) if MORE not in found else MORE

    def _converter(self, name: str | None) -> Converter:
        """Makes the converter of one call's arguments. The styles are imported by their models."""
        style = self._format.arguments
        if isinstance(style, TaggedArguments):
            from handlers.text.arguments.tagged import Tagged

            none: frozenset[str] = frozenset()
            tool = name or ""
            return Tagged(style, self._strings.get(tool, none), self._nullable.get(tool, none))
        if isinstance(style, LiteralArguments):
            from handlers.text.arguments.literals import Literals

            return Literals(style, Mark(self._close.core[:1]))
        return JsonObject()
