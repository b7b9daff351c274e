from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from handlers.api.http import run_sync
from handlers.artifact.dialect import HERMES, Thinking
from handlers.engine.params import FinishReason, Logprobs, Prompt, SamplingParams, Step
from handlers.errors import (
    DeadlineExceeded,
    EngineFault,
    NotReady,
)
from handlers.grammar.compiler import GrammarCompiler
from handlers.text.answer_format import AnswerFormat
from handlers.text.completion import Completer, Delta
from handlers.text.tokenizer import Tokenizer
from tests.support.scripted_engine import ScriptedEngine, drain, steps
from tests.support.tokenizer_kinds import END, byte_level

TOKENIZER = Tokenizer(byte_level())
PARAMS = SamplingParams(max_tokens=100)


def complete(
    engine: ScriptedEngine, stop: tuple[str, ...] = (), deadline: float | None = None
) -> list[Delta]:
    return drain(Completer(engine, TOKENIZER).complete([Prompt([1, 2], PARAMS)], stop, deadline))


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@given(text=st.text(max_size=40))
def test_deltas_join_to_the_decoded_text(text: str) -> None:
    ids = TOKENIZER.encode(text)

    deltas = complete(ScriptedEngine(steps(ids)))

    assert text_of(deltas) == text
    assert [delta.finish_reason for delta in deltas] == [None] * (len(deltas) - 1) + ["stop"]
    assert deltas[-1].stats.completion_tokens == len(ids)


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
    assert deltas[-1].stop_string in ({*stops} if met else {None})
    assert met or text_of(deltas) == text


def test_a_stop_string_frees_the_slot_without_another_token() -> None:
    ids = TOKENIZER.encode("one two END three four")
    engine = ScriptedEngine(steps(ids))

    deltas = complete(engine, ("END",))

    assert text_of(deltas) == "one two "
    assert engine.generation.cancelled
    assert engine.generation.taken == len(TOKENIZER.encode("one two END"))
    assert deltas[-1].stats.completion_tokens == engine.generation.taken


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
    assert deltas[-1].stats.completion_tokens == len(rest) + 1


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
    (delta,) = complete(ScriptedEngine(steps([])))

    assert (delta.text, delta.finish_reason, delta.stats.completion_tokens) == ("", "stop", 0)


def test_a_fault_is_raised_also_during_an_answer_and_frees_the_slot() -> None:
    engine = ScriptedEngine(steps(TOKENIZER.encode("half an"), FinishReason.FAULT))

    with pytest.raises(EngineFault):
        complete(engine)

    assert engine.generation.cancelled


def test_closing_early_frees_the_slot() -> None:
    engine = ScriptedEngine(steps(TOKENIZER.encode("a long answer")))
    deltas = Completer(engine, TOKENIZER).complete([Prompt([1], PARAMS)])

    assert run_sync(anext(deltas)).text
    run_sync(deltas.aclose())

    assert engine.generation.cancelled


def test_the_engine_gets_the_ids_the_parameters_and_the_deadline() -> None:
    engine = ScriptedEngine(steps([]))

    complete(engine, deadline=12.5)

    assert (engine.prompt_ids, engine.params, engine.deadline) == ([1, 2], PARAMS, 12.5)


def scored(ids: list[int], end: FinishReason = FinishReason.EOS) -> list[Step]:
    """Steps with logprobs: -0.5 for each id, and id 1 as the likeliest beside it."""
    told = [Step(i, logprobs=Logprobs(i, -0.5, ((1, -0.25),))) for i in ids]
    return [*told, Step(None, end)]


@given(
    texts=st.lists(st.text("abé🦊 ", max_size=12), min_size=1, max_size=4),
    stops=st.lists(st.text("abé🦊", min_size=1, max_size=3), max_size=2),
)
def test_every_prompt_gets_the_answer_that_it_gets_alone(
    texts: list[str], stops: list[str]
) -> None:
    scripts = [scored(TOKENIZER.encode(text)) for text in texts]
    engine = ScriptedEngine(scripts=scripts)
    prompts = [Prompt([1], PARAMS)] * len(texts)

    deltas = drain(Completer(engine, TOKENIZER).complete(prompts, tuple(stops)))

    for index, script in enumerate(scripts):
        mine = [delta for delta in deltas if delta.index == index]
        alone = complete(ScriptedEngine(script), tuple(stops))
        assert [replace(delta, index=0) for delta in mine] == [
            replace(delta, stats=mine[place].stats) for place, delta in enumerate(alone)
        ]
    assert sorted(engine.generation.cancelled_ones) == list(range(len(texts)))


@given(
    text=st.text("abé🦊 ", max_size=20),
    stops=st.lists(st.text("abé🦊", min_size=1, max_size=3), max_size=3),
)
def test_the_tokens_of_an_answer_are_those_that_begin_in_its_text(
    text: str, stops: list[str]
) -> None:
    ids = TOKENIZER.encode(text)

    deltas = complete(ScriptedEngine(scored(ids)), tuple(stops))

    told = [token for delta in deltas for token in delta.tokens]
    answer = text_of(deltas)
    raw = b"".join(TOKENIZER.token_bytes[token_id] for token_id in ids[: len(told)])
    assert raw.startswith(answer.encode())
    assert all(token.offset < len(answer) for token in told)
    assert b"".join(token.bytes for token in told) == raw
    # Tokens may meet within a character, of at most 4 bytes.
    but_one = ids[: max(0, len(told) - 1)]
    length = len(b"".join(TOKENIZER.token_bytes[token_id] for token_id in but_one))
    assert length <= len(answer.encode()) + 3


