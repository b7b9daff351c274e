"""Tells a model's thoughts from the answer after them, piece by piece, however the text is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.text.stop_strings import partial_match

if TYPE_CHECKING:
    from handlers.artifact.dialect import Thinking


class ThinkingParser:
    """Parses one answer: `push` each piece of text, then `flush`.

    Only thoughts at the start of an answer are thoughts. White space around them, and between them
    and the text, is left out. Each state is a method that takes what it can from the front of
    `_pending` and returns whether there may be more to take.
    """

    def __init__(self, thinking: Thinking, thinks: bool) -> None:
        """`thinks`: whether the prompt ends within thoughts."""
        self._begin, self._end = thinking.begin.strip(), thinking.end.strip()
        self._thinks = thinks
        self._state = self._at_start
        self._pending = ""
        self._blanks: list[str] = []
        """White space that is left out if no more thoughts follow it, or no text at the start."""
        self._begun = False
        """Whether anything of the thoughts was returned."""
        self._reasoning = self._text = ""
        self.found = thinks
        """Whether the answer has thoughts, or their marks."""

    @property
    def in_text(self) -> bool:
        """Returns whether the text has begun."""
        return self._state == self._in_text

    @property
    def over(self) -> bool:
        """Returns whether the thoughts have ended, or there are none."""
        return self._state in {self._after_thoughts, self._in_text}

    def push(self, piece: str) -> tuple[str, str]:
        """Takes the next piece, and returns what is certain now of the thoughts and of the text."""
        if self._state == self._in_text:
            return "", piece
        self._pending += piece
        self._reasoning = self._text = ""
        while self._state():
            pass
        return self._reasoning, self._text

    def flush(self) -> tuple[str, str]:
        """Returns what was held back, at the end of the answer."""
        rest, self._pending = self._pending, ""
        if self._state == self._at_start and not self._thinks:
            return "", "".join([*self._blanks, rest])
        self._reasoning = ""
        self._think(rest)
        return self._reasoning, ""

    def _at_start(self) -> bool:
        leading = self._pending.lstrip()
        if not leading:
            if not self._thinks:
                self._blanks.append(self._pending)
            self._pending = ""
            return False
        for mark, follows in ((self._begin, self._in_thoughts), (self._end, self._after_thoughts)):
            if mark and leading.startswith(mark):
                self._pending = leading[len(mark) :]
                self._blanks.clear()
                self._state, self.found = follows, True
                return True
        if self._begin.startswith(leading) or self._end.startswith(leading):
            return False
        if self._thinks:
            self._state = self._in_thoughts
        else:
            self._pending = "".join([*self._blanks, self._pending])
            self._state = self._in_text
        return True

    def _in_thoughts(self) -> bool:
        place = self._pending.find(self._end)
        ended = place >= 0
        if not ended:
            place = partial_match(self._pending, self._end)
        piece, self._pending = self._pending[:place], self._pending[place:]
        self._think(piece)
        if ended:
            self._pending = self._pending[len(self._end) :]
            self._state = self._after_thoughts
        return ended

    def _think(self, piece: str) -> None:
        """Adds a piece to the thoughts, but white space at their start and end."""
        if not self._begun:
            piece = piece.lstrip()
        words = piece.rstrip()
        if words:
            self._reasoning = "".join([*self._blanks, words])
            self._blanks.clear()
            self._begun = True
        if len(words) < len(piece):
            self._blanks.append(piece[len(words) :])

    def _after_thoughts(self) -> bool:
        self._pending = self._pending.lstrip()
        if self._pending:
            self._state = self._in_text
        return bool(self._pending)

    def _in_text(self) -> bool:
        self._text, self._pending = self._pending, ""
        return False
