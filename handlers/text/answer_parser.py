"""Reads an answer as its text arrives: its thoughts, its text and its tool calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from handlers.text.stop_strings import StopStrings
from handlers.text.text_marks import TextMarks
from handlers.text.thinking_parser import ThinkingParser
from handlers.text.tool_parser import ToolCallParser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.text.answer_format import AnswerFormat, ToolCallDelta


class AnswerPiece(NamedTuple):
    """The thoughts, then the text, then the calls that a piece of an answer made certain."""

    reasoning: str
    text: str
    calls: Sequence[ToolCallDelta]


class AnswerParser:
    """Parses one answer: `push` each piece of text, then `flush`.

    The thoughts are taken off first. Stop strings are looked for in all that follows them, and
    calls in what the stop strings leave.
    """

    def __init__(self, answer_format: AnswerFormat, stop: tuple[str, ...] = ()) -> None:
        thinking, tools, marks = answer_format.thinking, answer_format.tools, answer_format.text
        self._thoughts = None
        if thinking is not None:
            self._thoughts = ThinkingParser(thinking, answer_format.thinks)
        self._marks = TextMarks(marks) if any(marks) else None
        self._stops = StopStrings(stop) if stop else None
        self._calls = None
        if tools is not None:
            strings, nullable = answer_format.strings, answer_format.nullable_strings
            self._calls = ToolCallParser(tools, strings, nullable)
        self._read = 0
        """The characters of the answer so far."""
        self._thoughts_end = 0
        """The place of the first character after the thoughts, as far as is known."""
        self._blanks: list[str] = []
        """White space of the text that is left out if no more text follows it."""
        self.passed = 0
        """The characters that the stop strings have let through."""
        self.called = False
        """Whether there is a call."""

    @property
    def stop_string(self) -> str | None:
        """Returns the stop string that ended the answer: later text is no part of it."""
        return None if self._stops is None else self._stops.matched

    @property
    def has_thoughts(self) -> bool:
        """Returns whether the answer has thoughts, or their marks."""
        return self._thoughts is not None and self._thoughts.found

    @property
    def thoughts_over(self) -> bool:
        """Returns whether the thoughts have ended, or there are none."""
        return self._thoughts is None or self._thoughts.over

    @property
    def inside_call(self) -> bool:
        """Returns whether a call has begun and has not ended."""
        return self._calls is not None and self._calls.inside_call

    @property
    def text_start(self) -> int:
        """Returns the place of the text in the answer, as far as is known."""
        return self._thoughts_end + (self._marks.left_out if self._marks else 0)

    @property
    def text_end(self) -> int | None:
        """Returns the place of a mark after the text, None where there is none yet."""
        end = self._marks.end if self._marks else None
        return None if end is None else self._thoughts_end + end

    def push(self, piece: str) -> AnswerPiece:
        """Takes the next piece, and returns what is certain now."""
        self._read += len(piece)
        reasoning = ""
        if self._thoughts is not None:
            begun = self._thoughts.in_text
            reasoning, piece = self._thoughts.push(piece)
            if not begun:
                self._thoughts_end = self._read - len(piece) if self._thoughts.found else 0
        if self._marks is not None and piece:
            piece = self._marks.push(piece)
        if self._stops is not None and piece:
            piece = self._stops.push(piece)
        self.passed += len(piece)
        return AnswerPiece(reasoning, *self._parse_calls(piece))

    def flush(self, whole: bool = True) -> AnswerPiece:
        """Returns what was held back, at the end of the answer. It may be called once.

        `whole`: whether the model ended the answer itself.
        """
        reasoning, piece = self._thoughts.flush() if self._thoughts is not None else ("", "")
        if self._marks is not None:
            piece = self._marks.push(piece) + self._marks.flush()
        if self._stops is not None:
            piece = self._stops.push(piece) + self._stops.flush()
        self.passed += len(piece)
        text, calls = self._parse_calls(piece)
        if self._calls is not None:
            rest, ends = self._calls.flush(whole)
            text, calls = text + self._trimmed(rest), [*calls, *ends]
        return AnswerPiece(reasoning, text, calls)

    def _parse_calls(self, piece: str) -> tuple[str, Sequence[ToolCallDelta]]:
        if self._calls is None or not piece:
            return self._trimmed(piece), ()
        text, calls = self._calls.push(piece)
        self.called = self.called or bool(calls)
        return self._trimmed(text), calls

    def _trimmed(self, text: str) -> str:
        """Holds back white space at the end, where an answer has thoughts."""
        if self._thoughts is None or not self._thoughts.found:
            return text
        kept = text.rstrip()
        if kept:
            text, blank = "".join([*self._blanks, kept]), text[len(kept) :]
            self._blanks = [blank] if blank else []
            return text
        if text:
            self._blanks.append(text)
        return ""
