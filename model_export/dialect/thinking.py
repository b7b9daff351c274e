"""Finds the marks of thoughts in what a template writes, and what turns thinking on and off."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from handlers.artifact.dialect import Thinking
from model_export.dialect.marks import MARK, common_end, common_start, marks_in, up_to_marks
from model_export.dialect.probe import NAMES, TEXT, THOUGHTS, TOOLS, Probe, answer, call
from model_export.dialect.switches import Switches, find_switches, settings_to_try

MEMBERS = ("reasoning_content", "reasoning", "thinking", "thought")
"""Of a message, for its thoughts. "content" stands for a part of the content."""
THINKING_MARK = re.compile(r"<(?!/)[^<>/]*(think|thought|reason)[^<>]*>", re.IGNORECASE)


class AnswerMarks(msgspec.Struct, frozen=True):
    """The marks of an answer's thoughts and of its text."""

    thinking: Thinking | None = None
    text: tuple[str, str] = ("", "")


def find_thinking(probe: Probe) -> AnswerMarks:
    """Finds the marks of thoughts, None where a template has none, and those of the text."""
    found = _in_a_message(probe) or _in_the_prompt(probe)
    thinking, text = found or (None, _text_marks(probe, "", ""))
    if thinking is None:
        return AnswerMarks(None, text)
    switches = find_switches(probe, thinking)
    return AnswerMarks(_with(thinking, switches), text)


def _with(thinking: Thinking, switches: Switches) -> Thinking:
    return msgspec.structs.replace(
        thinking, on=switches.on, off=switches.off, effort=switches.effort
    )


Found = tuple[Thinking, tuple[str, str]]


def _in_a_message(probe: Probe) -> Found | None:
    """Reads the marks around the thoughts of an earlier message."""
    for values in settings_to_try(probe):
        for member, turn in _thinking_turns():
            shown = probe.after_user(turn, tools=TOOLS, **values)
            if shown is not None and _has_thoughts(shown):
                return _read(probe, member, shown, values)
    return None


def _thinking_turns() -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yields turns with thoughts and text, or with thoughts and a call, and their member."""
    for member in MEMBERS:
        yield member, answer(thoughts={member: THOUGHTS})
        yield member, answer("", [call(0, {})], {member: THOUGHTS})
    text = {"type": "text", "text": TEXT}
    yield "content", answer([{"type": "thinking", "thinking": THOUGHTS}, text])
    blocks = [{"type": "thoughts", "text": THOUGHTS}, {"type": "response", "text": TEXT}]
    yield None, answer({"blocks": blocks})


def _has_thoughts(shown: str) -> bool:
    """Returns whether thoughts come before the answer, and are no value of an object's text."""
    place = shown.find(THOUGHTS)
    last = max(shown.rfind(TEXT), shown.rfind(NAMES[0]))
    return 0 <= place < last and shown[place - 1 : place] not in ("'", '"')


def _read(probe: Probe, member: str | None, shown: str, values: Mapping[str, Any]) -> Found | None:
    before, _, after = shown.partition(THOUGHTS)
    between = after[: after.find(TEXT)] if TEXT in after else _first_mark(after)
    begin = _begin(probe, before, values)
    end, text = _end(probe, between, begin, after.partition(TEXT)[2], values)
    if not end.strip():
        return None
    return Thinking(begin=begin, end=end, member=member), text


def _first_mark(text: str) -> str:
    return text[: text.find(marks_in(text)[0]) + len(marks_in(text)[0])] if marks_in(text) else ""


def _begin(probe: Probe, before: str, values: Mapping[str, Any]) -> str:
    """Returns the mark before thoughts. `before`: all from the user's message on."""
    prompts = _prompts(probe, values)
    heads = [prompt for prompt in prompts if before.startswith(prompt)]
    head = min(heads, key=len, default="")
    if head and before[len(head) :].strip():
        return before[len(head) :].lstrip("\n")
    for prompt in prompts:
        # The thoughts begin with words of the prompt that no message has.
        shared = common_start(before, prompt)
        if (
            shared == before
            and prompt[len(shared) :].strip()
            and not marks_in(prompt[len(shared) :])
        ):
            return prompt[len(shared) :]
    return _last_marks(before, _between_turns(probe))


