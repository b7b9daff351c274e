from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ContextLengthExceeded
from handlers.text.encoder_inputs import MAX_BATCH, EncoderInputBuilder
from handlers.text.tokenizer import MAX_CHARACTERS, PromptEncoder, Tokenizer
from tests.support.tiny_tokenizers import word_piece

BACKEND = word_piece()
TOKENIZER = Tokenizer(BACKEND)
REFERENCE = tokenizers.Tokenizer.from_str(BACKEND.to_str())
WORDS = ["a", "kettle", "sings", "paris", "unknownword", "...", "É"]
TEXT = st.lists(st.sampled_from(WORDS), max_size=15).map(" ".join)


@given(TEXT, TEXT, st.integers(3, 40))
def test_a_cut_is_that_of_the_tokenizers_own_truncation(
    first: str, second: str, limit: int
) -> None:
    REFERENCE.enable_truncation(limit)

    for given_ in (first, (first, second)):
        cut = TOKENIZER.encode_truncated(given_, limit)
        text, pair = (given_, None) if isinstance(given_, str) else given_
        expected = REFERENCE.encode(text, pair)
        assert (cut.ids, cut.type_ids) == (expected.ids, expected.type_ids)


@pytest.mark.parametrize("limit", [3, 4, 5, 8, 100])
def test_what_is_left_out_of_a_long_pair_is_not_paired_piece_by_piece(limit: int) -> None:
    cut: Any = TOKENIZER.encode_truncated(("a " * 10_000, "a " * 10_000), limit)

    assert len(cut.ids) == limit
    assert len(cut.overflowing) < 20


@pytest.mark.parametrize(
    "read",
    [
        TOKENIZER.encode,
        lambda text: TOKENIZER.beginning(text, 10),
        lambda text: TOKENIZER.encode_truncated(text, 10),
    ],
    ids=["encode", "beginning", "encode_truncated"],
)
def test_other_threads_run_while_a_long_text_is_read(read: Callable[[str], object]) -> None:
    reading = threading.Thread(target=read, args=("a " * 200_000,))
    reading.start()

    turns = 0
    while reading.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 20  # where the lock is held, two or three


@given(st.lists(TEXT, min_size=1, max_size=5))
def test_texts_read_together_are_read_as_alone(texts: list[str]) -> None:
    several = [each.ids for each in TOKENIZER.encode_all(texts)]

    assert several == [TOKENIZER.encode(text, add_special_tokens=True) for text in texts]


def test_only_what_is_too_long_is_cut() -> None:
    inputs = EncoderInputBuilder(TOKENIZER, 10).texts(["a", "a " * 50], str, 10)

    assert [len(each.ids) for each in inputs] == [3, 10]
    assert inputs[1].ids[-1] == inputs[0].ids[-1]


def test_the_text_that_is_too_long_is_named() -> None:
    with pytest.raises(ContextLengthExceeded, match="text 1 has 52 tokens, and the model takes 10"):
        EncoderInputBuilder(TOKENIZER, 10).texts(
            ["a", "a " * 50], lambda index: f"text {index}", None
        )


@given(st.lists(TEXT, min_size=1, max_size=3), st.integers(0, 40), st.integers(80, 99))
def test_a_pairs_first_text_may_be_far_longer_than_what_is_kept_of_it(
    seconds: list[str], times: int, limit: int
) -> None:
    first = "a kettle sings unknownword " * times

    inputs = EncoderInputBuilder(TOKENIZER, limit).pairs(first, seconds, str, limit)

    expected = [TOKENIZER.encode_truncated((first, second), limit).ids for second in seconds]
    assert [each.ids.tolist() for each in inputs if isinstance(each.ids, np.ndarray)] == expected


def test_a_long_first_text_is_not_read_with_each_second_one() -> None:
    read: list[int] = []

    class Watched(Tokenizer):
        def encode_all(self, texts: Any) -> Any:
            read.extend(len(first) for first, _ in texts)
            return super().encode_all(texts)

    EncoderInputBuilder(Watched(BACKEND), 10).pairs("a " * 100_000, ["a"] * 200, str, 10)

    assert (len(read), max(read)) == (200, 40)


def test_an_unknown_word_of_any_length_is_read() -> None:
    """WordPiece gives one id for it: its size alone says nothing."""
    (given_,) = EncoderInputBuilder(TOKENIZER, 10).texts(["x" * 100_000], str, None)

    assert len(given_.ids) == 3


@pytest.mark.parametrize("cut_to", [None, 10])
def test_a_text_of_too_many_characters_is_refused_without_being_read(cut_to: int | None) -> None:
    class Unread(Tokenizer):
        def encode_all(self, *_: Any) -> Any:
            raise AssertionError("read")

        def encode(self, *_: object) -> list[int]:
            raise AssertionError("read")

    long = "x" * (MAX_CHARACTERS + 1)
    reader = EncoderInputBuilder(Unread(BACKEND), 10)
    for read in (
        lambda: reader.texts([long], lambda index: f"text {index}", cut_to),
        lambda: reader.pairs("a", [long], lambda index: f"text {index}", cut_to),
        lambda: PromptEncoder(Unread(BACKEND), None).encode(long, param="text 0"),
    ):
        with pytest.raises(ContextLengthExceeded, match="text 0 has 262,145 characters"):
            read()


@given(st.lists(st.sampled_from([1, 40_000, MAX_CHARACTERS]), max_size=200))
def test_texts_are_read_together_as_far_as_memory_allows(sizes: list[int]) -> None:
    read: list[list[str]] = []

    class Unread(Tokenizer):
        def encode_all(self, texts: Any) -> Any:
            read.append(texts)
            return [TOKENIZER.encode_all([""])[0] for _ in texts]

    texts = ["x" * size for size in sizes]
    EncoderInputBuilder(Unread(BACKEND), 10).texts(texts, str, None)

    assert [text for together in read for text in together] == texts
    assert all(len(together) <= MAX_BATCH for together in read)
    assert all(sum(map(len, together)) <= MAX_CHARACTERS for together in read)
