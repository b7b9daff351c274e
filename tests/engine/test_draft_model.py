"""Tests how a draft model follows its sequences, where it guesses nothing, and how it fails."""

from __future__ import annotations

import logging
from collections.abc import Sequence as Items
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from handlers.engine.batch import Batch
from handlers.engine.params import Constraint, Prompt, Step
from handlers.engine.request_validator import RequestValidator
from handlers.engine.scheduler import Scheduler
from handlers.engine.sequence import Sequence
from handlers.errors import EngineFault
from tests.engine.draft_runners import ScriptedDraft, draft_model
from tests.engine.fake_session import CONTEXT, EOS, VOCAB, FakeSession, greedy, greedy_answer
from tests.engine.test_constraint import Pattern

PROMPT = [1 + n * n % 50 for n in range(40)]
VALIDATOR = RequestValidator(VOCAB, frozenset([EOS]), CONTEXT)


def scheduler(runner: ScriptedDraft, *, slots: int = 4, **changes: Any) -> Scheduler:
    """By its clock all calls of the model take the same time, and those of the other none."""
    return Scheduler(
        runner._model,
        slots=slots,
        context_length=CONTEXT,
        prefill_chunk=8,
        prompt_lookup=False,
        draft=draft_model(runner, slots, **changes),
        clock=lambda: float(len(runner._model.batches)),
    )


def drafted(acceptance: float = 1.0, **options: Any) -> ScriptedDraft:
    return ScriptedDraft(FakeSession(), acceptance, **options)


def sequence(
    prompt: Items[int], tokens: int = 40, constraint: Constraint | None = None
) -> Sequence:
    params = greedy(tokens, ignore_eos=True)
    return VALIDATOR.sequence(Prompt(prompt, params, constraint), 0, 0.0, None)


def answer(subject: Scheduler, *members: Sequence) -> list[Step]:
    """The steps of all of them, which are answered together."""
    for member in members:
        subject.add(member)
    steps = [step for _, step in subject.step(0.0)]
    while subject.running:
        steps += [step for _, step in subject.step(0.0)]
    return steps


def expected(prompt: Items[int], tokens: int = 40) -> list[int]:
    """The ids of an answer without drafts."""
    model = FakeSession()
    ids = list(prompt)
    while len(ids) < len(prompt) + tokens:
        ids.append(int(model.logits(ids).argmax()))
    return ids[len(prompt) :]


def test_every_guess_comes_true_of_a_draft_model_that_knows_the_answer() -> None:
    runner = drafted()
    member = sequence(PROMPT)
    answer(scheduler(runner), member)
    assert member.tokens == expected(PROMPT)
    assert member.drafted_tokens == member.accepted_tokens > 20


def test_nothing_is_guessed_before_the_first_id_of_an_answer() -> None:
    runner = drafted()
    subject = scheduler(runner)
    member = sequence(PROMPT)
    subject.add(member)
    while not member.tokens:
        subject.step(0.0)
        assert not runner.batches


def test_what_the_draft_model_lacks_is_computed_in_bounded_chunks() -> None:
    runner = drafted()
    subject = scheduler(runner, prefill_chunk=8)
    answer(subject, sequence(PROMPT))  # what a step takes is known now
    members = [sequence([n, *PROMPT * 3], tokens=60) for n in (7, 8)]
    for member in members:
        subject.add(member)
    while subject.running or subject._waiting:
        known = len(runner.batches)
        subject.step(0.0)
        chunks = [each for each in runner.batches[known:] if not len(each.logits_indices)]
        assert sum(int(each.query_seqlens.sum()) for each in chunks) <= 8
    assert all(member.accepted_tokens > 20 for member in members)


def test_what_one_slot_holds_of_a_prompt_is_copied_to_others_and_kept_for_later() -> None:
    runner = drafted()
    subject = scheduler(runner)
    first = sequence(PROMPT)
    answer(subject, first)
    computed = tokens_of(runner.batches)
    assert computed >= len(PROMPT)
    known = len(runner.batches)
    answer(subject, sequence(PROMPT), sequence(PROMPT))
    again = [each for each in runner.batches[known:] if not len(each.logits_indices)]
    assert tokens_of(again) < 20
    assert runner.copies
    known = len(runner.batches)
    talk = sequence([*PROMPT, *first.tokens, 9, 8, 7, 6, 5])
    answer(subject, talk)
    again = [each for each in runner.batches[known:] if not len(each.logits_indices)]
    assert tokens_of(again) < 30
    assert talk.drafted_tokens == talk.accepted_tokens > 20


def test_a_draft_model_forgets_its_cache_with_the_rest_and_computes_it_again() -> None:
    runner = drafted()
    subject = scheduler(runner)
    answer(subject, sequence(PROMPT))
    first = tokens_of(runner.batches)
    subject.clear()
    member = sequence(PROMPT)
    answer(subject, member)
    assert tokens_of(runner.batches) == 2 * first
    assert member.tokens == expected(PROMPT)


def tokens_of(batches: Items[Batch]) -> int:
    return sum(int(each.query_seqlens.sum()) for each in batches)


def test_a_baked_prefix_of_the_draft_model_is_copied() -> None:
    runner = drafted(baked=PROMPT)
    member = sequence([*PROMPT, 5])
    answer(scheduler(runner), member)
    assert runner.copies[0][:2] == (4, member.slot or 0)
    assert max(each.columns for each in runner.batches) < 8
    assert member.drafted_tokens == member.accepted_tokens > 20


