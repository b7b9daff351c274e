"""The engine's surface: what it refuses, how it is driven, how it stops."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from handlers.engine.batch import Batch
from handlers.engine.generation import Generation
from handlers.engine.sequence import FinishReason, Step
from handlers.errors import ContextLengthExceeded, InvalidRequest, NotReady, Overloaded
from tests.engine.fake_session import (
    EOS,
    POISON,
    VOCAB,
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


# What is refused


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        fake_engine().submit([], greedy())


@pytest.mark.parametrize("tokens", [16, 17, 900])
def test_a_prompt_that_leaves_no_room_is_refused_with_the_numbers(tokens: int) -> None:
    with pytest.raises(ContextLengthExceeded, match=rf"{tokens} tokens.* 16 "):
        fake_engine(context_length=16).submit([1] * tokens, greedy())


@pytest.mark.parametrize("token", [-1, VOCAB])
def test_an_id_outside_the_vocabulary_is_refused(token: int) -> None:
    with pytest.raises(InvalidRequest, match=f"0 to {VOCAB - 1}"):
        fake_engine().submit([1, token], greedy())


def test_a_full_queue_is_overloaded_until_somebody_leaves() -> None:
    engine = fake_engine(slots=1, queue_limit=2)
    accepted = [engine.submit([n], greedy(3)) for n in (1, 2, 3)]
    with pytest.raises(Overloaded, match="1 requests are running and 2 wait"):
        engine.submit([4], greedy())
    read(accepted[0])
    engine.submit([4], greedy())


def test_a_cancelled_request_makes_room_at_once() -> None:
    engine = fake_engine(slots=1, queue_limit=0)
    engine.submit([1], greedy()).cancel()
    assert read(engine.submit([2, 2], greedy()))[0] == greedy_answer([2, 2], 20)


# Inline


@pytest.mark.parametrize(("prompt", "room"), [(15, 1), (10, 6)])
def test_an_answer_longer_than_the_context_ends_with_it(prompt: int, room: int) -> None:
    params = greedy(1000, ignore_eos=True)
    ids, reason = read(fake_engine(context_length=16).submit([3] * prompt, params))
    assert (len(ids), reason) == (room, FinishReason.CONTEXT)


def test_an_eos_id_ends_an_answer_unless_it_is_ignored() -> None:
    prompt = next([n] for n in range(1, 60) if len(greedy_answer([n], 200)) < 200)
    ended, _ = read(fake_engine().submit(prompt, greedy(200)))
    ignored, reason = read(fake_engine().submit(prompt, greedy(200, ignore_eos=True)))
    assert ignored[: len(ended) + 1] == [*ended, EOS]
    assert (len(ignored), reason) == (200, FinishReason.LENGTH)


def test_a_generation_says_how_long_its_prompt_is() -> None:
    assert fake_engine().submit([1, 2, 3], greedy()).prompt_tokens == 3


def test_a_generation_that_has_ended_stays_ended() -> None:
    generation = fake_engine().submit([1], greedy(2))
    list(generation)
    assert list(generation) == []


def test_a_generation_cancelled_twice_ends_once_as_cancelled() -> None:
    generation = fake_engine().submit([1], greedy(50, ignore_eos=True))
    next(generation)
    generation.cancel()
    generation.cancel()
    assert [step.finish_reason for step in generation] == [FinishReason.CANCELLED]


def test_a_deadline_in_the_past_ends_a_request_before_its_first_token() -> None:
    generation = fake_engine().submit([1], greedy(), deadline=time.monotonic() - 1)
    assert read(generation) == ([], FinishReason.DEADLINE)


def test_awaiting_inline_never_suspends_and_needs_no_event_loop() -> None:
    coroutine = read_async(fake_engine().submit([1, 2], greedy()))
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    assert ended.value.value[0] == greedy_answer([1, 2], 20)


def test_a_fault_is_named_by_its_generation() -> None:
    engine = fake_engine()
    broken, healthy = engine.submit([POISON], greedy()), engine.submit([5], greedy())
    assert read(broken) == ([], FinishReason.FAULT)
    assert "poisoned" in str(broken.fault)
    assert read(healthy)[0] == greedy_answer([5], 20)
    assert healthy.fault is None


class Buggy(FakeSession):
    """Raises, at the first call, an error that no session is allowed to raise."""

    def step(self, batch: Batch) -> NDArray[Any]:
        if not self.batches:
            self.batches.append(batch)
            raise ZeroDivisionError("a bug")
        return super().step(batch)


def test_a_bug_ends_the_requests_of_that_moment_but_not_the_engine() -> None:
    engine = fake_engine(Buggy(), slots=1)
    hit = [engine.submit([n], greedy()) for n in (1, 2)]
    assert [read(generation) for generation in hit] == [([], FinishReason.FAULT)] * 2
    assert "a bug" in str(hit[1].fault)
    assert read(engine.submit([3], greedy()))[0] == greedy_answer([3], 20)


def test_numbers_say_who_runs_and_who_waits() -> None:
    engine = fake_engine(slots=2)
    generations = [engine.submit([n], greedy(9, ignore_eos=True)) for n in (1, 2, 3)]
    assert (engine.running, engine.waiting) == (0, 3)
    next(generations[0])
    assert (engine.running, engine.waiting) == (2, 1)
    for generation in generations:
        list(generation)
    assert (engine.running, engine.waiting) == (0, 0)


def test_a_stopped_engine_ends_what_runs_and_refuses_what_comes() -> None:
    engine = fake_engine()
    generation = engine.submit([1], greedy(50, ignore_eos=True))
    first = next(generation)
    engine.stop()
    assert read(generation) == ([], FinishReason.CANCELLED)
    assert first.token_id is not None
    with pytest.raises(NotReady):
        engine.submit([1], greedy())


# Threaded


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


def test_one_thread_alone_runs_the_session_whoever_submits() -> None:
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


def test_a_consumer_that_is_cancelled_gives_up_its_slot() -> None:
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


def test_closing_a_generation_gives_up_its_slot() -> None:
    engine = fake_engine(slots=1)
    engine.start()

    async def story() -> Any:
        leaver = engine.submit([1], greedy(200, ignore_eos=True))
        await anext(leaver)
        await leaver.aclose()
        *_, last = [step async for step in leaver]
        return last.finish_reason, await read_async(engine.submit([2], greedy()))

    reason, (ids, _) = on_a_loop(story())
    engine.stop()
    assert reason in {FinishReason.CANCELLED, FinishReason.CONTEXT}
    assert ids == greedy_answer([2], 20)


def test_a_loop_that_closes_under_its_consumer_leaves_the_engine_serving() -> None:
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


class DeliversLate:
    """A crank whose thread delivers just as a consumer has decided to sleep."""

    generation: Generation

    @property
    def threaded(self) -> bool:
        self.generation.deliver(Step(5))
        return True

    def step(self) -> None:
        raise AssertionError("The thread turns the crank.")


def test_a_step_that_arrives_while_its_consumer_falls_asleep_is_not_missed() -> None:
    crank = DeliversLate()
    crank.generation = Generation(sequence([1]), crank)
    assert on_a_loop(anext_of(crank.generation)) == Step(5)


async def anext_of(generation: Generation) -> Step:
    return await anext(generation)


def test_stopping_ends_a_sleeping_consumer_with_what_it_has() -> None:
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


def test_importing_and_running_inline_needs_no_asyncio_and_no_onnxruntime() -> None:
    script = (
        "import sys\n"
        "from handlers.engine.engine import Engine\n"
        "print(sorted({'asyncio', 'onnxruntime', 'numpy.random'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "[]"
