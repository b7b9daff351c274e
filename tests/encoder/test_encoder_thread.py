"""The encoder with a thread of its own, beside an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from handlers.encoder.batching import EncoderBatch
from handlers.encoder.encoder import Encoder
from handlers.errors import NotReady
from tests.encoder.fake_runner import FakeRunner, GatedRunner, fake_encoder, inputs, rows_of
from tests.support.servers import wait_until

Scenario = Callable[[Encoder], Awaitable[None]]


def on_a_loop(runner: FakeRunner, scenario: Scenario) -> None:
    """Runs a scenario with a started encoder, which is stopped at its end."""

    async def run() -> None:
        encoder = fake_encoder(runner)
        encoder.start()
        try:
            await scenario(encoder)
        finally:
            if isinstance(runner, GatedRunner):
                runner.allowed.release(1000)
            await asyncio.to_thread(encoder.stop)

    asyncio.run(run())


def test_many_callers_get_their_own_rows() -> None:
    async def crowd(encoder: Encoder) -> None:
        asked = [inputs(*range(1, 30, step), first=step) for step in range(1, 30)]
        answers = await asyncio.gather(*(encoder.submit(each).rows() for each in asked))
        assert [answer.tolist() for answer in answers] == [rows_of(each) for each in asked]

    on_a_loop(FakeRunner(), crowd)


def test_what_comes_during_a_call_is_computed_together_in_the_next() -> None:
    runner = GatedRunner()

    async def arrive(encoder: Encoder) -> None:
        first = encoder.submit(inputs(500))
        await asyncio.to_thread(wait_until, lambda: first.started is not None)
        later = [encoder.submit(inputs(8)) for _ in range(5)]
        runner.allowed.release(2)
        await asyncio.gather(first.rows(), *(each.rows() for each in later))
        assert [len(batch.input_ids) for batch in runner.batches] == [1, 5]

    on_a_loop(runner, arrive)


def test_a_caller_that_is_cancelled_takes_its_request_with_it() -> None:
    runner = GatedRunner()

    async def leave(encoder: Encoder) -> None:
        encoding = encoder.submit(inputs(*[500] * 10))
        waiting = asyncio.ensure_future(encoding.rows())
        await asyncio.to_thread(wait_until, lambda: encoding.started is not None)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        runner.allowed.release(10)
        await asyncio.to_thread(wait_until, lambda: encoding.ready)
        assert len(runner.batches) == 1

    on_a_loop(runner, leave)


def test_a_stopping_encoder_finishes_what_it_has_within_its_time() -> None:
    async def stop(encoder: Encoder) -> None:
        encoding = encoder.submit(inputs(*[500] * 20))
        await asyncio.to_thread(encoder.stop, 60.0)
        assert (await encoding.rows()).tolist() == rows_of(inputs(*[500] * 20))
        with pytest.raises(NotReady):
            encoder.submit(inputs(8))

    on_a_loop(FakeRunner(), stop)


def test_a_caller_whose_time_to_finish_is_over_is_told() -> None:
    runner = GatedRunner()

    async def stop(encoder: Encoder) -> None:
        encoding = encoder.submit(inputs(*[500] * 20))
        waiting = asyncio.ensure_future(encoding.rows())
        await asyncio.to_thread(wait_until, lambda: encoding.started is not None)
        stopping = asyncio.ensure_future(asyncio.to_thread(encoder.stop))
        await asyncio.to_thread(wait_until, lambda: not encoder.accepting)
        runner.allowed.release(1)
        with pytest.raises(NotReady):
            await waiting
        await stopping

    on_a_loop(runner, stop)


def test_one_thread_alone_calls_the_session() -> None:
    threads: set[int] = set()

    class Watched(FakeRunner):
        def run(self, batch: EncoderBatch) -> NDArray[np.float32]:
            threads.add(threading.get_ident())
            return super().run(batch)

    async def several(encoder: Encoder) -> None:
        await asyncio.gather(*(encoder.submit(inputs(8, 500)).rows() for _ in range(20)))

    on_a_loop(Watched(), several)
    assert len(threads) == 1
    assert threading.get_ident() not in threads
