"""Tests what the encoder promises, run inline over a fake session."""

from __future__ import annotations

import contextlib
import time
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.encoder.batching import BATCH_TOKENS, PADDING_TOKENS, Batcher
from handlers.encoder.encoder import Encoder
from handlers.encoder.request import EncodeRequest, EncoderInput
from handlers.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFault,
    InvalidRequest,
    NotReady,
    Overloaded,
)
from tests.encoder.fake_runner import (
    LONGEST,
    NAN,
    POISON,
    FakeRunner,
    fake_encoder,
    inputs,
    rows_of,
)

LENGTHS = st.lists(st.integers(1, LONGEST), min_size=1, max_size=40)


@given(st.lists(LENGTHS, min_size=1, max_size=5))
def test_every_input_gets_its_own_row_whatever_else_waits(requests: list[list[int]]) -> None:
    encoder = fake_encoder()
    asked = [inputs(*lengths, first=first) for first, lengths in enumerate(requests)]

    encodings = [encoder.submit(each) for each in asked]

    for encoding, each in zip(encodings, asked, strict=True):
        assert encoding.rows_inline().tolist() == rows_of(each)
    assert (encoder.running, encoder.waiting) == (0, 0)


@given(LENGTHS)
def test_a_call_is_bounded_and_none_of_its_rows_is_padded_by_much(lengths: list[int]) -> None:
    runner = FakeRunner()

    fake_encoder(runner).encode(inputs(*lengths))

    for batch in runner.batches:
        rows, width = batch.input_ids.shape
        assert rows == 1 or rows * width <= BATCH_TOKENS
        assert (width - batch.attention_mask.sum(axis=1) <= PADDING_TOKENS).all()
        assert batch.attention_mask.all(axis=0).any()  # as wide as its longest, not wider


def test_segments_reach_the_session() -> None:
    rows = fake_encoder().encode([EncoderInput([5, 6, 7], [0, 1, 1]), EncoderInput([5, 6])])

    assert rows[:, 2].tolist() == [2, 0]


def test_inputs_of_several_requests_share_a_call() -> None:
    runner = FakeRunner()
    encoder = fake_encoder(runner)
    encodings = [encoder.submit(inputs(length)) for length in (5, 9, 12, 7)]

    encoder.step()

    assert all(encoding.ready for encoding in encodings)
    assert len(runner.batches) == 1


def test_a_query_waits_for_no_further_call_of_those_who_came_before() -> None:
    encoder = fake_encoder()
    documents = encoder.submit(inputs(*[200] * 2000))
    encoder.step()

    query = encoder.submit(inputs(8))

    assert turns(encoder, query) == 1
    assert not documents.ready


@pytest.mark.parametrize("length", [8, 24, 200])
def test_a_request_whose_turn_it_is_does_not_share_it_while_it_fills_a_call(length: int) -> None:
    encoder = fake_encoder()
    encoder.submit(inputs(*[length] * 2000))

    query = encoder.submit(inputs(*[8] * 40))

    assert turns(encoder, query) <= 3  # 32 and 8, with one for the oldest between them


def test_documents_are_not_held_by_queries_that_keep_coming() -> None:
    encoder = fake_encoder()
    documents = encoder.submit(inputs(*[BATCH_TOKENS - 40] * 20))  # one fills a call
    for _ in range(2 * 20):
        encoder.submit(inputs(8))
        encoder.step()

    assert documents.ready


def test_a_failing_call_ends_those_in_it_and_no_other() -> None:
    encoder = fake_encoder()
    hurt = encoder.submit([EncoderInput([POISON] * 300)])
    other = encoder.submit(inputs(600))

    with pytest.raises(EngineFault, match="poisoned"):
        hurt.rows_inline()
    assert not other.ready
    assert other.rows_inline().tolist() == rows_of(inputs(600))


@pytest.mark.parametrize("others", [[], inputs(9, 9, 500)], ids=["alone", "among others"])
def test_a_row_without_numbers_ends_its_request_and_not_its_neighbour_in_the_call(
    others: list[EncoderInput],
) -> None:
    encoder = fake_encoder()
    hurt = encoder.submit([*others, EncoderInput([NAN] * 9)])
    other = encoder.submit(inputs(8))

    with pytest.raises(EngineFault, match="no numbers"):
        hurt.rows_inline()
    assert other.rows_inline().tolist() == rows_of(inputs(8))
    assert not encoder.waiting


class Panic(BaseException):
    """As Rust's panics come to Python: no Exception."""


ERRORS: list[type[BaseException]] = [ZeroDivisionError, MemoryError, Panic]


def broken(*_: object) -> NoReturn:
    raise MemoryError


@pytest.mark.parametrize("error", ERRORS)
def test_a_call_that_fails_by_a_bug_ends_those_in_it_alone(error: type[BaseException]) -> None:
    runner = FakeRunner()
    encoder = fake_encoder(runner)
    runner.bug = error()
    hurt, other = encoder.submit(inputs(300)), encoder.submit(inputs(8, 600))

    with pytest.raises(EngineFault, match=f"The encoder failed: {error.__name__}"):
        hurt.rows_inline()
    runner.bug = None
    assert other.rows_inline().tolist() == rows_of(inputs(8, 600))


