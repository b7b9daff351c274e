"""Makes an encoder's inputs of texts, pairs of texts or ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from handlers.encoder.request import EncoderInput
from handlers.errors import ContextLengthExceeded
from handlers.text.tokenizer import MAX_CHARACTERS, check_size, check_text

if TYPE_CHECKING:
    from handlers.text.tokenizer import EncodedText, Tokenizer

# What the tokenizer gives takes a hundred bytes a token, far more than the ids that are kept of it.
# So a batch has this many texts at most, and no more characters than one text alone may have.
MAX_BATCH = 64

FieldOf = Callable[[int], str]
"""Returns the request's field of the text at an index, for errors."""


class EncoderInputBuilder(msgspec.Struct, frozen=True):
    """Builds inputs with one tokenizer, of `max_tokens` ids at most."""

    tokenizer: Tokenizer
    max_tokens: int

    def texts(self, texts: Sequence[str], field: FieldOf, cut_to: int | None) -> list[EncoderInput]:
        """Builds an input for each text, of `cut_to` tokens at most; None refuses longer ones.

        Raises InvalidRequest for a null, and ContextLengthExceeded.
        """
        check_texts(texts, field)
        return self._build(texts, field, cut_to)

    def pairs(
        self, first: str, seconds: Sequence[str], field: FieldOf, cut_to: int | None
    ) -> list[EncoderInput]:
        """Builds an input of `first`, the query, and each of `seconds`. Raises as `texts` does.

        A query that is to be truncated is tokenised again with each of them, so it is first cut to
        twice what a pair can keep: twice, since a word that is cut may be tokenised otherwise. If
        the second text is longer still, the one token that cannot be shared out goes to it.
        """
        check_texts(seconds, field)
        if cut_to is None:
            length = len(self.tokenizer.encode(first)) + self.tokenizer.special_count(2)
            check_length(length, self.max_tokens, "query")
        else:
            first = self.tokenizer.beginning(first, 2 * self.max_tokens)
        return self._build([(first, second) for second in seconds], field, cut_to)

    def ids(
        self, lists: Sequence[Sequence[int]], field: FieldOf, cut_to: int | None
    ) -> list[EncoderInput]:
        """Builds an input of each list of ids, without special tokens. Raises as `texts` does."""
        limit = self.max_tokens if cut_to is None else cut_to
        if cut_to is None:
            for index, ids in enumerate(lists):
                check_length(len(ids), limit, field(index))
        return [EncoderInput(np.array(ids[:limit], np.int64)) for ids in lists]

    def _build(
        self, texts: Sequence[str] | Sequence[tuple[str, str]], field: FieldOf, cut_to: int | None
    ) -> list[EncoderInput]:
        limit = self.max_tokens if cut_to is None else cut_to
        inputs = []
        for index, encoded in enumerate(self._encoded(texts)):
            made = _input(encoded)
            if len(made.ids) > limit:
                if cut_to is None:
                    check_length(len(made.ids), limit, field(index))
                made = _input(self.tokenizer.encode_truncated(texts[index], limit))
            inputs.append(made)
        return inputs

    def _encoded(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> Iterator[EncodedText]:
        for start, end in batches([_characters(text) for text in texts]):
            yield from self.tokenizer.encode_all(texts[start:end])


def check_length(length: int, limit: int, field: str) -> None:
    """Raises ContextLengthExceeded for an input of more than `limit` tokens."""
    if length > limit:
        raise ContextLengthExceeded(
            f"The prompt is too long: {field} has {length:,} tokens, and the model takes "
            f"{limit:,}. Shorten it, or send truncate: true to leave out its end.",
            param=field,
        )


def check_texts(texts: Sequence[str], field: FieldOf) -> None:
    """Raises InvalidRequest for a null, and ContextLengthExceeded for too many characters."""
    for index, text in enumerate(texts):
        check_size(len(text), field(index))
        check_text(text, field(index))


def batches(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields the start and the end of each batch of texts of these sizes, in characters."""
    start = characters = 0
    for index, size in enumerate(sizes):
        if index > start and (index - start == MAX_BATCH or characters + size > MAX_CHARACTERS):
            yield start, index
            start, characters = index, 0
        characters += size
    if sizes:
        yield start, len(sizes)


def _characters(text: str | tuple[str, str]) -> int:
    return len(text) if isinstance(text, str) else len(text[0]) + len(text[1])


def _input(encoded: EncodedText) -> EncoderInput:
    # Arrays: a list of ids takes ten times the memory while it waits.
    type_ids = encoded.type_ids
    segments = np.array(type_ids, np.int8) if any(type_ids) else None
    return EncoderInput(np.array(encoded.ids, np.int32), segments)