def _prompts(probe: Probe, values: Mapping[str, Any]) -> list[str]:
    """Returns the prompts' ends under all settings."""
    settings = ({**values, **setting} for setting in settings_to_try(probe))
    prompts = (probe.after_user(begin_answer=True, **setting) for setting in settings)
    return [prompt for prompt in dict.fromkeys(prompts) if prompt is not None]


def _last_marks(before: str, elsewhere: str) -> str:
    """Returns the shortest run of marks at the end that stands nowhere else."""
    places = [found.start() for found in MARK.finditer(before)]
    for place in reversed(places):
        if before[place:].strip() not in elsewhere:
            return before[place:]
    return ""


def _between_turns(probe: Probe) -> str:
    """Returns what stands between an answer and the user's next message."""
    shown = probe.after_user(answer(), {"role": "user", "content": THOUGHTS})
    return "" if shown is None else shown.partition(TEXT)[2].partition(THOUGHTS)[0]


def _end(
    probe: Probe, between: str, begin: str, after: str, values: Mapping[str, Any]
) -> tuple[str, tuple[str, str]]:
    """Parts what stands between thoughts and text into the marks of both.

    `after`: what follows the text.
    """
    text = _text_marks(probe, begin, between, **values)
    if text[0] and between.endswith(text[0]):
        return between[: -len(text[0])], text
    # Every answer has the marks of thoughts, which have as many at their end as at their beginning.
    end = up_to_marks(between, len(marks_in(begin)))
    opening = between[len(end) :]
    if marks_in(begin) and marks_in(opening) and not text[0]:
        return end, (opening, up_to_marks(after, len(marks_in(opening))))
    return between, text


def _text_marks(probe: Probe, begin: str, end: str, **values: Any) -> tuple[str, str]:
    """Returns the marks around the text of an answer without thoughts."""
    shown = probe.after_user(answer(), tools=TOOLS, **values)
    prompt = probe.after_user(begin_answer=True, tools=TOOLS, **values)
    called = probe.after_user(answer("", [call(0, {})]), tools=TOOLS, **values)
    if shown is None or prompt is None or TEXT not in shown:
        return "", ""
    before, _, after = shown.partition(TEXT)
    shared = common_start(before, prompt)
    opening, only_prompted = before[len(shared) :], prompt[len(shared) :].strip()
    marks = [mark for mark in (begin.strip(), end.strip()) if mark]
    if any(mark in opening for mark in marks) or not marks_in(opening):
        opening = ""
    if only_prompted and not any(mark in only_prompted for mark in marks):
        opening = ""
    if called is None or not opening:
        return opening, ""
    closing = after[: len(after) - len(common_end(after, called))]
    return opening, closing


def _in_the_prompt(probe: Probe) -> Found | None:
    """Reads the marks that a prompt ends with, or that the source cuts earlier answers at."""
    for prompt in sorted(_prompts(probe, {}), key=len):
        opened = list(THINKING_MARK.finditer(prompt))
        if not opened:
            continue
        begin = prompt[opened[-1].start() :]
        mark = opened[-1][0]
        close = f"</{mark[1:]}"
        if close in begin:
            inner, _, after = begin[len(mark) :].partition(close)
            half = len(inner) // 2 if inner.strip() == "" else 0
            return Thinking(begin=mark + inner[:half], end=inner[half:] + close + after), ("", "")
        if close in probe.source:
            blank = begin[len(mark) :]
            return Thinking(begin=begin, end=f"{blank}{close}{2 * blank}"), ("", "")
    return _in_the_source(probe)


def _in_the_source(probe: Probe) -> Found | None:
    for found in THINKING_MARK.finditer(probe.source):
        close = f"</{found[0][1:]}"
        if close in probe.source:
            return Thinking(begin=found[0], end=close), ("", "")
    if "</think>" in probe.source:
        return Thinking(begin="<think>", end="</think>"), ("", "")
    return None
