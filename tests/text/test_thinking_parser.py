"""Thoughts before an answer: told from the text wherever the pieces are cut."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handlers.artifact.dialect import Dialect, Thinking
from handlers.text.answer_format import AnswerFormat, answer_format
from handlers.text.answer_parser import AnswerParser
from tests.support.cuts import cut, places

QWEN = Thinking("<think>\n", "\n</think>\n\n")
APRIEL = Thinking("", "\n[BEGIN FINAL RESPONSE]\n")
HARMONY = Thinking("<|channel|>analysis<|message|>", "<|end|><|start|>assistant")
COMMAND = ("<|START_RESPONSE|>", "<|END_RESPONSE|>")

# Parts of the marks, white space, and letters.
words = st.text("ab <>/think\n", max_size=20)


def read(form: AnswerFormat, pieces: Iterable[str], stop: tuple[str, ...] = ()) -> tuple[str, str]:
    """The thoughts and the text."""
    parser = AnswerParser(form, stop)
    read = [*map(parser.push, pieces), parser.flush()]
    assert not any(piece.calls for piece in read)
    return "".join(p.reasoning for p in read), "".join(p.text for p in read)


@pytest.mark.parametrize("thinks", [True, False])
@given(thoughts=words, text=words, places=places)
@example(thoughts="", text="", places=[])
def test_thoughts_and_text_come_out_apart(
    thinks: bool, thoughts: str, text: str, places: list[float]
) -> None:
    thoughts = thoughts.replace("<think>", "").replace("</think>", "")
    answer = f"{'' if thinks else QWEN.begin}{thoughts}{QWEN.end}{text}"

    read_ = read(AnswerFormat(thinking=QWEN, thinks=thinks), cut(answer, places))

    assert read_ == (thoughts.strip(), text.strip())


@given(answer=words, thinks=st.booleans(), places=places)
@example(answer="<think>", thinks=True, places=[])
@example(answer="</think>\n\n", thinks=False, places=[])
def test_any_text_loses_nothing_but_marks_and_white_space(
    answer: str, thinks: bool, places: list[float]
) -> None:
    form = AnswerFormat(thinking=QWEN, thinks=thinks)

    thoughts, text = read(form, cut(answer, places))

    assert (thoughts, text) == read(form, [answer])
    kept = "".join((thoughts + text).split())
    whole = "".join(answer.split())
    unmarked = whole.replace("<think>", "", 1)
    ends = [each.replace("</think>", "", 1) for each in (whole, unmarked)]
    assert kept in {whole, unmarked, *ends}
    if not thinks and not answer.lstrip().startswith(("<think>", "</think>")):
        assert (thoughts, text) == ("", answer)


@pytest.mark.parametrize(
    ("form", "answer", "expected"),
    [
        (AnswerFormat(thinking=QWEN, thinks=True), "so <think> of", ("so <think> of", "")),
        (AnswerFormat(thinking=QWEN, thinks=True), "<think>\nso\n</think>\n\nyes", ("so", "yes")),
        (AnswerFormat(thinking=QWEN, thinks=True), "</think>yes", ("", "yes")),
        (AnswerFormat(thinking=QWEN, thinks=True), "cut sho", ("cut sho", "")),
        (AnswerFormat(thinking=QWEN, thinks=True), "cut </thi", ("cut </thi", "")),
        (AnswerFormat(thinking=QWEN), "\n<think>so\n\n</think> yes \n", ("so", "yes")),
        (AnswerFormat(thinking=QWEN), " yes <think>so</think>", ("", " yes <think>so</think>")),
        (AnswerFormat(thinking=QWEN), "\n</think>\n\nyes", ("", "yes")),
        (AnswerFormat(thinking=QWEN), "<thi", ("", "<thi")),
        (AnswerFormat(thinking=QWEN), " ", ("", " ")),
        (AnswerFormat(thinking=APRIEL, thinks=True), "so[BEGIN FINAL RESPONSE]yes", ("so", "yes")),
        (AnswerFormat(thinking=APRIEL), "[BEGIN FINAL RESPONSE]\nyes", ("", "yes")),
        (AnswerFormat(thinking=APRIEL), "yes", ("", "yes")),
        (AnswerFormat(text=COMMAND), "<|START_RESPONSE|>yes<|END_RESPONSE|>", ("", "yes")),
        (AnswerFormat(text=COMMAND), "yes<|END_RESPONSE|>", ("", "yes<|END_RESPONSE|>")),
        (AnswerFormat(text=COMMAND), "<|START_RESPONSE|>yes<|END", ("", "yes<|END")),
        (AnswerFormat(text=("", COMMAND[1])), "yes<|END_RESPONSE|>", ("", "yes")),
        (AnswerFormat(text=("all\n", "")), "all\n\nyes", ("", "yes")),
        (
            AnswerFormat(thinking=QWEN, thinks=True, text=COMMAND),
            "so</think>\n<|START_RESPONSE|>yes<|END_RESPONSE|>\n",
            ("so", "yes"),
        ),
    ],
)
def test_what_is_thought_and_what_is_text(
    form: AnswerFormat, answer: str, expected: tuple[str, str]
) -> None:
    assert read(form, [answer]) == expected
    assert read(form, answer) == expected


def test_a_stop_string_is_looked_for_in_the_text_alone() -> None:
    form = AnswerFormat(thinking=QWEN, thinks=True, text=COMMAND)
    answer = "one END</think><|START_RESPONSE|>two END three"

    assert read(form, answer, ("END", "START")) == ("one END", "two")


@pytest.mark.parametrize(
    ("prompt", "thinks", "looked_for"),
    [
        ("user\nhi\nassistant\n<think>\n", True, True),
        ("user\nhi\nassistant\n<think>", True, True),
        ("user\nhi\nassistant\n", False, True),
        ("user\nhi\nassistant\n<think>\n\n</think>\n\n", False, False),
        ("user\nhi\nassistant\n</think>", False, False),
    ],
)
def test_the_end_of_the_prompt_says_whether_thoughts_go_on(
    prompt: str, thinks: bool, looked_for: bool
) -> None:
    form = answer_format(Dialect(thinking=QWEN), prompt)

    assert (form.thinks, form.thinking is not None, form.is_plain) == (
        thinks,
        looked_for,
        not looked_for,
    )


@pytest.mark.parametrize(
    ("prompt", "looked_for"),
    [
        ("<|start|>user<|message|>hi<|end|><|start|>assistant", True),
        ("<|start|>assistant<|channel|>analysis<|message|><|end|><|start|>assistant", False),
    ],
)
def test_a_mark_that_begins_the_next_turn_ends_no_thoughts_after_a_users_turn(
    prompt: str, looked_for: bool
) -> None:
    form = answer_format(Dialect(thinking=HARMONY), prompt)

    assert (form.thinks, form.thinking is not None) == (False, looked_for)


@pytest.mark.parametrize(
    ("continued", "thinks", "looked_for"),
    [
        ("The answer", False, False),
        ("<think>\nso", True, True),
        ("<think>\nso\n</think>\n\nThe", False, False),
        ("", False, False),
    ],
)
def test_an_answer_that_the_prompt_has_begun_says_itself_whether_thoughts_go_on(
    continued: str, thinks: bool, looked_for: bool
) -> None:
    dialect = Dialect(thinking=QWEN, text=COMMAND)

    form = answer_format(dialect, f"assistant\n{continued}", continued=continued)

    assert (form.thinks, form.thinking is not None) == (thinks, looked_for)
    assert form.text == ("", COMMAND[1])


def test_a_prompt_may_end_with_the_mark_before_the_text() -> None:
    assert answer_format(Dialect(text=COMMAND), "<|START_RESPONSE|>").text == ("", COMMAND[1])
    assert answer_format(Dialect(text=COMMAND), "<|CHATBOT|>").text == COMMAND
    assert answer_format(Dialect(), "any").is_plain