def test_a_draft_model_of_own_layers_never_computes_a_prompt_and_leaves_no_trace() -> None:
    runner = drafted(0.5, shares_cache=True)
    subject = scheduler(runner, shares_cache=True)
    first, second = sequence(PROMPT), sequence(PROMPT[:30])
    answer(subject, first, second)
    assert first.tokens == expected(PROMPT)
    assert second.tokens == expected(PROMPT[:30])
    assert {each.columns for each in runner.batches} == {1}
    talk = sequence([*PROMPT, *first.tokens, 9])
    answer(subject, talk)
    assert talk.tokens == expected(talk.prompt.tolist())


@pytest.mark.parametrize("capacity", [16, 41, 60, 70])
def test_a_draft_model_computes_nothing_beyond_its_own_context(capacity: int) -> None:
    runner = drafted(capacity=capacity)  # which checks each call
    member = sequence(PROMPT)
    answer(scheduler(runner, capacity=capacity), member)
    assert member.tokens == expected(PROMPT)
    assert (member.drafted_tokens > 0) == (capacity >= 60)


class Narrow(ScriptedDraft):
    """Knows fewer ids than the model, or more of which the model has none."""

    vocab_size = 32


class Wide(ScriptedDraft):
    vocab_size = VOCAB + 16

    def logits(self, ids: Items[int]) -> NDArray[np.float32]:
        logits = super().logits(ids)
        logits[VOCAB:] = 99
        return logits

    def step(self, batch: Batch) -> NDArray[np.float32]:
        self.batches.append(batch)
        rows = [self._row(batch, row, int(count)) for row, count in enumerate(batch.query_seqlens)]
        held = [ids for ids, count in zip(rows, batch.query_seqlens, strict=True) if count]
        wanted = [self.logits(ids) for ids in held if len(batch.logits_indices)]
        return np.array(wanted, np.float32).reshape(len(wanted), self.vocab_size)


def test_ids_that_the_model_has_not_are_never_guessed() -> None:
    runner = Wide(FakeSession(), 1.0)
    member = sequence(PROMPT)
    answer(scheduler(runner), member)
    assert member.tokens == expected(PROMPT)
    assert member.drafted_tokens == member.accepted_tokens > 20


def test_a_sequence_with_an_id_that_the_draft_model_has_not_is_not_guessed() -> None:
    class Checked(Narrow):
        def step(self, batch: Batch) -> NDArray[np.float32]:
            assert batch.input_ids.max() < self.vocab_size
            raise AssertionError("it has no ids")

    member = sequence([*PROMPT, 50])
    answer(scheduler(Checked(FakeSession(), 1.0)), member)
    assert member.tokens == expected([*PROMPT, 50])
    assert member.drafted_tokens == 0


class Breaks(ScriptedDraft):
    """Fails after so many calls, with an error or with logits that are no numbers."""

    left = 6
    error: BaseException | None = None

    def step(self, batch: Batch) -> NDArray[np.float32]:
        self.left -= 1
        if self.left < 0 and self.error is not None:
            raise self.error
        logits = super().step(batch)
        return logits if self.left >= 0 else np.full_like(logits, np.nan)


@pytest.mark.parametrize(
    "error", [None, EngineFault("broken"), MemoryError("none"), RuntimeError("a bug")]
)
@pytest.mark.parametrize("left", [0, 1, 6, 12])
def test_a_draft_model_that_fails_costs_its_guesses_and_nothing_else(
    error: BaseException | None, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Breaks(FakeSession(), 1.0)
    runner.error, runner.left = error, left
    subject = scheduler(runner)
    members = [sequence([n, *PROMPT]) for n in (1, 2)]
    with caplog.at_level(logging.WARNING):
        steps = answer(subject, *members)
    assert [member.tokens for member in members] == [expected([n, *PROMPT]) for n in (1, 2)]
    assert all(step.token_id is not None for step in steps)
    runner.left = 10**9
    later = sequence(PROMPT)
    answer(subject, later)
    assert later.tokens == expected(PROMPT)
    assert later.drafted_tokens == later.accepted_tokens > 20


def test_a_guess_ends_where_the_grammar_refuses_it() -> None:
    places: list[set[int]] = [{n, n + 1, n + 2} for n in range(1, 41)]
    runner = drafted()
    member = sequence(PROMPT, constraint=Pattern(places))
    answer(scheduler(runner), member)
    assert member.tokens == Pattern(places).answer(PROMPT)
    free = sequence(PROMPT, constraint=Pattern([set(range(1, 60))] * 40))
    answer(scheduler(drafted()), free)
    assert free.tokens == greedy_answer(PROMPT, 40) or free.accepted_tokens > 0


def test_an_answer_that_is_cancelled_or_late_frees_its_slot_for_another() -> None:
    runner = drafted(0.7)
    subject = scheduler(runner, slots=1)
    for count in range(1, 8):
        member = sequence([count, *PROMPT])
        subject.add(member)
        for _ in range(6 + count):
            subject.step(0.0)
        member.cancelled = True
        known = expected([count, *PROMPT])
        assert member.tokens == known[: len(member.tokens)]
    last = sequence(PROMPT)
    answer(subject, last)
    assert last.tokens == expected(PROMPT)


def test_a_model_with_a_state_takes_no_guesses() -> None:
    runner = drafted()
    runner._model.recurrent = True
    member = sequence(PROMPT)
    answer(scheduler(runner), member)
    assert member.drafted_tokens == 0
    assert not runner.batches
