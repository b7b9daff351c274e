"""Leaves out the marks around the text of an answer, in which some models put it."""

from __future__ import annotations

from handlers.text.stop_strings import partial_match


class TextMarks:
    """Parses one answer: `push` each piece of text, then `flush`.

    The first mark is looked for at the start alone, and the second after it.
    """

    def __init__(self, marks: tuple[str, str]) -> None:
        """`marks`: the first is empty where the prompt ends with it, and either where none is."""
        self._before, self._after = (mark.strip() for mark in marks)
        self._cuts_lead = marks[0] != marks[0].rstrip()
        self._state = self._at_start if self._before else self._in_text
        self._pending = ""
        self.left_out = 0
        """The number of characters before the text."""
        self._passed = 0
        """The number of its characters so far."""
        self.end: int | None = None
        """The place of the second mark, in characters from the first; None before it is found."""

    def push(self, piece: str) -> str:
        """Takes the next piece, and returns the text that is certain now."""
        return self._state(piece)

    def flush(self) -> str:
        """Returns what was held back, at the end of the answer."""
        rest, self._pending = self._pending, ""
        return rest

    def _at_start(self, piece: str) -> str:
        text = self._pending + piece
        leading = text.lstrip()
        if leading.startswith(self._before):
            rest = leading[len(self._before) :]
            self.left_out = len(text) - len(rest)
            self._pending = ""
            self._state = self._before_text if self._cuts_lead else self._in_text
            return self._state(rest)
        if self._before.startswith(leading):
            self._pending = text
            return ""
        self._pending = ""
        self._state = self._pass_on
        return text

    def _before_text(self, piece: str) -> str:
        text = piece.lstrip()
        self.left_out += len(piece) - len(text)
        if not text:
            return ""
        self._state = self._in_text
        return self._in_text(text)

    def _in_text(self, piece: str) -> str:
        if not self._after:
            return piece
        text = self._pending + piece
        place = text.find(self._after)
        if place >= 0:
            self._pending, self.end = "", self.left_out + self._passed + place
            self._state = self._pass_on
            return text[:place] + text[place + len(self._after) :]
        place = partial_match(text, self._after)
        self._pending = text[place:]
        self._passed += place
        return text[:place]

    def _pass_on(self, piece: str) -> str:
        return piece
