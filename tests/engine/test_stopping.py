"""Tests why a sequence ends, one rule a test."""

from __future__ import annotations

import math

import numpy as np
import pytest

from handlers.engine.params import FinishReason, SamplingParams
from handlers.engine.sampling import Sampler
from handlers.engine.sequence import Sequence, check_abort, check_stop

EOS = 2


def sequence(
    tokens: int = 0,
    max_tokens: int = 100,
    room: int = 100,
    deadline: float = math.inf,
    eos: frozenset[int] = frozenset([EOS]),
) -> Sequence:
    prompt, params = np.array([1], np.int64), SamplingParams(max_tokens)
    return Sequence(
        prompt=prompt,
        params=params,
        sampler=Sampler(params, prompt, eos),
        eos_token_ids=eos,
        max_new_tokens_by_context=room,
        deadline=deadline,
        tokens=[7] * tokens,
    )


def test_a_sequence_that_nobody_disturbs_goes_on() -> None:
    assert check_abort(sequence(), now=1e9) is None


@pytest.mark.parametrize(
    ("now", "reason"), [(4.9, None), (5.0, FinishReason.DEADLINE), (6.0, FinishReason.DEADLINE)]
)
def test_a_deadline_ends_a_sequence_when_it_is_reached(
    now: float, reason: FinishReason | None
) -> None:
    assert check_abort(sequence(deadline=5.0), now) is reason


def test_a_cancelled_sequence_says_so_even_after_its_deadline() -> None:
    member = sequence(deadline=5.0)
    member.cancelled = True
    assert check_abort(member, now=6.0) is FinishReason.CANCELLED


def test_an_eos_id_ends_the_answer() -> None:
    assert check_stop(sequence(), EOS) is FinishReason.EOS


def test_an_eos_id_is_a_token_like_any_other_where_it_is_ignored() -> None:
    assert check_stop(sequence(eos=frozenset()), EOS) is None


def test_the_last_token_that_the_request_allows_comes_with_the_end() -> None:
    assert check_stop(sequence(tokens=3, max_tokens=5), 7) is None
    assert check_stop(sequence(tokens=4, max_tokens=5), 7) is FinishReason.LENGTH


def test_the_last_token_that_the_slot_holds_comes_with_the_end() -> None:
    assert check_stop(sequence(tokens=3, room=5), 7) is None
    assert check_stop(sequence(tokens=4, room=5), 7) is FinishReason.CONTEXT


def test_eos_wins_over_length_and_length_over_context() -> None:
    full = sequence(tokens=4, max_tokens=5, room=5)
    assert check_stop(full, EOS) is FinishReason.EOS
    assert check_stop(full, 7) is FinishReason.LENGTH
