"""Proves that the parser reads back what a template writes, whole and cut at every character."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from handlers.artifact.dialect import Dialect, Thinking, ToolFormat
from handlers.text.answer_format import AnswerFormat, answer_format
from handlers.text.answer_parser import AnswerParser
from handlers.text.history import THOUGHTS as THOUGHTS_MEMBER
from handlers.text.history import for_template
from model_export.dialect.marks import MARK, common_end, common_start
from model_export.dialect.probe import NAMES, TEXT, THOUGHTS, TOOLS, Probe, answer, call
from model_export.reporting import Report

EVERY_TYPE = {
    "zq7s": "Zürich",
    "zq7i": 3,
    "zq7f": -1.5,
    "zq7t": True,
    "zq7n": None,
    "zq7list": ["a", 1, None, False],
    "zq7object": {"zq7in": {"zq7deep": [True]}, "zq7x": "y"},
    "zq7digits": "12",
}
HARD_TEXT = {"zq7text": 'say "hi", it\'s {x: [1]}\n\\d+ & <b>bold</b>', "zq7empty": ""}
CALLS: tuple[tuple[Mapping[str, Any], ...], ...] = (
    ({},),
    (EVERY_TYPE,),
    (HARD_TEXT,),
    (EVERY_TYPE, HARD_TEXT),
)


class Answer(msgspec.Struct, frozen=True):
    """The parts of an answer, as a parser has read them."""

    thoughts: str
    text: str
    calls: list[tuple[str, Any]]


def proven_thoughts(dialect: Dialect, probe: Probe, report: Report) -> Dialect:
    """Returns the dialect without thoughts that the parser does not read back, and reports it."""
    if dialect.thinking is None or _reads_thoughts(dialect, probe):
        return dialect
    report("dialect: thoughts are not read back as the template writes them, and are left out")
    return replace(dialect, thinking=None)


def proven_calls(dialect: Dialect, probe: Probe, report: Report) -> Dialect:
    """Returns the dialect without calls that the parser does not read back, and reports it.

    Where it reads those of ToolFormat.write alone, earlier calls become text in a prompt.
    """
    tools = dialect.tools
    if tools is None:
        return dialect
    if not all(_reads_own(dialect, tools, calls) for calls in _calls(tools)):
        report("dialect: tool calls are not read back; tools are described as text")
        return replace(dialect, tools=None)
    if tools.in_history and not all(_reads_calls(dialect, probe, one) for one in _calls(tools)):
        report("dialect: the template garbles some calls, so earlier ones are written for it")
        return replace(dialect, tools=replace(tools, in_history=False))
    return dialect


def _calls(tools: ToolFormat) -> list[tuple[Mapping[str, Any], ...]]:
    return [calls for calls in CALLS if tools.separator is not None or len(calls) == 1]


def _reads_own(
    dialect: Dialect, tools: ToolFormat, arguments: tuple[Mapping[str, Any], ...]
) -> bool:
    expected = _named(arguments)
    return _reads(_answers(dialect, arguments), tools.write(expected), "", expected)


def _reads_calls(dialect: Dialect, probe: Probe, arguments: tuple[Mapping[str, Any], ...]) -> bool:
    """Returns whether the template's own text of calls is read back."""
    turn = answer("", [call(place, one) for place, one in enumerate(arguments)])
    shown = _shown(dialect, probe, turn)
    if shown is None:
        return False
    written, thinking = shown[1], dialect.thinking
    if thinking is not None:
        for mark in (thinking.begin, thinking.end):
            written = written.lstrip().removeprefix(mark.strip())
    return _reads(_answers(dialect, arguments), written, "", _named(arguments))


def _reads_thoughts(dialect: Dialect, probe: Probe) -> bool:
    """Returns whether thoughts and text come apart, with and without the template's help."""
    thinking, (opening, closing) = dialect.thinking, dialect.text
    if thinking is None:
        return False
    written = f"{THOUGHTS}{thinking.end}{opening}{TEXT}{closing}"
    form = AnswerFormat(thinking=thinking, text=dialect.text)
    for text, one in (
        (thinking.begin + written, form),
        (written, replace(form, thinks=True)),
    ):
        if not _reads(one, text, TEXT, (), THOUGHTS):
            return False
    return _template_thoughts(dialect, probe, thinking)


def _template_thoughts(dialect: Dialect, probe: Probe, thinking: Thinking) -> bool:
    if thinking.member is None:
        return True
    turn = answer(thoughts={THOUGHTS_MEMBER: THOUGHTS})
    shown = _shown(dialect, probe, turn, thinking.on)
    if shown is None or THOUGHTS not in shown[1]:
        return True  # it keeps those of calls alone
    head, written = shown
    form = answer_format(dialect, head)
    if written.startswith(THOUGHTS):  # only a prompt has the beginning
        form = replace(form, thinks=True)
    return _reads(form, written, TEXT, (), THOUGHTS)


def _shown(
    dialect: Dialect, probe: Probe, turn: dict[str, Any], values: Mapping[str, Any] = {}
) -> tuple[str, str] | None:
    """Returns the prompt up to an answer, and the answer as the template writes it."""
    variable = dialect.tools.variable if dialect.tools else None
    given = {**values, **({variable: TOOLS} if variable else {})}
    turns = [{**each} for each in for_template([turn], dialect)]
    shown = probe.after_user(*turns, **given)
    plain = probe.after_user(answer(TEXT), **given)
    prompt = probe.after_user(begin_answer=True, **given)
    if shown is None or plain is None or prompt is None:
        return None
    heads = (prompt, plain.partition(TEXT)[0])
    start = max(len(common_start(shown, each)) for each in heads)
    start = len(prompt) if shown.startswith(prompt) else start
    end = len(common_end(shown, plain.rpartition(TEXT)[2]))
    return shown[:start], shown[start : len(shown) - end]


def _reads(
    form: AnswerFormat,
    written: str,
    text: str,
    calls: Iterable[tuple[str, Any]],
    thoughts: str = "",
) -> bool:
    """Returns whether a parser of this form reads what is expected, however the text is cut."""
    whole, cut = _parsed(form, [written]), _parsed(form, written)
    # What ends a turn is no part of an answer, where the tokens are not known.
    ending = MARK.sub("", whole.text.removeprefix(text)).strip()
    expected = Answer(thoughts, whole.text, list(calls))
    return whole == cut == expected and whole.text.startswith(text) and not ending


def _parsed(form: AnswerFormat, pieces: Iterable[str]) -> Answer:
    parser = AnswerParser(form)
    read = [*map(parser.push, pieces), parser.flush()]
    calls: list[tuple[str, str]] = []
    for delta in (delta for piece in read for delta in piece.calls):
        if delta.name is not None:
            calls.append((delta.name, ""))
        name, arguments = calls[delta.index]
        calls[delta.index] = (name, arguments + delta.arguments)
    return Answer(
        "".join(piece.reasoning for piece in read),
        "".join(piece.text for piece in read),
        [(name, _decoded(arguments)) for name, arguments in calls],
    )


def _decoded(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _named(arguments: Iterable[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    return list(zip(NAMES, arguments, strict=False))


def _answers(dialect: Dialect, arguments: Iterable[Mapping[str, Any]]) -> AnswerFormat:
    """Returns the form of answers to a request whose schemas say which arguments are strings."""
    strings = {
        name: frozenset(key for key, value in each.items() if isinstance(value, str))
        for name, each in zip(NAMES, arguments, strict=False)
    }
    return AnswerFormat(tools=dialect.tools, text=dialect.text, strings=strings)
