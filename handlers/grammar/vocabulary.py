"""Gives llguidance a model's vocabulary: the bytes of every id, and the ids of a text.

llguidance has a reader of its own for tokenizer.json. It takes a byte-level vocabulary for a
sentencepiece one where the decoder names both, as in tokenizers that come out of GGUF files, and
refuses Metaspace.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.text.tokenizer import Tokenizer

# A control character, which no token has together with the text after it.
SEPARATOR = "\x02"
# A text that tokenizers of words do not give back: they make one space of two.
PROBE = "a  b"


class Vocabulary:
    """Implements llguidance's TokenizerWrapper, whose attributes have llguidance's names."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        """`vocab_size`: of the logits, which may have more or fewer columns than there are ids.

        A token without a logit is never chosen, and its name is text. Raises InvalidRequest for a
        model that declares no end, and for a tokenizer whose tokens are not bytes that join to the
        text: WordPiece, and those that mark the ends of words. Takes 50 ms for 49,000 ids.
        """
        if not eos_token_ids:
            raise InvalidRequest(
                "This model cannot be held to a grammar, because it declares no token that ends an "
                "answer: leave out response_format, tools and grammars."
            )
        self._tokenizer = tokenizer
        self.tokens = [tokenizer.token_bytes[token_id] for token_id in range(vocab_size)]
        special_ids = tokenizer.special_ids | {*eos_token_ids}
        self.special_token_ids = sorted(i for i in special_ids if i < vocab_size)
        self.eos_token_id = eos_token_ids[0]
        never_text = tokenizer.special_ids | tokenizer.added_beyond(vocab_size)
        names = filter(None, (tokenizer.token_bytes[token_id].decode() for token_id in never_text))
        self._special_name = re.compile("|".join(map(re.escape, names)) or "(?!)")
        self._separator_ids: list[int] = []
        if self._round_trip("a") != "a":
            self._separator_ids = tokenizer.encode(SEPARATOR)
        if self._round_trip(PROBE) != PROBE:
            raise InvalidRequest(
                "This model cannot be held to a grammar, because its tokenizer spells words, not "
                "bytes: leave out response_format, tools and grammars."
            )

    def __call__(self, text: str) -> list[int]:
        """Returns the ids of `text` within a text. Names of special tokens in it are text too."""
        cuts = [0, *(match.start() + 1 for match in self._special_name.finditer(text)), len(text)]
        pieces = (text[start:end] for start, end in itertools.pairwise(cuts))
        return [token_id for piece in pieces for token_id in self._encode(piece)]

    def _encode(self, text: str) -> list[int]:
        # A sentencepiece tokenizer puts a space before a text: here it precedes SEPARATOR.
        if not self._separator_ids:
            return self._tokenizer.encode(text)
        return self._tokenizer.encode(SEPARATOR + text)[len(self._separator_ids) :]

    def _round_trip(self, text: str) -> str:
        return b"".join(self.tokens[token_id] for token_id in self(text)).decode(errors="replace")
