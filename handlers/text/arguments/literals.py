"""Arguments that stand one by one as literals of a programming language, such as Python's."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from handlers.artifact.dialect import LiteralArguments
from handlers.text.arguments.converter import Converter, Held, escaped
from handlers.text.arguments.literal_parts import NUMBER, constant_json, escape_json
from handlers.text.marks import MORE, NO, Mark, skip_blanks
from handlers.text.stop_strings import partial_match

if TYPE_CHECKING:
    from collections.abc import Callable

PYTHON = LiteralArguments("=", ", ", "'", ": ", quoted_keys=True)
MAX_KEY = 256
CLOSERS = {"[": "]", "(": ")", "{": "}"}
IN_JSON = {")": "]"}
"""A tuple becomes a list."""
ROOT = ""
"""The closer of the arguments themselves, after which a mark of the call stands."""
NOT_IN_KEYS = frozenset(",()[]{}'\"\n")
WORD_ENDS = re.compile(r"[,()\[\]{}]")


class Literals(Converter):
    """Turns keys and literals into one JSON object.

    The text of a string leaves as it comes. Each state is a method that takes what it can of
    `_text` from `_at` on, and returns whether there may be more to take.
    """

    def __init__(
        self, style: LiteralArguments, after: Mark, root: str = ROOT, strict: bool = False
    ) -> None:
        """`after`: the mark after the arguments. `root`: the closer of a list instead of them.

        `strict`: whether a word without quotes is no string.
        """
        self._style = style
        self._after, self._strict = after, strict
        self._comma = style.separator.strip() or ","
        self._closers = [root]
        """Of the arguments and of the lists and objects that are open, the innermost last."""
        self._counts = [0]
        """The items of each of them."""
        self._state: Callable[[], bool] = self._item
        self._text = ""
        self._at = 0
        self._json: list[str] = []
        self._quote = ""
        self._in_key = False
        """Whether the string is a key."""
        self._word: list[str] = []
        self._depth = 0
        """The brackets that are open in a word."""
        self._rest: str | None = None

    def opens(self, text: str, start: int) -> int:
        found = self._key_end(text, skip_blanks(text, start), self._style.assign.strip())
        return start if found >= 0 else found

    def push(self, text: str) -> tuple[str, str | None]:
        self._text, self._at = self._text[self._at :] + text, 0
        self._json.clear()
        while self._rest is None and self._state():
            pass
        return "".join(self._json), self._rest

    def finish(self) -> Held:
        held = self._text[self._at :]
        if self._state == self._in_string:
            return Held(escaped(held))
        if self._state == self._in_word:
            return Held("".join([*self._word, held]))
        whole = self._state == self._after_value and self._closers == [ROOT]
        return Held(closing="}" if whole else None)

    @property
    def items(self) -> int:
        """Returns the number of arguments so far."""
        return self._counts[0]

    def _item(self) -> bool:
        if not self._skip_blanks():
            return False
        closer, count = self._closers[-1], self._counts[-1]
        if closer == ROOT:
            over = self._after.match(self._text, self._at) if count else NO
            if over >= 0:
                return self._finish(self._at)
            if over == MORE:
                return False
            opening = "{"
        elif self._text[self._at] == closer:
            return self._close(closer)
        else:
            opening = ""
        self._json.append(", " if count else opening)
        self._counts[-1] += 1
        self._state = self._key if closer in {ROOT, "}"} else self._begin_value
        return True

    def _key(self) -> bool:
        quote = self._opening_quote()
        if quote is None:
            return False
        if quote:
            return self._begin_string(quote, is_key=True)
        end = self._key_end(self._text, self._at, self._assign)
        if end < 0:
            return end == NO and self._break()
        key = self._text[self._at : end].strip()
        if self._strict and not NUMBER.fullmatch(key):
            return self._break()
        self._json.append(json.dumps(key, ensure_ascii=False))
        self._at = end
        self._state = self._after_key
        return True

    def _after_key(self) -> bool:
        if not self._skip_blanks():
            return False
        if not self._text.startswith(self._assign, self._at):
            partial = self._assign.startswith(self._text[self._at : self._at + len(self._assign)])
            return not partial and self._break()
        self._at += len(self._assign)
        self._json.append(": ")
        self._state = self._begin_value
        return True

    def _begin_value(self) -> bool:
        quote = self._opening_quote() if self._skip_blanks() else None
        if quote is None:
            return False
        if quote:
            return self._begin_string(quote, is_key=False)
        closer = CLOSERS.get(self._text[self._at])
        if closer is None:
            self._state = self._in_word
            return True
        self._json.append("{" if closer == "}" else "[")
        self._closers.append(closer)
        self._counts.append(0)
        self._at += 1
        self._state = self._item
        return True

    def _begin_string(self, quote: str, is_key: bool) -> bool:
        self._quote, self._in_key = quote, is_key
        self._at += len(quote)
        self._json.append('"')
        self._state = self._in_string
        return True

    def _in_string(self) -> bool:
        text, at, quote = self._text, self._at, self._quote
        end = text.find(quote, at)
        slash = text.find("\\", at, end if end >= 0 else len(text)) if quote[0] in "'\"" else -1
        if slash >= 0:
            self._json.append(escaped(text[at:slash]))
            self._at = slash
            return self._escape()
        if end < 0:
            end = at + partial_match(text[at:], quote)
            self._json.append(escaped(text[at:end]))
            self._at = end
            return False
        self._json.append(escaped(text[at:end]) + '"')
        self._at = end + len(quote)
        self._state = self._after_key if self._in_key else self._after_value
        return True

    def _escape(self) -> bool:
        found = escape_json(self._text, self._at)
        if found is None:
            return False
        written, self._at = found
        self._json.append(written)
        return True

    def _in_word(self) -> bool:
        start = self._at
        stop = self._after.core[:1] if self._closers == [ROOT] else ""
        while True:
            found = WORD_ENDS.search(self._text, self._at)
            end = found.start() if found else len(self._text)
            mark = self._text.find(stop, self._at, end) if stop and not self._depth else -1
            if mark >= 0:
                end = mark
            elif found is None:
                self._word.append(self._text[start:])
                self._at = end
                return False
            elif self._depth or found[0] in CLOSERS:
                self._depth += 1 if found[0] in CLOSERS else -1 if found[0] != "," else 0
                self._at = end + 1
                continue
            word = "".join([*self._word, self._text[start:end]]).strip()
            self._word.clear()
            self._at = end
            return self._end_word(word)

    def _end_word(self, word: str) -> bool:
        value = constant_json(word, self._style)
        if value is None and (self._strict or not word):
            return self._break()
        self._json.append(value or json.dumps(word, ensure_ascii=False))
        self._state = self._after_value
        return True

    def _after_value(self) -> bool:
        if not self._skip_blanks():
            return False
        closer = self._closers[-1]
        if self._text.startswith((self._comma, ","), self._at):
            matched = self._comma if self._text.startswith(self._comma, self._at) else ","
            self._at += len(matched)
            self._state = self._item
            return True
        if closer != ROOT:
            return self._close(closer) if self._text[self._at] == closer else self._break()
        over = self._after.match(self._text, self._at)
        if over == MORE:
            return False
        return self._finish(self._at) if over >= 0 else self._break()

    def _close(self, closer: str) -> bool:
        self._at += 1
        if len(self._closers) == 1:
            self._rest = self._text[self._at :]
            return False
        self._json.append(IN_JSON.get(closer, closer))
        self._closers.pop()
        self._counts.pop()
        self._state = self._after_value
        return True

    def _finish(self, end: int) -> bool:
        self._json.append("}")
        self._rest = self._text[end:]
        return False

    def _break(self) -> bool:
        self.broken = True
        self._rest = self._text[self._at :]
        return False

    def _skip_blanks(self) -> bool:
        """Returns whether there is anything but white space."""
        self._at = skip_blanks(self._text, self._at)
        return self._at < len(self._text)

    @property
    def _assign(self) -> str:
        style = self._style
        return (style.assign if self._closers[-1] == ROOT else style.nested_assign).strip()

    def _opening_quote(self) -> str | None:
        """Returns the quote that a string begins with here, none for another value.

        Returns None where the text ends too early to tell.
        """
        text, at, own = self._text, self._at, self._style.quote
        if at == len(text):
            return None
        if text[at] in "'\"":
            run = text[at : at + 3]
            if len(run) < 3 and run == text[at] * len(run):
                return None
            return run if run == text[at] * 3 else text[at]
        if text.startswith(own, at):
            return own
        return None if own.startswith(text[at : at + len(own)]) else ""

    @staticmethod
    def _key_end(text: str, start: int, assign: str) -> int:
        """Returns the place of the mark after a key without quotes, or NO, or MORE."""
        for place in range(start, min(len(text), start + MAX_KEY)):
            if place > start and text.startswith(assign, place):
                return place
            if text[place] in NOT_IN_KEYS:
                return NO
        return NO if len(text) - start >= MAX_KEY else MORE


def literal_json(text: str) -> str | None:
    """Returns one literal of Python as JSON, None for any other text."""
    reader = Literals(PYTHON, Mark(""), root="]", strict=True)
    written, rest = reader.push(f"{text}]")
    return written if rest == "" and not reader.broken and reader.items == 1 else None
