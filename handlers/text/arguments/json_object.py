"""Arguments that are one JSON object: they pass as they are."""

from __future__ import annotations

import re

from handlers.text.arguments.converter import Converter, Held, escaped
from handlers.text.marks import MORE, NO, skip_blanks

STRUCTURE = re.compile(r'["{}\[\]]')
IN_STRING = re.compile(r'["\\\x00-\x1f]')
ESCAPES = frozenset('"\\/bfnrtu')


class JsonObject(Converter):
    """Finds the brace that closes a JSON object whose text arrives in pieces.

    Two mistakes of models in strings are put right: control characters, and backslashes that
    escape nothing, as in regular expressions.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        """Whether the last character was a backslash, which is held back."""

    def opens(self, text: str, start: int) -> int:
        place = skip_blanks(text, start)
        if place == len(text):
            return MORE
        return place if text[place] == "{" else NO

    def push(self, text: str) -> tuple[str, str | None]:
        pieces: list[str] = []
        place = start = 0
        while place < len(text):
            if self._escaped:
                pieces.append(self._escape(text[place]))
                self._escaped = False
                place = start = place + 1
                continue
            found = (IN_STRING if self._in_string else STRUCTURE).search(text, place)
            if found is None:
                break
            place, character = found.end(), found[0]
            if not self._in_string:
                self._depth += (character in "{[") - (character in "}]")
                self._in_string = character == '"'
                if self._depth == 0:
                    return "".join([*pieces, text[start:place]]), text[place:]
            elif character == '"':
                self._in_string = False
            else:
                pieces.append(text[start : place - 1])
                start = place
                self._escaped = character == "\\"
                if not self._escaped:
                    pieces.append(escaped(character))
        return "".join([*pieces, text[start:]]), None

    def finish(self) -> Held:
        return Held("\\" if self._escaped else "")

    @staticmethod
    def _escape(character: str) -> str:
        if character == "'":
            return character
        return f"\\{character}" if character in ESCAPES else "\\\\" + escaped(character)
