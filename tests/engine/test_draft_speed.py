"""Tests what drafts gain and cost where calls take known times: never much, at any acceptance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from handlers.engine.batch import Batch
from handlers.engine.params import Prompt
from handlers.engine.request_validator import RequestValidator
from handlers.engine.scheduler import Scheduler
from tests.engine.draft_runners import ScriptedDraft, draft_model
from tests.engine.fake_session import EOS, VOCAB, FakeSession, greedy

CONTEXT = 1024
TIMES = (1.0, 1.05, 1.15, 1.2, 1.45, 1.6, 1.75, 1.9)
"""Of a call of one row, by its columns: a model of a billion weights on two cores."""
STEP = 0.13
"""Of a draft model's step, and of a token in a chunk a tenth."""


@dataclass
class World:
    """The time that the calls of both models take."""

    now: float = 0.0
    calls: int = 0

    def clock(self) -> float:
        return self.now


class TimedModel(FakeSession):
    """Takes the time of its rows and columns, in calls of one column and row."""

    def __init__(self, world: World, slots: int) -> None:
        super().__init__(slots, CONTEXT)
        self._world = world

    def step(self, batch: Batch) -> NDArray[np.float32]:
        cells = batch.rows * batch.columns
        if cells <= len(TIMES):
            self._world.now += TIMES[cells - 1]
        else:
            self._world.now += TIMES[-1] + 0.2 * (cells - len(TIMES))
        self._world.calls += 1
        return super().step(batch)


class TimedDraft(ScriptedDraft):
    """Takes a share of that."""

    def __init__(self, world: World, step: float, *args: Any, **changes: Any) -> None:
        super().__init__(*args, **changes)
        self._world = world
        self._step = step

    def step(self, batch: Batch) -> NDArray[np.float32]:
        self._world.now += self._step * (1 + 0.1 * (batch.rows * batch.columns - 1))
        return super().step(batch)


def made(
    acceptance: float, *, slots: int = 1, step: float = STEP, **changes: Any
) -> tuple[World, Scheduler]:
    world = World()
    model = TimedModel(world, slots)
    shares = changes.get("shares_cache", False)
    runner = TimedDraft(world, step, model, acceptance, capacity=CONTEXT, shares_cache=shares)
    scheduler = Scheduler(
        model,
        slots=slots,
        context_length=CONTEXT,
        prefill_chunk=128,
        prompt_lookup=False,
        draft=draft_model(runner, slots, prefill_chunk=128, **changes),
        clock=world.clock,
    )
    return world, scheduler


def speed(
    world: World, scheduler: Scheduler, streams: int = 1, tokens: int = 256, seed: int = 0
) -> float:
    """Ids of each stream for the time of a call without drafts, from the first id on."""
    validator = RequestValidator(VOCAB, frozenset([EOS]), CONTEXT)
    params = greedy(tokens, ignore_eos=True)
    for stream in range(streams):
        prompt = [1 + (seed * 7 + stream * 5 + n * n) % 50 for n in range(40)]
        scheduler.add(validator.sequence(Prompt(prompt, params), stream, 0.0, None))
    for _ in range(streams):  # all prompts are read
        scheduler.step(0.0)
    begun, known = world.now, sum(len(each.tokens) for each in scheduler.running)
    while scheduler.running:
        scheduler.step(0.0)
    per_call = TIMES[streams - 1] if streams <= len(TIMES) else np.inf
    return (streams * tokens - known) / streams / ((world.now - begun) / per_call)


@pytest.mark.parametrize("step", [0.05, 0.13, 0.35, 0.5, 0.8])
@pytest.mark.parametrize("acceptance", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
def test_no_draft_model_costs_more_than_three_hundredths(acceptance: float, step: float) -> None:
    world, scheduler = made(acceptance, step=step)
    assert min(speed(world, scheduler, seed=seed) for seed in range(3)) >= 0.97


@pytest.mark.parametrize("streams", [2, 4, 8])
@pytest.mark.parametrize("acceptance", [0.0, 0.5, 1.0])
def test_nor_does_it_where_several_answers_are_under_way(acceptance: float, streams: int) -> None:
    world, scheduler = made(acceptance, slots=streams)
    first, *later = (speed(world, scheduler, streams, seed=seed) for seed in range(3))
    assert first >= 0.96  # in which the times of calls are found out
    assert min(later) >= 0.97


@pytest.mark.parametrize(("acceptance", "gain"), [(0.5, 1.1), (0.7, 1.35), (0.9, 1.9), (1.0, 2.6)])
@pytest.mark.parametrize("shares_cache", [False, True])
def test_a_draft_model_gains_what_its_guesses_are_worth(
    acceptance: float, gain: float, shares_cache: bool
) -> None:
    world, scheduler = made(acceptance, shares_cache=shares_cache)
    speeds = [speed(world, scheduler, seed=seed) for seed in range(3)]
    assert sum(speeds) / len(speeds) >= gain


def test_the_more_guesses_come_true_the_fewer_calls_an_answer_takes() -> None:
    calls = []
    for acceptance in (0.0, 0.5, 0.7, 0.9, 1.0):
        world, scheduler = made(acceptance)
        speed(world, scheduler)
        calls.append(world.calls)
    assert calls == sorted(calls, reverse=True)
    assert calls[0] == 256  # one of the prompt
    assert calls[-1] < 256 / 5


def test_where_a_call_is_wide_hardly_anything_is_guessed() -> None:
    world, scheduler = made(0.9, slots=8)
    draft = scheduler._drafter._draft
    assert draft is not None
    speed(world, scheduler, streams=8)
    begun, guessed = world.calls, draft.num_calls
    speed(world, scheduler, streams=8, seed=1)
    assert world.calls - begun >= 255
    assert draft.num_calls - guessed < 255 / 10  # it follows, and a probe now and then


def test_a_model_that_becomes_easy_to_guess_is_noticed() -> None:
    world, scheduler = made(0.0)
    for seed in range(3):
        speed(world, scheduler, seed=seed)
    drafter: Any = scheduler._drafter
    drafter._draft._runner._acceptance = 0.9
    later = [speed(world, scheduler, seed=seed) for seed in range(3, 9)]
    assert later[-1] > 1.7
