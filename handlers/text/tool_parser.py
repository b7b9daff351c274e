"""Parses tool calls out of an answer, piece by piece, however its text is cut.

The text follows the grammar of a ToolFormat, or was cut short; any other comes back as text, so
nothing is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.text.answer_format import ToolCallDelta
from handlers.text.stop_strings import partial_match

if TYPE_CHECKING:
    from handlers.artifact.dialect import ToolFormat


class ToolCallParser:
    """Parses one answer: `push` each piece of text, then `flush`.

    It has five states. Each is a method that takes what it can from the front of `_pending` and
    returns whether there may be more to take.
    """

    def __init__(self, tool_format: ToolFormat) -> None:
        self._format = tool_format
        self._state = self._in_text
        self._pending = ""
        self._lead = tool_format.begin + tool_format.call[0]
        """The text before the next call's name."""
        self._calls = 0
        self._object = _ObjectEnd()
        self._text = ""
        self._deltas: list[ToolCallDelta] = []

    def push(self, text: str) -> tuple[str, list[ToolCallDelta]]:
        """Takes the next piece, and returns the text and the calls that are certain now."""
        self._pending += text
        self._text, self._deltas = "", []
        while self._state():
            pass
        return self._text, self._deltas

    def flush(self) -> str:
        """Returns the text that was held back, at the end of the answer.

        A call that was cut before its arguments is returned as text.
        """
        rest, self._pending = self._pending, ""
        framing = (self._done, self._another) if self._state == self._after_call else ()
        lost = not rest or any(text.startswith(rest) for text in framing)
        return "" if lost else rest

    @property
    def inside_call(self) -> bool:
        """Returns whether a call has begun and its arguments have not ended."""
        return self._state in (self._before_arguments, self._in_arguments)

    @property
    def _middle(self) -> str:
        """The text between a call's name and its arguments."""
        return self._format.call[2]

    @property
    def _done(self) -> str:
        """The text after the last call's arguments."""
        return self._format.call[4] + self._format.end

    @property
    def _another(self) -> str:
        """The text between a call's arguments and another call, empty for a format of one call."""
        separator = self._format.separator
        return "" if separator is None else self._format.call[4] + separator

    def _in_text(self) -> bool:
        trigger = self._format.trigger
        if self._format.at_start and not trigger.startswith(self._pending[: len(trigger)]):
            return self._give_up()
        place = self._pending.find(trigger)
        if place >= 0:
            self._state = self._before_arguments
        else:
            place = partial_match(self._pending, trigger)
        if place:
            self._text += self._take(place)
        return self._pending.startswith(trigger)

    def _before_arguments(self) -> bool:
        if not self._pending.startswith(self._lead):
            return not self._lead.startswith(self._pending) and self._give_up()
        middle = self._pending.find(self._middle, len(self._lead))
        end = middle + len(self._middle)
        if middle < 0 or end == len(self._pending):
            return False
        if self._pending[end] != "{":
            return self._give_up()
        name = self._take(end)[len(self._lead) : middle]
        self._deltas.append(ToolCallDelta(self._calls, id=self._format.new_id(), name=name))
        self._object = _ObjectEnd()
        self._state = self._in_arguments
        return True

    def _in_arguments(self) -> bool:
        end = self._object.find(self._pending)
        if self._pending:
            piece = self._take(len(self._pending) if end is None else end)
            self._deltas.append(ToolCallDelta(self._calls, piece))
        if end is None:
            return False
        self._calls += 1
        self._state = self._after_call
        return True

    def _after_call(self) -> bool:
        if self._another and self._pending.startswith(self._another):
            self._take(len(self._another))
            self._lead = self._format.call[0]
            self._state = self._before_arguments
            return True
        if self._another.startswith(self._pending) or self._done.startswith(self._pending):
            return False
        if self._pending.startswith(self._done):
            self._take(len(self._done))
        return self._give_up()

    def _after_calls(self) -> bool:
        self._text += self._take(len(self._pending))
        return False

    def _give_up(self) -> bool:
        """Takes all that follows as text."""
        self._state = self._after_calls
        return True

    def _take(self, length: int) -> str:
        taken, self._pending = self._pending[:length], self._pending[length:]
        return taken


class _ObjectEnd:
    """Finds the brace that closes a JSON object whose text arrives in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def find(self, piece: str) -> int | None:
        """Returns how many characters of `piece` belong to the object, None if it goes on."""
        for place, character in enumerate(piece):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = character == "\\"
                self._in_string = character != '"'
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return place + 1
        return None