@pytest.mark.parametrize(
    "place", ["handlers.encoder.encoder.pad", "handlers.encoder.batching.Batcher.add"]
)
def test_an_input_for_which_there_is_no_memory_ends_its_request_alone(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = fake_encoder()
    with monkeypatch.context() as patch:
        patch.setattr(place, broken)
        hurt = encoder.submit(inputs(600))
        encoder.step()
    other = encoder.submit(inputs(300))

    assert other.rows_inline().tolist() == rows_of(inputs(300))
    with pytest.raises(EngineFault, match="MemoryError"):
        hurt.rows_inline()


@pytest.mark.parametrize("error", [*ERRORS, KeyboardInterrupt, SystemExit])
def test_after_a_bug_everybody_is_told_and_the_next_is_served(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = fake_encoder()
    encodings = [encoder.submit(inputs(8, 600)), encoder.submit(inputs(300))]

    def bug(*_: object) -> NoReturn:  # some inputs have been taken, and never come to a call
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Batcher, "_width", bug)
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            encoder.step()
    for encoding in encodings:
        with pytest.raises(EngineFault, match="The encoder failed"):
            encoding.rows_inline()
    assert (encoder.running, encoder.waiting) == (0, 0)
    assert encoder.encode(inputs(8)).tolist() == rows_of(inputs(8))


def test_a_lost_request_ends_with_an_error_instead_of_waiting_for_ever() -> None:
    encoder = fake_encoder()
    hurt = encoder.submit(inputs(8))
    encoder._inbox.clear()
    with pytest.raises(EngineFault, match="nothing is computed"):
        hurt.rows_inline()


def test_waiting_for_what_the_encoder_does_not_know_is_an_error() -> None:
    stranger = EncodeRequest(inputs(8), fake_encoder(), width=3, submitted=0.0, deadline=None)
    with pytest.raises(EngineFault, match="lost"):
        stranger.rows_inline()
    with pytest.raises(EngineFault, match="lost"):
        stranger.rows().send(None)


def test_more_requests_than_are_held_are_refused_until_one_is_done() -> None:
    encoder = fake_encoder(limit=2)
    encodings = [encoder.submit(inputs(8)) for _ in range(2)]

    with pytest.raises(Overloaded, match="2 requests are held"):
        encoder.submit(inputs(8))
    encodings[0].rows_inline()
    encoder.submit(inputs(8))


def test_who_cancels_makes_room_and_is_not_computed() -> None:
    runner = FakeRunner()
    encoder = fake_encoder(runner, limit=1)
    encoder.submit(inputs(*[600] * 50)).cancel()

    rows = encoder.encode(inputs(8))

    assert rows.tolist() == rows_of(inputs(8))
    assert len(runner.batches) == 1


def test_a_request_that_is_cancelled_in_its_middle_leaves_nothing_behind() -> None:
    runner = FakeRunner()
    encoder = fake_encoder(runner)
    leaver = encoder.submit(inputs(*[600, 8] * 50))
    encoder.step()
    leaver.cancel()
    encoder.step()

    assert (len(runner.batches), encoder.running, encoder.waiting) == (1, 0, 0)
    assert not encoder._batcher._by_length


def test_a_request_whose_time_has_passed_ends_without_being_computed() -> None:
    runner = FakeRunner()
    encoder = fake_encoder(runner)

    with pytest.raises(DeadlineExceeded):
        encoder.submit(inputs(8), deadline=time.monotonic()).rows_inline()
    assert not runner.batches


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ([], "no input"),
        ([EncoderInput([1]), EncoderInput([])], "the input at 1|The input at 1"),
        ([EncoderInput([1, 1000])], "outside 0 to 999"),
        ([EncoderInput([-1])], "outside 0 to 999"),
    ],
)
def test_what_the_model_cannot_take_is_refused(wrong: list[EncoderInput], reason: str) -> None:
    encoder = fake_encoder()

    with pytest.raises(InvalidRequest, match=reason):
        encoder.submit(wrong)
    assert not encoder.waiting


def test_an_input_may_be_as_long_as_the_model_takes_and_no_longer() -> None:
    encoder = fake_encoder()

    assert len(encoder.encode(inputs(LONGEST))) == 1
    with pytest.raises(ContextLengthExceeded, match="the input at 1 has 601 tokens"):
        encoder.submit(inputs(8, LONGEST + 1))


def test_nobody_is_taken_by_an_encoder_that_has_stopped_and_who_waits_is_told() -> None:
    encoder = fake_encoder()
    waiting = encoder.submit(inputs(8))
    encoder.stop()

    with pytest.raises(NotReady):
        waiting.rows_inline()
    with pytest.raises(NotReady):
        encoder.submit(inputs(8))


def test_usage_tells_tokens_and_times() -> None:
    encoder = fake_encoder()
    encoding = encoder.submit(inputs(8, 600, 300))
    encoding.rows_inline()

    usage = encoding.stats()
    assert usage.tokens == 908
    assert usage.queue_ms >= 0
    assert usage.encode_ms > 0


def turns(encoder: Encoder, encoding: EncodeRequest) -> int:
    """Calls until it is done."""
    count = 0
    while not encoding.ready:
        encoder.step()
        count += 1
    return count
