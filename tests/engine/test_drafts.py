"""Tests how drafts are found, judged and chosen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.engine.ngram_proposer import NgramProposer, propose
from handlers.engine.params import MAX_DRAFT_TOKENS
from handlers.engine.sequence import Sequence
from handlers.engine.speculative import Proposal, SpeculationPolicy
from handlers.engine.step_timer import FORGET_EVERY, MIN_SAMPLES, WINDOW, StepTimer
from tests.engine.fake_session import CONTEXT, sequence
from tests.engine.test_constraint import Pattern

COPYING = [1, 2, 3, 4, 5, 6, 1, 2, 3]
"""Goes on with 4, 5, 6, if it copies."""
COPY = [4, 5, 6, 1, 2, 3, 4]
"""The seven ids that are drafted after it."""


@pytest.mark.parametrize(
    ("ids", "draft"),
    [
        (COPYING, COPY),
        ([9, 2, 3, 4, 5, 6, 8, 2, 3], [4, 5, 6, 8, 2, 3, 4]),  # the last two alone
        ([1, 2, 3, *[4] * 7, 9, 2, 3, *[5] * 7, 1, 2, 3], [4] * 7),  # three go before two
        ([1, 2, 3, *[4] * 7, 1, 2, 3, *[5] * 7, 1, 2, 3], [5] * 7),  # later before earlier
        ([2, 3, 4, 5, 6, 1, 2, 3], [4, 5, 6, 1, 2, 3, 4]),  # what is before the first is no match
        ([5, 6, 1, 1, 2, 5, 6, 8, 8, 6, 5, 6], [8, 8, 6, 5, 6, 8, 8]),
        ([7, 8, 7, 8], [7, 8, 7, 8, 7, 8, 7]),
        ([7, 7, 7], [7] * 7),
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
    assert lookup.draft == COPY
    lookup.update([4, 5])  # two came true
    believed = lookup.hit_rate
    assert believed > 0.6
    assert lookup.draft == [6, 1, 2, 3, 4, 5, 6]
    lookup.update([4, 5, 9])
    assert lookup.hit_rate < believed
    assert lookup.draft == []
    lookup.update([4, 5, 9, 4, 5])
    assert lookup.draft == [9, 4, 5, 9, 4, 5, 9]


def times(*milliseconds: float | None, rows: int = 1) -> StepTimer:
    """The times of calls of so many rows, by columns; None where none is known."""
    known = StepTimer()
    for columns, took in enumerate(milliseconds, start=1):
        for _ in range(0 if took is None else MIN_SAMPLES):
            known.record(rows, columns, took or 0.0)
    return known


def test_what_a_shape_costs_is_the_median_of_its_latest_calls() -> None:
    known = times(10, None, None, 15)
    assert known.ratios(1)[3] == 1.5
    known.record(1, 4, 1000)
    assert known.ratios(1)[3] == 1.5
    for _ in range(WINDOW):
        known.record(1, 4, 20)
    assert known.ratios(1)[3] == 2


def test_nothing_is_tried_before_one_column_is_known() -> None:
    assert StepTimer().ratios(1) == [1, *[np.inf] * MAX_DRAFT_TOKENS]
    assert times(10, None, None, 15).ratios(2) == [1, *[np.inf] * MAX_DRAFT_TOKENS]


def test_a_shape_that_has_not_been_tried_takes_what_its_neighbours_say() -> None:
    assert times(10).ratios(1) == [1, 1, 1, 1, *[np.inf] * 4]
    assert times(10, 12).ratios(1) == [1, *[1.2] * 7]
    assert times(10, 12, None, 20).ratios(1) == [1, 1.2, 1.6, *[2] * 5]


def test_a_shape_that_is_not_used_for_long_is_tried_again() -> None:
    known = times(10, None, None, 50)
    for _ in range(FORGET_EVERY):
        known.record(1, 1, 10)
    assert known.ratios(1)[1] == 1
    assert known.seconds(1, 4) is None


def selected(known: StepTimer, *members: Sequence) -> list[list[int]]:
    policy = SpeculationPolicy()
    policy.timer = known
    for slot, member in enumerate(members):
        member.slot, member.num_computed_tokens = slot, len(member.prompt) - 1
    return [each.found for each in policy.select(list(map(found, members)), len(members))]


def found(member: Sequence) -> Proposal:
    return Proposal(*member.lookup())


@pytest.mark.parametrize(
    ("known", "draft"),
    [
        (times(10, 10.1, 10.15, 10.2, 10.21, 10.22, 10.23, 10.24), COPY),
        (times(10, 10.5, 11, 11.5, 18, 19, 20, 21), [4, 5, 6]),
        (times(10, 10.5, 19, 20, 22, 24, 26, 28), [4]),
        (times(10, 16, 19, 20, 22, 24, 26, 28), []),
    ],
)
def test_as_many_ids_are_drafted_as_pay_by_what_calls_have_taken(
    known: StepTimer, draft: list[int]
) -> None:
    assert selected(known, sequence(COPYING)) == [draft]


def test_a_sequence_without_a_draft_pays_for_the_columns_of_others() -> None:
    known = StepTimer()
    for columns, took in enumerate((10, 14, 18, 22, 26, 30, 34, 38), start=1):
        for _ in range(MIN_SAMPLES):
            known.record(1, columns, took)
            known.record(2, columns, took)
    assert selected(known, sequence(COPYING)) == [[4]]
    assert selected(known, sequence(COPYING), sequence([7, 8, 9])) == [[], []]
    assert selected(known, sequence(COPYING), sequence(COPYING)) == [[4], [4]]


def test_drafts_that_come_false_are_given_up_and_tried_again_when_they_come_true() -> None:
    policy = SpeculationPolicy()
    policy.timer = times(10, 14, 15, 16, 16.2, 16.4, 16.6, 16.8)
    member = sequence(COPYING * 9, max_tokens=200)
    member.slot = 0
    # each draft, computed or not, is judged by what comes
    while policy.select([found(member)], 1)[0].found:
        member.tokens += [3, 9, 1, 2]
        assert len(member.tokens) < 100
    member.tokens += [3]
    for _ in range(16):
        member.tokens.append(propose(np.array([*member.prompt, *member.tokens]))[0])
        member.lookup()
    assert len(policy.select([found(member)], 1)[0].found) == MAX_DRAFT_TOKENS


def test_no_id_is_drafted_that_the_answer_has_no_room_for() -> None:
    free = times(*[10] * 8)
    for room, count in ((1, 0), (2, 1), (3, 2), (4, 3), (8, 7), (9, 7)):
        assert selected(free, sequence(COPYING, max_tokens=room)) == [COPY[:count]]


def test_a_slot_that_is_nearly_full_does_not_narrow_the_drafts_of_another() -> None:
    free = times(*[10] * 8, rows=2)
    for left in (1, 2, 9):
        full = sequence(list(range(CONTEXT - left)))
        assert selected(free, sequence(COPYING, max_tokens=20), full) == [COPY, []]


def test_a_draft_ends_before_the_first_id_that_a_grammar_refuses_or_that_ends_the_answer() -> None:
    free = times(*[10] * 8)
    held = sequence(COPYING)
    held.constraint = Pattern([{4, 5}] * 9)
    assert selected(free, held) == [[4, 5]]
    held.constraint = Pattern([{7}] * 9)
    assert selected(free, held) == [[]]
    ending = sequence(COPYING)
    ending.eos_token_ids = frozenset([6])
    assert selected(free, ending) == [[4, 5]]
