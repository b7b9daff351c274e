"""A failure ends those whose work it was, and leaves nothing that breaks others."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from handlers.engine import sequence as sequence_module
from handlers.engine.batch import Batch
from handlers.engine.engine import Engine, Generation
from handlers.engine.ngram_proposer import NgramProposer
from handlers.engine.params import FinishReason, Prompt, SamplingParams
from handlers.engine.prefix_cache import PrefixCache
from handlers.engine.sampling import Penalties
from handlers.engine.scheduler import Scheduler
from handlers.engine.speculative import SpeculationPolicy
from handlers.errors import EngineFault
from tests.engine.fake_session import (
    FakeSession,
    RecurrentSession,
    fake_engine,
    greedy,
    greedy_answer,
    read,
    sequence,
)
from tests.engine.test_constraint import Pattern
from tests.engine.test_scheduler import DOCUMENT, PROMPTS


class Panic(BaseException):
    """As Rust's panics come to Python: no Exception."""


ERRORS: list[type[BaseException]] = [MemoryError, Panic, ZeroDivisionError]
MARK = 51
"""An id that only the request has whose work fails."""
Break = Callable[[pytest.MonkeyPatch, type[BaseException]], None]


def breaking(target: type | object, name: str, is_hit: Callable[..., bool]) -> Break:
    """Lets a function fail where `is_hit` says so of what it is given."""

    def patch(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
        real = getattr(target, name)

        def broken(*given: Any) -> Any:
            if is_hit(*given):
                raise error("no memory")
            return real(*given)

        monkeypatch.setattr(target, name, broken)

    return patch


class Greedy(Pattern):
    """A grammar whose bits find no memory."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__([{1, 2}, {1, 2}])
        self._error = error

    def allowed(self) -> NDArray[np.uint32]:
        raise self._error("no memory")


PLACES: dict[str, Break] = {
    "a slot is chosen": breaking(PrefixCache, "match", lambda _, ids: MARK in ids),
    "a prefix is taken over": breaking(PrefixCache, "reuse", lambda _, who: MARK in who.prompt),
    "a chunk is put together": breaking(
        PrefixCache, "invalidate", lambda _, batch: MARK in batch.input_ids
    ),
    "a chunk is computed": breaking(FakeSession, "step", lambda _, call: MARK in call.input_ids),
    "logprobs of a prompt": breaking(
        sequence_module, "compute_logprobs", lambda _logits, token, _n: token == MARK
    ),
    "penalties": breaking(Penalties, "apply", lambda *_: True),
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", PLACES)
def test_one_requests_failure_ends_it_alone(
    place: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = fake_engine(slots=3)
    others = [engine.submit([n, 3], greedy()) for n in (1, 2)]
    engine.step()
    PLACES[place](monkeypatch, error)
    params = greedy(prompt_logprobs=0, repetition_penalty=1.5)
    hurt = engine.submit([4, MARK, 9], params)
    waiting = engine.submit([5, 3], greedy())

    assert read(hurt) == ([], FinishReason.FAULT)
    assert error.__name__ in str(hurt.fault)
    for generation, first in zip([*others, waiting], (1, 2, 5), strict=True):
        assert read(generation)[0] == greedy_answer([first, 3], 20)
    assert (engine.running, engine.waiting) == (0, 0)


@pytest.mark.parametrize("error", ERRORS)
def test_a_grammar_that_fails_ends_its_sequence_alone(error: type[BaseException]) -> None:
    engine = fake_engine()
    other = engine.submit([1, 3], greedy())
    hurt = engine.submit_all([Prompt([1, 3], greedy(), Greedy(error))])
    assert read(hurt) == ([], FinishReason.FAULT)
    assert read(other)[0] == greedy_answer([1, 3], 20)


def test_who_has_no_memory_for_a_draft_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    breaking(NgramProposer, "update", lambda *_: True)(monkeypatch, MemoryError)
    engine = fake_engine()
    assert read(engine.submit([7] * 20, greedy()))[0] == greedy_answer([7] * 20, 20)


@pytest.mark.parametrize("error", ERRORS)
def test_a_decode_call_that_fails_ends_those_in_it_and_who_reads_goes_on(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = fake_engine(slots=3)
    decoding = [engine.submit([n], greedy(60, ignore_eos=True)) for n in (1, 2)]
    engine.step()
    reading, waiting = engine.submit(DOCUMENT, greedy()), engine.submit([5, 3], greedy())
    engine.step()
    with monkeypatch.context() as patch:
        breaking(SpeculationPolicy, "select", lambda *_: True)(patch, error)
        engine.step()
    assert [read(generation)[1] for generation in decoding] == [FinishReason.FAULT] * 2
    assert read(reading)[0] == greedy_answer(DOCUMENT, 20)
    assert read(waiting)[0] == greedy_answer([5, 3], 20)


class Half(FakeSession):
    """Breaks once in the middle of a copy: some of it is there."""

    broken = False

    def copy_prefix(self, source: int, target: int, start: int, stop: int) -> None:
        if not self.broken:
            self.broken = True
            super().copy_prefix(source, target, start, (start + stop) // 2)
            raise MemoryError
        super().copy_prefix(source, target, start, stop)


class RecurrentHalf(RecurrentSession):
    """The same where a slot has a state: it is the other's, the keys and values are not."""

    broken = False

    def copy_prefix(self, source: int, target: int, start: int, stop: int) -> None:
        super().copy_prefix(source, target, start, stop)
        if not self.broken:
            self.broken = True
            self._cache[target, start:stop] = -1
            raise MemoryError


@pytest.mark.parametrize("kind", [Half, RecurrentHalf])
def test_after_a_copy_that_failed_the_same_chats_get_the_ids_of_a_fresh_process(
    kind: type[FakeSession],
) -> None:
    session = kind(slots=2, baked=DOCUMENT[:40])
    engine = fake_engine(session, slots=2)
    own = [3] * 30
    chats = [own, [*DOCUMENT[:40], 7, 7], [*own, 8], [*DOCUMENT[:40], 7, 7, 7]]
    assert read(engine.submit(chats[0], greedy(3)))[0] == greedy_answer(chats[0], 3)
    running = engine.submit([9], greedy(60, ignore_eos=True))  # beside it, in the other slot
    next(running)
    assert read(engine.submit(chats[1], greedy(3)))[1] is FinishReason.FAULT
    for chat in chats * 2:
        assert read(engine.submit(chat, greedy(3)))[0] == greedy_answer(chat, 3)


@pytest.mark.parametrize("error", [*ERRORS, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("kind", [FakeSession, RecurrentSession])
def test_after_a_bug_the_same_chats_get_the_ids_of_a_fresh_process(
    kind: type[FakeSession], error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It strikes when a call has written into the cache, and nothing of it is noted."""
    engine = fake_engine(kind(baked=DOCUMENT[:10]))
    hurt = [engine.submit(prompt, greedy(60)) for prompt in (DOCUMENT, [1, 3])]
    engine.step()
    with monkeypatch.context() as patch:
        breaking(Scheduler, "_prefill_order", lambda *_: True)(patch, error)
        if error in ERRORS:
            engine.step()
        else:
            with pytest.raises(error):
                engine.step()
    for generation in hurt:
        assert read(generation)[1] is FinishReason.FAULT
        assert error.__name__ in str(generation.fault)
    assert (engine.running, engine.waiting) == (0, 0)
    for prompt in (DOCUMENT, [1, 3], [*DOCUMENT, 5]):
        assert read(engine.submit(prompt, greedy(9)))[0] == greedy_answer(prompt, 9)


@pytest.mark.parametrize("slot", [-1, 4])
def test_the_row_of_the_baked_prefix_is_no_slot(slot: int) -> None:
    engine = fake_engine(FakeSession(slots=4, baked=DOCUMENT[:40]))
    known = engine._scheduler._prefixes
    with pytest.raises(IndexError):
        known.drop(slot)
    with pytest.raises(IndexError):
        known.record(slot, 40, [1])
    generation = engine.submit([*DOCUMENT[:40], 9], greedy(3))
    read(generation)
    assert generation.stats().cached_tokens == 40


def test_a_sequence_that_waits_has_no_slot_to_compute_in() -> None:
    with pytest.raises(RuntimeError, match="without a slot"):
        _ = sequence([1]).held_slot


def lose_from_queue(engine: Engine) -> None:
    engine._scheduler._waiting.clear()


def lose_from_slots(engine: Engine) -> None:
    for member in engine._scheduler.running:
        engine._scheduler._slots.free(member)


def lose_the_next(engine: Engine) -> None:
    """It holds a slot, and nothing of it is left to compute."""
    for member in engine._scheduler.running:
        member.num_computed_tokens = member.num_tokens


@pytest.mark.parametrize("lose", [lose_from_queue, lose_from_slots, lose_the_next])
@pytest.mark.parametrize("threaded", [False, True])
def test_a_lost_sequence_ends_with_an_error_instead_of_waiting_for_ever(
    lose: Callable[[Engine], None], threaded: bool
) -> None:
    engine = fake_engine(slots=1)
    hurt = [engine.submit([n], greedy(60, ignore_eos=True)) for n in (1, 2)]
    engine.step()
    lose(engine)
    if threaded:
        engine.start()
        engine.stop(drain_seconds=60)  # which would take them, if they were never told
    else:
        assert FinishReason.FAULT in {read(generation)[1] for generation in hurt}
    assert (engine.running, engine.waiting) == (0, 0)


def test_waiting_for_what_the_engine_does_not_know_is_an_error() -> None:
    engine = fake_engine()
    with pytest.raises(EngineFault, match="lost"):
        next(Generation([sequence([1])], engine))
    with pytest.raises(EngineFault, match="lost"):
        Generation([sequence([1])], engine).__anext__().send(None)


def test_who_was_told_before_a_delivery_failed_is_told_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = fake_engine()
    generations = [engine.submit([n], greedy(1, ignore_eos=True)) for n in (1, 2)]
    with monkeypatch.context() as patch:
        hit = itertools.chain([False, True], itertools.repeat(False))
        breaking(Generation, "deliver", lambda *_: next(hit))(patch, MemoryError)
        engine.step()
    assert [read(generation)[1] for generation in generations] == [
        FinishReason.LENGTH,
        FinishReason.FAULT,
    ]


def test_an_end_that_cannot_be_delivered_is_tried_once_and_holds_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = fake_engine()
    lost = engine.submit([1], greedy(1, ignore_eos=True))
    other = engine.submit([2], greedy(1, ignore_eos=True))
    with monkeypatch.context() as patch:
        breaking(Generation, "deliver", lambda who, _: who is lost)(patch, MemoryError)
        engine.step()
    assert read(other)[1] is FinishReason.FAULT
    assert not engine.step()
    assert (engine.running, engine.waiting) == (0, 0)


def test_the_thread_outlives_a_failure_to_tell_of_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = fake_engine()
    hurt = engine.submit([1], greedy(60, ignore_eos=True))
    engine.step()
    hit = itertools.chain([True], itertools.repeat(False))
    breaking(Scheduler, "_prefill_order", lambda *_: True)(monkeypatch, MemoryError)
    breaking(Engine, "_end_all", lambda *_: next(hit))(monkeypatch, MemoryError)
    engine.start()
    engine.stop(drain_seconds=60)
    assert hurt.fault is not None
    assert (engine.running, engine.waiting) == (0, 0)


class Flaky:
    """Lets calls of a fake session fail, before or after they have written."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.failures: Iterator[tuple[type[BaseException] | None, bool]] = itertools.repeat(
            (None, False)
        )

    def step(self, batch: Batch) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._flaky(super().step, batch)  # type: ignore[misc]
        return logits

    def copy_prefix(self, *where: int) -> None:
        self._flaky(super().copy_prefix, *where)  # type: ignore[misc]

    def _flaky(self, work: Callable[..., Any], *given: Any) -> Any:
        error, written = next(self.failures)
        done = work(*given) if written or error is None else None
        if error is not None:
            raise error("flaky")
        return done


class FlakySession(Flaky, FakeSession):
    """Keys and values alone."""


class FlakyRecurrent(Flaky, RecurrentSession):
    """With a state."""


@pytest.mark.parametrize("kind", [FlakySession, FlakyRecurrent])
@given(st.data())
def test_whatever_fails_and_leaves_all_end_once_and_the_next_get_a_fresh_engines_ids(
    kind: Callable[..., FakeSession], data: st.DataObject
) -> None:
    slots, baked = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 20))
    session = kind(slots, baked=DOCUMENT[:baked])
    engine = fake_engine(session, slots=slots, prefill_chunk=data.draw(st.integers(1, 30)))
    failure = st.sampled_from([None, None, None, None, EngineFault, *ERRORS])
    failures = data.draw(st.lists(st.tuples(failure, st.booleans()), max_size=30))
    session.failures = itertools.chain(failures, itertools.repeat((None, False)))  # type: ignore[attr-defined]
    submitted: list[tuple[list[int], SamplingParams, Generation]] = []
    for _ in range(data.draw(st.integers(1, 12))):
        match data.draw(st.sampled_from(["submit", "submit", "step", "step", "cancel", "late"])):
            case "cancel" if submitted:
                data.draw(st.sampled_from(submitted))[2].cancel()
            case "submit" | "late" as action:
                prompt, params = data.draw(PROMPTS), greedy(data.draw(st.integers(1, 9)))
                generation = engine.submit(prompt, params, 0.0 if action == "late" else None)
                submitted.append((prompt, params, generation))
            case _:
                engine.step()
    for prompt, params, generation in submitted:
        steps = list(generation)
        assert [step.finish_reason is None for step in steps] == [True] * (len(steps) - 1) + [False]
        ids = [step.token_id for step in steps if step.token_id is not None]
        alone = greedy_answer(prompt, params.max_tokens)
        whole = steps[-1].finish_reason in {FinishReason.EOS, FinishReason.LENGTH}
        assert ids == (alone if whole else alone[: len(ids)])
    assert (engine.running, engine.waiting) == (0, 0)
    session.failures = itertools.repeat((None, False))  # type: ignore[attr-defined]
    for prompt, params, _ in submitted:
        assert read(engine.submit(prompt, params))[0] == greedy_answer(prompt, params.max_tokens)