@given(text=st.text("abé🦊 ", max_size=20), stop=st.text("abé🦊", min_size=1, max_size=3))
def test_no_token_leaves_before_its_text(text: str, stop: str) -> None:
    sent = ""
    for delta in complete(ScriptedEngine(scored(TOKENIZER.encode(text))), (stop,)):
        sent += delta.text
        assert all(token.offset < len(sent) for token in delta.tokens)


def test_a_token_says_how_likely_it_and_others_were() -> None:
    (token_id,) = TOKENIZER.encode("e")

    first, _ = complete(ScriptedEngine(scored([token_id])))

    (token,) = first.tokens
    assert (token.text, token.bytes, token.logprob, token.offset) == ("e", b"e", -0.5, 0)
    assert [(other.bytes, other.logprob) for other in token.top] == [
        (TOKENIZER.token_bytes[1], -0.25)
    ]


def test_a_part_of_a_character_has_its_exact_bytes() -> None:
    deltas = complete(ScriptedEngine(scored(TOKENIZER.encode("é"))))

    (told,) = (delta.tokens for delta in deltas if delta.tokens)
    assert [(token.text, token.bytes) for token in told] == [
        ("\ufffd", b"\xc3"),
        ("\ufffd", b"\xa9"),
    ]


def test_an_answer_whose_grammar_is_done_has_stopped() -> None:
    (*_, last) = complete(ScriptedEngine(steps(TOKENIZER.encode("{}"), FinishReason.GRAMMAR)))

    assert last.finish_reason == "stop"


def test_of_several_answers_one_that_never_began_is_empty() -> None:
    begun = Step(TOKENIZER.encode("e")[0])
    over = Step(None, FinishReason.DEADLINE)
    engine = ScriptedEngine(scripts=[[begun, over], [over]])

    first, *ends = drain(Completer(engine, TOKENIZER).complete([Prompt([1], PARAMS)] * 2))

    assert first.text == "e"
    assert [(end.text, end.finish_reason) for end in ends] == [("", "length")] * 2


def test_a_stop_string_within_a_form_ends_the_answer_as_any_other() -> None:
    grammars = GrammarCompiler(
        TOKENIZER, byte_level().get_vocab_size(), (byte_level().token_to_id(END),)
    )
    engine = ScriptedEngine(steps(TOKENIZER.encode('{"a": 1}')))
    prompt = Prompt([1], PARAMS, grammars.json_object())

    deltas = drain(Completer(engine, TOKENIZER).complete([prompt], ('": ',)))

    assert (text_of(deltas), deltas[-1].finish_reason) == ('{"a', "stop")


THINKING = Thinking("<think>\n", "\n</think>\n\n")


def complete_in(
    form: AnswerFormat, script: list[Step], stop: tuple[str, ...] = ()
) -> tuple[str, list[Delta]]:
    """The thoughts, and all deltas."""
    prompts = [Prompt([1, 2], PARAMS)]
    engine = ScriptedEngine(script)
    deltas = drain(Completer(engine, TOKENIZER).complete(prompts, stop, answer_format=form))
    return "".join(delta.reasoning for delta in deltas), deltas


@pytest.mark.parametrize("thinks", [True, False])
def test_thoughts_come_apart_and_their_tokens_are_counted(thinks: bool) -> None:
    begin = "" if thinks else "<think>\n"
    thoughts, answer = TOKENIZER.encode(f"{begin}so END\n</think>"), TOKENIZER.encode("\n\nyes")

    reasoning, deltas = complete_in(
        AnswerFormat(thinking=THINKING, thinks=thinks), scored(thoughts + answer), ("END",)
    )

    assert (reasoning, text_of(deltas), deltas[-1].finish_reason) == ("so END", "yes", "stop")
    assert deltas[-1].stats.reasoning_tokens == len(thoughts)
    assert deltas[-1].stats.completion_tokens == len(thoughts + answer)
    told = [token for delta in deltas for token in delta.tokens]
    assert (b"".join(token.bytes for token in told), told[0].offset) == (b"yes", 0)


def test_thoughts_that_were_cut_are_no_text() -> None:
    script = scored(TOKENIZER.encode("so <thi"), FinishReason.LENGTH)

    reasoning, deltas = complete_in(AnswerFormat(thinking=THINKING, thinks=True), script)

    assert (reasoning, text_of(deltas), deltas[-1].finish_reason) == ("so <thi", "", "length")
    assert deltas[-1].stats.reasoning_tokens == deltas[-1].stats.completion_tokens
    assert not any(delta.tokens for delta in deltas)


def test_an_answer_without_thoughts_has_no_tokens_of_thoughts() -> None:
    _, deltas = complete_in(AnswerFormat(thinking=THINKING), steps(TOKENIZER.encode("<thing")))

    assert (text_of(deltas), deltas[-1].stats.reasoning_tokens) == ("<thing", 0)


def test_a_call_follows_the_thoughts_and_the_text() -> None:
    call = HERMES.write([("now", {"zone": "UTC"})])
    form = AnswerFormat(HERMES, THINKING, thinks=True)
    answer = f"so{call}\n</think>\n\nLet me see.\n{call}"

    reasoning, deltas = complete_in(form, steps(TOKENIZER.encode(answer)))

    calls = [call for delta in deltas for call in delta.tool_calls]
    assert (reasoning, text_of(deltas)) == (f"so{call}", "Let me see.")
    assert "".join(call.arguments for call in calls) == '{"zone": "UTC"}'
    assert deltas[-1].finish_reason == "tool_calls"
