"""Ids to text: the text of an answer as its ids arrive, and the bytes of each id on its own."""

from __future__ import annotations

from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from handlers.errors import panic_is_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Set

    import tokenizers

REPLACEMENT = "\ufffd"

# A character of UTF-8 has at most 4 bytes and a token at least one, so text that is still
# incomplete after 4 ids is rare: bytes that are no text, or tokens that straddle characters.
EAGER_IDS = 4


class IncrementalDetokenizer:
    """Turns one answer's ids into text, one id at a time.

    The pieces together are the text that decoding all ids at once gives, and no piece ends within
    a character. A token's text depends on its neighbours (a word's leading space, the bytes of one
    character), so new ids are decoded after the ids of the piece before them, and the difference
    is the new piece: the window of text-generation-inference and vLLM,
    https://github.com/vllm-project/vllm/blob/main/vllm/transformers_utils/detokenizer_utils.py

    The cost of an id is constant: a window that stays incomplete is decoded at 1 to 4 pending
    ids, then at 8, 16, 32 and so on.

    Not `tokenizers.decoders.DecodeStream` (0.22), which has the same window in Rust and is 9 us
    faster for an id. It has no end, so a character that is cut short would be lost. With byte
    fallback <0xC3> <0xA9> <0xFF> "a" first gives "é", which the whole text does not have, then
    raises "Invalid prefix encountered". And 4,096 bytes that are no text take it 6.5 s, and this
    class 0.01 s.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        special_ids: Set[int],
        byte_ids: Set[int],
    ) -> None:
        """`special_ids` have no text; `byte_ids` are the byte tokens of a ByteFallback decoder."""
        self._decode = decode
        self._special_ids = special_ids
        self._byte_ids = byte_ids
        self._context: list[int] = []
        """The ids of the last piece, after which the pending ones are decoded."""
        self._context_text = ""
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        """Returns the text that `token_id` completes, often none."""
        # Dropped here rather than by decode: after a special token alone, the next token would
        # be decoded as the first of a text and could lose its space.
        if token_id in self._special_ids:
            return ""
        self._pending.append(token_id)
        # ByteFallback decodes a run of byte tokens as a whole: one bad byte turns the whole run
        # into U+FFFD, so nothing of it is certain before it ends.
        if token_id in self._byte_ids or not self._is_due():
            return ""
        text = self._window_text()
        if text.endswith(REPLACEMENT) or len(text) <= len(self._context_text):
            return ""
        return self._advance(text)

    def flush(self) -> str:
        """Returns the rest at the end of the ids: a character cut short is U+FFFD."""
        return self._advance(self._window_text()) if self._pending else ""

    def _is_due(self) -> bool:
        count = len(self._pending)
        return count <= EAGER_IDS or count.bit_count() == 1

    def _window_text(self) -> str:
        return self._decode(self._context + self._pending)

    def _advance(self, text: str) -> str:
        piece = text[len(self._context_text) :]
        self._context, self._pending = self._pending, []
        self._context_text = self._decode(self._context)
        return piece


class TokenBytes:
    """Maps an id to its bytes, for every kind of tokenizer.json.

    A token may be part of a character, so its text alone cannot say what it is.

    | decoder | a token is | its bytes |
    |---|---|---|
    | byte level | a character for each byte | those bytes, by GPT-2's alphabet |
    | byte fallback | <0x00> to <0xFF>, or text | that byte, or as below |
    | any other | text that depends on its neighbours | what it adds after another token |
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend

    def __getitem__(self, token_id: int) -> bytes:
        """Returns no bytes for an id that the vocabulary does not have: models pad theirs."""
        if token_id in self._added:
            return self._added[token_id].encode()
        if token_id in self.byte_ids:
            return bytes((self.byte_ids[token_id],))
        token = self._backend.id_to_token(token_id)
        if token is None:
            return b""
        if self._is_byte_level and ALPHABET.keys() >= set(token):
            return bytes(ALPHABET[character] for character in token)
        return self._after_another(token_id).encode()

    @panic_is_fault("tokenizers")
    def _after_another(self, token_id: int) -> str:
        """Returns the token's text with the space that a decoder takes off a text's first token."""
        text: str = self._backend.decode([self._neighbour, token_id])
        before: str = self._backend.decode([self._neighbour])
        if text.startswith(before):
            return text[len(before) :]
        alone: str = self._backend.decode([token_id])
        return alone

    @cached_property
    def _added(self) -> dict[int, str]:
        """Added tokens, whose text is their name."""
        added = self._backend.get_added_tokens_decoder()
        return {token_id: token.content for token_id, token in added.items()}

    @cached_property
    def byte_ids(self) -> dict[int, int]:
        """Sentencepiece's byte tokens, <0x00> to <0xFF>, each with its byte; empty for none."""
        ids = {self._backend.token_to_id(f"<0x{byte:02X}>"): byte for byte in range(256)}
        return {token_id: byte for token_id, byte in ids.items() if token_id is not None}

    @cached_property
    def _is_byte_level(self) -> bool:
        decoder = self._backend.decoder
        return decoder is not None and b'"ByteLevel"' in decoder.__getstate__()

    @cached_property
    def _neighbour(self) -> int:
        token_id: int = self._backend.encode("a", add_special_tokens=False).ids[-1]
        return token_id


def _alphabet() -> dict[str, int]:
    """Returns GPT-2's character for each byte: itself if printable, otherwise one from U+0100 on.

    https://github.com/openai/gpt-2/blob/master/src/encoder.py
    """
    printable = set(chain(range(ord("!"), 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100)))
    others = [byte for byte in range(256) if byte not in printable]
    own = {chr(byte): byte for byte in printable}
    return own | {chr(0x100 + place): byte for place, byte in enumerate(others)}


ALPHABET = _alphabet()
