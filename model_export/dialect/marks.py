"""Cuts the text that a template writes at its marks, such as <tool_call> and [/INST]."""

from __future__ import annotations

import re
from itertools import takewhile

MARK = re.compile(r"<[^<>\s](?:[^<>]*[^<>\s])?>|\[/?[A-Z][A-Z_ ]*\]")


def common_start(first: str, second: str) -> str:
    """Returns the text that both begin with, which ends within no mark of either."""
    pairs = zip(first, second, strict=False)
    length = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return first[: min(_before_mark(text, length) for text in (first, second))]


def common_end(first: str, second: str) -> str:
    """Returns the text that both end with, which begins within no mark of either."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    length = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    length = min(len(text) - _after_mark(text, len(text) - length) for text in (first, second))
    return first[len(first) - length :]


def marks_in(text: str) -> list[str]:
    """Returns the marks of a text in their order."""
    return MARK.findall(text)


def up_to_marks(text: str, count: int) -> str:
    """Returns the text up to the end of its mark of that number, or all where it has fewer.

    With 0 it is the text before its first mark.
    """
    found = [*MARK.finditer(text)]
    if len(found) < max(count, 1):
        return text
    return text[: found[count - 1].end()] if count else text[: found[0].start()]


def _before_mark(text: str, place: int) -> int:
    """Returns the start of the mark that `place` is within, or `place`."""
    inside = (m.start() for m in MARK.finditer(text) if m.start() < place < m.end())
    return next(inside, place)


def _after_mark(text: str, place: int) -> int:
    """Returns the end of the mark that `place` is within, or `place`."""
    inside = (m.end() for m in MARK.finditer(text) if m.start() < place < m.end())
    return next(inside, place)
