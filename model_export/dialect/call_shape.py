"""Parts the text around calls into what is each call's and what is the answer's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Self

import msgspec

from model_export.dialect.marks import MARK, common_end, common_start, marks_in, up_to_marks

DIGITS_AT_END = re.compile(r"\d+\Z")
DIGITS_AT_START = re.compile(r"\A\d+")


class Pieces(msgspec.Struct, frozen=True):
    """The text of calls, cut at the slots: there is one gap more than slots."""

    gaps: list[str]
    slots: list[str]


class CallShape(msgspec.Struct, frozen=True):
    """The text around calls, in the words of ToolFormat."""

    begin: str
    call: tuple[str, ...]
    separator: str | None
    end: str
    first_index: int = 0

    def around_object(self) -> Self:
        """Moves what is outside of the braces of a call's JSON out of the call."""
        first, last = self.call[0], self.call[-1]
        opening, closing = first.rfind("{"), last.find("}")
        if opening < 0 or closing < 0:
            return self
        before, after = first[:opening], last[closing + 1 :]
        again = None if self.separator is None else after + self.separator + before
        return type(self)(
            begin=self.begin + before,
            call=(first[opening:], *self.call[1:-1], last[: closing + 1]),
            separator=again,
            end=after + self.end,
            first_index=self.first_index,
        )

    def trimmed(self) -> Self:
        """Moves white space before a call out of it, and leaves out that before the first."""
        first = self.call[0].lstrip()
        blank = self.call[0][: len(self.call[0]) - len(first)]
        return type(self)(
            begin=(self.begin + blank).lstrip(),
            call=(first, *self.call[1:]),
            separator=None if self.separator is None else self.separator + blank,
            end=self.end,
            first_index=self.first_index,
        )


def read_shape(
    one: Pieces, two: Pieces | None, end_of_turn: str, end_marks: Sequence[str]
) -> CallShape | None:
    """Compares one call with two, where the template writes two.

    `end_of_turn`: what follows an answer without calls. None for calls that no ToolFormat has.
    """
    count = len(one.slots)
    turn = (end_of_turn, end_marks)
    if two is None:
        gaps = [one.gaps[0].lstrip(), *one.gaps[1:-1], _up_to_turn(one.gaps[-1], *turn)]
        gaps[0] = gaps[0].removeprefix(end_of_turn.strip()).lstrip()
        return CallShape("", _woven(gaps, one.slots), separator=None, end="")
    if two.slots != one.slots * 2:
        return None
    lead, middle, last = two.gaps[0], two.gaps[count], two.gaps[2 * count]
    number = _CallNumber()
    inner = [
        number.part(*pair)
        for pair in zip(two.gaps[1:count], two.gaps[count + 1 : 2 * count], strict=True)
    ]
    opening, taken = number.part_end(lead, middle)
    close = common_start(middle[: len(middle) - taken], last)
    begin = lead[: len(lead) - taken].lstrip()
    literals = [opening, *inner, [close]]
    if not number.is_right:
        return None
    end = _up_to_turn(last[len(close) :], *turn)
    return CallShape(
        begin=begin,
        call=_flat(literals, one.slots),
        separator=middle[len(close) : len(middle) - taken],
        end=up_to_marks(end, len(marks_in(begin))) if begin else "",
        first_index=number.first or 0,
    )


def _woven(gaps: Sequence[str], slots: Sequence[str]) -> tuple[str, ...]:
    return _flat([[gap] for gap in gaps], slots)


def _flat(gaps: Sequence[Sequence[str]], slots: Sequence[str]) -> tuple[str, ...]:
    """Returns texts and slots in turn. A gap may itself have a slot between two texts."""
    flat = [*gaps[0]]
    for slot, gap in zip(slots, gaps[1:], strict=True):
        flat += [slot, *gap]
    return tuple(flat)


def _up_to_turn(text: str, end_of_turn: str, end_marks: Sequence[str]) -> str:
    """Cuts off what ends a turn: what ends others, too, or is the text of a token that does."""
    text = text[: len(text) - len(common_end(text, end_of_turn))]
    marks = {*marks_in(end_of_turn), *end_marks}
    places = [found.start() for found in MARK.finditer(text) if found[0] in marks]
    return text[: min(places, default=len(text))].rstrip()


class _CallNumber:
    """Finds the number of a call in the text around it, which counts the calls of an answer."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.is_right = True

    def part(self, first: str, second: str) -> list[str]:
        """Returns a gap's texts, with a slot between them where two calls differ in a number."""
        if first == second:
            return [first]
        start = _same(first, second)
        end = _same(first[start:][::-1], second[start:][::-1])
        numbers = first[start : len(first) - end], second[start : len(second) - end]
        if not self._counts(*numbers):
            return [first]
        return [first[:start], "index", first[len(first) - end :]]

    def part_end(self, lead: str, middle: str) -> tuple[list[str], int]:
        """Returns what both end with, as a call's first texts, and how much of them it is."""
        same = _same(lead[::-1], middle[::-1])
        first = DIGITS_AT_END.search(lead[: len(lead) - same])
        second = DIGITS_AT_END.search(middle[: len(middle) - same])
        if first is None or second is None or int(second[0]) != int(first[0]) + 1:
            shared = common_end(lead, middle)
            return [shared], len(shared)
        self._counts(first[0], second[0])
        before = common_end(lead[: first.start()], middle[: second.start()])
        after = lead[first.end() :]
        return [before, "index", after], len(before) + len(first[0]) + len(after)

    def _counts(self, first: str, second: str) -> bool:
        """Keeps the first call's number, if the second's is the next."""
        if first.isdigit() and second.isdigit() and int(second) == int(first) + 1:
            self.first = int(first)
            return True
        self.is_right = False
        return False


def _same(first: str, second: str) -> int:
    """Counts the characters that both begin with."""
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
