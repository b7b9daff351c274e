"""The names of control tokens in texts: where a name would become a token that nobody meant.

A tokenizer gives every name of a special token its id, wherever the name stands. So each name that
a user wrote is broken: the tokenizer reads the text around the break apart, as ordinary text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_DIGITS = re.compile("[0-9]+")


class PromptText(msgspec.Struct, frozen=True):
    """A prompt, and where it must be broken so that a user's text in it stays text."""

    text: str
    breaks: Sequence[int] = ()
    """Positions in the text, ascending, each within the name of a control token."""


class ControlTokens:
    """The control tokens of one tokenizer and of what is written with it."""

    def __init__(self, added: Mapping[str, bool], written: str = "") -> None:
        """`added`: the tokenizer's added tokens, and whether each is special.

        Those that are not, such as <tool_call>, are control tokens if they stand in `written`, the
        source of the model's own prompt, and begin as marks do. A name of one character could not
        be broken, and none is known.
        """
        self.names = frozenset(
            name
            for name, special in added.items()
            if len(name) > 1 and (special or (_is_mark(name) and name in written))
        )
        self.firsts = "".join(sorted({name[0] for name in self.names}))
        """The first characters of names: a text without any of them has no name."""
        # Gemma has 6,242 names that differ by their number: a pattern of all takes 0.2 s to make.
        self.shapes = frozenset(shape("\0".join(self.names)).split("\0")) - {""}
        self.longest = max(map(len, self.names), default=0)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(_any_of(self.shapes))

    def occurs_in(self, text: str) -> bool:
        """Returns whether a name stands in the text."""
        return next(self.find(text), None) is not None

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Yields where names begin and end, also those that overlap; of one place the longest."""
        if not any(first in text for first in self.firsts):
            return
        place = 0
        while match := self._pattern.search(text, place):
            start, end = match.span()
            end = min(end, start + self.longest)  # a number in a text may have any length
            while end > start + 1:
                if text[start:end] in self.names:
                    yield start, end
                    break
                end -= 1
            place = start + 1

    def breaks(self, text: str, users: Iterable[tuple[int, int]]) -> list[int]:
        """Returns where to break names that are made of a user's characters, if only in part.

        `users`: where the user's texts begin and end in the text, in their order.
        """
        bounds = [*chain.from_iterable(users)]
        found = set()
        for start, end in self.find(text):
            place = bisect_right(bounds, start)
            if place % 2:  # it begins in a user's text
                found.add(start + 1)
            elif place < len(bounds) and bounds[place] < end:
                found.add(bounds[place])
        return sorted(found)


def shape(text: str) -> str:
    """Returns the text with each number in it as 0."""
    return _DIGITS.sub("0", text)


def _is_mark(name: str) -> bool:
    return not (name[0].isalnum() or name.isspace())


def _any_of(names: Iterable[str]) -> str:
    """Returns a pattern of all names, in which none is tried after a character that rules it out.

    A 0 stands for any number.
    """
    rests: dict[str, list[str]] = {}
    for name in names:
        if name:
            rests.setdefault(name[0], []).append(name[1:])
    branches = [
        ("[0-9]+" if first == "0" else re.escape(first)) + _any_of(rest)
        for first, rest in sorted(rests.items())
    ]
    if not branches:
        return ""
    return f"(?:{'|'.join(branches)}){'?' if '' in names else ''}"
