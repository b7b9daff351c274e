"""GrammarCompiler in the engine: what they forbid, what they force, and how they end an answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from handlers.engine.engine import Engine
from handlers.engine.params import Constraint, FinishReason, Prompt, SamplingParams, Step
from handlers.engine.sampling import Sampler, apply_token_bitmask
from handlers.errors import EngineFault, GrammarTooComplex, RequestError
from tests.engine.fake_session import (
    EOS,
    VOCAB,
    FakeSession,
    fake_engine,
    greedy,
    greedy_answer,
    scripted_logits,
)

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


def bits(ids: Collection[int], vocabulary: int = VOCAB) -> NDArray[np.uint32]:
    mask = np.zeros(-(-vocabulary // 32), np.uint32)
    for token_id in ids:
        mask[token_id // 32] |= np.uint32(1 << token_id % 32)
    return mask


@dataclass
class Pattern:
    """A grammar that has, for each place of the answer, a set of ids. A set of one is forced."""

    places: list[set[int]]
    vocabulary: int = VOCAB
    accepted: list[int] = field(default_factory=list)
    ends_answer: bool = True

    def allowed(self) -> NDArray[np.uint32]:
        return bits(self._rest[0], self.vocabulary)

    def accept(self, token_id: int) -> None:
        assert token_id in self._rest[0]
        self.accepted.append(token_id)

    def valid_prefix(self, draft: Sequence[int]) -> int:
        fits = [each in ids for each, ids in zip(draft, self._rest, strict=False)]
        return [*fits, False].index(False)

    def forced(self) -> list[int]:
        return [min(ids) for ids in takewhile(lambda ids: len(ids) == 1, self._rest)]

    @property
    def complete(self) -> bool:
        return not self._rest

    @property
    def _rest(self) -> list[set[int]]:
        return self.places[len(self.accepted) :]

    def answer(self, prompt: list[int]) -> list[int]:
        """The likeliest of the allowed ids at each place, without the eos id that may end it."""
        ids = list(prompt)
        for allowed in self.places:
            logits = scripted_logits(ids)
            chosen = max(allowed, key=lambda token_id: logits[token_id])
            if chosen == EOS:
                break
            ids.append(chosen)
        return ids[len(prompt) :]


def run(constraint: Constraint, params: SamplingParams, engine: Engine | None = None) -> list[Step]:
    return list((engine or fake_engine()).submit_all([Prompt(PROMPT, params, constraint)]))


def ids_of(steps: list[Step]) -> list[int]:
    return [step.token_id for step in steps if step.token_id is not None]


PLACES = st.lists(
    st.sets(st.integers(1, 50), min_size=1, max_size=1)
    | st.sets(st.integers(0, 50), min_size=2, max_size=6),
    min_size=1,
    max_size=12,
)


@given(
    st.lists(PLACES, min_size=1, max_size=6), st.integers(1, 4), st.integers(2, 20), st.booleans()
)
def test_answers_are_the_likeliest_that_their_grammars_allow(
    grammars: list[list[set[int]]], slots: int, chunk: int, scored: bool
) -> None:
    engine = fake_engine(FakeSession(slots), slots=slots, prefill_chunk=chunk)
    params = greedy(50, logprobs=0 if scored else None)
    free = [Prompt([n, *PROMPT], params) for n in (1, 2)]
    held = [Prompt(PROMPT, params, Pattern(places)) for places in grammars]
    generation = engine.submit_all([*free, *held])
    answers: list[list[int]] = [[] for _ in range(2 + len(held))]
    for step in generation:
        answers[step.index] += [] if step.token_id is None else [step.token_id]
        assert (step.logprobs is not None) == (scored and step.token_id is not None)
    expected = [greedy_answer([n, *PROMPT], 50) for n in (1, 2)]
    assert answers == expected + [Pattern(places).answer(PROMPT) for places in grammars]


def test_the_last_id_that_a_grammar_allows_comes_with_the_end() -> None:
    steps = run(Pattern([{5, 6}, {7, 8}]), greedy(50))
    assert [step.finish_reason for step in steps] == [None, FinishReason.GRAMMAR]
    assert steps[-1].token_id is not None


def test_an_end_that_is_forced_comes_with_the_last_forced_id() -> None:
    steps = run(Pattern([{5, 6}, {7}, {8}]), greedy(50))
    assert ids_of(steps)[1:] == [7, 8]
    assert [step.finish_reason for step in steps] == [None, None, FinishReason.GRAMMAR]


def test_an_eos_id_ends_an_answer_where_the_grammar_allows_it() -> None:
    steps = run(Pattern([{5, 6}, {EOS}]), greedy(50))
    assert (len(ids_of(steps)), steps[-1].finish_reason) == (1, FinishReason.EOS)


def test_forced_ids_are_computed_in_one_call_with_the_id_before_them() -> None:
    session = FakeSession()
    run(Pattern([{5, 6}, {7}, {8}, {9}, {10, 11}]), greedy(50), fake_engine(session))
    assert [batch.input_ids.shape for batch in session.batches] == [(1, len(PROMPT)), (1, 4)]
    assert session.batches[1].input_ids[0, 1:].tolist() == [7, 8, 9]
    assert len(session.batches[1].logits_indices) == 1


def test_ids_that_are_forced_at_the_end_are_not_computed_at_all() -> None:
    session = FakeSession()
    run(Pattern([{5, 6}, {7}, {8}]), greedy(50), fake_engine(session))
    assert len(session.batches) == 1


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("wanted", [1, 2, 3, 4])
def test_forced_ids_count_as_tokens(wanted: int, scored: bool) -> None:
    pattern = Pattern([{5, 6}, {7}, {8}, {9}, {10, 11}])
    steps = run(pattern, greedy(wanted, logprobs=0 if scored else None))
    assert ids_of(steps) == pattern.answer(PROMPT)[:wanted]
    assert [s.finish_reason for s in steps] == [None] * (wanted - 1) + [FinishReason.LENGTH]


@pytest.mark.parametrize("scored", [False, True])
def test_forced_ids_fill_the_slot_and_no_more(scored: bool) -> None:
    engine = fake_engine(context_length=len(PROMPT) + 3)
    params = greedy(50, logprobs=0 if scored else None)
    steps = run(Pattern([{5, 6}] + [{7}] * 9), params, engine)
    assert (len(steps), steps[-1].finish_reason) == (3, FinishReason.CONTEXT)


def test_an_answer_that_is_whole_at_its_last_token_was_ended_by_its_grammar() -> None:
    assert run(Pattern([{5, 6}, {7}]), greedy(2))[-1].finish_reason is FinishReason.GRAMMAR


def test_forced_ids_have_the_logprobs_of_the_model_without_its_grammar() -> None:
    steps = run(Pattern([{5, 6}, {7}, {8}, {9, 10}, {11}]), greedy(50, logprobs=2))
    ids = list(PROMPT)
    for step in steps:
        assert step.logprobs is not None
        logits = scripted_logits(ids).astype(np.float64)
        expected = logits - np.log(np.exp(logits).sum())
        assert step.logprobs.token_id == step.token_id
        assert step.logprobs.logprob == pytest.approx(expected[step.token_id], abs=1e-5)
        assert step.logprobs.top[0][0] == logits.argmax()
        ids.append(step.logprobs.token_id)
    assert len(steps) == 5
    assert steps[-1].finish_reason is FinishReason.GRAMMAR


def test_forced_ids_come_once_where_only_the_prompts_logprobs_are_wanted() -> None:
    pattern = Pattern([{5, 6}, {7}, {8}, {9, 10}])
    steps = run(pattern, greedy(50, prompt_logprobs=0))
    assert ids_of(steps) == pattern.answer(PROMPT)
    assert [step.prompt_logprobs is not None for step in steps] == [True, False, False, False]


def test_a_few_forced_ids_do_not_wait_for_a_long_prompt() -> None:
    session = FakeSession()
    engine = fake_engine(session, prefill_chunk=16)
    short = engine.submit_all([Prompt(PROMPT, greedy(50), Pattern([{5, 6}, {7}, {8}, {9, 10}]))])
    engine.submit([2] * 200, greedy())
    steps = 0
    while len(session.batches) < 100 and not any(step.finish_reason for step in short._steps):
        engine.step()
        steps += 1
    assert steps <= 4


def test_a_grammar_that_allows_nothing_but_the_end_wins_over_min_tokens() -> None:
    steps = run(Pattern([{5, 6}, {EOS}]), greedy(50, min_tokens=9))
    assert steps[-1].finish_reason is FinishReason.EOS


def test_min_tokens_holds_where_the_grammar_leaves_a_choice() -> None:
    steps = run(Pattern([{EOS, 5}] * 4), greedy(50, min_tokens=3))
    assert ids_of(steps)[:3] == [5, 5, 5]


def test_a_grammar_ends_an_answer_whose_eos_is_to_be_ignored() -> None:
    steps = run(Pattern([{5, 6}, {EOS}]), greedy(50, ignore_eos=True))
    assert steps[-1].finish_reason is FinishReason.EOS


def test_a_bias_cannot_make_a_grammar_allow_an_id() -> None:
    steps = run(Pattern([{5, 6}] * 3), greedy(50, logit_bias={20: 100.0, 6: 50.0}))
    assert ids_of(steps) == [6, 6, 6]


def test_penalties_count_forced_ids() -> None:
    pattern = Pattern([{5, 6}] + [{7}] * 6 + [{7, 8}])
    steps = run(pattern, greedy(50, frequency_penalty=2.0, logit_bias={7: 11.0}))
    assert ids_of(steps)[-1] == 8  # 6 times 2 off, against 11 and what the model wants


@dataclass
class Breaks(Pattern):
    """Reaches an internal limit in one of its methods."""

    method: str = ""
    fault: type[RequestError] = EngineFault

    def _reach(self, method: str) -> None:
        if method == self.method and len(self.accepted) == 1:
            raise self.fault("The grammar is too large.")

    def allowed(self) -> NDArray[np.uint32]:
        self._reach("allowed")
        return super().allowed()

    def accept(self, token_id: int) -> None:
        self._reach("accept")
        super().accept(token_id)

    def forced(self) -> list[int]:
        self._reach("forced")
        return super().forced()


@pytest.mark.parametrize("fault", [EngineFault, GrammarTooComplex])
@pytest.mark.parametrize("method", ["allowed", "accept", "forced"])
def test_a_grammar_that_reaches_a_limit_ends_its_own_sequence_alone(
    method: str, fault: type[RequestError]
) -> None:
    engine = fake_engine()
    broken = Breaks([{5, 6}] * 4, method=method, fault=fault)
    healthy = Pattern([{7, 8}] * 4)
    prompts = [Prompt(PROMPT, greedy(9), c) for c in (broken, healthy, None)]
    generation = engine.submit_all(prompts)
    last = {step.index: step.finish_reason for step in generation}
    assert last[0] is FinishReason.FAULT
    assert last[1] is FinishReason.GRAMMAR
    assert last[2] is FinishReason.LENGTH
    assert isinstance(generation.fault, fault)


def test_a_grammar_that_allows_nothing_is_a_fault() -> None:
    assert run(Pattern([set()]), greedy(9))[-1].finish_reason is FinishReason.FAULT


@given(st.sets(st.integers(0, 99)), st.integers(1, 100))
def test_a_mask_forbids_the_ids_whose_bit_is_not_set(ids: set[int], vocabulary: int) -> None:
    logits = np.arange(vocabulary, dtype=np.float32)
    apply_token_bitmask(
        logits, bits({token_id for token_id in ids if token_id < vocabulary}, vocabulary)
    )
    for token_id in range(vocabulary):
        assert logits[token_id] == (token_id if token_id in ids else -np.inf)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.5])
def test_sampling_never_leaves_the_grammar(temperature: float) -> None:
    params = SamplingParams(9, temperature=temperature, top_p=0.9, min_p=0.01, seed=1)
    sampler = Sampler(params, np.array([1]), frozenset())
    allowed = {3, 31, 32, 63}
    rng = np.random.default_rng(0)
    for _ in range(200):
        logits = rng.standard_normal(VOCAB).astype(np.float32) * 5
        assert sampler.sample(logits, bits(allowed)) in allowed
