"""The engine with a thread that runs its steps: clients, leavers, stopping."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.engine.engine import Engine, Generation
from handlers.engine.params import FinishReason, Step
from handlers.errors import NotReady
from tests.engine.fake_session import (
    CONTEXT,
    EOS,
    FakeSession,
    GatedSession,
    fake_engine,
    greedy,
    greedy_answer,
    read,
    read_async,
    sequence,
)

SUBMISSIONS = st.lists(
    st.tuples(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 15)),
    min_size=1,
    max_size=12,
)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  other threads make it true
        await asyncio.sleep(0.001)


def on_a_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


@settings(max_examples=30)
@given(SUBMISSIONS)
def test_threaded_and_inline_give_the_same_ids(submissions: list[tuple[list[int], int]]) -> None:
    inline, threaded = fake_engine(), fake_engine()
    threaded.start()

    async def all_at_once() -> list[Any]:
        generations = [threaded.submit(prompt, greedy(n)) for prompt, n in submissions]
        return await asyncio.gather(*map(read_async, generations))

    answers = on_a_loop(all_at_once())
    threaded.stop()
    assert answers == [read(inline.submit(prompt, greedy(n))) for prompt, n in submissions]


def test_one_thread_alone_runs_the_session_for_all_submitters() -> None:
    session = FakeSession()
    engine = fake_engine(session)
    engine.start()
    answers: dict[int, Any] = {}

    def client(number: int) -> None:
        answers[number] = on_a_loop(read_async(engine.submit([number, 1], greedy())))

    clients = [threading.Thread(target=client, args=[n]) for n in range(1, 13)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    engine.stop()
    assert {n: ids for n, (ids, _) in answers.items()} == {
        n: greedy_answer([n, 1], 20) for n in range(1, 13)
    }
    assert len(session.threads) == 1
    assert threading.get_ident() not in session.threads


def test_a_caller_that_is_cancelled_gives_up_its_slot() -> None:
    session = GatedSession()
    engine = fake_engine(session, slots=1)
    engine.start()

    async def story() -> Any:
        leaver = asyncio.create_task(read_async(engine.submit([1], greedy(200, ignore_eos=True))))
        successor = engine.submit([2], greedy(5, ignore_eos=True))
        session.allowed.release(3)
        await until(lambda: len(session.batches) == 3)
        leaver.cancel()
        await asyncio.gather(leaver, return_exceptions=True)
        session.allowed.release(20)  # far fewer than the leaver's 200
        return await read_async(successor)

    assert on_a_loop(story())[0] == greedy_answer_without_eos([2], 5)
    engine.stop()


def greedy_answer_without_eos(prompt: list[int], max_tokens: int) -> list[int]:
    return read(fake_engine().submit(prompt, greedy(max_tokens, ignore_eos=True)))[0]


def test_cancelling_a_generation_gives_up_its_slot() -> None:
    session = GatedSession()
    engine = fake_engine(session, slots=1)
    engine.start()

    async def story() -> Any:
        leaver = engine.submit([1], greedy(200, ignore_eos=True))
        session.allowed.release(1)
        await anext(leaver)
        leaver.cancel()
        session.allowed.release(100)
        *_, last = [step async for step in leaver]
        return last.finish_reason, await read_async(engine.submit([2], greedy()))

    reason, (ids, _) = on_a_loop(story())
    engine.stop()
    assert reason is FinishReason.CANCELLED
    assert ids == greedy_answer([2], 20)


def test_a_loop_that_closes_under_its_caller_leaves_the_engine_serving() -> None:
    session = GatedSession()
    engine = fake_engine(session, slots=1)
    engine.start()
    abandoned = engine.submit([1], greedy(100, ignore_eos=True))

    async def abandon() -> None:
        reading = asyncio.create_task(read_async(abandoned))
        session.allowed.release(1)
        await until(lambda: len(session.batches) == 1)
        assert not reading.done()

    on_a_loop(abandon())
    session.allowed.release(30)
    assert on_a_loop(read_async(engine.submit([2], greedy(5))))[0] == greedy_answer([2], 5)
    engine.stop()


class DeliversLate(Engine):
    """An engine whose thread delivers just as a caller has decided to sleep."""

    generation: Generation

    @property
    def threaded(self) -> bool:
        self.generation.deliver(Step(5))
        return True

    def step(self) -> bool:
        raise AssertionError("The thread runs the steps.")


def test_a_step_that_arrives_while_its_caller_falls_asleep_is_not_missed() -> None:
    engine = DeliversLate(
        FakeSession(slots=1),
        eos_token_ids=[EOS],
        slots=1,
        context_length=CONTEXT,
        prefill_chunk=8,
        prompt_lookup=False,
        queue_limit=0,
    )
    engine.generation = Generation([sequence([1])], engine)
    assert on_a_loop(anext_of(engine.generation)) == Step(5)


async def anext_of(generation: Generation) -> Step:
    return await anext(generation)


def test_stopping_ends_a_sleeping_caller_with_what_it_has() -> None:
    session = GatedSession()
    engine = fake_engine(session)
    engine.start()

    async def story() -> Any:
        running = asyncio.create_task(read_async(engine.submit([1], greedy(99, ignore_eos=True))))
        session.allowed.release(3)
        await until(lambda: len(session.batches) == 3)
        stopping = asyncio.create_task(asyncio.to_thread(engine.stop))
        await until(lambda: refuses(engine))
        session.allowed.release(1)
        await stopping
        return await running

    ids, reason = on_a_loop(story())
    assert reason is FinishReason.CANCELLED
    assert 3 <= len(ids) <= 4


def refuses(engine: Any) -> bool:
    try:
        engine.submit([1], greedy(1)).cancel()
    except NotReady:
        return True
    return False


def test_draining_lets_running_answers_finish_and_refuses_new_ones() -> None:
    engine = fake_engine()
    engine.start()

    async def story() -> Any:
        running = asyncio.create_task(read_async(engine.submit([1, 2], greedy())))
        await asyncio.sleep(0)
        await asyncio.to_thread(engine.stop, 60.0)
        assert refuses(engine)
        return await running

    assert on_a_loop(story())[0] == greedy_answer([1, 2], 20)


def test_a_second_stop_does_not_lengthen_the_drain() -> None:
    session = GatedSession()
    engine = fake_engine(session)
    engine.start()

    async def story() -> Any:
        running = asyncio.create_task(read_async(engine.submit([1], greedy(99, ignore_eos=True))))
        session.allowed.release(1)
        await until(lambda: len(session.batches) == 1)
        stopping = [asyncio.create_task(asyncio.to_thread(engine.stop))]
        await until(lambda: refuses(engine))
        stopping.append(asyncio.create_task(asyncio.to_thread(engine.stop, 60.0)))
        await asyncio.sleep(0.05)  # the second is in the engine, as the first is
        session.allowed.release(99)
        await asyncio.gather(*stopping)
        return await running

    ids, reason = on_a_loop(story())
    assert reason is FinishReason.CANCELLED
    assert len(ids) <= 2


def test_iterating_without_await_is_refused_while_a_thread_runs() -> None:
    engine = fake_engine()
    engine.start()
    with pytest.raises(RuntimeError, match="async for"):
        next(engine.submit([1], greedy()))
    engine.stop()


def test_an_idle_thread_uses_no_processor_time() -> None:
    engine = fake_engine()
    engine.start()
    on_a_loop(read_async(engine.submit([1], greedy())))
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1  # a busy loop takes 0.3
    engine.stop()
