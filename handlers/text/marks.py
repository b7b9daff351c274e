"""Matches the marks of a tool call in an answer's text, as far as the text goes."""

from __future__ import annotations

import re
from typing import Final

NO: Final = -1
MORE: Final = -2
"""What follows may be the mark: the text ends too early to tell."""

JOINTS = frozenset('{}[]()<>:,="')
"""Beside these a model may write white space that the template does not."""
BLANKS = re.compile(r"\s*")
MAX_BLANKS = 256
"""The most white space before a mark: more is text."""


class Mark:
    """A literal text that stands between the parts of a tool call.

    White space before it is skipped, and its own may be any, also none, so that models may write
    line breaks and blanks otherwise than their template. White space at its end is not part of it.
    """

    def __init__(self, text: str) -> None:
        self.core = text.strip()
        self.lead = text[: len(text) - len(text.lstrip())] if self.core else ""
        """The white space at its start."""
        self.trail = text[len(text.rstrip()) :]
        """The white space at its end, all of a text of white space."""

    def match(self, text: str, start: int = 0) -> int:
        """Returns the place in `text` after the mark, NO, or MORE."""
        core = self.core
        if not core:
            return start
        place = self._skip(text, start)
        if text.startswith(core, place):
            return place + len(core)
        for index, character in enumerate(core):
            if character.isspace() or core[index - 1] in JOINTS or character in JOINTS:
                place = self._skip(text, place)
                if character.isspace():
                    continue
            if not text.startswith(character, place):
                return MORE if place == len(text) else NO
            place += 1
        return place

    @staticmethod
    def _skip(text: str, start: int) -> int:
        """Returns the place after white space, or a place within it where there is too much."""
        end = skip_blanks(text, start)
        return end if end - start <= MAX_BLANKS else start


def skip_blanks(text: str, start: int) -> int:
    """Returns the place of the first character from `start` on that is no white space."""
    found = BLANKS.match(text, start)
    return found.end() if found else start
