"""Text to ids and back, by the model's own tokenizer.json.

Does not know prompts, templates or the engine. Called by completion.py, by the API, and by
model_export, which proves that these ids are transformers' ids.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Protocol

import tokenizers

from handlers.errors import ArtifactError, InvalidRequest, ends_a_task, panic_is_fault
from handlers.text.incremental import IncrementalDecoder
from handlers.text.token_spelling import TokenSpelling

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Special tokens in some vocabularies, text in others: what tool_calls.py has to see in an answer.
TOOL_MARKERS = {"[TOOL_CALLS]", "<tool_call>", "</tool_call>"}


class Encoded(Protocol):
    """A text, or a pair of them, as a model with segments reads it."""

    ids: list[int]
    type_ids: list[int]
    """The segment of each id."""


class Tokenizer:
    """The ids of a text, the text of ids.

    A text is read as a batch, even one alone: the binding's `encode` holds the interpreter's lock
    (1.3 s for 1 MB), its batches do not.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        # tokenizer.json may carry the settings of a training run: a prompt is never cut or padded.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.spelling = TokenSpelling(backend)
        """The bytes of an id on its own."""

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Raises ArtifactError when the file is missing or is not a tokenizer."""
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except BaseException as error:  # Exception itself, or a panic of its Rust
            if ends_a_task(error):
                raise
            raise ArtifactError(
                f"{path} is not a tokenizer: {error}. Export the model again."
            ) from None

    @panic_is_fault("tokenizers")
    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Special tokens that are spelt out in `text` become their ids, as in transformers.

        `add_special_tokens` adds what the model expects around a bare text, such as <s>; a
        rendered chat template has it already. Raises InvalidRequest for a lone surrogate.
        """
        try:
            text.encode()  # the binding says only "TextInputSequence must be str"
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"The text has half of a surrogate pair at character {error.start}, which UTF-8 "
                f"cannot carry. Remove it or send the whole character."
            ) from None
        (encoded,) = self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        ids: list[int] = encoded.ids
        return ids

    @panic_is_fault("tokenizers")
    def encode_all(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Encoded]:
        """Texts, or pairs of them, with all that the model expects around and between them."""
        encoded: list[Encoded] = self._backend.encode_batch_fast(texts)
        return encoded

    @panic_is_fault("tokenizers")
    def beginning(self, text: str, tokens: int) -> str:
        """The part of a text that its first tokens are read from; a short one is all of it."""
        (encoded,) = self._backend.encode_batch([text], add_special_tokens=False)
        offsets = encoded.offsets
        return text[: offsets[tokens][0]] if len(offsets) > tokens else text

    def added(self, parts: int) -> int:
        """Special tokens that the model expects around a text, or around and between two."""
        count: int = self._backend.num_special_tokens_to_add(parts == 2)
        return count

    @panic_is_fault("tokenizers")
    def encode_cut(self, text: str | tuple[str, str], limit: int) -> Encoded:
        """The same for one, of `limit` ids at most: the end of a text is left out.

        Of a pair the longer text loses first, as by transformers' "longest_first".
        """
        parts = (text,) if isinstance(text, str) else text
        encoded = self._backend.encode_batch_fast(parts, add_special_tokens=False)
        room = max(0, limit - self.added(len(parts)))
        *shorter, longer = sorted(encoded, key=len)
        kept = sum(min(len(part), room // 2) for part in shorter)
        for part in shorter:
            _truncate(part, kept)
        _truncate(longer, room - kept)
        cut: Encoded = self._backend.post_process(*encoded)
        return cut

    @panic_is_fault("tokenizers")
    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD.

        Special tokens are no part of an answer's text, but of a prompt's.
        """
        text: str = self._backend.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    @panic_is_fault("tokenizers")
    def spellings(self, ids: list[int]) -> list[str | None]:
        """Each id as the vocabulary spells it, such as "Ġworld"; None for one it does not have."""
        return [self._backend.id_to_token(token_id) for token_id in ids]

    def decoder(self) -> IncrementalDecoder:
        """A new decoder, for one answer."""
        decode = partial(self.decode, skip_special_tokens=False)  # it is given none but markers
        return IncrementalDecoder(decode, self.special_ids, self.spelling.byte_ids.keys())

    @cached_property
    def longest_token(self) -> int:
        """Characters of the longest token: n characters are at least n / longest_token ids.

        Takes 20 ms for 49,000 tokens, so it waits until it is needed.
        """
        return max(map(len, self._backend.get_vocab(with_added_tokens=True)))

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that have no text."""
        added = self._backend.get_added_tokens_decoder()
        return frozenset(
            token_id
            for token_id, token in added.items()
            if token.special and token.content not in TOOL_MARKERS
        )

    def added_beyond(self, vocab_size: int) -> frozenset[int]:
        """Added tokens for which a model of so many ids has neither an embedding nor a logit."""
        added = self._backend.get_added_tokens_decoder()
        return frozenset(token_id for token_id in added if token_id >= vocab_size)


def _truncate(encoding: tokenizers.Encoding, kept: int) -> None:
    """By halves, so that two pieces are left over at most.

    The binding keeps what it leaves out, in pieces of the length kept, and the post-processor makes
    a pair of each piece of one text with each of the other: gigabytes where 5 tokens are kept of a
    thousand. Another cut forgets the pieces of the last.
    """
    while len(encoding) > kept:
        encoding.truncate(max(kept, len(encoding) // 2))
