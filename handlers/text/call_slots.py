"""Reads the parts of a tool call that stand before its arguments, or after them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from handlers.text.marks import MORE, NO, Mark, skip_blanks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_VALUE = 256
"""The most characters of a name or an id."""


class SlotValues(NamedTuple):
    """The slots that were read, and the place after them, which is NO or MORE without all."""

    values: Mapping[str, str]
    end: int


class CallSlots:
    """Some slots of a call in a row, with the marks around them.

    A value has no white space, and ends at the first place at which the next mark may stand.
    """

    def __init__(
        self,
        marks: Sequence[Mark],
        slots: Sequence[str],
        over: Callable[[str, int], int] | None = None,
    ) -> None:
        """`marks`: one before each of `slots`, and one after the last.

        `over` returns NO, MORE or a place for what follows the last mark.
        """
        self._marks, self._slots, self._over = marks, slots, over

    def match(self, text: str) -> SlotValues:
        """Reads them from the start of the text."""
        values: dict[str, str] = {}
        place = self._marks[0].match(text)
        for index, slot in enumerate(self._slots):
            if place < 0:
                break
            start = skip_blanks(text, place)
            value_end, place = self._end(text, start, index)
            values[slot] = text[start:value_end]
        return SlotValues(values, place)

    def _end(self, text: str, start: int, index: int) -> tuple[int, int]:
        """Returns the end of a slot's value, and the place after the mark that follows it."""
        for place in range(start + 1, min(len(text), start + MAX_VALUE) + 1):
            end = self._after_mark(text, place, index + 1)
            if end != NO:
                return place, end
            if place < len(text) and text[place].isspace():
                return place, NO
        return start, NO if len(text) - start > MAX_VALUE else MORE

    def _after_mark(self, text: str, place: int, index: int) -> int:
        """Returns the place after a mark, NO if it or what has to follow it is not there."""
        end = self._marks[index].match(text, place)
        if end < 0:
            return end
        if index == len(self._slots):
            over = end if self._over is None else self._over(text, end)
            return over if over < 0 else end
        if self._slots[index] == "index":
            digit = skip_blanks(text, end)
            return MORE if digit == len(text) else end if text[digit].isdigit() else NO
        return end
