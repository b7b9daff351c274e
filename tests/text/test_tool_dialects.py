"""Tool calls in every style: what is written comes back, wherever the text is cut."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from handlers.artifact.dialect import JsonArguments, LiteralArguments, TaggedArguments, ToolFormat
from handlers.text.tool_parser import ToolCallParser
from tests.support.cuts import cut, places
from tests.support.tool_calls import Call, joined
from tests.support.tool_dialects import (
    CODER,
    DIALECTS,
    DSML,
    GEMMA,
    GLM_DENSE,
    KIMI,
    LFM,
    MISTRAL_SMALL,
    NEMO,
)

STRINGS = {tool: frozenset({"s", "path", "note"}) for tool in ("now", "get_weather", "mcp.a-b")}
"""Every tool's arguments that are strings; those of other names are anything else."""

# What a scanner trips over: quotes, brackets, escapes, and the marks of every style but a close.
texts = st.text("a'\"{}[]()<>=:,\\|/\n é🦊", max_size=8) | st.sampled_from(
    ["", "null", "7", "it's", 'say "x"', "<tool_call>", "a=1, b=2)", "\\d+\\'", "\t\u2028", "\n\n"]
)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner | texts, max_size=3)
        | st.dictionaries(st.sampled_from(["k", "key2"]), inner | texts, max_size=2)
    ),
    max_leaves=5,
)
arguments = st.fixed_dictionaries(
    {}, optional={"s": texts, "n": values, "path": texts, "o": values}
)
calls_ = st.lists(st.tuples(st.sampled_from(list(STRINGS)), arguments), min_size=1, max_size=3)


def parse(
    form: ToolFormat, pieces: Iterable[str], whole: bool = True
) -> tuple[str, list[Call], ToolCallParser]:
    """The text, and each call's name and arguments."""
    parser = ToolCallParser(form, STRINGS)
    parsed = [*map(parser.push, pieces), parser.flush(whole)]
    content = "".join(text for text, _ in parsed)
    return content, joined(delta for _, deltas in parsed for delta in deltas), parser


def writable(form: ToolFormat, value: Any) -> bool:
    """Returns whether a style can write a value at all, which has no close of its own within."""
    style = form.arguments
    if isinstance(value, Mapping):
        return all(writable(form, each) for each in (*value, *value.values()))
    if isinstance(value, list):
        return all(writable(form, each) for each in value)
    if isinstance(value, str) and isinstance(style, TaggedArguments):
        return style.close.strip() not in value
    if isinstance(value, str) and isinstance(style, LiteralArguments):
        return len(style.quote) == 1 or not {*style.quote} & {*value}
    return True


def decoded(calls: list[Call]) -> list[tuple[str, Any]]:
    return [(name, json.loads(written)) for name, written in calls]


@pytest.mark.parametrize("dialect", DIALECTS)
@given(talk=st.sampled_from(["", "Let me see.\n", "a < b [x] {y}"]), calls=calls_, places=places)
@example(talk="", calls=[("now", {})], places=[])
@example(talk="", calls=[("now", {}), ("get_weather", {"s": "\n"}), ("now", {})], places=[])
@settings(max_examples=25)
def test_calls_come_back_wherever_they_are_cut(
    dialect: str, talk: str, calls: list[tuple[str, dict[str, Any]]], places: list[float]
) -> None:
    form = DIALECTS[dialect]
    calls = [call for call in calls if writable(form, call[1])]
    if not calls:
        return
    text = talk + form.write(calls)

    content, parsed, parser = parse(form, cut(text, places))

    assert (content, decoded(parsed)) == (talk, calls)
    assert not parser.inside_call
    assert parse(form, text)[:2] == (content, parsed)


@pytest.mark.parametrize("dialect", DIALECTS)
@given(calls=calls_, places=places)
@settings(max_examples=5)
def test_an_answer_that_is_cut_anywhere_loses_nothing(
    dialect: str, calls: list[tuple[str, dict[str, Any]]], places: list[float]
) -> None:
    form = DIALECTS[dialect]
    calls = [call for call in calls if writable(form, call[1])]
    if not calls:
        return
    text = form.write(calls)
    for length in range(len(text)):
        content, parsed, parser = parse(form, [text[:length]], whole=False)

        assert (content, parsed) == parse(form, cut(text[:length], places), whole=False)[:2]
        for place, (name, written) in enumerate(parsed):
            assert name == calls[place][0]
            if place < len(parsed) - 1:
                assert json.loads(written) == calls[place][1]
        kept = content + "".join(written for _, written in parsed)
        for value in strings_before(text[:length], calls):
            assert value in kept or json.dumps(value, ensure_ascii=False)[1:-1] in kept
        assert parser.inside_call or is_complete(parsed, calls)


