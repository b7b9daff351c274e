from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ContextLengthExceeded
from handlers.text.input_reader import InputReader
from handlers.text.tokenizer import Tokenizer
from tests.support.tiny_encoders import word_piece

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
        cut = TOKENIZER.encode_cut(given_, limit)
        text, pair = (given_, None) if isinstance(given_, str) else given_
        expected = REFERENCE.encode(text, pair)
        assert (cut.ids, cut.type_ids) == (expected.ids, expected.type_ids)


@given(st.lists(TEXT, min_size=1, max_size=5))
def test_texts_read_together_are_read_as_alone(texts: list[str]) -> None:
    several = [each.ids for each in TOKENIZER.encode_all(texts)]

    assert several == [TOKENIZER.encode(text, add_special_tokens=True) for text in texts]


def test_only_what_is_too_long_is_cut() -> None:
    inputs = InputReader(TOKENIZER, 10).texts(["a", "a " * 50], str, 10)

    assert [len(each.ids) for each in inputs] == [3, 10]
    assert inputs[1].ids[-1] == inputs[0].ids[-1]


def test_the_text_that_is_too_long_is_named() -> None:
    with pytest.raises(ContextLengthExceeded, match="text 1 has 52 tokens, and the model takes 10"):
        InputReader(TOKENIZER, 10).texts(["a", "a " * 50], lambda index: f"text {index}", None)


@given(st.lists(TEXT, min_size=1, max_size=3), st.integers(0, 40), st.integers(80, 99))
def test_a_pairs_first_text_may_be_far_longer_than_what_is_kept_of_it(
    seconds: list[str], times: int, limit: int
) -> None:
    first = "a kettle sings unknownword " * times

    inputs = InputReader(TOKENIZER, limit).pairs(first, seconds, str, limit)

    expected = [TOKENIZER.encode_cut((first, second), limit).ids for second in seconds]
    assert [each.ids.tolist() for each in inputs if isinstance(each.ids, np.ndarray)] == expected


def test_a_long_first_text_is_not_read_with_each_second_one() -> None:
    read: list[int] = []

    class Watched(Tokenizer):
        def encode_all(self, texts: Any) -> Any:
            read.extend(len(first) for first, _ in texts)
            return super().encode_all(texts)

    InputReader(Watched(BACKEND), 10).pairs("a " * 100_000, ["a"] * 200, str, 10)

    assert (len(read), max(read)) == (200, 40)


def test_an_unknown_word_of_any_length_is_read() -> None:
    """WordPiece gives one id for it: its size alone says nothing."""
    (given_,) = InputReader(TOKENIZER, 10).texts(["x" * 100_000], str, None)

    assert len(given_.ids) == 3
