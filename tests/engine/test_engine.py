"""The engine's surface: what it refuses, and what it does when its caller runs the steps."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

from handlers.engine.params import FinishReason
from handlers.errors import ContextLengthExceeded, InvalidRequest, NotReady, Overloaded
from tests.engine.fake_session import (
    EOS,
    POISON,
    VOCAB,
    fake_engine,
    greedy,
    greedy_answer,
    read,
    read_async,
)

# What is refused


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        fake_engine().submit([], greedy())


@pytest.mark.parametrize("tokens", [16, 17, 900])
def test_a_prompt_that_leaves_no_room_is_refused_with_the_numbers(tokens: int) -> None:
    with pytest.raises(ContextLengthExceeded, match=rf"prompt is too long.* {tokens} tokens.* 16 "):
        fake_engine(context_length=16).submit([1] * tokens, greedy())


@pytest.mark.parametrize("token", [-1, VOCAB])
def test_an_id_outside_the_vocabulary_is_refused(token: int) -> None:
    with pytest.raises(InvalidRequest, match=f"{token} at place 1, outside 0 to {VOCAB - 1}"):
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


@pytest.mark.parametrize("field", ["logit_bias", "stop_token_ids"])
@pytest.mark.parametrize("token", [-1, VOCAB])
def test_a_parameter_with_an_id_outside_the_vocabulary_is_refused_by_name(
    field: str, token: int
) -> None:
    value: Any = {token: 1.0} if field == "logit_bias" else frozenset([token])
    named = f"logit_bias.{token}" if field == "logit_bias" else field
    with pytest.raises(InvalidRequest, match=rf"^{named}: .* {token} ") as refused:
        fake_engine().submit([1], greedy(**{field: value}))
    assert refused.value.param == named


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


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_a_stop_id_ends_an_answer_as_eos_does_and_is_not_delivered(ignore_eos: bool) -> None:
    alone = greedy_answer([1, 2], 20)
    stop = frozenset([alone[3]])
    params = greedy(20, ignore_eos=ignore_eos, stop_token_ids=stop)
    ids, reason = read(fake_engine().submit([1, 2], params))
    assert (ids, reason) == (alone[: alone.index(alone[3])], FinishReason.EOS)
    params = greedy(20, ignore_eos=ignore_eos, stop_token_ids=stop, min_tokens=7)
    ids, _ = read(fake_engine().submit([1, 2], params))
    assert len(ids) >= 7
    assert alone[3] not in ids[:7]


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
    broken, healthy = engine.submit([4, POISON], greedy()), engine.submit([5], greedy())
    assert read(broken) == ([], FinishReason.FAULT)
    assert "poisoned" in str(broken.fault)
    assert read(healthy)[0] == greedy_answer([5], 20)
    assert healthy.fault is None


def test_numbers_say_who_runs_and_who_waits() -> None:
    engine = fake_engine(slots=2)
    generations = [engine.submit([n], greedy(9, ignore_eos=True)) for n in (1, 2, 3)]
    assert (engine.running, engine.waiting) == (0, 3)
    next(generations[0])
    assert (engine.running, engine.waiting) == (2, 1)
    for generation in generations:
        list(generation)
    assert (engine.running, engine.waiting) == (0, 0)


def test_a_cancelled_request_counts_no_more_even_before_the_next_step() -> None:
    engine = fake_engine(slots=1)
    running, waiting = (engine.submit([n], greedy(9, ignore_eos=True)) for n in (1, 2))
    next(running)
    assert (engine.running, engine.waiting) == (1, 1)
    waiting.cancel()
    assert (engine.running, engine.waiting) == (1, 0)
    running.cancel()
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
