"""Prefix reuse: what is not computed again, and that nobody can tell from the ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.engine.engine import Engine
from handlers.engine.params import FinishReason, Prompt
from tests.engine.fake_session import (
    POISON,
    FakeSession,
    RecurrentSession,
    fake_engine,
    greedy,
    greedy_answer,
    read,
)
from tests.engine.test_constraint import Pattern

DOCUMENT = [(11 * n) % 53 + 1 for n in range(100)]


def computed(session: FakeSession) -> int:
    """Prompt tokens and answer tokens that went through the session."""
    return sum(int(batch.query_seqlens.sum()) for batch in session.batches)


def cached(engine: Engine, prompt: list[int], max_tokens: int = 3) -> int:
    """Runs a prompt to its end; how much of it came from the cache."""
    generation = engine.submit(prompt, greedy(max_tokens))
    assert read(generation)[0] == greedy_answer(prompt, max_tokens)
    return generation.stats().cached_tokens


def test_a_prompt_that_goes_on_from_an_earlier_one_computes_only_what_is_new() -> None:
    session = FakeSession()
    engine = fake_engine(session)
    assert cached(engine, DOCUMENT) == 0
    before = computed(session)
    assert cached(engine, [*DOCUMENT, 5, 6, 7], max_tokens=1) == len(DOCUMENT)
    assert computed(session) - before == 3
    assert session.copies == []


def test_the_same_prompt_again_computes_its_last_token() -> None:
    session = FakeSession()
    engine = fake_engine(session)
    cached(engine, DOCUMENT)
    before = computed(session)
    assert cached(engine, DOCUMENT, max_tokens=1) == len(DOCUMENT) - 1
    assert computed(session) - before == 1


def test_the_next_turn_of_a_chat_computes_only_what_is_new() -> None:
    session = FakeSession()
    engine = fake_engine(session, prompt_lookup=False)
    talk, held = list(DOCUMENT), 0
    for turn in (3, 4, 5):
        assert cached(engine, talk, max_tokens=10) == held
        talk += greedy_answer(talk, 10)
        held = computed(session)  # nothing was computed twice
        assert held in (len(talk) - 1, len(talk))  # the last id needs no logits, unless an end came
        talk += [turn] * turn


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_a_prompt_of_few_tokens_is_computed_whole_or_its_last_is(tokens: int) -> None:
    engine = fake_engine()
    cached(engine, DOCUMENT[:tokens])
    assert cached(engine, DOCUMENT[:tokens]) == tokens - 1


def test_prompts_that_are_read_side_by_side_compute_what_they_share_once() -> None:
    session = FakeSession()
    engine = fake_engine(session)
    prompts = [[*DOCUMENT, n, n] for n in (1, 2, 3, 4)]
    generation = engine.submit_all([Prompt(prompt, greedy(1)) for prompt in prompts])
    steps = list(generation)
    assert {s.index: s.token_id for s in steps} == {
        index: greedy_answer(prompt, 1)[0] for index, prompt in enumerate(prompts)
    }
    assert computed(session) == len(DOCUMENT) + 4 * 2
    shares = [generation.stats(index) for index in range(4)]
    assert sum(share.prompt_tokens - share.cached_tokens for share in shares) == computed(session)


def test_answers_to_one_short_prompt_read_it_once_in_a_single_step() -> None:
    session = FakeSession()
    engine = fake_engine(session, prefill_chunk=128)
    generation = engine.submit_all([Prompt(DOCUMENT[:30], greedy(1))] * 4)
    engine.step()
    assert computed(session) == 30 + 3
    assert [step.token_id for step in generation] == greedy_answer(DOCUMENT[:30], 1) * 4


def test_a_running_sequence_gives_what_it_has_read() -> None:
    session = FakeSession()
    engine = fake_engine(session)
    running = engine.submit(DOCUMENT, greedy(100, ignore_eos=True))
    next(running)
    assert cached(engine, [*DOCUMENT[:70], 9, 9, 9]) == 70
    assert session.copies == [(0, 1, 0, 70)]
    assert read(running)[1] is FinishReason.LENGTH


def test_a_slot_that_would_lose_more_than_it_keeps_is_copied_from() -> None:
    session = FakeSession()
    engine = fake_engine(session)
    cached(engine, DOCUMENT)
    assert cached(engine, [*DOCUMENT[:30], 9, 9, 9]) == 30
    assert session.copies == [(0, 1, 0, 30)]
    assert cached(engine, [*DOCUMENT, 8, 8, 8]) == len(DOCUMENT)
    assert cached(engine, [*DOCUMENT[:30], 9, 9, 9, 7, 7]) == 33
    assert len(session.copies) == 1


def test_conversations_in_turn_keep_a_slot_each() -> None:
    engine = fake_engine(slots=3)
    talks = [[n] * 20 for n in (1, 2, 3)]
    for turn in range(3):
        for talk in talks:
            assert cached(engine, talk) == (len(talk) - 5 if turn else 0)
            talk += [turn, 5, 6, 7, 8]


def test_the_slot_that_was_left_first_is_written_over() -> None:
    engine = fake_engine(slots=2)
    first, second, third = ([n] * 20 for n in (1, 2, 3))
    for prompt in (first, second, first, third):
        cached(engine, prompt)
    assert cached(engine, first) == 19
    assert cached(engine, second) == 0


def test_one_slot_keeps_the_beginning_that_two_prompts_share() -> None:
    engine = fake_engine(slots=1)
    cached(engine, DOCUMENT)
    assert cached(engine, [*DOCUMENT[:12], 9, 9, 9]) == 12
    assert cached(engine, DOCUMENT) == 12


def test_a_newcomer_takes_the_slot_that_widens_the_decode_calls_least() -> None:
    session = FakeSession()
    engine = fake_engine(session)
    members = [engine.submit([n] * 9, greedy(60, ignore_eos=True)) for n in (1, 2, 3, 4)]
    next(members[3])
    for member in members[:0:-1]:  # the last slot is the one that is left first
        member.cancel()
        engine.step()
    engine.submit([9] * 9, greedy(60, ignore_eos=True))
    for _ in range(3):
        engine.step()
    assert session.batches[-1].rows == 2


def test_forced_ids_behind_decoded_ones_are_not_taken_for_what_stood_there_before() -> None:
    engine = fake_engine(slots=1)
    cached(engine, DOCUMENT)
    pattern = Pattern([{5, 6}, {7, 8}, {9}, {10}, {11, 12}, {13, 14}])
    list(engine.submit_all([Prompt(DOCUMENT[:20], greedy(9), pattern)]))
    answer = pattern.answer(DOCUMENT[:20])
    assert cached(engine, DOCUMENT[:21] + answer[1:4] + [7, 7, 7]) == 20


def test_a_call_that_failed_leaves_nothing_to_reuse() -> None:
    engine = fake_engine(slots=1)
    assert read(engine.submit([*DOCUMENT[:20], POISON, 1], greedy()))[1] is FinishReason.FAULT
    assert cached(engine, DOCUMENT) == 0


def test_a_cancelled_sequence_leaves_what_it_had_read() -> None:
    engine = fake_engine(slots=1)
    leaver = engine.submit(DOCUMENT, greedy())
    engine.step()
    leaver.cancel()
    assert cached(engine, DOCUMENT) == 8  # one chunk


def test_a_prompt_whose_logprobs_are_wanted_is_computed_whole() -> None:
    engine = fake_engine()
    cached(engine, DOCUMENT)
    generation = engine.submit(DOCUMENT, greedy(3, prompt_logprobs=0))
    assert read(generation)[0] == greedy_answer(DOCUMENT, 3)
    assert generation.stats().cached_tokens == 0


@st.composite
def conversations(draw: st.DrawFn) -> list[list[int]]:
    """Prompts that begin as one another, at random places."""
    prompts = [DOCUMENT[:20]]
    for _ in range(draw(st.integers(1, 12))):
        earlier = draw(st.sampled_from(prompts))
        kept = draw(st.integers(0, len(earlier)))
        prompts.append(earlier[:kept] + draw(st.lists(st.integers(1, 50), min_size=1, max_size=9)))
    return prompts


@pytest.mark.parametrize("kind", [FakeSession, RecurrentSession])
@given(
    prompts=conversations(),
    slots=st.integers(1, 4),
    chunk=st.integers(1, 30),
    at_once=st.integers(1, 5),
    baked=st.integers(0, 20),
)
def test_ids_are_those_of_prompts_computed_whole(
    kind: type[FakeSession],
    prompts: list[list[int]],
    slots: int,
    chunk: int,
    at_once: int,
    baked: int,
) -> None:
    session = kind(slots, baked=DOCUMENT[:baked])
    engine = fake_engine(session, slots=slots, prefill_chunk=chunk)
    for start in range(0, len(prompts), at_once):
        group = prompts[start : start + at_once]
        generation = engine.submit_all([Prompt(prompt, greedy(6)) for prompt in group])
        answers: list[list[int]] = [[] for _ in group]
        for step in generation:
            if step.token_id is not None:
                answers[step.index].append(step.token_id)
        assert answers == [greedy_answer(prompt, 6) for prompt in group]
        for index, prompt in enumerate(group):
            assert 0 <= generation.stats(index).cached_tokens < len(prompt)


def test_a_baked_prefix_is_copied_by_every_prompt_that_begins_with_it() -> None:
    session = FakeSession(baked=DOCUMENT[:40])
    engine = fake_engine(session)
    assert engine.baked_tokens == 40
    assert cached(engine, [*DOCUMENT[:40], 9, 9, 9]) == 40
    assert session.copies == [(4, 0, 0, 40)]
    assert cached(engine, [*DOCUMENT[:30], 8, 8, 8]) == 30
    assert cached(engine, DOCUMENT[:40]) == 39


def test_a_baked_prefix_is_there_whatever_has_been_written_over_all_slots() -> None:
    engine = fake_engine(FakeSession(slots=1, baked=DOCUMENT[:40]), slots=1)
    for prompt in ([7] * 50, [*DOCUMENT[:20], POISON, 1], [6] * 50):
        read(engine.submit(prompt, greedy()))
    assert cached(engine, [*DOCUMENT[:40], 9, 9, 9]) == 40


def test_conversations_that_share_no_more_than_the_baked_prefix_keep_a_slot_each() -> None:
    engine = fake_engine(FakeSession(baked=DOCUMENT[:40]))
    talks = [[*DOCUMENT[:40], *[n] * 12] for n in (1, 2, 3, 4)]
    for expected in (40, 51):
        assert [cached(engine, talk) for talk in talks] == [expected] * 4


def test_no_sequence_gets_the_slot_of_the_baked_prefix() -> None:
    session = FakeSession(slots=2, baked=DOCUMENT[:40])
    engine = fake_engine(session, slots=2)
    prompts = [[*DOCUMENT[:40], n, n] for n in range(1, 9)]
    list(engine.submit_all([Prompt(prompt, greedy(4)) for prompt in prompts]))
    assert max(batch.first_slot + batch.rows for batch in session.batches) == 2
    assert cached(engine, prompts[0]) == 40


def test_with_a_state_all_that_a_slot_holds_is_taken_over_or_nothing() -> None:
    session = RecurrentSession()
    engine = fake_engine(session)
    first = [*DOCUMENT, *greedy_answer(DOCUMENT, 3)]
    assert cached(engine, DOCUMENT) == 0
    assert cached(engine, [*DOCUMENT[:70], 9, 9]) == 0
    assert cached(engine, DOCUMENT) == 0
    assert cached(engine, [*first, 5, 6, 7]) == len(first) - 1


def test_with_a_state_a_baked_prefix_is_taken_over_whole_or_not_at_all() -> None:
    session = RecurrentSession(baked=DOCUMENT[:40])
    engine = fake_engine(session)
    assert cached(engine, [*DOCUMENT[:40], 9, 9, 9]) == 40
    assert cached(engine, [*DOCUMENT[:30], 8, 8, 8]) == 0
    assert cached(engine, DOCUMENT[:40]) == 0


def test_with_a_state_nothing_is_drafted() -> None:
    session = RecurrentSession()
    engine = fake_engine(session, prefill_chunk=128)
    read(engine.submit([7] * 60, greedy(40, ignore_eos=True)))
    assert {batch.columns for batch in session.batches[1:]} == {1}
