"""Logprobs: exact, of the model's own logits, for answers, prompts and what a request changes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from msgspec.structs import replace
from numpy.typing import NDArray

from handlers.engine.params import FinishReason, Logprobs, Step
from handlers.engine.sampling import compute_logprobs
from handlers.errors import EngineFault
from tests.engine.fake_session import (
    CONTEXT,
    NAN,
    VOCAB,
    FakeSession,
    fake_engine,
    greedy,
    greedy_answer,
    read,
    scripted_logits,
)

PROMPT = [(5 * n) % 41 + 1 for n in range(30)]


def exact(logits: NDArray[np.float32]) -> list[float]:
    """By the definition, in Python's own floats."""
    values = logits.tolist()
    largest = max(values)
    normaliser = largest + math.log(math.fsum(math.exp(value - largest) for value in values))
    return [value - normaliser for value in values]


def assert_scored(scored: Logprobs | None, before: list[int], token_id: int, count: int) -> None:
    """`scored` is of `token_id` after the ids `before`."""
    assert scored is not None
    expected = exact(scripted_logits(before))
    assert scored.token_id == token_id
    assert scored.logprob == pytest.approx(expected[token_id], abs=1e-5)
    likeliest = sorted(range(VOCAB), key=lambda i: -expected[i])[:count]
    assert [i for i, _ in scored.top] == likeliest
    assert [p for _, p in scored.top] == pytest.approx([expected[i] for i in likeliest], abs=1e-5)


def assert_answer_scored(steps: list[Step], prompt: list[int], count: int) -> None:
    ids = list(prompt)
    for step in steps:
        if step.token_id is not None:
            assert_scored(step.logprobs, ids, step.token_id, count)
            ids.append(step.token_id)


@given(
    arrays.arrays(np.float32, 50, elements=st.floats(-80, 80, width=32)),
    st.integers(0, 49),
    st.integers(0, 60),
)
def test_scores_are_the_log_softmax_in_descending_order(
    logits: NDArray[np.float32], token_id: int, count: int
) -> None:
    before = logits.copy()
    scored = compute_logprobs(logits, token_id, count)
    expected = exact(logits)
    assert scored.logprob == pytest.approx(expected[token_id], abs=1e-4)
    assert [p for _, p in scored.top] == pytest.approx(
        sorted(expected, reverse=True)[:count], abs=1e-4
    )
    assert [i for i, _ in scored.top] == sorted(range(50), key=lambda i: (-logits[i], i))[:count]
    np.testing.assert_array_equal(logits, before)


def test_many_ids_as_likely_lose_no_digit() -> None:
    scored = compute_logprobs(np.full(200_000, 3.0, np.float32), 7, 1)
    assert scored.logprob == pytest.approx(-math.log(200_000), abs=1e-9)
    assert scored.top == ((0, scored.logprob),)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_have_no_logprobs(value: float) -> None:
    with pytest.raises(EngineFault, match="no logarithm"):
        compute_logprobs(np.full(4, value, np.float32), 0, 1)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_every_id_of_an_answer_has_its_logprobs(count: int) -> None:
    steps = list(fake_engine().submit(PROMPT, greedy(12, logprobs=count)))
    assert [s.token_id for s in steps if s.token_id is not None] == greedy_answer(PROMPT, 12)
    assert_answer_scored(steps, PROMPT, count)


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 2.0, "seed": 3, "top_k": 7},
        {"temperature": 0.0, "logit_bias": {9: 100.0}},
        {"temperature": 0.0, "repetition_penalty": 1.8, "presence_penalty": 1.5},
    ],
    ids=["sampled", "biased", "penalised"],
)
def test_they_are_the_models_whatever_the_request_does_to_its_logits(
    changes: dict[str, Any],
) -> None:
    params = {"logprobs": 3, "ignore_eos": True} | changes
    steps = list(fake_engine().submit(PROMPT, replace(greedy(10), **params)))
    assert [s.token_id for s in steps] != greedy_answer(PROMPT, 10)
    assert_answer_scored(steps, PROMPT, 3)


def test_what_the_model_rules_out_has_a_number() -> None:
    logits = np.array([0.0, -np.inf, 1.0, -np.inf], np.float32)
    scored = compute_logprobs(logits, 1, 4)

    assert scored.logprob == -9999
    assert [logprob for _, logprob in scored.top][2:] == [-9999, -9999]
    assert all(logprob > -2 for _, logprob in scored.top[:2])


def test_none_come_where_none_are_asked_for() -> None:
    steps = list(fake_engine().submit(PROMPT, greedy(5)))
    assert {step.logprobs for step in steps} == {None}
    assert {step.prompt_logprobs for step in steps} == {None}


@pytest.mark.parametrize("chunk", [2, 8, 29, 30, 64])
def test_every_id_of_a_prompt_has_its_logprobs_on_the_first_step_alone(chunk: int) -> None:
    engine = fake_engine(prefill_chunk=chunk)
    first, *others = list(engine.submit(PROMPT, greedy(4, prompt_logprobs=2)))
    assert first.prompt_logprobs is not None
    assert first.prompt_logprobs[0] is None
    assert len(first.prompt_logprobs) == len(PROMPT)
    for place, scored in enumerate(first.prompt_logprobs[1:], start=1):
        assert_scored(scored, PROMPT[:place], PROMPT[place], 2)
    assert {step.prompt_logprobs for step in others} == {None}
    assert first.logprobs is None


def test_a_prompt_of_one_token_has_none_to_tell() -> None:
    first = next(fake_engine().submit([4], greedy(2, prompt_logprobs=1)))
    assert first.prompt_logprobs == (None,)


def test_no_tokens_wanted_reads_the_prompt_and_ends() -> None:
    session = FakeSession()
    engine = fake_engine(session)
    steps = list(engine.submit(PROMPT, greedy(0, prompt_logprobs=1)))
    assert [(s.token_id, s.finish_reason) for s in steps] == [(None, FinishReason.LENGTH)]
    assert steps[0].prompt_logprobs is not None
    assert len(steps[0].prompt_logprobs) == len(PROMPT)
    assert sum(int(batch.query_seqlens.sum()) for batch in session.batches) == len(PROMPT)
    assert read(engine.submit(PROMPT, greedy(0))) == ([], FinishReason.LENGTH)


def test_a_prompt_that_ends_at_once_tells_its_logprobs_with_the_end() -> None:
    params = greedy(5, prompt_logprobs=0, stop_token_ids=frozenset(greedy_answer(PROMPT, 1)))
    (only,) = list(fake_engine().submit(PROMPT, params))
    assert (only.token_id, only.finish_reason) == (None, FinishReason.EOS)
    assert only.prompt_logprobs is not None


def test_a_prompt_whose_logits_are_no_numbers_is_a_fault_of_that_sequence_alone() -> None:
    engine = fake_engine()
    broken = engine.submit([5, NAN, 6, 7], greedy(3, prompt_logprobs=1))
    healthy = engine.submit(PROMPT, greedy(3, prompt_logprobs=1))
    assert read(broken) == ([], FinishReason.FAULT)
    assert read(healthy)[0] == greedy_answer(PROMPT, 3)


def test_only_the_logits_that_are_wanted_are_computed() -> None:
    session = FakeSession()
    engine = fake_engine(session, prefill_chunk=CONTEXT)
    for params, wanted in (
        (greedy(1), 1),
        (greedy(1, logprobs=5), 1),
        (greedy(1, prompt_logprobs=0), len(PROMPT)),
    ):
        read(engine.submit(PROMPT, params))
        assert len(session.batches[-1].logits_indices) == wanted
