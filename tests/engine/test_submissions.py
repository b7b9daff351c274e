"""Several prompts in one submission: all or none, each with its own answer, end and usage."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from numpy.typing import NDArray

from handlers.engine.batch import Batch
from handlers.engine.engine import Generation
from handlers.engine.params import FinishReason, Prompt, Step
from handlers.errors import InvalidRequest, Overloaded
from tests.engine.fake_session import (
    VOCAB,
    FakeSession,
    GatedSession,
    fake_engine,
    greedy,
    greedy_answer,
    read,
    read_async,
)


def test_a_submission_is_queued_whole_or_not_at_all() -> None:
    engine = fake_engine(slots=1, queue_limit=2)
    read(engine.submit([9], greedy(1)))
    first = engine.submit([1], greedy())
    with pytest.raises(Overloaded):
        engine.submit_all([Prompt([n], greedy()) for n in (2, 3, 4)])
    with pytest.raises(InvalidRequest, match="0 to"):
        engine.submit_all([Prompt([2], greedy()), Prompt([VOCAB], greedy())])
    assert (engine.running, engine.waiting) == (0, 1)
    engine.submit_all([Prompt([n], greedy()) for n in (2, 3)])
    assert read(first)[0] == greedy_answer([1], 20)


def test_more_prompts_than_the_server_holds_are_no_passing_overload() -> None:
    with pytest.raises(InvalidRequest, match="4 answers at once, but the server holds 3"):
        fake_engine(slots=1, queue_limit=2).submit_all([Prompt([1], greedy())] * 4)


def by_index(steps: list[Step]) -> dict[int, list[Step]]:
    return {index: [s for s in steps if s.index == index] for index in {s.index for s in steps}}


def test_each_prompt_of_a_submission_gets_its_own_answer_and_its_own_end() -> None:
    prompts = [[1, 2], [3], [4, 5, 6], [7], [8, 9]]
    generation = fake_engine(slots=2).submit_all([Prompt(p, greedy(6)) for p in prompts])
    answers = by_index(list(generation))
    for index, prompt in enumerate(prompts):
        *_, last = answers[index]
        ids = [step.token_id for step in answers[index] if step.token_id is not None]
        assert ids == greedy_answer(prompt, 6)
        assert [step.finish_reason for step in answers[index]].count(None) == len(
            answers[index]
        ) - 1
        assert last.finish_reason is not None


def test_one_answer_of_a_submission_can_be_given_up() -> None:
    params = greedy(9, ignore_eos=True)
    generation = fake_engine().submit_all([Prompt([1], params), Prompt([2], params)])
    next(generation)
    generation.cancel_one(0)
    answers = by_index(list(generation))
    assert answers[0][-1].finish_reason is FinishReason.CANCELLED
    assert answers[1][-1].finish_reason is FinishReason.LENGTH
    assert generation.stats(1).completion_tokens == 9


def test_usage_tells_the_tokens_and_the_milliseconds_of_each_prompt() -> None:
    class Slow(FakeSession):
        def step(self, batch: Batch) -> NDArray[Any]:
            time.sleep(0.002)
            return super().step(batch)

    params = greedy(5, ignore_eos=True)
    engine = fake_engine(Slow(slots=1), slots=1)
    generation = engine.submit_all([Prompt([1] * 20, params), Prompt([2], params)])
    assert generation.stats(0).queue_ms == 0.0
    list(generation)
    first, second = generation.stats(0), generation.stats(1)
    assert (first.prompt_tokens, first.completion_tokens) == (20, 5)
    assert (second.prompt_tokens, second.completion_tokens) == (1, 5)
    assert first.prefill_ms >= 3 * 2  # chunks of 8
    assert first.decode_ms >= 4 * 2
    assert second.queue_ms >= first.prefill_ms + first.decode_ms


def test_a_submission_of_nothing_has_ended() -> None:
    assert list(fake_engine().submit_all([])) == []


async def steps_of(generation: Generation) -> list[Step]:
    return [step async for step in generation]


def test_a_thread_gives_each_prompt_the_answer_that_the_caller_itself_would_get() -> None:
    prompts = [Prompt([n, n + 1], greedy(8)) for n in range(1, 9)]
    inline, threaded = fake_engine(), fake_engine()
    threaded.start()
    answers = by_index(asyncio.run(steps_of(threaded.submit_all(prompts))))
    threaded.stop()
    assert answers == by_index(list(inline.submit_all(prompts)))


def test_a_caller_that_is_cancelled_gives_up_all_its_slots() -> None:
    session = GatedSession()
    engine = fake_engine(session, slots=2)
    engine.start()

    async def story() -> Any:
        params = greedy(200, ignore_eos=True)
        leaver = asyncio.create_task(
            steps_of(engine.submit_all([Prompt([1], params), Prompt([2], params)]))
        )
        session.allowed.release(3)
        while len(session.batches) < 3:  # noqa: ASYNC110  the engine's thread makes it true
            await asyncio.sleep(0.001)
        leaver.cancel()
        await asyncio.gather(leaver, return_exceptions=True)
        session.allowed.release(40)  # far fewer than the leaver's 400
        return await read_async(engine.submit([3], greedy(5)))

    assert asyncio.run(story())[0] == greedy_answer([3], 5)
    engine.stop()
