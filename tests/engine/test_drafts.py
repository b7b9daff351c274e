"""Tests how drafts are found, judged and chosen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.engine.sequence import Sequence
from handlers.engine.speculative import (
    FORGET_EVERY,
    MAX_DRAFT_TOKENS,
    MIN_SAMPLES,
    WINDOW,
    NgramProposer,
    SpeculationPolicy,
    StepTimer,
    propose,
)
from tests.engine.fake_session import CONTEXT, sequence
from tests.engine.test_constraint import Pattern

COPYING = [1, 2, 3, 4, 5, 6, 1, 2, 3]
"""Goes on with 4, 5, 6, if it copies."""


@pytest.mark.parametrize(
    ("ids", "draft"),
    [
        (COPYING, [4, 5, 6]),
        ([9, 2, 3, 4, 5, 6, 8, 2, 3], [4, 5, 6]),  # the last two alone
        ([1, 2, 3, 4, 4, 4, 9, 2, 3, 5, 5, 5, 1, 2, 3], [4, 4, 4]),  # three go before two
        ([1, 2, 3, 4, 4, 4, 1, 2, 3, 5, 5, 5, 1, 2, 3], [5, 5, 5]),  # later before earlier
        ([2, 3, 4, 5, 6, 1, 2, 3], [4, 5, 6]),  # what comes before the first id is no match
        ([5, 6, 1, 1, 2, 5, 6, 8, 8, 6, 5, 6], [8, 8, 6]),
        ([7, 8, 7, 8], [7, 8, 7]),
        ([7, 7, 7], [7, 7, 7]),
        ([1, 2, 3, 4, 9, 3], []),
        ([5, 5], []),
        ([5], []),
    ],
)
def test_a_draft_is_what_followed_the_last_ids_when_they_came_before(
    ids: list[int], draft: list[int]
) -> None:
    assert propose(np.array(ids)) == draft


def slowly(ids: list[int]) -> list[int]:
    for size in (3, 2):
        for end in range(len(ids) - 1, size - 1, -1):
            if ids[end - size : end] == ids[-size:]:
                return (ids[end:] * MAX_DRAFT_TOKENS)[:MAX_DRAFT_TOKENS]
    return []


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_a_draft_is_what_a_search_id_by_id_finds(ids: list[int]) -> None:
    assert propose(np.array(ids)) == slowly(ids)


def test_a_lookup_follows_the_answer_and_learns_how_good_its_drafts_are() -> None:
    lookup = NgramProposer(np.array(COPYING), max_new_tokens=20)
    lookup.update([])
    assert lookup.draft == [4, 5, 6]
    lookup.update([4, 5])  # two came true
    believed = lookup.hit_rate
    assert believed > 0.6
    assert lookup.draft == [6, 1, 2]
    lookup.update([4, 5, 9])
    assert lookup.hit_rate < believed
    assert lookup.draft == []
    lookup.update([4, 5, 9, 4, 5])
    assert lookup.draft == [9, 4, 5]


def times(**milliseconds: float) -> StepTimer:
    """The times of calls of one row, by columns: one="10", two="11" and so on."""
    known = StepTimer()
    for columns, name in enumerate(("one", "two", "three", "four"), start=1):
        for _ in range(MIN_SAMPLES if name in milliseconds else 0):
            known.record(1, columns, milliseconds[name])
    return known


def test_what_a_shape_costs_is_the_median_of_its_latest_calls() -> None:
    known = times(one=10, four=15)
    assert known.ratio(1, 4) == 1.5
    known.record(1, 4, 1000)
    assert known.ratio(1, 4) == 1.5
    for _ in range(WINDOW):
        known.record(1, 4, 20)
    assert known.ratio(1, 4) == 2


def test_a_shape_that_has_not_been_tried_is_thought_to_cost_nothing_once_one_column_is_known() -> (
    None
):
    assert StepTimer().ratio(1, 3) == np.inf
    assert StepTimer().ratio(1, 1) == 1
    assert times(one=10, four=15).ratio(1, 3) == 1
    assert times(one=10, four=15).ratio(2, 4) == np.inf


def test_a_shape_that_is_not_used_for_long_is_tried_again() -> None:
    known = times(one=10, four=50)
    for _ in range(FORGET_EVERY):
        known.record(1, 1, 10)
    assert known.ratio(1, 4) == 1


def drafts(known: StepTimer, *members: Sequence) -> list[list[int]]:
    policy = SpeculationPolicy()
    policy.timer = known
    for slot, member in enumerate(members):
        member.slot, member.num_computed_tokens = slot, len(member.prompt) - 1
    return policy.select([member.draft() for member in members], len(members))


@pytest.mark.parametrize(
    ("known", "draft"),
    [
        (times(one=10, two=10.5, three=11, four=11.5), [4, 5, 6]),
        (times(one=10, two=10.5, three=19, four=20), [4]),
        (times(one=10, two=16, three=19, four=20), []),
    ],
)
def test_as_many_ids_are_drafted_as_pay_by_what_calls_have_taken(
    known: StepTimer, draft: list[int]
) -> None:
    assert drafts(known, sequence(COPYING)) == [draft]


def test_a_sequence_without_a_draft_pays_for_the_columns_of_others() -> None:
    known = StepTimer()
    for columns, took in ((1, 10), (2, 14), (3, 18), (4, 22)):
        for _ in range(MIN_SAMPLES):
            known.record(1, columns, took)
            known.record(2, columns, took)
    assert drafts(known, sequence(COPYING)) == [[4]]
    assert drafts(known, sequence(COPYING), sequence([7, 8, 9])) == [[], []]
    assert drafts(known, sequence(COPYING), sequence(COPYING)) == [[4], [4]]


def test_drafts_that_come_false_are_given_up_and_tried_again_when_they_come_true() -> None:
    known = times(one=10, two=14, three=16, four=17)
    member = sequence(COPYING * 9, max_tokens=200)
    policy = SpeculationPolicy()
    policy.timer = known
    member.slot = 0
    while policy.select([member.draft()], 1)[
        0
    ]:  # each draft, computed or not, is judged by what comes
        member.tokens += [3, 9, 1, 2]
        assert len(member.tokens) < 100
    member.tokens += [3]
    for _ in range(12):
        member.tokens.append(propose(np.array([*member.prompt, *member.tokens]))[0])
        member.draft()
    assert len(policy.select([member.draft()], 1)[0]) == MAX_DRAFT_TOKENS


def test_no_id_is_drafted_that_the_answer_has_no_room_for() -> None:
    free = times(one=10, two=10, three=10, four=10)
    for room, count in ((1, 0), (2, 1), (3, 2), (4, 3), (9, 3)):
        assert drafts(free, sequence(COPYING, max_tokens=room)) == [[4, 5, 6][:count]]


def test_a_slot_that_is_nearly_full_does_not_narrow_the_drafts_of_another() -> None:
    known = StepTimer()
    for columns in (1, 2, 3, 4):
        for _ in range(MIN_SAMPLES):
            known.record(2, columns, 10)
    for left in (1, 2, 9):
        full = sequence(list(range(CONTEXT - left)))
        assert drafts(known, sequence(COPYING), full) == [[4, 5, 6], []]


def test_an_answer_that_follows_a_grammar_is_not_drafted() -> None:
    held = sequence(COPYING)
    held.constraint = Pattern([{4, 5}] * 9)
    assert drafts(times(one=10, two=10, three=10, four=10), held) == [[]]
