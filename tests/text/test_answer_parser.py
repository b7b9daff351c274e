"""Whole answers: thoughts, then text, then calls, in the dialects of many models."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.artifact.dialect import Thinking
from handlers.text.answer_format import AnswerFormat
from handlers.text.answer_parser import AnswerParser
from tests.support.cuts import cut, places
from tests.support.tool_calls import Call, joined
from tests.support.tool_dialects import CODER, DIALECTS, GEMMA, LFM

THINKINGS = {
    "qwen": Thinking("<think>\n", "\n</think>\n\n"),
    "glm": Thinking("\n<think>", "</think>\n"),
    "gemma": Thinking("<|channel>thought\n", "\n<channel|>"),
    "apriel": Thinking("", "\n[BEGIN FINAL RESPONSE]\n"),
}
MARKS = {"none": ("", ""), "command": ("<|START_RESPONSE|>", "<|END_RESPONSE|>")}
STRINGS = {"now": frozenset({"zone"})}
CALLS = [("now", {"zone": "UTC", "days": [1, None, {"k": "v"}]}), ("now", {})]

Read = tuple[str, str, list[Call]]


def read(
    form: AnswerFormat, pieces: Iterable[str], stop: tuple[str, ...] = (), whole: bool = True
) -> Read:
    """The thoughts, the text, and each call's name and arguments."""
    parser = AnswerParser(form, stop)
    found = []
    for piece in pieces:
        found.append(parser.push(piece))
        if parser.stop_string:
            break
    found.append(parser.flush(whole))
    calls = joined(call for piece in found for call in piece.calls)
    return "".join(p.reasoning for p in found), "".join(p.text for p in found), calls


@pytest.mark.parametrize("marks", MARKS)
@pytest.mark.parametrize("thinking", THINKINGS)
@pytest.mark.parametrize("dialect", DIALECTS)
@given(thinks=st.booleans(), calls=st.integers(0, 2), cuts=st.lists(places, max_size=2))
@settings(max_examples=5)
def test_thoughts_text_and_calls_come_out_apart(
    dialect: str, thinking: str, marks: str, thinks: bool, calls: int, cuts: list[list[float]]
) -> None:
    tools, thoughts, (opening, closing) = DIALECTS[dialect], THINKINGS[thinking], MARKS[marks]
    form = AnswerFormat(tools, thoughts, thinks or not thoughts.begin, (opening, closing), STRINGS)
    written = tools.write(CALLS[:calls]) if calls else ""
    # Marks of calls are no calls among thoughts.
    inner = f"I could write {tools.write(CALLS[:1])} or </thin, or not."
    begin = "" if form.thinks else thoughts.begin
    answer = f"{begin}{inner}{thoughts.end}{opening}See: {{a}}{closing}\n\n{written}"

    for pieces in ([answer], list(answer), *(cut(answer, each) for each in cuts)):
        reasoning, text, found = read(form, pieces)
        assert (reasoning, text) == (inner, "See: {a}")
        assert [(name, json.loads(given_)) for name, given_ in found] == CALLS[:calls]


@pytest.mark.parametrize("dialect", DIALECTS)
@given(places=places, stop=st.sampled_from([(), ("UTC",), ("a}",), ("\n",), ("[", "<")]))
@settings(max_examples=5)
def test_an_answer_that_is_cut_anywhere_is_read_the_same_in_pieces(
    dialect: str, places: list[float], stop: tuple[str, ...]
) -> None:
    tools, thinking, marks = DIALECTS[dialect], THINKINGS["qwen"], MARKS["command"]
    form = AnswerFormat(tools, thinking, text=marks, strings=STRINGS)
    answer = (
        f"<think>\nthe thoughts\n</think>\n\n{marks[0]}See: {{a}}{marks[1]}{tools.write(CALLS)}"
    )

    before: Read = ("", "", [])
    for length in range(len(answer) + 1):
        whole = read(form, [answer[:length]], stop, whole=False)

        assert whole == read(form, cut(answer[:length], places), stop, whole=False)
        assert "the thoughts".startswith(whole[0]) or whole[0].startswith("the thoughts")
        assert len(whole[2]) >= len(before[2])
        before = whole


def test_white_space_of_text_after_a_call_does_not_depend_on_the_cut() -> None:
    form = AnswerFormat(CODER, THINKINGS["qwen"])
    answer = f"<think></think>One\n{CODER.write([('now', {})])} two\n three\n"

    assert read(form, [answer]) == read(form, answer) == ("", "One\n two\n three", [("now", "{}")])


def long_answers(length: int) -> dict[str, tuple[AnswerFormat, str]]:
    """Answers that make a parser hold back as much as it may."""
    strings = {"now": frozenset({"s"})}
    coder = AnswerFormat(CODER, THINKINGS["qwen"], strings=strings)
    lfm, gemma = AnswerFormat(LFM), AnswerFormat(GEMMA)
    call = "<tool_call>\n<function=now>\n<parameter="
    return {
        "blanks": (coder, " " * length),
        "thoughts": (coder, "<think>" + "\n" * length),
        "text": (coder, "<think></think>a" + "\n" * length),
        "trigger": (coder, "<tool_call>" * (length // 11)),
        "half a trigger": (coder, "<tool_cal" * (length // 9)),
        "before a call": (coder, "<tool_call>" + " " * length),
        "name": (coder, "<tool_call><function=" + "a" * length),
        "key": (coder, call + "a" * length),
        "string": (coder, f"{call}s>" + "\n" * length),
        "value": (coder, f"{call}n>" + "[" * length),
        "marks in strings": (coder, f'{call}n>["' + "</parameter>" * (length // 12)),
        "after a call": (coder, CODER.write([("now", {})]) + " " * length),
        "calls": (coder, CODER.write([("now", {"s": "a"})] * (length // 80))),
        "word": (lfm, "<|tool_call_start|>[now(n=" + "a" * length),
        "lists": (lfm, "<|tool_call_start|>[now(n=" + "[" * length),
        "escapes": (lfm, "<|tool_call_start|>[now(n='" + "\\x41" * (length // 4)),
        "items": (gemma, GEMMA.write([("now", {"n": list(range(length // 6))})])),
    }


@pytest.mark.parametrize("answer", long_answers(0))
def test_an_answer_takes_time_in_proportion_to_its_length(answer: str) -> None:
    def seconds(length: int) -> float:
        form, text = long_answers(length)[answer]
        begin = time.process_time()
        read(form, (text[place : place + 4] for place in range(0, len(text), 4)))
        return time.process_time() - begin

    # 16 times the length would take 256 times as long where each piece reads all before it.
    assert any(seconds(80_000) < 64 * seconds(5_000) for _ in range(3))
