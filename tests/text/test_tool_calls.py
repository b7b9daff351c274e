"""The formats of tool calls: which one a template has, and the parser on any cut of an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.artifact.dialect import HERMES
from tests.support.cuts import cut, places
from tests.support.tool_calls import FORMATS, Call, parse
from tests.support.tool_formats import MISTRAL


def test_ids_are_unlike_and_short_where_a_template_checks_them() -> None:
    assert len({HERMES.new_id() for _ in range(100)}) == 100
    assert HERMES.new_id().startswith("call_")
    assert len(MISTRAL.new_id()) == 9
    assert MISTRAL.new_id().isalnum()


# Quotes, braces and backslashes, which a scanner of JSON trips over, and pieces of the markers.
arguments_ = st.dictionaries(
    st.text('a"{}\\é', max_size=3),
    st.recursive(
        st.text('"{}[]\\<tool_call>', max_size=8), lambda inner: st.lists(inner, max_size=2)
    ),
    max_size=2,
)
call_lists = st.lists(
    st.tuples(st.sampled_from(["now", "get_weather"]), arguments_), min_size=1, max_size=3
)


@pytest.mark.parametrize("name", FORMATS)
@given(talk=st.text("ab <[{", max_size=6), calls=call_lists, places=places)
def test_calls_come_out_as_they_went_in_wherever_the_text_is_cut(
    name: str, talk: str, calls: list[tuple[str, dict[str, Any]]], places: list[float]
) -> None:
    tool_format = FORMATS[name]
    if tool_format.at_start:
        talk, calls = "", calls[:1]

    parsed = parse(tool_format, cut(talk + tool_format.write(calls), places))

    assert parsed == (
        talk,
        [(tool, json.dumps(given_, ensure_ascii=False)) for tool, given_ in calls],
    )


@pytest.mark.parametrize("name", FORMATS)
@given(calls=call_lists, length=st.floats(0, 1), places=places)
def test_a_call_that_was_cut_short_loses_nothing(
    name: str, calls: list[tuple[str, dict[str, Any]]], length: float, places: list[float]
) -> None:
    tool_format = FORMATS[name]
    whole = tool_format.write(calls[:1] if tool_format.at_start else calls)
    text = whole[: int(length * len(whole))]

    content, parsed = parse(tool_format, cut(text, places))

    assert (content, parsed) == parse(tool_format, [text])
    words = [content, *(word for call in parsed for word in call)]
    framing = tool_format.write([("", {}), ("", {})])
    assert len(text) <= sum(map(len, words)) + len(framing) * max(1, len(parsed))
    assert text.startswith(content) or text.endswith(content)
    for (tool, written), (expected, given_) in zip(parsed, calls, strict=False):
        assert tool == expected
        assert json.dumps(given_, ensure_ascii=False).startswith(written)


@pytest.mark.parametrize("name", FORMATS)
@given(text=st.text('ab <>tol_ca/{}"\n[]', max_size=30), places=places)
def test_text_without_a_call_stays_text(name: str, text: str, places: list[float]) -> None:
    assert parse(FORMATS[name], cut(text, places)) == (text, [])


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        ("<tool_call>\nnot JSON</tool_call>", "<tool_call>\nnot JSON</tool_call>", []),
        ('<tool_call>\n{"name": "now", "arguments": 5}', None, []),
        (
            '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call> and so on',
            " and so on",
            [("now", "{}")],
        ),
        (
            '<tool_call>\n{"name": "now", "arguments": {}} </tool_call>',
            "",
            [("now", "{}")],
        ),
        ('<tool_call>\n{"name": "now", "arg', None, []),
    ],
)
def test_text_that_is_no_call_comes_back_as_text(
    text: str, content: str | None, calls: list[Call]
) -> None:
    assert parse(HERMES, list(text)) == (text if content is None else content, calls)
