from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.api.inline import run_inline
from handlers.engine.sequence import FinishReason, SamplingParams, Step
from handlers.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFault,
    InvalidRequest,
    NotReady,
)
from handlers.text.completion import Completer, TextDelta
from handlers.text.tokenizer import Tokenizer
from tests.support.scripted_engine import ScriptedEngine, drain, steps
from tests.support.tokenizer_kinds import byte_level

TOKENIZER = Tokenizer(byte_level())
PARAMS = SamplingParams(max_tokens=100)


def complete(
    engine: ScriptedEngine, stop: tuple[str, ...] = (), deadline: float | None = None
) -> list[TextDelta]:
    return drain(Completer(engine, TOKENIZER).complete([1, 2], PARAMS, stop, deadline))


def text_of(deltas: list[TextDelta]) -> str:
    return "".join(delta.text for delta in deltas)


@given(text=st.text(max_size=40))
def test_deltas_join_to_the_decoded_text(text: str) -> None:
    ids = TOKENIZER.encode(text)

    deltas = complete(ScriptedEngine(steps(ids)))

    assert text_of(deltas) == text
    assert [delta.finish_reason for delta in deltas] == [None] * (len(deltas) - 1) + ["stop"]
    assert deltas[-1].completion_tokens == len(ids)


@given(text=st.text("abé🦊", max_size=20), stops=st.lists(st.text("abé🦊", min_size=1, max_size=3)))
def test_a_stop_string_ends_the_answer_wherever_the_tokens_meet(
    text: str, stops: list[str]
) -> None:
    engine = ScriptedEngine(steps(TOKENIZER.encode(text), FinishReason.LENGTH))

    deltas = complete(engine, tuple(stops))

    met = any(stop in text for stop in stops)
    assert not any(stop in text_of(deltas) for stop in stops)
    assert text.startswith(text_of(deltas))
    assert deltas[-1].finish_reason == ("stop" if met else "length")
    assert met or text_of(deltas) == text


def test_a_stop_string_frees_the_slot_without_another_token() -> None:
    ids = TOKENIZER.encode("one two END three four")
    engine = ScriptedEngine(steps(ids))

    deltas = complete(engine, ("END",))

    assert text_of(deltas) == "one two "
    assert engine.generation.cancelled
    assert engine.generation.taken == len(TOKENIZER.encode("one two END"))
    assert deltas[-1].completion_tokens == engine.generation.taken


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        (FinishReason.EOS, "stop"),
        (FinishReason.LENGTH, "length"),
        (FinishReason.CONTEXT, "length"),
        (FinishReason.DEADLINE, "length"),
        (FinishReason.CANCELLED, "length"),
    ],
)
def test_an_answer_that_has_begun_ends_with_openais_finish_reason(
    reason: FinishReason, finish: str
) -> None:
    deltas = complete(ScriptedEngine(steps(TOKENIZER.encode("so far"), reason)))

    assert text_of(deltas) == "so far"
    assert deltas[-1].finish_reason == finish


def test_the_last_step_may_bring_an_id() -> None:
    first, *rest = TOKENIZER.encode("hi there")
    last = Step(rest[-1], FinishReason.LENGTH)
    engine = ScriptedEngine([*map(Step, [first, *rest[:-1]]), last])

    deltas = complete(engine)

    assert text_of(deltas) == "hi there"
    assert deltas[-1].completion_tokens == len(rest) + 1


def test_what_was_held_back_leaves_with_the_end() -> None:
    deltas = complete(ScriptedEngine(steps(TOKENIZER.encode("the EN"))), ("END",))

    assert text_of(deltas) == "the EN"
    assert deltas[-1].finish_reason == "stop"


@pytest.mark.parametrize(
    ("reason", "error"),
    [(FinishReason.DEADLINE, DeadlineExceeded), (FinishReason.CANCELLED, NotReady)],
)
def test_an_answer_that_never_began_is_an_error(
    reason: FinishReason, error: type[Exception]
) -> None:
    with pytest.raises(error):
        complete(ScriptedEngine(steps([], reason)))


def test_an_answer_of_the_end_alone_is_empty() -> None:
    assert complete(ScriptedEngine(steps([]))) == [TextDelta("", "stop", 0)]


def test_a_fault_is_raised_also_amid_an_answer_and_frees_the_slot() -> None:
    engine = ScriptedEngine(steps(TOKENIZER.encode("half an"), FinishReason.FAULT))

    with pytest.raises(EngineFault):
        complete(engine)

    assert engine.generation.cancelled


def test_closing_early_frees_the_slot() -> None:
    engine = ScriptedEngine(steps(TOKENIZER.encode("a long answer")))
    deltas = Completer(engine, TOKENIZER).complete([1], PARAMS)

    assert run_inline(anext(deltas)).text
    run_inline(deltas.aclose())

    assert engine.generation.cancelled


def test_the_engine_gets_the_ids_the_parameters_and_the_deadline() -> None:
    engine = ScriptedEngine(steps([]))

    complete(engine, deadline=12.5)

    assert (engine.prompt_ids, engine.params, engine.deadline) == ([1, 2], PARAMS, 12.5)


@pytest.mark.parametrize("prompt", ["", "half \ud800", "null \0"])
def test_a_prompt_that_cannot_be_read_names_its_field(prompt: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Completer(ScriptedEngine(), TOKENIZER).encode(prompt, param="prompt")

    assert refused.value.param == "prompt"


def test_a_prompt_that_cannot_fit_is_refused_without_being_read() -> None:
    class Unread(Tokenizer):
        def encode(self, *_: object) -> list[int]:
            raise AssertionError("read")

    completer = Completer(ScriptedEngine(), Unread(byte_level()))

    with pytest.raises(ContextLengthExceeded, match="1,000,000 characters"):
        completer.encode("x" * 1_000_000, param="messages")
