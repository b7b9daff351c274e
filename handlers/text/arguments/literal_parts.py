"""The smallest parts of literals as JSON: numbers and other words, and escapes in strings."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from handlers.text.arguments.converter import escaped

if TYPE_CHECKING:
    from handlers.artifact.dialect import LiteralArguments

CONSTANTS = {
    "none": "null",
    "null": "null",
    "nil": "null",
    "undefined": "null",
    "true": "true",
    "false": "false",
}
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
PYTHON_NUMBER = re.compile(r"[+-]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)([eE][+-]?\d+)?", re.ASCII)
MAX_DIGITS = 300
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "\n": ""}
THEMSELVES = "\\'\"/"
HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
HEX = re.compile(r"[0-9a-fA-F]*")
OCTAL = re.compile(r"[0-7]{1,3}")
BEFORE_STRINGS = frozenset("[{(,:")


class Quotes:
    """Tells whether a text in pieces, which may be JSON or a literal of Python, is in a string.

    A quote within any other text, as an apostrophe, begins none.
    """

    def __init__(self) -> None:
        self.open = ""
        """The quote of the string that has begun and not ended."""
        self._last = ""
        """The last character but white space."""
        self._escaped = False

    def read(self, piece: str) -> None:
        """Takes the next piece."""
        for character in piece:
            if self._escaped:
                self._escaped = False
            elif self.open:
                self._escaped = character == "\\"
                if character == self.open:
                    self.open, self._last = "", character
            elif character in "'\"" and self._begins(character):
                self.open = character
            elif not character.isspace():
                self._last = character

    def _begins(self, quote: str) -> bool:
        return self._last in BEFORE_STRINGS or (not self._last and quote == '"')


def constant_json(word: str, style: LiteralArguments) -> str | None:
    """Returns a number, null, true or false as JSON, None for another word."""
    own = {style.null: "null", style.true: "true", style.false: "false"}
    constant = own.get(word) or CONSTANTS.get(word.lower())
    if constant or NUMBER.fullmatch(word):
        return constant or word
    if len(word) > MAX_DIGITS or not PYTHON_NUMBER.fullmatch(word):
        return None
    digits = word.replace("_", "")
    number = float(digits) if re.search(r"[.eE]", digits) else int(digits)
    return json.dumps(number) if abs(number) != float("inf") else None


def escape_json(text: str, start: int) -> tuple[str, int] | None:
    """Returns what the backslash at `start` escapes, as in Python, and the place after it.

    A backslash that escapes nothing is one. Returns None where the text ends too early to tell.
    """
    at = start + 1
    kind = text[at : at + 1]
    if not kind:
        return None
    octal = OCTAL.match(text, at)
    if octal is not None:
        short = octal.end() == len(text) and len(octal[0]) < 3
        return None if short else (escaped(chr(int(octal[0], 8))), octal.end())
    if kind in HEX_DIGITS:
        return _hex_json(text, at + 1, HEX_DIGITS[kind])
    if kind in ESCAPES or kind in THEMSELVES:
        return escaped(ESCAPES.get(kind, kind)), at + 1
    return escaped("\\"), at


def _hex_json(text: str, start: int, length: int) -> tuple[str, int] | None:
    """Returns the character of so many digits. A surrogate stays an escape."""
    found = HEX.match(text, start, start + length)
    digits = found[0] if found else ""
    if len(digits) == length and int(digits, 16) <= 0x10FFFF:
        code = int(digits, 16)
        written = f"\\u{code:04x}" if 0xD800 <= code < 0xE000 else escaped(chr(code))
        return written, start + length
    if start + len(digits) == len(text):
        return None
    return escaped("\\"), start - 1