@pytest.mark.parametrize(
    ("form", "text", "kept"),
    [
        (GEMMA, '<|tool_call>call:now{s:<|"|>Rome<|"|>,n', '{"s": "Rome", '),
        (LFM, "<|tool_call_start|>[now(s='Rome', n", '{"s": "Rome", '),
        (CODER, "<tool_call>\n<function=now>\n<parameter=s", "{"),
    ],
)
def test_a_key_that_was_cut_is_no_text(form: ToolFormat, text: str, kept: str) -> None:
    content, calls, parser = parse(form, text, whole=False)

    assert (content, calls) == ("", [("now", kept)])
    assert parser.inside_call


def strings_before(text: str, calls: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """The plain words of arguments that were written in full."""
    return [
        value
        for _, given_ in calls
        for value in given_.values()
        if isinstance(value, str) and value.isalnum() and f"{value}" in text and len(value) > 3
    ]


def is_complete(parsed: list[Call], calls: list[tuple[str, dict[str, Any]]]) -> bool:
    return decoded(parsed) == calls[: len(parsed)]


@pytest.mark.parametrize("dialect", DIALECTS)
@given(text=st.text("ab <>tol_ca/{}\"\n[]|()='", max_size=30), places=places)
@settings(max_examples=30)
def test_text_without_a_call_stays_text(dialect: str, text: str, places: list[float]) -> None:
    form = DIALECTS[dialect]
    if form.trigger not in text:
        assert parse(form, cut(text, places))[:2] == (text, [])


@pytest.mark.parametrize("dialect", DIALECTS)
@given(calls=calls_, junk=st.text("<>{}[]()\"'=:,\\ \na", max_size=6), place=st.floats(0, 1))
@settings(max_examples=25)
def test_broken_calls_raise_nothing_and_do_not_depend_on_the_cut(
    dialect: str, calls: list[tuple[str, dict[str, Any]]], junk: str, place: float
) -> None:
    form = DIALECTS[dialect]
    written = form.write(calls)
    at = int(place * len(written))
    text = written[:at] + junk + written[at:]

    content, parsed, parser = parse(form, text)

    assert (content, parsed) == parse(form, [text])[:2]
    if not isinstance(form.arguments, JsonArguments):
        ended = parsed[:-1] if parser.inside_call else parsed
        decoded(ended)


@pytest.mark.parametrize(
    ("form", "text", "content", "calls"),
    [
        # White space that the template does not write, and marks that are missing.
        (CODER, "<tool_call><function=now></function></tool_call>", "", [("now", {})]),
        (
            CODER,
            (
                "<tool_call>\n\n<function=now>\n<parameter=s>a</parameter>\n\n"
                "<parameter=n> 7 </parameter></function>"
            ),
            "",
            [("now", {"s": "a", "n": 7})],
        ),
        (
            CODER,
            "<tool_call>\n<function=now>\n<parameter=s>\na\n</parameter>",
            "",
            [("now", {"s": "a"})],
        ),
        (
            GLM_DENSE,
            (
                "<tool_call>now\n<arg_key>s</arg_key>\n<arg_value>a</arg_value>\n</tool_call>\n"
                "<tool_call> now </tool_call> done"
            ),
            " done",
            [("now", {"s": "a"}), ("now", {})],
        ),
        (LFM, "<|tool_call_start|>[now( s = 'a' , n=None )]", "", [("now", {"s": "a", "n": None})]),
        (LFM, "<|tool_call_start|>[now(s='a',)]", "", [("now", {"s": "a"})]),
        (LFM, "<|tool_call_start|>[now(s='a'", "", [("now", {"s": "a"})]),
        (
            LFM,
            "<|tool_call_start|>[now(s=\"it's\", n=(1, .5, -1_0), o={1: true, 'k': [{}]})]",
            "",
            [("now", {"s": "it's", "n": [1, 0.5, -10], "o": {"1": True, "k": [{}]}})],
        ),
        (
            LFM,
            "<|tool_call_start|>[now(s='''a'b''', path='\\x41\\u00e9\\n\\101\\q', n=date(1, 2))]",
            "",
            [("now", {"s": "a'b", "path": "Aé\nA\\q", "n": "date(1, 2)"})],
        ),
        (
            GEMMA,
            '<|tool_call>call:now{s:<|"|>it\'s "x", {y}\\n<|"|>,n:[1,{k:None}],o:word}<tool_call|>',
            "",
            [("now", {"s": 'it\'s "x", {y}\\n', "n": [1, {"k": None}], "o": "word"})],
        ),
        (
            NEMO,
            '[TOOL_CALLS] [{"name": "now", "arguments": {}}, {"name":"now","arguments":{"s":"a"}}]',
            "",
            [("now", {}), ("now", {"s": "a"})],
        ),
        # Values of other types than text: JSON, a literal of Python, or a string after all.
        (
            CODER,
            (
                "<tool_call>\n<function=now>\n"
                "<parameter=n>\n{'a': [True, None, 'b']}\n</parameter>\n"
                "<parameter=o>\nParis, France\n</parameter>\n</function>\n</tool_call>"
            ),
            "",
            [("now", {"n": {"a": [True, None, "b"]}, "o": "Paris, France"})],
        ),
        # Marks within strings, and quotes that are none.
        (
            CODER,
            (
                "<tool_call>\n<function=now>\n<parameter=n>\n['a</parameter>', \"it's\"]\n"
                "</parameter>\n<parameter=o>\n[it's 5\" or so]\n</parameter>\n</function>"
            ),
            "",
            [("now", {"n": ["a</parameter>", "it's"], "o": "[it's 5\" or so]"})],
        ),
        # Of a tool that nobody offered.
        (
            CODER,
            (
                "<tool_call>\n<function=other>\n<parameter=s>\n7\n</parameter>\n"
                "<parameter=t>\nNaN\n</parameter>\n</function>\n</tool_call>"
            ),
            "",
            [("other", {"s": 7, "t": "NaN"})],
        ),
        # Strings that look like anything else.
        (
            DSML,
            (
                '<|DSML|function_calls>\n<|DSML|invoke name="now">\n'
                '<|DSML|parameter name="x" string="true">7</|DSML|parameter>\n'
                '<|DSML|parameter name="y" string="false">7</|DSML|parameter>\n'
                "</|DSML|invoke>\n</|DSML|function_calls>"
            ),
            "",
            [("now", {"x": "7", "y": 7})],
        ),
        # More calls after text.
        (
            CODER,
            (
                "<tool_call>\n<function=now>\n</function>\n</tool_call>\nand\n<tool_call>\n"
                "<function=now>\n</function>\n</tool_call>"
            ),
            "\nand\n",
            [("now", {}), ("now", {})],
        ),
        # A mention of the mark before a call.
        (
            CODER,
            "I use <tool_call> now: <tool_call>\n<function=now>\n</function>\n</tool_call>",
            "I use <tool_call> now: ",
            [("now", {})],
        ),
    ],
)
def test_models_may_be_sloppy(
    form: ToolFormat, text: str, content: str, calls: list[tuple[str, Any]]
) -> None:
    for pieces in ([text], list(text)):
        text_, parsed, parser = parse(form, pieces)
        assert (text_, decoded(parsed)) == (content, calls)
        assert not parser.inside_call


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (CODER, "<tool_call>\n<function=now>\n<parameter=s>\na"),
        (CODER, "<tool_call>\n<function=now>\n<parameter=n"),
        (LFM, "<|tool_call_start|>[now(s='a' + 'b')]"),
        (LFM, "<|tool_call_start|>[now(s='a"),
        (GEMMA, "<|tool_call>call:now{n:[1,2"),
        (KIMI, "<|tool_calls_section_begin|><|tool_call_begin|>functions.now:0<|tool_call_arg"),
    ],
)
def test_a_call_that_is_not_whole_is_not_run(form: ToolFormat, text: str) -> None:
    assert parse(form, text)[2].inside_call


def test_the_models_own_ids_are_kept_where_they_come_before_the_arguments() -> None:
    text = "[TOOL_CALLS]now[CALL_ID]abc123def[ARGS]{}[TOOL_CALLS]now[CALL_ID]abc123def[ARGS]{}"
    parser = ToolCallParser(MISTRAL_SMALL)

    _, deltas = parser.push(text)

    first, second = (delta.id for delta in deltas if delta.id)
    assert first == "abc123def"
    assert second != first
    assert second is not None
    assert len(second) == 9


def test_strings_may_be_null_where_their_schema_says_so() -> None:
    def parsed(value: str) -> Any:
        form = CODER
        parser = ToolCallParser(form, {}, {"now": frozenset({"s"})})
        text = f"<tool_call>\n<function=now>\n<parameter=s>\n{value}\n</parameter>\n</function>"
        pieces = [*map(parser.push, text), parser.flush()]
        (call,) = joined(delta for _, deltas in pieces for delta in deltas)
        return json.loads(call[1])["s"]

    assert [parsed(value) for value in ("null", "None", "nullify", "7", "nul", "")] == [
        None,
        None,
        "nullify",
        "7",
        "nul",
        "",
    ]
