"""Finds how a template writes the arguments of a call: as JSON, between tags, or as literals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from handlers.artifact.dialect import (
    CDATA,
    CDATA_END,
    Arguments,
    JsonArguments,
    LiteralArguments,
    TaggedArguments,
)
from model_export.dialect.marks import common_end, common_start
from model_export.dialect.probe import KEYS, NUMBER, VALUES

JSON = json.JSONDecoder()
INNER = "zq7inner"
"""The key of an object that is a value."""

Show = Callable[[Mapping[str, Any]], str | None]
"""Returns what follows the name of a call with these arguments, None where it is refused."""


class ArgumentText(msgspec.Struct, frozen=True):
    """How arguments are written, and what they have around a first key and a last value."""

    style: Arguments
    open: str = ""
    close: str = ""

    def span(self, text: str, start: int, value: str) -> tuple[int, int] | None:
        """Returns where the arguments `{KEYS[0]: value}` stand, after the place `start`."""
        if isinstance(self.style, JsonArguments):
            return json_span(text, {KEYS[0]: value}, start)
        key = text.find(KEYS[0], start)
        end = text.find(value, key)
        if key < 0 or end < 0:
            return None
        return key - len(self.open), end + len(value) + len(self.close)


def json_span(text: str, arguments: Mapping[str, Any], start: int = 0) -> tuple[int, int] | None:
    """Returns where the arguments stand as one JSON object, after the place `start`."""
    place = text.find("{", start)
    while place >= 0:
        try:
            value, end = JSON.raw_decode(text, place)
        except ValueError:
            value, end = None, place
        if value == arguments:
            return place, end
        place = text.find("{", place + 1)
    return None


def read_arguments(show: Show) -> ArgumentText | None:
    """Finds the style of the arguments, None for one that cannot be described."""
    text = show({KEYS[0]: VALUES[0]})
    if text is None:
        return None
    if json_span(text, {KEYS[0]: VALUES[0]}):
        return ArgumentText(JsonArguments())
    string, number = _one(show, VALUES[0]), _one(show, NUMBER)
    pair = show({KEYS[0]: VALUES[0], KEYS[1]: VALUES[1]})
    if string is None or number is None or pair is None or KEYS[1] not in pair:
        return None
    between = pair.partition(VALUES[0])[2].partition(KEYS[1])[0]
    quote = string.middle.removeprefix(number.middle)
    is_quoted = string.middle != number.middle and string.middle.startswith(number.middle)
    if is_quoted and string.after == quote + number.after:
        return _literals(show, string, number, quote, between)
    if string.after != number.after:
        return None
    return _tagged(show, string, number, between)


class _Around(msgspec.Struct, frozen=True):
    """The text around the key and the value of one argument."""

    before: str
    middle: str
    after: str


def _one(show: Show, value: Any) -> _Around | None:
    text = show({KEYS[0]: value})
    before, key, rest = (text or "").partition(KEYS[0])
    middle, found, after = rest.partition(str(value))
    return _Around(before, middle, after) if key and found else None


def _tagged(show: Show, string: _Around, number: _Around, between: str) -> ArgumentText | None:
    for opening, close in _ends(show({}), string, between):
        if between.startswith(close) and between[len(close) :].endswith(opening):
            style = TaggedArguments(
                open=opening,
                middle=string.middle,
                close=close,
                separator=between[len(close) : len(between) - len(opening)],
                other_middle=None if number.middle == string.middle else number.middle,
            )
            if KEYS[0] in style.middle + style.close:
                return None
            checked = _with_strings(show, style)
            checked = checked and _with_text_values(show, checked)
            return None if checked is None else ArgumentText(checked, opening, close)
    return None


def _ends(empty: str | None, string: _Around, between: str) -> Iterator[tuple[str, str]]:
    """Yields what may stand before each key and after each value, the likeliest first.

    A call without arguments shows what is around all of them; where it does not, several arguments
    do.
    """
    before, after = string.before, string.after
    if empty is not None:
        longest = len(common_start(before, empty))
        for length in range(longest, -1, -1):
            if after.endswith(empty[length:]):
                yield before[length:], after[: len(after) - len(empty) + length]
    yield common_end(before, between), common_start(after, between)


def _with_strings(show: Show, style: TaggedArguments) -> TaggedArguments | None:
    """Says how any string stands, None where not as it is, nor in CDATA."""
    text = "<a \"b\" 'c' \\ {d}>\n\té"
    shown = show({KEYS[0]: text}) or ""
    if f"{style.middle}{text}{style.close}" in shown:
        return style
    if f"{style.middle}{CDATA}{text}{CDATA_END}{style.close}" in shown:
        return msgspec.structs.replace(style, cdata=True)
    return None


def _with_text_values(show: Show, style: TaggedArguments) -> TaggedArguments | None:
    """Says so where a template writes other values than JSON has them, unless given as text.

    Returns None where it has more marks than one for them.
    """
    middle = style.middle if style.other_middle is None else style.other_middle
    for value in (None, True, False, ["a", 1.5, None], {"a": {"b": True}}, 2.5, -7):
        shown = show({KEYS[0]: value})
        written = json.dumps(value)
        if shown is None or f"{middle}{written}{style.close}" not in shown:
            if style.other_middle is not None:
                return None
            return msgspec.structs.replace(style, text_values=True)
    return style


def _literals(
    show: Show, string: _Around, number: _Around, quote: str, between: str
) -> ArgumentText | None:
    separator = between.removeprefix(quote)
    nested = show({KEYS[0]: {INNER: NUMBER}})
    words = {value: _word(show, value, string, number) for value in (None, True, False)}
    if nested is None or INNER not in nested or None in words.values():
        return None
    before_key, _, rest = nested.partition(INNER)
    quoted = not before_key.endswith("{")
    mark = before_key.rpartition("{")[2] if quoted else ""
    style = LiteralArguments(
        assign=number.middle,
        separator=separator,
        quote=quote,
        nested_assign=rest.removeprefix(mark).partition(str(NUMBER))[0],
        quoted_keys=quoted,
        null=words[None] or "",
        true=words[True] or "",
        false=words[False] or "",
    )
    return ArgumentText(style, "", quote)


def _word(show: Show, value: Any, string: _Around, number: _Around) -> str | None:
    """Returns what stands for null, true or false."""
    text = show({KEYS[0]: value})
    head, tail = f"{string.before}{KEYS[0]}{number.middle}", number.after
    if text is None or not text.startswith(head) or not text.endswith(tail):
        return None
    return text[len(head) : len(text) - len(tail)]
