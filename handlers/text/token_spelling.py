"""The bytes of a token on its own, which logprobs show beside its text.

A token may be part of a character, so its text alone cannot say what it is. Made by Tokenizer.
"""

from __future__ import annotations

from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from handlers.errors import panic_is_fault

if TYPE_CHECKING:
    import tokenizers


class TokenSpelling:
    """Id to bytes, for every way in which a tokenizer.json spells them.

    | decoder | a token is | its bytes |
    |---|---|---|
    | byte level | a character for each byte | those bytes, by GPT-2's alphabet |
    | byte fallback | <0x00> to <0xFF>, or text | that byte, or as below |
    | any other | text that depends on its neighbours | what it adds behind another token |
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend

    def __getitem__(self, token_id: int) -> bytes:
        """Empty for an id that the vocabulary does not have: models pad theirs."""
        if token_id in self._added:
            return self._added[token_id].encode()
        if token_id in self.byte_ids:
            return bytes((self.byte_ids[token_id],))
        spelling = self._backend.id_to_token(token_id)
        if spelling is None:
            return b""
        if self._is_byte_level and ALPHABET.keys() >= set(spelling):
            return bytes(ALPHABET[character] for character in spelling)
        return self._behind_another(token_id).encode()

    @panic_is_fault("tokenizers")
    def _behind_another(self, token_id: int) -> str:
        """With the space that most decoders take off the first token of a text."""
        text: str = self._backend.decode([self._neighbour, token_id])
        before: str = self._backend.decode([self._neighbour])
        if text.startswith(before):
            return text[len(before) :]
        alone: str = self._backend.decode([token_id])
        return alone

    @cached_property
    def _added(self) -> dict[int, str]:
        """Added tokens stand for what they spell."""
        added = self._backend.get_added_tokens_decoder()
        return {token_id: token.content for token_id, token in added.items()}

    @cached_property
    def byte_ids(self) -> dict[int, int]:
        """Sentencepiece's byte tokens, <0x00> to <0xFF>, and the byte of each, where there are."""
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
    """GPT-2's character for each byte: itself where it is printable, else one from U+0100 on.

    https://github.com/openai/gpt-2/blob/master/src/encoder.py
    """
    printable = set(chain(range(ord("!"), 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100)))
    others = [byte for byte in range(256) if byte not in printable]
    spelt = {chr(byte): byte for byte in printable}
    return spelt | {chr(0x100 + place): byte for place, byte in enumerate(others)}


ALPHABET = _alphabet()
