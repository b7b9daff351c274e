"""Arguments that stand one by one between marks, as in XML."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

from handlers.artifact.dialect import CDATA, CDATA_END
from handlers.text.arguments.converter import Converter, Held, escaped
from handlers.text.arguments.literal_parts import Quotes
from handlers.text.arguments.literals import literal_json
from handlers.text.marks import MORE, Mark
from handlers.text.stop_strings import partial_match

if TYPE_CHECKING:
    from collections.abc import Set

    from handlers.artifact.dialect import TaggedArguments

MAX_KEY = 256
NULLS = ("null", "None")


class Tagged(Converter):
    """Turns keys and values between marks into one JSON object.

    The text of a string leaves as it comes. Any other value is held back to its end, since it may
    be JSON, a literal of Python, or a string of which no schema tells. Each state is a method that
    takes what it can from the front of `_pending` and returns whether there may be more to take.
    """

    def __init__(
        self,
        style: TaggedArguments,
        strings: Set[str] = frozenset(),
        nullable: Set[str] = frozenset(),
    ) -> None:
        """`strings`: the arguments that are strings. `nullable`: those that are strings or null."""
        self._style = style
        self._open, self._separator = Mark(style.open), Mark(style.separator)
        self._middle, self._other = Mark(style.middle), Mark(style.other_middle or "")
        close = Mark(style.close)
        self._end = self._close = close.core or style.close
        """The text that ends a value."""
        self._lead = self._close_lead = close.lead
        """The white space before it."""
        self._strings, self._nullable = strings, nullable
        self._state = self._between
        self._value = self._in_other
        """The state of the next value."""
        self._trail = ""
        """The white space before that value."""
        self._pending = ""
        self._json: list[str] = []
        self._buffer: list[str] = []
        """A value that may be no string, so far."""
        self._quotes = Quotes()
        """Of that value."""
        self._count = 0
        self._rest: str | None = None

    def opens(self, text: str, start: int) -> int:
        found = self._open.match(text, start)
        return start if found >= 0 else found

    def push(self, text: str) -> tuple[str, str | None]:
        self._pending += text
        self._json.clear()
        while self._rest is None and self._state():
            pass
        return "".join(self._json), self._rest

    def finish(self) -> Held:
        held = "".join([*self._buffer, self._pending])
        if self._state == self._between:
            return Held(closing="}" if self._count else None)
        if self._state == self._in_key:
            return Held()
        if self._value == self._in_other:
            return Held(held)
        return Held(("" if self._state == self._in_string else '"') + escaped(held))

    def _between(self) -> bool:
        start = self._separator.match(self._pending) if self._count else 0
        opened = self._open.match(self._pending, max(0, start))
        if opened >= 0:
            self._json.append(", " if self._count else "{")
            self._count += 1
            self._state = self._in_key
            return self._take(opened)
        if MORE in {start, opened}:
            return False
        self._json.append("}")
        self._rest = self._pending
        return False

    def _in_key(self) -> bool:
        for place in range(1, min(len(self._pending), MAX_KEY)):
            ends = self._middle.match(self._pending, place)
            other = self._other.match(self._pending, place) if self._other.core else ends
            if MORE in {ends, other}:
                return False
            if max(ends, other) >= 0:
                self._begin(self._pending[:place].strip(), ends >= other)
                return self._take(max(ends, other))
        self.broken = len(self._pending) > MAX_KEY
        if self.broken:
            self._rest = self._style.open + self._pending
        return False

    def _begin(self, key: str, first_mark: bool) -> None:
        """Begins a value. `first_mark`: whether it stands after the mark that strings have."""
        self._json.append(f"{json.dumps(key, ensure_ascii=False)}: ")
        if self._other.core:
            is_string, is_nullable = first_mark, False
        else:
            is_string, is_nullable = key in self._strings, key in self._nullable
        self._value = self._in_string if is_string else self._in_other
        if is_nullable:
            self._value = self._in_nullable
        self._trail = (self._middle if first_mark else self._other).trail
        self._state = self._before_value
        self._quotes = Quotes()

    def _before_value(self) -> bool:
        if self._pending != self._trail and self._trail.startswith(self._pending):
            return False
        if self._style.cdata:
            text = self._pending.removeprefix(self._trail)
            if CDATA.startswith(text):
                return text == CDATA and self._begin_cdata()
            if text.startswith(CDATA):
                return self._begin_cdata()
        if self._value == self._in_string:
            self._json.append('"')
        self._state = self._value
        return self._take(len(self._trail) if self._pending.startswith(self._trail) else 0)

    def _begin_cdata(self) -> bool:
        self._json.append('"')
        self._state = self._value = self._in_string
        self._end, self._lead = CDATA_END + self._lead + self._close, ""
        return self._take(self._pending.index(CDATA) + len(CDATA))

    def _in_string(self) -> bool:
        piece, ended = self._next_piece()
        self._json.append(escaped(piece))
        if ended:
            self._json.append('"')
            self._state = self._between
            self._end, self._lead = self._close, self._close_lead
        return ended

    def _in_nullable(self) -> bool:
        place = self._pending.find(self._end)
        whole = self._pending[:place].strip() if place >= 0 else ""
        if whole in NULLS:
            self._json.append("null")
            self._state = self._between
            return self._take(place + len(self._end))
        begun = self._pending[: partial_match(self._pending, self._end)].strip()
        if place < 0 and len(self._pending) < MAX_KEY and any(n.startswith(begun) for n in NULLS):
            return False
        self._json.append('"')
        self._state = self._value = self._in_string
        return True

    def _in_other(self) -> bool:
        before = self._pending
        piece, ended = self._next_piece()
        self._buffer.append(piece)
        self._quotes.read(piece)
        if ended and self._quotes.open:
            mark = before[len(piece) : len(before) - len(self._pending)]
            self._buffer.append(mark)
            self._quotes.read(mark)
        elif ended:
            self._json.append(value_json("".join(self._buffer)))
            self._buffer.clear()
            self._state = self._between
        return ended

    def _next_piece(self) -> tuple[str, bool]:
        """Takes the next piece of a value, and returns it and whether the value ends with it."""
        place = self._pending.find(self._end)
        if place >= 0:
            piece = self._pending[:place].removesuffix(self._lead)
            self._take(place + len(self._end))
            return piece, True
        place = partial_match(self._pending, self._end)
        if self._lead:
            place = min(place, partial_match(self._pending, self._lead + self._end))
        piece = self._pending[:place]
        self._take(place)
        return piece, False

    def _take(self, length: int) -> bool:
        self._pending = self._pending[length:]
        return True


def value_json(text: str) -> str:
    """Returns a value as JSON: as it is, as a literal of Python, or as a string."""
    value = text.strip()
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return literal_json(value) or json.dumps(text, ensure_ascii=False)
    return value
