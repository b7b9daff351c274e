"""Text to ids and back, by the model's own tokenizer.json, and prompts to ids within a context.

An export proves that these ids are transformers' ids.
"""

from __future__ import annotations

from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import msgspec
import tokenizers

from handlers.errors import (
    ArtifactError,
    ContextLengthExceeded,
    InvalidRequest,
    ends_a_task,
    panic_is_fault,
)
from handlers.text.detokenizer import IncrementalDetokenizer, TokenBytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from handlers.artifact.dialect import Dialect

# Marks of tool calls where a dialect names none: special tokens in some vocabularies, or text.
TOOL_MARKERS = ("[TOOL_CALLS]", "<tool_call>", "</tool_call>")

# Of Unicode's private use: no vocabulary has it within a token, and no normaliser changes it.
BREAK = "\ue000"

# Of one text, where the tokenizer may drop characters. Each takes up to 210 bytes of memory and
# 1.3 us; the longest texts that models take, of 32,768 tokens, have half as many.
MAX_CHARACTERS = 2**18


class EncodedText(Protocol):
    """The ids of a text, or of a pair of texts, for a model with segments."""

    ids: list[int]
    type_ids: list[int]
    """The segment of each id."""


class Tokenizer:
    """Encodes and decodes text with one tokenizer.json.

    Even one text is encoded as a batch: the binding's `encode` holds the interpreter's lock (1.3 s
    for 1 MB), its batches do not.
    """

    def __init__(self, backend: tokenizers.Tokenizer, dialect: Dialect | None = None) -> None:
        """`dialect`: its marks are text in an answer, where a parser has to see them."""
        # tokenizer.json may carry the settings of a training run: a prompt is never cut or padded.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._dialect = dialect
        self.token_bytes = TokenBytes(backend)
        """The bytes of an id on its own."""

    @classmethod
    def load(cls, path: Path, dialect: Dialect | None = None) -> Tokenizer:
        """Reads a tokenizer.json. Raises ArtifactError if it is missing or is not a tokenizer."""
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)), dialect)
        except BaseException as error:  # Exception itself, or a panic of its Rust
            if ends_a_task(error):
                raise
            raise ArtifactError(
                f"{path} is not a tokenizer: {error}. Export the model again."
            ) from None

    @panic_is_fault("tokenizers")
    def encode(
        self, text: str, add_special_tokens: bool = False, breaks: Sequence[int] = ()
    ) -> list[int]:
        """Returns the ids of a text. Names of special tokens in it become their ids.

        That is as in transformers. `add_special_tokens` adds what the model expects around a bare
        text, such as <s>; a rendered chat template has it already. `breaks`: positions that no
        token spans, ascending. Raises InvalidRequest for a lone surrogate.
        """
        try:
            text.encode()  # the binding says only "TextInputSequence must be str"
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"The text has half of a surrogate pair at character {error.start}, which UTF-8 "
                f"cannot carry. Remove it or send the whole character."
            ) from None
        if breaks:
            return self._encode_broken(text, add_special_tokens, breaks)
        (encoded,) = self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        ids: list[int] = encoded.ids
        return ids

    def _encode_broken(
        self, text: str, add_special_tokens: bool, breaks: Sequence[int]
    ) -> list[int]:
        """Puts a character at each break, and leaves its ids out.

        Texts apart would each be a beginning, to which some tokenizers add a space.
        """
        parts = [text[start:end] for start, end in pairwise((0, *breaks, len(text)))]
        places = {place + number for number, place in enumerate(breaks)}
        (encoded,) = self._backend.encode_batch(
            [BREAK.join(parts)], add_special_tokens=add_special_tokens
        )
        return [
            token_id
            for token_id, (start, end) in zip(encoded.ids, encoded.offsets, strict=True)
            if not (end == start + 1 and start in places)
        ]

    @panic_is_fault("tokenizers")
    def encode_all(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[EncodedText]:
        """Encodes texts, or pairs, with the special tokens around and between them."""
        encoded: list[EncodedText] = self._backend.encode_batch_fast(texts)
        return encoded

    @panic_is_fault("tokenizers")
    def encode_prompts(self, prompts: Sequence[str]) -> list[EncodedText]:
        """Encodes texts that have all their special tokens in them."""
        encoded: list[EncodedText] = self._backend.encode_batch_fast(
            prompts, add_special_tokens=False
        )
        return encoded

    @panic_is_fault("tokenizers")
    def beginning(self, text: str, tokens: int) -> str:
        """Returns the part of a text that becomes its first `tokens` tokens."""
        (encoded,) = self._backend.encode_batch([text], add_special_tokens=False)
        offsets = encoded.offsets
        return text[: offsets[tokens][0]] if len(offsets) > tokens else text

    def special_count(self, parts: int) -> int:
        """Returns how many special tokens stand around one text, or around and between two."""
        count: int = self._backend.num_special_tokens_to_add(parts == 2)
        return count

    @panic_is_fault("tokenizers")
    def encode_truncated(self, text: str | tuple[str, str], limit: int) -> EncodedText:
        """Encodes a text, or a pair, as `encode_all` does, without its end beyond `limit` ids.

        Of a pair the longer text is truncated first, as by transformers' "longest_first".
        """
        parts = (text,) if isinstance(text, str) else text
        encoded = self._backend.encode_batch_fast(parts, add_special_tokens=False)
        room = max(0, limit - self.special_count(len(parts)))
        *shorter, longer = sorted(encoded, key=len)
        kept = sum(min(len(part), room // 2) for part in shorter)
        for part in shorter:
            _truncate(part, kept)
        _truncate(longer, room - kept)
        truncated: EncodedText = self._backend.post_process(*encoded)
        return truncated

    @panic_is_fault("tokenizers")
    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        """Returns the text of `ids`; bytes that are not UTF-8 become U+FFFD.

        Special tokens belong to a prompt's text and not to an answer's.
        """
        text: str = self._backend.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    @panic_is_fault("tokenizers")
    def token_strings(self, ids: list[int]) -> list[str | None]:
        """Returns the vocabulary's own string of each id, such as "Ġworld"; None for no token."""
        return [self._backend.id_to_token(token_id) for token_id in ids]

    def detokenizer(self) -> IncrementalDetokenizer:
        """Returns a new detokenizer, for one answer."""
        decode = partial(self.decode, skip_special_tokens=False)  # it is given none but markers
        return IncrementalDetokenizer(decode, self.special_ids, self.token_bytes.byte_ids.keys())

    @cached_property
    def longest_token(self) -> int:
        """The characters of the longest token: n characters are at least n / longest_token ids.

        Takes 20 ms for 49,000 tokens, so it waits until it is needed.
        """
        return max(map(len, self._backend.get_vocab(with_added_tokens=True)))

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids of special tokens, which have no text in an answer, but marks of the dialect."""
        marks = "\n".join((*TOOL_MARKERS, *(self._dialect.marks() if self._dialect else ())))
        return frozenset(
            token_id
            for token_id, token in self._added.items()
            if token.special and token.content not in marks
        )

    @cached_property
    def added_tokens(self) -> dict[str, bool]:
        """The tokens beside the vocabulary by their names, and whether each is special."""
        return {token.content: token.special for token in self._added.values()}

    @cached_property
    def added_ids(self) -> dict[str, int]:
        """The ids of the tokens beside the vocabulary, by their names."""
        return {token.content: token_id for token_id, token in self._added.items()}

    def added_beyond(self, vocab_size: int) -> frozenset[int]:
        """Returns the added tokens that a model of `vocab_size` logits has no logit for."""
        return frozenset(token_id for token_id in self._added if token_id >= vocab_size)

    @cached_property
    def _added(self) -> dict[int, tokenizers.AddedToken]:
        """The added tokens by their ids. Gemma's 6,414 take 10 ms, so they are read once."""
        added: dict[int, tokenizers.AddedToken] = self._backend.get_added_tokens_decoder()
        return added


class PromptEncoder(msgspec.Struct, frozen=True):
    """Encodes prompts with one tokenizer, within one context."""

    tokenizer: Tokenizer
    context_length: int | None
    """None for a tokenizer that leaves characters out: its size does not say how many tokens."""
    advice: str = "Shorten it."
    """The end of an error about a prompt that is too long."""

    def check_length(self, characters: int, param: str) -> None:
        """Raises ContextLengthExceeded for text that is too long by its size alone.

        `param` is the field that the error names.
        """
        context = self.context_length
        if context is None:
            check_size(characters, param)
            return
        if characters <= context:
            return
        if characters > context * self.tokenizer.longest_token:
            raise ContextLengthExceeded(
                f"The prompt is too long: it has {characters:,} characters, which are more than "
                f"the context of {context:,} tokens can hold. {self.advice}",
                param=param,
            )

    def check_room(self, tokens: int, param: str) -> None:
        """Raises ContextLengthExceeded for a prompt that leaves no room for an answer."""
        context = self.context_length
        if context is not None and tokens >= context:
            raise ContextLengthExceeded(
                f"The prompt is too long: it has {tokens:,} tokens, and the context holds "
                f"{context:,} of prompt and answer together. {self.advice}",
                param=param,
            )

    def encode(
        self,
        prompt: str,
        *,
        param: str,
        add_special_tokens: bool = False,
        breaks: Sequence[int] = (),
    ) -> list[int]:
        """Returns the prompt's ids. `param` is the field that an error names.

        `breaks`: positions that no token spans. Raises InvalidRequest for an empty prompt, a null
        or a lone surrogate. Raises ContextLengthExceeded, without tokenising, for a text that is
        too long by its size alone: tokenising 1 MB takes 0.7 s, in which no other request would
        get a token.
        """
        self.check_length(len(prompt), param)
        check_text(prompt, param)
        try:
            ids = self.tokenizer.encode(prompt, add_special_tokens, breaks)
        except InvalidRequest as error:
            raise InvalidRequest(str(error), param=param) from None
        if not ids:
            raise InvalidRequest("The prompt is empty: send at least one token.", param=param)
        return ids


def check_text(text: str, param: str) -> None:
    """Raises InvalidRequest, which names the field `param`, for a text with a null character."""
    if "\0" in text:
        raise InvalidRequest(f"{param} has a null character: remove it.", param=param)


def check_size(characters: int, param: str) -> None:
    """Raises ContextLengthExceeded for a text that is too long even to be truncated."""
    if characters > MAX_CHARACTERS:
        raise ContextLengthExceeded(
            f"{param} has {characters:,} characters, which are over the limit of "
            f"{MAX_CHARACTERS:,}: send it in parts.",
            param=param,
        )


def _truncate(encoding: tokenizers.Encoding, kept: int) -> None:
    """Truncates an encoding by halves, so that two pieces are left over at most.

    The binding keeps what it leaves out, in pieces of the length kept, and the post-processor makes
    a pair of each piece of one text with each of the other: gigabytes where 5 tokens are kept of a
    thousand. Another truncation forgets the pieces of the last.
    """
    while len(encoding) > kept:
        encoding.truncate(max(kept, len(encoding) // 2))
